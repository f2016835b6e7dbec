"""Spatial bias of attention: near cells get more of it, without a matrix of distances."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

WIDEST, NARROWEST = 0.5, 0.02  # initial bandwidths of the heads, in RMS radii of a section


class KnownPositions(NamedTuple):
    """Positions of a set, as far as they are known.

    Attributes
    ----------
    position
        ``(B, N, d)``, finite everywhere; ignored where not ``known``.
    known
        Boolean ``(B, N)``.
    """

    position: Tensor
    known: Tensor


class SpatialBias(nn.Module):
    """Bias ``-|x_i - x_j|^2 / (2 h^2)`` on the logits of attention between known positions.

    The square is a scalar product, ``2 x_i.x_j - |x_i|^2 - |x_j|^2``, so it is written into
    ``position_dim + 3`` more entries of queries and keys and costs no matrix of distances. ``h``
    is learned, one per head. A query of unknown position has no bias; a key of unknown position has
    a learned constant.

    Parameters
    ----------
    num_heads
        Number of heads.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        widths = torch.logspace(math.log10(WIDEST), math.log10(NARROWEST), num_heads)
        self.log_width = nn.Parameter(widths.log())
        self.elsewhere = nn.Parameter(torch.full((num_heads,), -4.0))

    def forward(self, positions: KnownPositions) -> tuple[Tensor, Tensor]:
        """More entries of queries and of keys, each ``(B, nh, N, d + 3)``, unscaled."""
        known = positions.known[:, None, :, None].to(positions.position)  # (B, 1, N, 1)
        x = positions.position[:, None] * known  # (B, 1, N, d)
        square = x.square().sum(-1, keepdim=True)  # (B, 1, N, 1)
        sharpness = known / (2 * self.log_width.exp()[:, None, None].square())  # (B, nh, N, 1)
        constant = known * self.elsewhere[:, None, None]  # (B, nh, N, 1)
        query = [2 * sharpness * x, -sharpness, -sharpness * square, constant]
        key = torch.cat([x, square, known, 1 - known], dim=-1)
        return torch.cat(query, dim=-1), key.expand(-1, len(self.log_width), -1, -1)
