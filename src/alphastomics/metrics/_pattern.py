"""Spatial patterns: autocorrelation of genes and the cell types around each cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.stats import wasserstein_distance

from alphastomics.metrics._alignment import Array, checked_points
from alphastomics.metrics._expression import centered, expression_matrix, ratio
from alphastomics.metrics._placement import nearest_neighbors


def _neighbor_graph(positions: Array, k: int) -> csr_array:
    """1 for the k nearest other cells of each cell, 0 elsewhere, ``(n, n)``."""
    n = len(positions)
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and n_cells - 1 = {n - 1}, found {k}.")
    neighbors = nearest_neighbors(positions, np.arange(n), k)
    parts = (np.ones(n * k), neighbors.ravel(), np.arange(0, n * k + 1, k))
    return csr_array(parts, shape=(n, n))


def morans_i(values: ArrayLike, positions: ArrayLike, k: int = 6) -> Array:
    r"""Moran's I of every gene, on the k nearest neighbours of each cell.

    .. math:: I = \frac{\sum_i z_i \cdot \frac1k \sum_{j \in N_k(i)} z_j}{\sum_i z_i^2}

    with z the centred expression: row-normalised weights, a cell itself excluded, neighbours not
    made mutual. Chance is ``-1 / (n_cells - 1)``; a constant gene gets 0. On a lattice, where
    neighbours tie, take k as the lattice has it (6 for Visium). ``squidpy.gr.spatial_autocorr`` on
    ``squidpy.gr.spatial_neighbors(n_neighs=k, coord_type="generic")`` is the same.

    A conditional mean is smoother than tissue and inflates I: compare draws with the truth. The
    mean over genes of ``abs(I - I_true)`` and :func:`lins_concordance` of the two say how far.

    Parameters
    ----------
    values
        Expression, shape ``(n_cells, n_genes)``.
    positions
        Coordinates, shape ``(n_cells, n_dims)``, 2D or 3D.
    k
        Neighbours of a cell.

    Returns
    -------
    ndarray
        Shape ``(n_genes,)``.

    References
    ----------
    Moran (1950), Biometrika 37, 17.

    Examples
    --------
    >>> line = [[0.0, 0], [1, 0], [2.1, 0], [3, 0]]
    >>> morans_i([[0.0], [0], [1], [1]], line, k=1)
    array([1.])
    """
    X, P = expression_matrix(values, "values"), checked_points(positions, "positions")
    if len(X) != len(P):
        raise ValueError(
            f"values and positions must hold the same cells, found {len(X)} and {len(P)}."
        )
    Z = centered(X)
    lag = _neighbor_graph(P, k) @ Z / k
    return ratio((Z * lag).sum(0), np.square(Z).sum(0))


def lins_concordance(x: ArrayLike, y: ArrayLike) -> float:
    r"""Lin's concordance correlation coefficient; chance is 0, identity 1.

    .. math:: \frac{2 s_{xy}}{s_x^2 + s_y^2 + (\bar x - \bar y)^2}

    with population moments. Unlike a correlation it falls when ``y`` is shifted or inflated as a
    whole. Two equal constants agree (1); other constants do not (0).

    Parameters
    ----------
    x, y
        Two measurements of the same things, shape ``(n,)``; such as Moran's I over genes.

    Returns
    -------
    float
        Between -1 and 1.

    References
    ----------
    Lin (1989), Biometrics 45, 255.

    Examples
    --------
    >>> lins_concordance([1.0, 2, 3], [1, 2, 3]), round(lins_concordance([1.0, 2, 3], [2, 4, 6]), 3)
    (1.0, 0.364)
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"x and y must have one shape (n,), found {a.shape} and {b.shape}.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("x or y holds values that are not finite: drop them first.")
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    size = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    return float(2 * covariance / size) if size > 0 else 1.0


def neighborhood_composition(
    positions: ArrayLike,
    labels: ArrayLike,
    k: int = 20,
    *,
    types: ArrayLike | None = None,
) -> Array:
    """Shares of the cell types among the k nearest neighbours of every cell.

    Parameters
    ----------
    positions
        Coordinates, shape ``(n_cells, n_dims)``.
    labels
        Cell types, shape ``(n_cells,)``; compared as strings.
    k
        Neighbours of a cell, itself excluded.
    types
        Names of the columns, shape ``(n_types,)``; by default the sorted types in ``labels``.

    Returns
    -------
    ndarray
        Shape ``(n_cells, n_types)``, rows sum to 1.

    Examples
    --------
    >>> line = [[0.0, 0], [1, 0], [2.1, 0], [3, 0]]
    >>> neighborhood_composition(line, ["a", "a", "a", "b"], k=2)
    array([[1. , 0. ],
           [1. , 0. ],
           [0.5, 0.5],
           [1. , 0. ]])
    """
    P, names = checked_points(positions, "positions"), _label_strings(labels)
    if names.shape != (len(P),):
        raise ValueError(
            f"labels must have one entry a cell, found shape {names.shape} for {len(P)} cells."
        )
    columns = np.unique(names) if types is None else _label_strings(types)
    unknown = np.setdiff1d(names, columns)
    if len(unknown):
        raise ValueError(f"types lacks {unknown.tolist()}, which labels holds.")
    one_hot = (names[:, None] == columns[None]).astype(np.float64)
    return np.asarray(_neighbor_graph(P, k) @ one_hot / k)


def _label_strings(labels: ArrayLike) -> NDArray[np.str_]:
    return np.asarray(labels).astype(str)


def composition_distance(
    positions: ArrayLike,
    labels: ArrayLike,
    other_positions: ArrayLike,
    other_labels: ArrayLike,
    k: int = 20,
) -> float:
    r"""How far two sections differ in the cell types that surround their cells.

    .. math:: \frac1C \sum_c W_1(S_c, S'_c)

    with :math:`S_c` the distribution over cells of the share of type c among the k nearest
    neighbours (:func:`neighborhood_composition`) and :math:`W_1` the 1-Wasserstein distance, the
    mean over the types found in either section. 0 is perfect, 1 the most; the sections need
    neither cells nor frame in common. Differing abundances count too. Chance: shuffle
    ``other_labels``; the floor is the distance of two real sections.

    Parameters
    ----------
    positions, other_positions
        Coordinates, shape ``(n_cells, n_dims)`` each.
    labels, other_labels
        Cell types, shape ``(n_cells,)`` each; compared as strings.
    k
        Neighbours of a cell, itself excluded.

    Returns
    -------
    float
        Between 0 and 1.

    References
    ----------
    Wasserstein distance: :func:`scipy.stats.wasserstein_distance`.

    Examples
    --------
    >>> line = [[0.0, 0], [1, 0], [2.1, 0], [3, 0]]
    >>> composition_distance(line, ["a", "a", "b", "b"], line, ["b", "b", "a", "a"], k=1)
    0.0
    >>> composition_distance(line, ["a", "a", "a", "a"], line, ["b", "b", "b", "b"], k=1)
    1.0
    """
    types = np.union1d(_label_strings(labels), _label_strings(other_labels))
    shares = neighborhood_composition(positions, labels, k, types=types)
    other = neighborhood_composition(other_positions, other_labels, k, types=types)
    distances = [wasserstein_distance(a, b) for a, b in zip(shares.T, other.T, strict=True)]
    return float(np.mean(distances))
