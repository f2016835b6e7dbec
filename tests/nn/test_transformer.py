"""The stack of transformer blocks: sets without order, padding, compilation."""

from functools import partial

import pytest
import torch

from alphastomics.config import Architecture
from alphastomics.nn.spatial_bias import KnownPositions
from alphastomics.nn.transformer import SetTransformer

OPTIONS = {
    "plain": {},
    "headwise": {"gate_type": "headwise"},
    "elementwise": {"gate_type": "elementwise"},
    "linear": {"attention": "linear"},
    "experts": {"num_experts": 4},
    "all": {"attention": "linear", "gate_type": "elementwise", "num_experts": 4, "moe_top_k": 3},
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def some_known(n_sets, n_cells):
    known = (torch.arange(n_cells) % 3 < 2).expand(n_sets, n_cells)
    return KnownPositions(0.2 * torch.randn(n_sets, n_cells, 2), known)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("with_positions", [False, True])
def test_order_and_padding_change_nothing(with_positions, options):
    transformer = SetTransformer(Architecture(16, 2, 2, 32, **options)).eval()

    def network(*args, **kwargs):
        return transformer(*args, **kwargs)[0]

    x = torch.randn(2, 10, 16)
    positions = permuted = longer = None
    order = torch.randperm(10)
    if with_positions:
        positions = some_known(2, 10)
        permuted = KnownPositions(*(part[:, order] for part in positions))
        longer = [torch.cat([part, torch.ones_like(part[:, :5])], 1) for part in positions]
        longer = KnownPositions(*longer)
    plain = network(x, positions=positions)
    torch.testing.assert_close(
        network(x[:, order], positions=permuted), plain[:, order], atol=1e-5, rtol=1e-5
    )
    padded = torch.cat([x, 100 * torch.randn(2, 5, 16)], 1)
    mask = torch.arange(15).expand(2, 15) < 10
    torch.testing.assert_close(network(padded, mask, longer)[:, :10], plain, atol=1e-5, rtol=1e-5)


def output_and_gradients(transformer, x, positions):
    y = transformer(x, positions=positions)[0]
    return y, *torch.autograd.grad(y.square().sum(), [x, *transformer.parameters()])


def test_recomputing_gives_the_same_gradients():
    options = {"gate_type": "elementwise", "num_experts": 4}
    transformer = SetTransformer(Architecture(16, 2, 2, 32, **options)).train()
    x, positions = torch.randn(2, 10, 16, requires_grad=True), some_known(2, 10)
    torch.manual_seed(1)  # the dropout of both passes
    expected = output_and_gradients(transformer, x, positions)
    torch.manual_seed(1)
    with transformer.recomputing():
        found = output_and_gradients(transformer, x, positions)
    torch.testing.assert_close(found, expected)


def test_a_compiled_transformer_computes_the_same(monkeypatch):
    """Traced forward and backward; C++ is not generated, which takes a minute and is torch's."""
    options = {"gate_type": "elementwise", "num_experts": 4}
    transformer = SetTransformer(Architecture(16, 2, 1, 32, dropout=0.0, **options))
    monkeypatch.setattr(transformer, "compile", partial(transformer.compile, backend="aot_eager"))
    x = torch.randn(2, 10, 16, requires_grad=True)
    positions = some_known(2, 10)
    expected = output_and_gradients(transformer, x, positions)
    torch._dynamo.reset()
    with transformer.compiled():
        found = output_and_gradients(transformer, x, positions)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.testing.assert_close(output_and_gradients(transformer, x, positions), expected)
    assert not torch._dynamo.utils.counters["stats"]


def test_a_compiler_that_fails_is_one_clear_error():
    transformer = SetTransformer(Architecture(16, 2, 1, 32))
    with (
        pytest.raises(RuntimeError, match=r"compile=True: torch.compile failed: .* C\+\+ compiler"),
        transformer.compiled(),
    ):
        raise torch._dynamo.exc.TorchDynamoException("no compiler found.")
    assert transformer(torch.randn(1, 3, 16))[0].shape == (1, 3, 16)
