"""How well predicted coordinates reproduce true ones.

``true`` and ``predicted`` are coordinates ``(n, d)`` of the same cells. Everything here is
invariant to rotation, mirror image and shift of either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist, pdist
from scipy.stats import rankdata

from alphastomics.metrics._alignment import Array, point_pair, rms_radius, superpose, tissue_size

MAX_ROWS = 2000


def _rows(n: int, seed: int) -> NDArray[np.int64]:
    """All cells, or a seeded random 2,000 of them."""
    if n <= MAX_ROWS:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, MAX_ROWS, replace=False))


def distance_spearman_per_cell(true: ArrayLike, predicted: ArrayLike, *, seed: int = 0) -> Array:
    """Spearman correlation of each cell's true and predicted distances to all other cells.

    The mean over cells is :func:`distance_spearman`. Of more than 2,000 cells, a seeded random
    2,000 are scored, each against all cells; the returned array is that long.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``, in the same units.
    seed
        Of the cells that are scored, where there are more than 2,000.

    Returns
    -------
    ndarray
        Shape ``(min(n, 2000),)``, between -1 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> scores = distance_spearman_per_cell(points, 2 * points)
    >>> scores.shape, round(float(scores.min()), 6)
    ((50,), 1.0)
    """
    T, P = point_pair(true, predicted)
    n = len(T)
    if n < 3:
        raise ValueError(f"distance_spearman needs at least 3 cells, found {n}.")
    scores = []
    for chunk in np.array_split(_rows(n, seed), max(1, n * min(n, MAX_ROWS) // 4_000_000)):
        others = np.ones((len(chunk), n), dtype=bool)
        others[np.arange(len(chunk)), chunk] = False
        ranks = []
        for X in (T, P):
            distances = cdist(X[chunk], X)[others].reshape(len(chunk), n - 1)
            rank = rankdata(distances, axis=1)
            ranks.append(rank - rank.mean(1, keepdims=True))
        norm = np.sqrt(np.square(ranks[0]).sum(1) * np.square(ranks[1]).sum(1))
        product = (ranks[0] * ranks[1]).sum(1)
        scores.append(np.divide(product, norm, out=np.zeros_like(norm), where=norm > 0))
    return np.concatenate(scores)


def distance_spearman(true: ArrayLike, predicted: ArrayLike, *, seed: int = 0) -> float:
    """Mean over cells i of the Spearman correlation of ``D_i.`` and ``D̂_i.``; chance is 0.

    ``D`` and ``D̂`` are the Euclidean distance matrices of true and predicted positions, a cell's
    distance to itself left out. LUNA (Yu et al. 2025) reports the same.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``, in the same units.
    seed
        Of the cells that are scored, where there are more than 2,000.

    Returns
    -------
    float
        Between -1 and 1; 1 where every cell's distances are ranked as the true ones.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> round(distance_spearman(points, points[:, ::-1] * 3), 6)
    1.0
    """
    return float(distance_spearman_per_cell(true, predicted, seed=seed).mean())


def procrustes_rmse(
    true: ArrayLike, predicted: ArrayLike, *, allow_scale: bool = True, relative: bool = True
) -> float:
    """RMS error after the least-squares superposition of ``predicted`` on ``true``.

    ``allow_scale`` takes a similarity transform, otherwise a rigid one (mirror images allowed in
    both). ``relative`` divides by the RMS radius of ``true`` (1 is chance when scale is allowed),
    otherwise the error is in the unit of the coordinates.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``, in the same units.
    allow_scale
        Whether to scale ``predicted`` too.
    relative
        Whether to divide by the RMS radius of ``true``.

    Returns
    -------
    float
        0 where the shapes are the same.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> turned = points @ np.array([[0.0, 1], [-1, 0]]) + 5
    >>> round(procrustes_rmse(points, turned), 6)
    0.0
    """
    T, P = point_pair(true, predicted)
    error = T - superpose(P, T, allow_scale=allow_scale)
    rmse = float(np.sqrt(np.square(error).sum(1).mean()))
    return rmse / tissue_size(T) if relative else rmse


def nearest_neighbors(points: Array, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Find the indices ``(len(rows), k)`` of the k nearest other cells of each row."""
    _, found = KDTree(points).query(points[rows], k=k + 1)
    found = found.astype(np.int64)
    found_self = found == rows[:, None]
    found_self[~found_self.any(1), -1] = True  # coincident points may crowd the cell itself out
    return np.asarray(found[~found_self].reshape(len(rows), k))


def neighbor_recall(true: ArrayLike, predicted: ArrayLike, k: int = 20, *, seed: int = 0) -> float:
    """Mean share of a cell's k nearest true neighbours that are among its k nearest predicted.

    The cell itself is excluded; chance is ``k / (n - 1)``. Of more than 2,000 cells, a seeded
    random 2,000 are scored.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``, in the same units.
    k
        Neighbours of a cell.
    seed
        Of the cells that are scored, where there are more than 2,000.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> neighbor_recall(points, 3 * points, k=5)
    1.0
    """
    T, P = point_pair(true, predicted)
    n = len(T)
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and n_cells - 1 = {n - 1}, found {k}.")
    rows = _rows(n, seed)
    own = n * np.arange(len(rows))[:, None]  # makes the neighbours of every row distinct numbers
    shared = np.isin(nearest_neighbors(T, rows, k) + own, nearest_neighbors(P, rows, k) + own)
    return float(shared.mean())


def contact_precision(
    true: ArrayLike, predicted: ArrayLike, q: float = 0.01, *, seed: int = 0
) -> float:
    """Of the pairs predicted to be near, the share that are truly near; chance is ``q``.

    Near means a distance of at most the q-quantile of all pairwise distances, true and predicted
    each by its own; on a lattice, whose distances tie, chance is higher. Of more than 2,000 cells,
    pairs among a seeded random 2,000 are scored.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``, in the same units.
    q
        Share of the pairs that are near.
    seed
        Of the cells that are scored, where there are more than 2,000.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> contact_precision(points, 3 * points, q=0.05)
    1.0
    """
    T, P = point_pair(true, predicted)
    if not 0 < q < 1:
        raise ValueError(f"q must be between 0 and 1, found {q}.")
    rows = _rows(len(T), seed)
    true_distance, predicted_distance = pdist(T[rows]), pdist(P[rows])
    contact = predicted_distance <= np.quantile(predicted_distance, q)
    return float((true_distance[contact] <= np.quantile(true_distance, q)).mean())


def rssd(true: ArrayLike, predicted: ArrayLike) -> float:
    """LUNA's root of summed squared deviations, ``min_R sqrt(sum_i |y_i - R ŷ_i|^2)``.

    Grows with the number of cells: divide by ``sqrt(n)`` to compare sections.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``, in the same units.

    Returns
    -------
    float
        In the units of the coordinates.

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
    """Mean cosine of the cell-type counts among the k nearest true and predicted neighbours.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``, in the same units.
    labels
        Cell type of each cell, shape ``(n,)``.
    k
        Neighbours of a cell.
    seed
        Of the cells that are scored, where there are more than 2,000.

    Returns
    -------
    float
        Between 0 and 1; chance depends on how types are mixed.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> types = np.where(points[:, 0] > 0, "right", "left")
    >>> round(niche_cosine(points, -points, types, k=5), 6)
    1.0
    """
    T, P = point_pair(true, predicted)
    names, codes = np.unique(np.asarray(labels).astype(str), return_inverse=True)
    if len(codes) != len(T):
        raise ValueError(
            f"labels must have one entry a cell, found {len(codes)} for {len(T)} cells."
        )
    if not 1 <= k < len(T):
        raise ValueError(f"k must be between 1 and n_cells - 1 = {len(T) - 1}, found {k}.")
    rows = _rows(len(T), seed)
    one_hot = np.eye(len(names))[codes]
    a, b = (one_hot[nearest_neighbors(X, rows, k)].sum(1) for X in (T, P))
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / norm).mean())


def spread(true: ArrayLike, predicted: ArrayLike) -> float:
    """RMS radius of ``predicted`` over that of ``true``: 1 keeps the tissue's size.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n, d)``, in the same units.

    Returns
    -------
    float
        Above 0; below 1 where positions are shrunk.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> round(spread(points, 0.5 * points), 6)
    0.5
    """
    T, P = point_pair(true, predicted)
    return rms_radius(P) / tissue_size(T)
