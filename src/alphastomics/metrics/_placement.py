"""Agreement of predicted coordinates and their radii with the true ones.

``true`` and ``predicted`` are coordinates ``(n, d)`` of the same cells. All metrics are invariant
to rotation, mirror image and shift of either, but for radii with ``align=False``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist, pdist
from scipy.stats import rankdata, spearmanr

from alphastomics.metrics._alignment import rms_radius, superpose, tissue_size
from alphastomics.metrics._arrays import (
    MAX_ROWS,
    Array,
    as_floats,
    check_neighbors,
    checked_labels,
    nearest_neighbors,
    point_pair,
    ratio,
    subsample,
)


def distance_spearman_per_cell(true: ArrayLike, predicted: ArrayLike, *, seed: int = 0) -> Array:
    """Spearman correlation of each cell's true and predicted distances to all other cells.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``.
    seed
        Random seed of the 2,000 cells scored in larger sections, each against all cells.

    Returns
    -------
    ndarray
        Shape ``(min(n, 2000),)``, between -1 and 1.

    Examples
    --------
    >>> distance_spearman_per_cell([[0.0], [1], [3]], [[0.0], [2], [6]]).round(6)
    array([1., 1., 1.])
    """
    T, P = point_pair(true, predicted)
    n = len(T)
    if n < 3:
        raise ValueError(f"distance_spearman needs at least 3 cells, found {n}.")
    scores = []
    # In chunks of at most 4 million distances.
    for chunk in np.array_split(subsample(n, seed), max(1, n * min(n, MAX_ROWS) // 4_000_000)):
        others = np.ones((len(chunk), n), dtype=bool)
        others[np.arange(len(chunk)), chunk] = False
        ranks = []
        for X in (T, P):
            distances = cdist(X[chunk], X)[others].reshape(len(chunk), n - 1)
            rank = rankdata(distances, axis=1)
            ranks.append(rank - rank.mean(1, keepdims=True))
        norm = np.sqrt(np.square(ranks[0]).sum(1) * np.square(ranks[1]).sum(1))
        scores.append(ratio((ranks[0] * ranks[1]).sum(1), norm))
    return np.concatenate(scores)


def distance_spearman(true: ArrayLike, predicted: ArrayLike, *, seed: int = 0) -> float:
    """Mean over cells i of the Spearman correlation of ``D_i.`` and ``D̂_i.``; chance is 0.

    ``D`` and ``D̂`` are the Euclidean distance matrices of true and predicted positions, a cell's
    distance to itself left out. LUNA (Yu et al. 2025) reports the same.

    Parameters
    ----------
    true, predicted, seed
        As in :func:`distance_spearman_per_cell`.

    Returns
    -------
    float
        Between -1 and 1; 1 where every cell's distances are ranked as the true ones.

    Examples
    --------
    >>> round(distance_spearman([[0.0], [1], [3]], [[0.0], [2], [6]]), 6)
    1.0
    """
    return float(distance_spearman_per_cell(true, predicted, seed=seed).mean())


def procrustes_rmse(
    true: ArrayLike, predicted: ArrayLike, *, allow_scale: bool = True, relative: bool = True
) -> float:
    """RMS error after the least-squares superposition of ``predicted`` on ``true``.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``, in the same units.
    allow_scale
        Whether to scale ``predicted`` too; mirror images are allowed in any case.
    relative
        Whether to divide by the RMS radius of ``true``: then 1 is chance when scale is allowed.

    Returns
    -------
    float
        0 where the shapes are the same; in RMS radii, or in the units of the coordinates.

    Examples
    --------
    >>> round(procrustes_rmse([[0.0, 0], [1, 0], [0, 2]], [[5.0, 5], [5, 6], [7, 5]]), 6)
    0.0
    """
    T, P = point_pair(true, predicted)
    error = T - superpose(P, T, allow_scale=allow_scale)
    rmse = float(np.sqrt(np.square(error).sum(1).mean()))
    return rmse / tissue_size(T) if relative else rmse


def neighbor_recall(true: ArrayLike, predicted: ArrayLike, k: int = 20, *, seed: int = 0) -> float:
    """Mean share of the k nearest true neighbors of a cell among its k nearest predicted neighbors.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``.
    k
        Number of neighbors, excluding the cell.
    seed
        Random seed of the sample of 2,000 cells that is scored in larger sections.

    Returns
    -------
    float
        Between 0 and 1; chance is ``k / (n - 1)``.

    Examples
    --------
    >>> neighbor_recall([[0.0], [1], [3]], [[0.0], [2], [6]], k=1)
    1.0
    """
    T, P = point_pair(true, predicted)
    check_neighbors(k, len(T))
    rows = subsample(len(T), seed)
    offset = len(T) * np.arange(len(rows))[:, None]  # makes neighbors of every row distinct numbers
    near, predicted_near = (nearest_neighbors(X, rows, k) + offset for X in (T, P))
    return float(np.isin(near, predicted_near).mean())


def contact_precision(
    true: ArrayLike, predicted: ArrayLike, q: float = 0.01, *, seed: int = 0
) -> float:
    """Share of the pairs predicted to be near that are truly near; chance is ``q``.

    Near means a distance of at most the q-quantile of all pairwise distances, true and predicted
    each by its own; on a lattice, whose distances tie, chance is higher.

    Parameters
    ----------
    true, predicted, seed
        As in :func:`neighbor_recall`.
    q
        Share of the pairs that are near.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> contact_precision([[0.0], [1], [3]], [[0.0], [2], [6]], q=0.1)
    1.0
    """
    T, P = point_pair(true, predicted)
    if not 0 < q < 1:
        raise ValueError(f"q must be between 0 and 1, found {q}.")
    rows = subsample(len(T), seed)
    true_distance, predicted_distance = pdist(T[rows]), pdist(P[rows])
    contact = predicted_distance <= np.quantile(predicted_distance, q)
    return float((true_distance[contact] <= np.quantile(true_distance, q)).mean())


def rssd(true: ArrayLike, predicted: ArrayLike) -> float:
    """LUNA's root of summed squared deviations, ``min_R sqrt(sum_i |y_i - R ŷ_i|^2)``.

    Parameters
    ----------
    true, predicted
        As in :func:`procrustes_rmse`.

    Returns
    -------
    float
        In the units of the coordinates; divide by ``sqrt(n)`` to compare sections.

    Examples
    --------
    >>> square = [[0.0, 0], [2, 0], [2, 2], [0, 2]]
    >>> round(rssd(square, [[2.0, 2], [4, 2], [4, 4], [2, 4]]), 6)
    0.0
    """
    T, P = point_pair(true, predicted)
    return float(np.sqrt(np.square(T - superpose(P, T)).sum()))


def niche_cosine(
    true: ArrayLike, predicted: ArrayLike, labels: ArrayLike, k: int = 20, *, seed: int = 0
) -> float:
    """Mean cosine of the cell-type counts among the k nearest true and predicted neighbors.

    Parameters
    ----------
    true, predicted, k, seed
        As in :func:`neighbor_recall`.
    labels
        Cell type of each cell, shape ``(n,)``.

    Returns
    -------
    float
        Between 0 and 1; chance depends on how types are mixed.

    Examples
    --------
    >>> niche_cosine([[0.0], [1], [3]], [[0.0], [2], [6]], ["a", "b", "b"], k=1)
    1.0
    """
    T, P = point_pair(true, predicted)
    names, codes = np.unique(checked_labels(labels, len(T)), return_inverse=True)
    check_neighbors(k, len(T))
    rows, one_hot = subsample(len(T), seed), np.eye(len(names))[codes]
    a, b = (one_hot[nearest_neighbors(X, rows, k)].sum(1) for X in (T, P))
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / norm).mean())


def spread(true: ArrayLike, predicted: ArrayLike) -> float:
    """RMS radius of ``predicted`` over that of ``true``.

    Parameters
    ----------
    true, predicted
        As in :func:`procrustes_rmse`.

    Returns
    -------
    float
        1 where the tissue has its true size, below 1 where positions are shrunk.

    Examples
    --------
    >>> spread([[0.0], [2]], [[0.0], [1]])
    0.5
    """
    T, P = point_pair(true, predicted)
    return rms_radius(P) / tissue_size(T)


def _errors_and_radii(
    true: ArrayLike, predicted: ArrayLike, radius: ArrayLike, align: bool
) -> tuple[Array, Array]:
    """Distance of every cell from its true position, and its radius, ``(n,)`` each."""
    T, P = point_pair(true, predicted)
    r = as_floats(radius, "radius")
    if r.shape not in ((), (len(T),)):
        raise ValueError(
            f"radius must be one number or have shape ({len(T)},), one per cell; found {r.shape}."
        )
    if not np.isfinite(r).all() or (r < 0).any():
        raise ValueError("radius must be finite and not negative in every cell.")
    moved = superpose(P, T) if align else P
    return np.linalg.norm(T - moved, axis=1), np.broadcast_to(r, len(T))


def coverage(
    true: ArrayLike, predicted: ArrayLike, radius: ArrayLike, *, align: bool = True
) -> float:
    """Share of cells whose true position lies within the radius of the predicted one.

    A 90 % radius should have 0.90. A huge radius covers too: report :func:`radius_scores` with it.

    Parameters
    ----------
    true, predicted
        As in :func:`procrustes_rmse`.
    radius
        Radius of each cell, shape ``(n,)``, or one for all, in the units of the coordinates.
    align
        Whether ``predicted`` is first superposed on ``true``, by shift, rotation and mirror image
        but not scale. False where the frame is given, as by known cells.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> coverage([[0.0, 0], [4, 0]], [[0.0, 1], [4, 3]], radius=2.0, align=False)
    0.5
    """
    errors, radii = _errors_and_radii(true, predicted, radius, align)
    return float((errors <= radii).mean())


def radius_scores(
    true: ArrayLike, predicted: ArrayLike, radius: ArrayLike, *, align: bool = True
) -> dict[str, float]:
    """Coverage and size of radii, and their correlation with the errors.

    Parameters
    ----------
    true, predicted, radius, align
        As in :func:`coverage`.

    Returns
    -------
    dict
        ``"coverage"``, see there; ``"radius"``, the median radius ÷ RMS radius of ``true`` (with
        all cells at the center, a radius of 1.34 covers 90 % of a uniform disc); and
        ``"radius_error_spearman"``, the Spearman correlation over cells of radius and error:
        chance is 0, and a constant radius gets 0.

    Examples
    --------
    >>> true, predicted = [[0.0, 0], [4, 0], [0, 4]], [[0.0, 1], [4, 3], [0, 6]]
    >>> scores = radius_scores(true, predicted, [1.0, 3, 2], align=False)
    >>> scores["coverage"], round(scores["radius_error_spearman"], 6)
    (1.0, 1.0)
    """
    errors, radii = _errors_and_radii(true, predicted, radius, align)
    varies = np.ptp(errors) > 0 and np.ptp(radii) > 0
    return {
        "coverage": float((errors <= radii).mean()),
        "radius": float(np.median(radii)) / tissue_size(np.asarray(true, dtype=np.float64)),
        "radius_error_spearman": float(spearmanr(radii, errors).statistic) if varies else 0.0,
    }
