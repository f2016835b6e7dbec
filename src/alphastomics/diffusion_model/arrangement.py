"""Arrangements: positions whose distances to each other rank as the true ones."""

from __future__ import annotations

import torch
from torch import Tensor

CORRELATED = 256  # cells of a set whose distances are correlated in training
SOFTENING = 1e-4  # added to squared distances, whose root has no slope at 0


def distance_correlation(arrangement: Tensor, position: Tensor, cells: Tensor) -> Tensor:
    """Correlate arranged distances with the ranks of the true ones, cell by cell.

    The mean over cells i, the first 256 of a set, of Pearson's correlation, over cells j, of the
    arranged distance ``ij`` with the rank of the true distance ``ij`` among those of i: Spearman's
    correlation, ranked on one side only, so that it has a gradient. Invariant to rotation, mirror
    image, shift and scale of both.

    Parameters
    ----------
    arrangement, position
        ``(B, N, d)``.
    cells
        Which cells count, boolean ``(B, N)``.

    Returns
    -------
    Tensor
        A number in [-1, 1] for each set, ``(B,)``; 0 for a set without cells.
    """
    from_, of = arrangement[:, :CORRELATED], cells[:, :CORRELATED]  # sets are in random order
    pair = (of[:, :, None] & cells[:, None]).float()  # (B, R, N)
    square = (from_[:, :, None] - arrangement[:, None]).square().sum(-1)
    arranged = (square + SOFTENING).sqrt()  # (B, R, N)
    with torch.no_grad():
        true = torch.cdist(position[:, :CORRELATED], position).masked_fill(pair == 0, torch.inf)
        order = true.argsort(-1)
        places = torch.arange(true.shape[-1], device=true.device, dtype=true.dtype)
        rank = torch.empty_like(true).scatter_(-1, order, places.expand_as(true))
        rank = _centred(rank, pair)
    arranged = _centred(arranged, pair)
    # Bounded before the root: the zeros of a cell that does not count would have a slope of NaN.
    norm = (arranged.square().sum(-1) * rank.square().sum(-1)).clamp_min(1e-12).sqrt()
    per_cell = (arranged * rank).sum(-1) / norm  # (B, R)
    return (per_cell * of).sum(-1) / of.sum(-1).clamp_min(1)


def _centred(values: Tensor, weight: Tensor) -> Tensor:
    """Subtract the mean of each row ``(B, R, N)`` over the entries of weight 1."""
    mean = (values * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp_min(1)
    return (values - mean) * weight
