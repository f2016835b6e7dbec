"""Arrangements: positions whose distances to each other rank as the true ones."""

from __future__ import annotations

import torch
from torch import Tensor

PLACES_WEIGHT, REFINING_STEPS = 0.75, 5
SMOOTHED_CELLS, SMOOTHED_SHARE = 16, 0.3
LEAST_DISTANCE = 1e-6  # of the mean; nearer cells do not push each other
ROWS = 256  # cells whose distances to all are computed at a time: they stay in the cache
MAX_STORED = 4096  # cells of which all target distances are stored
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
        rank = _centered(rank, pair)
    arranged = _centered(arranged, pair)
    # Bounded before the root: the zeros of a cell that does not count would have a slope of NaN.
    norm = (arranged.square().sum(-1) * rank.square().sum(-1)).clamp_min(1e-12).sqrt()
    per_cell = (arranged * rank).sum(-1) / norm  # (B, R)
    return (per_cell * of).sum(-1) / of.sum(-1).clamp_min(1)


def _centered(values: Tensor, weight: Tensor) -> Tensor:
    """Subtract the mean of each row ``(B, R, N)`` over the entries of weight 1."""
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
    points = [x, *(place.double() for place in places)]
    weights = [1.0] + [PLACES_WEIGHT / len(places)] * len(places)
    parts = torch.split(torch.arange(n, device=x.device), ROWS)

    means = [sum(_distances(p, rows).sum() for rows in parts) / n**2 for p in points]
    unit = [w / torch.as_tensor(m).clamp_min(1e-12) for w, m in zip(weights, means, strict=True)]
    total = sum(u * m for u, m in zip(unit, means, strict=True))  # mean target distance

    def target_distances(rows: Tensor) -> Tensor:
        mixed = unit[0] * _distances(points[0], rows)
        for weight, place in zip(unit[1:], points[1:], strict=True):
            mixed.addcmul_(weight, _distances(place, rows))
        return mixed.mul_(means[0] / total)  # (R, N)

    targets = [target_distances(rows) for rows in parts] if n <= MAX_STORED else None
    for _ in range(REFINING_STEPS):
        moved = []
        for i, rows in enumerate(parts):
            apart = _distances(x, rows)
            goal = target_distances(rows) if targets is None else targets[i]
            ratio = (goal / apart).masked_fill_(apart <= LEAST_DISTANCE * means[0], 0.0)
            # The Guttman transform.
            moved.append((ratio.sum(1, keepdim=True) * x[rows] - ratio @ x) / n)
        x = torch.cat(moved)
    return x.to(arrangement)


def smooth(arrangement: Tensor, features: Tensor) -> Tensor:
    """Move each cell towards the mean of the 16 cells most similar in expression.

    Estimates of similar cells err independently in part, so that their mean errs less, and similar
    cells come to lie near each other (k-nearest-neighbor regression on the estimates themselves).

    Parameters
    ----------
    arrangement
        ``(N, d)``.
    features
        Directions ``(N, D)`` whose cosine is the similarity of cells, each the most similar to
        itself.
    """
    k = min(SMOOTHED_CELLS, len(features))
    moved = [
        arrangement[(rows @ features.T).topk(k, dim=-1).indices].mean(1)
        for rows in torch.split(features, ROWS)
    ]
    return torch.lerp(arrangement, torch.cat(moved), SMOOTHED_SHARE)


def _distances(points: Tensor, rows: Tensor) -> Tensor:
    """Distances of some points ``(R,)`` to all, ``(R, N)``."""
    return torch.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist")
