"""Softmax and linear attention, and their gates."""

import pytest
import torch

from alphastomics.config import Architecture
from alphastomics.nn.attention import SelfAttention, linear_attention


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def attention(d_model, num_heads, **options):
    return SelfAttention(Architecture(d_model, num_heads, **options)).eval()


def test_attention_is_softmax_of_normed_queries_and_keys():
    layer, x = attention(8, 2), torch.randn(1, 5, 8)
    q, k, v = (part.view(1, 5, 2, 4).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1))
    logits = layer.query_norm(q) @ layer.key_norm(k).mT / 2
    expected = layer.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x), expected)


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
    layer = attention(16, 2, attention="linear", gate_type="headwise")
    x, mask = torch.randn(2, 30, 16), torch.rand(2, 30) > 0.3
    whole = layer(x, mask)
    monkeypatch.setattr("alphastomics.nn.attention.CHUNK", 7)
    torch.testing.assert_close(layer(x, mask), whole, atol=1e-5, rtol=1e-5)


class TestGate:
    @pytest.mark.parametrize("gate_type", ["headwise", "elementwise"])
    @pytest.mark.parametrize("kernel", ["softmax", "linear"])
    def test_a_gate_of_ones_is_no_gate_and_of_zeros_lets_nothing_through(self, kernel, gate_type):
        gated = attention(16, 4, attention=kernel, gate_type=gate_type)
        plain = attention(16, 4, attention=kernel)
        plain.load_state_dict(gated.state_dict(), strict=False)
        x = torch.randn(2, 9, 16)
        with torch.no_grad():
            gated.gate.project.weight.zero_()
            gated.gate.project.bias.fill_(100.0)
            torch.testing.assert_close(gated(x), plain(x))
            gated.gate.project.bias.fill_(-100.0)
            torch.testing.assert_close(gated(x), torch.zeros_like(x))

    def test_it_is_a_sigmoid_of_the_input_for_each_head(self):
        layer = attention(16, 4, gate_type="headwise")
        x = torch.randn(2, 9, 16)
        layer.out.weight = torch.nn.Parameter(torch.eye(16))
        gate = torch.sigmoid(layer.gate.project(x)).repeat_interleave(4, -1)
        y = layer(x)
        layer.gate = None
        torch.testing.assert_close(y, gate * layer(x))
