"""Mixture of experts: outputs, gradients, padding and load balance."""

import pytest
import torch

from alphastomics.config import Architecture
from alphastomics.nn.moe import MixtureOfExperts

D = 16


def experts(num_experts=4, top_k=2, **options):
    torch.manual_seed(0)
    size = Architecture(
        D, 2, d_ff=32, dropout=0.0, num_experts=num_experts, moe_top_k=top_k, **options
    )
    return MixtureOfExperts(size).double()


def dense(layer, x):
    """Every expert for every token, weighted by 0 where not chosen."""
    logits = layer.router(x)
    masked = torch.full_like(logits, -torch.inf)
    best = logits.topk(layer.top_k, -1)
    weight = masked.scatter(-1, best.indices, best.values).softmax(-1)  # (B, N, E)
    inner = torch.einsum("bnd,edf->bnef", x, layer.w_in) + layer.b_in
    outer = torch.einsum("bnef,efd->bned", torch.nn.functional.gelu(inner), layer.w_out)
    return (weight[..., None] * (outer + layer.b_out)).sum(-2)


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 2), (8, 2), (4, 4), (4, 1), (1, 1)])
def test_sparse_equals_dense_in_outputs_and_gradients(num_experts, top_k):
    layer = experts(num_experts, top_k)
    x = torch.randn(2, 30, D, dtype=torch.double, requires_grad=True)
    weight = torch.randn_like(x)
    found, wanted = {}, {}
    for result, forward in ((found, lambda x: layer(x)[0]), (wanted, lambda x: dense(layer, x))):
        layer.zero_grad()
        x.grad = None
        y = forward(x)
        (y * weight).sum().backward()
        result["y"], result["x"] = y.detach(), x.grad.clone()
        result |= {
            name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None
        }
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-10, rtol=1e-8)


def test_padding_is_neither_routed_nor_counted():
    layer = experts()
    x = torch.randn(2, 10, D, dtype=torch.double)
    mask = torch.arange(14).expand(2, 14) < 10
    padded = torch.cat([x, 50 * torch.randn(2, 4, D, dtype=torch.double)], 1)
    expected, routing = layer(x)
    y, of_padded = layer(padded, mask)
    torch.testing.assert_close(y[:, :10], expected)
    assert (y[:, 10:] == 0).all()
    torch.testing.assert_close(list(of_padded), list(routing))


def test_balance_is_one_when_even_and_high_when_one_expert_gets_all():
    layer = experts(4, 1)
    x = torch.randn(1, 4000, D, dtype=torch.double)
    even = layer(x)[1]
    assert even.utilization.sum().item() == pytest.approx(1)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[2, 0] = 100.0
    x[..., 0] = 1
    skewed = layer(x)[1]
    assert even.balance.item() == pytest.approx(1, abs=0.1)
    assert skewed.balance.item() == pytest.approx(4, abs=1e-3)
    assert skewed.utilization.tolist() == [0, 0, 1, 0]
    assert skewed.z > even.z


def test_noise_on_the_choice_only_in_training():
    layer = experts(8, 2, router_noise=2.0)
    x = torch.randn(1, 50, D, dtype=torch.double)
    assert not torch.equal(layer.train()(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_half_precision_gives_nearly_the_same():
    layer = experts().float()
    x = torch.randn(1, 50, D, requires_grad=True)
    expected = torch.autograd.grad(layer(x)[0].square().sum(), x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)[0]
    found = torch.autograd.grad(y.square().sum(), x)[0]
    assert 0 < (found - expected).norm() < 0.05 * expected.norm()
