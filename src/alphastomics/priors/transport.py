"""Optimal transport of estimates to the places of known cells, so that they fill the tissue."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLUR = 0.02  # entropic regularization, in squared RMS radii
ITERATIONS = 60
LEAST_SPREAD = 0.85  # of estimates, relative to the known cells
MAX_PLACES = 1024


def transport(points: Tensor, places: Tensor) -> Tensor:
    """Spread points over places, each place taking an equal share of them.

    The plan that minimizes the squared distance has both marginals uniform; each point moves to the
    mean of the places assigned to it. Conditional means are shrunk to the center where
    expression is uninformative: a plan of least squared distance is the same whatever their
    scale and center, and keeps their order, since it is a monotone map (Brenier 1991).

    Solved by Sinkhorn's iterations (Cuturi 2013, NeurIPS 26), as in novoSpaRc and moscot.

    Parameters
    ----------
    points
        ``(N, d)``.
    places
        ``(K, d)``; at most 1,024 of them, at regular intervals, are used.

    Returns
    -------
    Tensor
        ``(N, d)``, the points themselves if these are all in one place.

    Examples
    --------
    >>> places = torch.linspace(-1, 1, 50)[:, None]
    >>> near = transport(0.1 * places, places)
    >>> bool((near.diff(dim=0) > 0).all()), round(float(near.std() / places.std()), 2)
    (True, 0.99)
    """
    places = places[:: -(-len(places) // MAX_PLACES)]
    unit = _radius(places)
    if len(points) < 2 or min(float(_radius(points)), float(unit)) == 0:
        return points
    start = (points - points.mean(0)) / _radius(points)
    end = (places - places.mean(0)) / unit
    score = -torch.cdist(start, end).square() / (2 * BLUR)  # (N, K)
    column = score.new_zeros(len(places))
    for _ in range(ITERATIONS):
        row = -torch.logsumexp(score + column, 1)
        column = math.log(len(points) / len(places)) - torch.logsumexp(score + row[:, None], 0)
    return torch.softmax(score + column, 1) @ places


def spread_out(points: Tensor, places: Tensor) -> Tensor:
    """Move points towards their transport until they have 0.85 of the spread of the places.

    Displacement interpolation (McCann 1997); points that have that spread stay.

    Parameters
    ----------
    points
        ``(N, d)``.
    places
        ``(K, d)``.

    Returns
    -------
    Tensor
        ``(N, d)``.
    """
    start, end = _radius(points), _radius(places)
    if len(points) < 2 or start >= LEAST_SPREAD * end:
        return points
    moved = transport(points, places)
    low, high = 0.0, 1.0
    for _ in range(20):  # bisection
        share = (low + high) / 2
        enough = _radius(torch.lerp(points, moved, share)) >= LEAST_SPREAD * end
        low, high = (low, share) if enough else (share, high)
    return torch.lerp(points, moved, high)


def _radius(points: Tensor) -> Tensor:
    """Root mean square distance from the center."""
    return (points - points.mean(0)).square().sum(-1).mean().sqrt()
