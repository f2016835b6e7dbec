"""Nearness in space as a bias of attention, without a matrix of distances."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

WIDEST, NARROWEST = 0.5, 0.02  # initial bandwidths of the heads, in RMS radii of a section


class Geometry(NamedTuple):
    """Where the cells of a set are, as far as that is known.

    Attributes
    ----------
    position
        Best guess, ``(B, N, d)``; anything where ``certainty`` is 0.
    variance
        Squared uncertainty of a coordinate of that guess, ``(B, N)``.
    certainty
        1 where the position is known, 0 where nothing is, between for noisy ones, ``(B, N)``.
    """

    position: Tensor
    variance: Tensor
    certainty: Tensor


class SpatialBias(nn.Module):
    """Makes a head attend to near cells: ``-|x_i - x_j|^2 / (2 h^2)`` is added to its logits.

    The square is a scalar product, ``2 x_i.x_j - |x_i|^2 - |x_j|^2``, so it is written into
    ``position_dim + 3`` more entries of queries and keys and costs no matrix of distances. ``h``
    is learned, one a head; the variance of a noisy query widens it, and a query of unknown position
    has no bias. Keys of unknown position get a learned constant.

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

    def forward(self, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """More entries of queries and of keys, each ``(B, nh, N, d + 3)``, unscaled."""
        x = geometry.position[:, None]  # (B, 1, N, d)
        certainty = geometry.certainty[:, None, :, None]  # (B, 1, N, 1)
        width = self.log_width.exp()[:, None, None]  # (nh, 1, 1)
        variance = width.square() + geometry.variance[:, None, :, None]  # (B, nh, N, 1)
        sharpness = certainty / (2 * variance)
        located = (certainty > 0).to(x)
        square = x.square().sum(-1, keepdim=True)  # (B, 1, N, 1)
        constant = certainty * self.elsewhere[:, None, None]  # (B, nh, N, 1)
        query = [2 * sharpness * x, -sharpness, -sharpness * square, constant]
        key = torch.cat([x * located, square * located, located, 1 - located], dim=-1)
        return torch.cat(query, dim=-1), key.expand(-1, len(self.log_width), -1, -1)
