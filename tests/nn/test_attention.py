import shutil

import pytest
import torch

from alphastomics.nn.architecture import Architecture
from alphastomics.nn.attention import SelfAttention, linear_attention
from alphastomics.nn.block import SetTransformer
from alphastomics.nn.embeddings import LevelEmbedding, ModalityEmbedding, OptionalEmbedding
from alphastomics.nn.geometry import Geometry


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def located(n_sets, n_cells, dim=2):
    """Known, noisy and unknown positions."""
    certainty = torch.tensor([1.0, 0.6, 0.0]).repeat(n_cells)[:n_cells].expand(n_sets, n_cells)
    position = 0.2 * torch.randn(n_sets, n_cells, dim)
    return Geometry(position, 0.4 * (1 - certainty), certainty)


def attention(d_model, num_heads, **options):
    return SelfAttention(Architecture(d_model, num_heads, **options))


OPTIONS = {
    "plain": {},
    "headwise": {"gate_type": "headwise"},
    "elementwise": {"gate_type": "elementwise"},
    "linear": {"attention": "linear"},
    "experts": {"num_experts": 4},
    "all": {"attention": "linear", "gate_type": "elementwise", "num_experts": 4, "moe_top_k": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("with_geometry", [False, True])
def test_transformer_has_no_order_and_ignores_padding(with_geometry, options):
    transformer = SetTransformer(Architecture(16, 2, 2, 32, **options)).eval()

    def network(*args, **kwargs):
        return transformer(*args, **kwargs)[0]

    x = torch.randn(2, 10, 16)
    geometry = located(2, 10) if with_geometry else None
    plain = network(x, geometry=geometry)
    order = torch.randperm(10)
    turned = Geometry(*(part[:, order] for part in geometry)) if geometry is not None else None
    torch.testing.assert_close(
        network(x[:, order], geometry=turned), plain[:, order], atol=1e-5, rtol=1e-5
    )
    padded = torch.cat([x, 100 * torch.randn(2, 5, 16)], 1)
    mask = torch.arange(15).expand(2, 15) < 10
    longer = None
    if geometry is not None:
        longer = Geometry(
            *(torch.cat([part, torch.ones_like(part[:, :5])], 1) for part in geometry)
        )
    torch.testing.assert_close(network(padded, mask, longer)[:, :10], plain, atol=1e-5, rtol=1e-5)


def heads(layer, x):
    """Queries, keys and values of each head, and the logits of plain attention."""
    size = x.shape[-1] // layer.num_heads
    q, k, v = (
        part.view(*x.shape[:2], layer.num_heads, size).transpose(1, 2)
        for part in layer.qkv(x).chunk(3, -1)
    )
    return layer.query_norm(q) @ layer.key_norm(k).mT / size**0.5, v


def mixed(layer, logits, v):
    y = (logits.softmax(-1) @ v).transpose(1, 2)
    return layer.out(y.flatten(2))


def test_attention_is_softmax_of_normed_queries_and_keys():
    layer = attention(8, 2).eval()
    x = torch.randn(1, 5, 8)
    torch.testing.assert_close(layer(x), mixed(layer, *heads(layer, x)))


@pytest.mark.parametrize("dim", [2, 3])
def test_known_positions_bias_attention_to_near_cells(dim):
    """The bias matrix, written out: -c |x_i - x_j|^2 / 2 (h^2 + var_i)."""
    layer = attention(16, 4).eval()
    torch.nn.init.normal_(layer.spatial_bias.elsewhere)
    x, geometry = torch.randn(2, 9, 16), located(2, 9, dim)
    logits, v = heads(layer, x)
    bias = torch.zeros_like(logits)
    for b in range(2):
        for h in range(4):
            width = layer.spatial_bias.log_width[h].exp()
            for i in range(9):
                for j in range(9):
                    square = (geometry.position[b, i] - geometry.position[b, j]).square().sum()
                    near = -square / (2 * (width**2 + geometry.variance[b, i]))
                    key_located = geometry.certainty[b, j] > 0
                    unscaled = near if key_located else layer.spatial_bias.elsewhere[h]
                    bias[b, h, i, j] = geometry.certainty[b, i] * unscaled
    torch.testing.assert_close(
        layer(x, geometry=geometry), mixed(layer, logits + bias, v), atol=1e-5, rtol=0
    )


def test_a_cell_of_unknown_position_attends_as_if_nothing_were_known():
    layer = attention(16, 4).eval()
    x, geometry = torch.randn(1, 9, 16), located(1, 9)
    unknown = geometry.certainty[0] == 0
    torch.testing.assert_close(
        layer(x, geometry=geometry)[:, unknown], layer(x)[:, unknown], atol=1e-5, rtol=1e-5
    )
    moved = geometry.position + 1e3 * unknown[:, None]
    torch.testing.assert_close(
        layer(x, geometry=geometry._replace(position=moved)), layer(x, geometry=geometry)
    )


def test_near_attention_does_not_see_shifts_and_rotations():
    layer = attention(16, 4).eval()
    x, geometry = torch.randn(1, 9, 16), located(1, 9)
    turn = torch.linalg.qr(torch.randn(2, 2)).Q
    moved = geometry._replace(position=geometry.position @ turn + 0.5)
    torch.testing.assert_close(
        layer(x, geometry=moved), layer(x, geometry=geometry), atol=1e-4, rtol=0
    )


def test_unknown_token_replaces_the_value():
    embedding = ModalityEmbedding(3, 8)
    state = torch.tensor([[LevelEmbedding.KNOWN, LevelEmbedding.UNKNOWN]])
    noise = torch.zeros(1, 2)
    a, b = (embedding(torch.randn(1, 2, 3), state, noise) for _ in range(2))
    torch.testing.assert_close(a[:, 1], b[:, 1])
    assert not torch.allclose(a[:, 0], b[:, 0])


def test_level_matters_only_where_noisy():
    embedding = LevelEmbedding(8)
    state = torch.tensor([[LevelEmbedding.KNOWN, LevelEmbedding.NOISY, LevelEmbedding.UNKNOWN]])
    low, high = (embedding(state, torch.full((1, 3), noise)) for noise in (-1.0, 1.0))
    same = torch.isclose(low, high).all(-1)[0]
    assert same.tolist() == [True, False, True]


def test_a_category_that_is_not_given_adds_nothing():
    embedding = OptionalEmbedding(3, 8)
    assert (embedding(torch.zeros(2, 4, dtype=torch.long)) == 0).all()
    assert (embedding(torch.tensor([1, 2, 3])) != 0).any(-1).all()
    assert (OptionalEmbedding(0, 8)(torch.tensor([0])) == 0).all()


class TestGate:
    @pytest.mark.parametrize("gate_type", ["headwise", "elementwise"])
    @pytest.mark.parametrize("kernel", ["softmax", "linear"])
    def test_a_gate_of_ones_is_no_gate_and_of_zeros_lets_nothing_through(self, kernel, gate_type):
        gated = attention(16, 4, attention=kernel, gate_type=gate_type).eval()
        plain = attention(16, 4, attention=kernel).eval()
        plain.load_state_dict(gated.state_dict(), strict=False)
        x = torch.randn(2, 9, 16)
        with torch.no_grad():
            gated.gate.project.weight.zero_()
            gated.gate.project.bias.fill_(100.0)
            torch.testing.assert_close(gated(x), plain(x))
            gated.gate.project.bias.fill_(-100.0)
            torch.testing.assert_close(gated(x), torch.zeros_like(x))

    def test_it_is_a_sigmoid_of_the_input_for_each_head(self):
        layer = attention(16, 4, gate_type="headwise").eval()
        x = torch.randn(2, 9, 16)
        layer.out.weight = torch.nn.Parameter(torch.eye(16))
        gate = torch.sigmoid(layer.gate.project(x)).repeat_interleave(4, -1)
        y = layer(x)
        layer.gate = None
        torch.testing.assert_close(y, gate * layer(x))


def test_linear_attention_is_its_quadratic_definition():
    q, k, v = torch.randn(3, 2, 4, 30, 8)
    mask = torch.rand(2, 30) > 0.3
    phi = [torch.nn.functional.elu(part) + 1 for part in (q, k)]
    weight = phi[0] @ phi[1].mT * mask[:, None, None]  # (B, nh, N, N)
    expected = weight / weight.sum(-1, keepdim=True) @ v
    chunks = [part.split(13, dim=2) for part in (q, k, v)]
    found = torch.cat(list(linear_attention(*chunks, mask.split(13, dim=1))), dim=2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_linear_attention_does_not_depend_on_its_chunks(monkeypatch):
    layer = attention(16, 2, attention="linear", gate_type="headwise").eval()
    x, mask = torch.randn(2, 30, 16), torch.rand(2, 30) > 0.3
    whole = layer(x, mask)
    monkeypatch.setattr("alphastomics.nn.attention.CHUNK", 7)
    torch.testing.assert_close(layer(x, mask), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 10, "num_heads": 4}, "d_model=10 is not divisible by num_heads=4"),
        ({"num_experts": 2, "moe_top_k": 3}, "moe_top_k=3 is more than num_experts=2"),
        ({"num_experts": -1}, "num_experts must be at least 0, found -1"),
        ({"gate_type": "foo"}, "gate_type must be one of none, headwise, elementwise, found 'foo'"),
        ({"attention": "foo"}, "attention must be one of softmax, linear, found 'foo'"),
        ({"num_experts": 3, "d_ff": 256}, "d_ff=256 is not divisible by num_experts=3"),
        ({"num_experts": 2, "expert_width": 0}, "expert_width must be at least 1, found 0"),
        ({"num_experts": 2, "moe_top_k": 0}, "moe_top_k must be at least 1, found 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), found 1.0"),
        ({"router_noise": -0.1}, "router_noise must be at least 0, found -0.1"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**options)


@pytest.mark.skipif(
    shutil.which("c++") is None or " " in torch.__file__,
    reason="torch.compile needs a C++ compiler and an environment whose path has no space",
)
def test_compiled_it_computes_the_same():
    options = {"gate_type": "elementwise", "num_experts": 4}
    transformer = SetTransformer(Architecture(16, 2, 1, 32, dropout=0.0, **options))
    x = torch.randn(2, 10, 16, requires_grad=True)
    geometry, wanted = located(2, 10), [x, *transformer.parameters()]

    def run():
        y = transformer(x, geometry=geometry)[0]
        return y, *torch.autograd.grad(y.square().sum(), wanted)

    expected = run()
    torch._dynamo.reset()
    with transformer.compiled():
        found = run()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(run(), expected)


def test_a_compiler_that_fails_is_one_clear_error():
    transformer = SetTransformer(Architecture(16, 2, 1, 32))
    with (
        pytest.raises(RuntimeError, match=r"compile=True: torch.compile failed: .* C\+\+ compiler"),
        transformer.compiled(),
    ):
        raise torch._dynamo.exc.TorchDynamoException("no compiler found.")
    assert transformer(torch.randn(1, 3, 16))[0].shape == (1, 3, 16)
