import pytest
import torch

from alphastomics.nn.attention import SelfAttention
from alphastomics.nn.block import SetTransformer
from alphastomics.nn.embeddings import LevelEmbedding, ModalityEmbedding


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_transformer_has_no_order_and_ignores_padding():
    network = SetTransformer(16, 2, 2, 32).eval()
    x = torch.randn(2, 10, 16)
    plain = network(x)
    order = torch.randperm(10)
    torch.testing.assert_close(network(x[:, order]), plain[:, order])
    padded = torch.cat([x, 100 * torch.randn(2, 5, 16)], 1)
    mask = torch.arange(15).expand(2, 15) < 10
    torch.testing.assert_close(network(padded, mask)[:, :10], plain)


def test_attention_is_softmax_of_normed_queries_and_keys():
    layer = SelfAttention(8, 2).eval()
    x = torch.randn(1, 5, 8)
    q, k, v = (part.view(1, 5, 2, 4).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1))
    weights = (layer.query_norm(q) @ layer.key_norm(k).transpose(-1, -2) / 2).softmax(-1)
    expected = layer.out((weights @ v).transpose(1, 2).reshape(1, 5, 8))
    torch.testing.assert_close(layer(x), expected)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="d_model=10 is not divisible by num_heads=4"):
        SelfAttention(10, 4)


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
