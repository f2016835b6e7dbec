"""Superposition of point sets, and summaries of several draws of the same cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from alphastomics.metrics._arrays import (
    Array,
    as_floats,
    checked_draws,
    checked_points,
    point_pair,
    ratio,
)

OPPOSITE, SAME_DISTANCE = 0.35, 0.2


def rms_radius(points: ArrayLike) -> float:
    """Root mean squared distance of points from their centroid.

    Parameters
    ----------
    points
        Coordinates, shape ``(n, d)``.

    Returns
    -------
    float
        In the units of the coordinates.

    Examples
    --------
    >>> rms_radius([[3.0, 0], [-3, 0], [0, 3], [0, -3]])
    3.0
    """
    P = checked_points(points, "points")
    return float(np.sqrt(np.square(P - P.mean(0)).sum(1).mean()))


def tissue_size(true: Array) -> float:
    """RMS radius of true positions ``(n, d)``, the unit of errors; not 0."""
    radius = rms_radius(true)
    if radius == 0:
        raise ValueError("all true positions coincide, so that there is no size to measure by.")
    return radius


def superpose(
    moving: ArrayLike, fixed: ArrayLike, *, allow_reflection: bool = True, allow_scale: bool = False
) -> Array:
    """Least-squares superposition of a point set on another, by shift and rotation.

    Parameters
    ----------
    moving, fixed
        Coordinates of the same cells, shape ``(n, d)``.
    allow_reflection
        Whether a mirror image may be taken.
    allow_scale
        Whether one scale factor may be taken too.

    Returns
    -------
    ndarray
        ``moving`` in the frame of ``fixed``, shape ``(n, d)``.

    References
    ----------
    Kabsch (1976), Acta Cryst. A32, 922; with scale, Umeyama (1991), IEEE TPAMI 13, 376.

    Examples
    --------
    >>> superpose([[5.0, 5], [5, 6], [7, 5]], [[0.0, 0], [1, 0], [0, 2]]).round(6) + 0.0
    array([[0., 0.],
           [1., 0.],
           [0., 2.]])
    """
    F, M = point_pair(fixed, moving)
    every = np.ones(len(M), dtype=bool)
    return superpose_by(M, F, every, allow_reflection=allow_reflection, allow_scale=allow_scale)


def superpose_by(
    moving: Array,
    fixed: Array,
    chosen: NDArray[np.bool_],
    *,
    allow_reflection: bool = True,
    allow_scale: bool = False,
) -> Array:
    """Superposition of all points as :func:`superpose` moves the chosen ones.

    Parameters
    ----------
    moving, fixed
        Coordinates of the same cells, shape ``(n, d)``; anything where not chosen.
    chosen
        Cells that decide, boolean ``(n,)``.
    allow_reflection, allow_scale
        As in :func:`superpose`.

    Returns
    -------
    ndarray
        All of ``moving`` in the frame of ``fixed``, shape ``(n, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> fixed = np.array([[0.0, 0], [1, 0], [0, 1], [np.nan, np.nan]])
    >>> moving = np.array([[5.0, 5], [6, 5], [5, 6], [7, 7]])
    >>> superpose_by(moving, fixed, np.array([True, True, True, False])).round(6)[3]
    array([2., 2.])
    """
    moving, fixed = as_floats(moving, "moving"), as_floats(fixed, "fixed")
    both = (moving[chosen], fixed[chosen])
    if not len(both[0]) or not all(np.isfinite(points).all() for points in both):
        raise ValueError(
            "moving and fixed must hold finite coordinates of the chosen cells, of one at least."
        )
    M_center, F_center = (points.mean(0) for points in both)
    M, F = moving[chosen] - M_center, fixed[chosen] - F_center
    u, s, vh = np.linalg.svd(M.T @ F)
    if not allow_reflection and np.linalg.det(u @ vh) < 0:
        u[:, -1] *= -1
        s[-1] *= -1
    size = np.square(M).sum()
    scale = s.sum() / size if allow_scale and size > 0 else 1.0
    return np.asarray(scale * (moving - M_center) @ (u @ vh) + F_center)


def generalized_procrustes(
    draws: ArrayLike, *, allow_reflection: bool = True, max_iter: int = 50, tol: float = 1e-8
) -> Array:
    """Superposition of several draws of the same cells.

    Each draw is superposed (no scale) on the mean of all draws, and the mean is computed again,
    until it converges. The frame is that of the first draw.

    Parameters
    ----------
    draws
        Shape ``(n_draws, n, d)``.
    allow_reflection
        Whether a draw may be mirrored.
    max_iter, tol
        Most iterations, and the relative change of the mean at which to stop.

    Returns
    -------
    ndarray
        The superposed draws, shape ``(n_draws, n, d)``.

    References
    ----------
    Gower (1975), Psychometrika 40, 33.

    Examples
    --------
    >>> draws = [[[0.0, 0], [1, 0], [0, 2]], [[5.0, 5], [5, 6], [7, 5]]]
    >>> bool(abs(generalized_procrustes(draws)[1] - draws[0]).max() < 1e-9)
    True
    """
    given = checked_draws(draws)
    aligned, mean = given, given[0]
    for _ in range(max_iter):
        aligned = np.stack(
            [superpose(draw, mean, allow_reflection=allow_reflection) for draw in aligned]
        )
        new_mean = aligned.mean(0)
        change = np.square(new_mean - mean).sum()
        mean = new_mean
        if change <= tol * np.square(mean - mean.mean(0)).sum():
            break
    # Back into the frame of the first draw, all together.
    n_draws, n, d = aligned.shape
    first = np.zeros((n_draws * n, d))
    first[:n] = given[0]
    chosen = np.arange(n_draws * n) < n
    together = superpose_by(
        aligned.reshape(-1, d), first, chosen, allow_reflection=allow_reflection
    )
    return together.reshape(n_draws, n, d)


def consensus(draws: ArrayLike) -> Array:
    """Mean position of each cell over draws that share a frame.

    Parameters
    ----------
    draws
        Shape ``(n_draws, n, d)``.

    Returns
    -------
    ndarray
        Shape ``(n, d)``; shrunk where draws disagree.

    Examples
    --------
    >>> consensus([[[0.0, 0]], [[2, 4]]])
    array([[1., 2.]])
    """
    return np.asarray(checked_draws(draws).mean(0))


def medoid(draws: ArrayLike) -> int:
    """Index of the draw with the least summed squared distance to all others.

    Unlike the consensus, the medoid is itself a draw and has the spread of the tissue.

    Parameters
    ----------
    draws
        Shape ``(n_draws, n, d)``, in one frame.

    Returns
    -------
    int
        Index of a draw.

    Examples
    --------
    >>> medoid([[[0.0, 0]], [[1, 0]], [[5, 0]]])
    1
    """
    flat = checked_draws(draws)
    flat = flat.reshape(len(flat), -1)
    gram = flat @ flat.T
    squared = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
    return int(squared.sum(1).argmin())


def mirror_ambiguity(draws: ArrayLike) -> dict[str, Any]:
    """Evidence that draws of a tissue disagree by a mirror image.

    Along each principal axis of all draws, pairs of draws are compared cell by cell: the share of
    cells on opposite sides of the center (0 where the side is certain, 0.5 where it is random),
    and the rank correlation of the distances from it (0 where positions along the axis are
    random). If both are high, the distance from the center is known, but not the side.

    Parameters
    ----------
    draws
        Shape ``(n_draws, n, d)``, two draws at least, in one frame.

    Returns
    -------
    dict
        For the axis with the strongest evidence: ``"opposite_sides"``, ``"same_distance"``, and
        ``"ambiguous"``, True when they are above 0.35 and 0.2.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> tissue = rng.normal(size=(300, 2)) * [3, 1]
    >>> sides = rng.choice([-1, 1], size=(4, 300))
    >>> draws = tissue * np.stack([sides, np.ones_like(sides)], axis=-1)
    >>> mirror_ambiguity(draws)["ambiguous"]
    True
    """
    x = checked_draws(draws, least=2)
    x = x - x.mean((0, 1))
    flat = x.reshape(-1, x.shape[-1])
    _, axes = np.linalg.eigh(flat.T @ flat)
    along = x @ axes  # (S, n, d)
    first, second = np.triu_indices(len(x), 1)
    opposite = (along[first] * along[second] < 0).mean((0, 1))  # (d,)
    rank = rankdata(np.abs(along), axis=1)
    rank = rank - rank.mean(1, keepdims=True)
    norm = np.sqrt(np.square(rank).sum(1))  # (S, d), 0 along an axis where all cells coincide
    same = ratio((rank[first] * rank[second]).sum(1), norm[first] * norm[second]).mean(0)  # (d,)
    axis = int((np.minimum(opposite, OPPOSITE) * np.maximum(same, 0)).argmax())
    return {
        "opposite_sides": float(opposite[axis]),
        "same_distance": float(same[axis]),
        "ambiguous": bool(opposite[axis] > OPPOSITE and same[axis] > SAME_DISTANCE),
    }
