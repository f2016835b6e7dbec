"""Attention that is stronger between near cells of known position."""

import pytest
import torch

from alphastomics.config import Architecture
from alphastomics.nn.attention import SelfAttention
from alphastomics.nn.spatial_bias import KnownPositions

N, HEADS = 9, 4


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = SelfAttention(Architecture(16, HEADS)).eval()
    torch.nn.init.normal_(layer.spatial_bias.elsewhere)
    return layer


def some_known(n_sets=1, dim=2):
    """Positions of which two thirds are known."""
    known = (torch.arange(N) % 3 < 2).expand(n_sets, N)
    return KnownPositions(0.2 * torch.randn(n_sets, N, dim), known)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_bias_is_a_gaussian_of_distance(layer, dim):
    """The bias matrix, written out: -|x_i - x_j|^2 / 2 h^2 where both positions are known."""
    x, (position, known) = torch.randn(2, N, 16), some_known(2, dim)
    q, k, v = (part.view(2, N, HEADS, 4).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1))
    logits = layer.query_norm(q) @ layer.key_norm(k).mT / 2
    for b, h, i, j in torch.cartesian_prod(*map(torch.arange, (2, HEADS, N, N))).tolist():
        if known[b, i]:
            square = (position[b, i] - position[b, j]).square().sum()
            width = layer.spatial_bias.log_width[h].exp()
            near, elsewhere = -square / (2 * width**2), layer.spatial_bias.elsewhere[h]
            logits[b, h, i, j] += near if known[b, j] else elsewhere
    expected = layer.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
    found = layer(x, positions=KnownPositions(position, known))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_cell_of_unknown_position_attends_as_if_no_position_were_known(layer):
    x, positions = torch.randn(1, N, 16), some_known()
    unknown = ~positions.known[0]
    torch.testing.assert_close(
        layer(x, positions=positions)[:, unknown], layer(x)[:, unknown], atol=1e-5, rtol=1e-5
    )


def test_unknown_positions_change_nothing(layer):
    x, positions = torch.randn(1, N, 16), some_known()
    moved = positions.position + 1e3 * ~positions.known[..., None]
    torch.testing.assert_close(
        layer(x, positions=positions._replace(position=moved)), layer(x, positions=positions)
    )


def test_rotations_and_shifts_change_nothing(layer):
    x, positions = torch.randn(1, N, 16), some_known()
    turn = torch.linalg.qr(torch.randn(2, 2)).Q
    moved = positions._replace(position=positions.position @ turn + 0.5)
    torch.testing.assert_close(
        layer(x, positions=moved), layer(x, positions=positions), atol=1e-4, rtol=0
    )
