"""Arrangements: positions that matter only by their distances to each other."""

from __future__ import annotations

import torch
from torch import Tensor

PLACES_WEIGHT, REFINING_STEPS = 0.75, 5
LEAST_DISTANCE = 1e-6  # of the mean; nearer cells do not push each other
SOFTENING = 1e-4  # added to squared distances, whose root has no slope at 0


def distance_correlation(arrangement: Tensor, position: Tensor, cells: Tensor) -> Tensor:
    """Correlate arranged distances with the ranks of the true ones, cell by cell.

    The mean over cells i of Pearson's correlation, over cells j, of the arranged distance ``ij``
    with the rank of the true distance ``ij`` among those of i: Spearman's correlation, ranked on
    one side only, so that it has a gradient. Invariant to rotation, mirror image, shift and scale
    of both.

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
    pair = (cells[:, :, None] & cells[:, None]).float()  # (B, N, N)
    square = (arrangement[:, :, None] - arrangement[:, None]).square().sum(-1)
    arranged = (square + SOFTENING).sqrt()  # (B, N, N)
    with torch.no_grad():
        true = torch.cdist(position, position).masked_fill(pair == 0, torch.inf)
        order = true.argsort(-1)
        places = torch.arange(true.shape[-1], device=true.device, dtype=true.dtype)
        rank = torch.empty_like(true).scatter_(-1, order, places.expand_as(true))
        rank = _centred(rank, pair)
    arranged = _centred(arranged, pair)
    # Bounded before the root: the zeros of a cell that does not count would have a slope of NaN.
    norm = (arranged.square().sum(-1) * rank.square().sum(-1)).clamp_min(1e-12).sqrt()
    per_cell = (arranged * rank).sum(-1) / norm  # (B, N)
    return (per_cell * cells).sum(-1) / cells.sum(-1).clamp_min(1)


def _centred(values: Tensor, weight: Tensor) -> Tensor:
    """Subtract the mean of each row ``(B, N, N)`` over the entries of weight 1."""
    mean = (values * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp_min(1)
    return (values - mean) * weight


def refine(arrangement: Tensor, places: list[Tensor]) -> Tensor:
    """Move cells so that those near each other in other sections are nearer.

    Multidimensional scaling by majorization (SMACOF; de Leeuw 1977), a few steps from where the
    cells are, onto the arranged distances plus 0.75 times the mean of those among ``places``, each
    in units of its mean.

    Parameters
    ----------
    arrangement
        ``(N, d)``.
    places
        Where the same cells would sit in other sections, each ``(N, d)`` in its own frame.
    """
    # In double precision: cells that lie on each other make differences of large numbers.
    x, n = arrangement.double(), len(arrangement)
    own = _distances(x)
    others = torch.stack([_in_units_of_mean(_distances(place.double())) for place in places])
    wanted = _in_units_of_mean(own) + PLACES_WEIGHT * others.mean(0)
    wanted = own.mean() * _in_units_of_mean(wanted)
    least = LEAST_DISTANCE * own.mean()
    for _ in range(REFINING_STEPS):
        apart = _distances(x)
        ratio = torch.where(apart > least, wanted / apart, 0.0)
        x = (ratio.sum(1, keepdim=True) * x - ratio @ x) / n  # Guttman transform
    return x.to(arrangement)


def _distances(points: Tensor) -> Tensor:
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def _in_units_of_mean(distances: Tensor) -> Tensor:
    return distances / distances.mean().clamp_min(1e-12)
