"""Spatial patterns: autocorrelation of genes, cell types around each cell, spacing of cells."""

from __future__ import annotations

from math import gamma, pi

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.spatial import ConvexHull, KDTree, QhullError
from scipy.stats import ks_2samp, wasserstein_distance

from alphastomics.metrics._alignment import tissue_size
from alphastomics.metrics._arrays import (
    Array,
    as_floats,
    check_neighbors,
    checked_labels,
    checked_points,
    checked_sections,
    label_text,
    nearest_neighbors,
    ratio,
)
from alphastomics.metrics._expression import centered, expression_matrix

SHELLS_REACH = 10.0  # median nearest-neighbor distances of the truth
# Distances on a lattice tie, and a rotated copy has them but for rounding.
DECIMALS = 6  # of distances in units of the section or its spacing, where they are compared


def _neighbor_graph(positions: Array, k: int) -> csr_array:
    """1 for the k nearest other cells of each cell, 0 elsewhere, ``(n, n)``."""
    n = len(positions)
    check_neighbors(k, n)
    neighbors = nearest_neighbors(positions, np.arange(n), k)
    parts = (np.ones(n * k), neighbors.ravel(), np.arange(0, n * k + 1, k))
    return csr_array(parts, shape=(n, n))


def morans_i(values: ArrayLike, positions: ArrayLike, k: int = 6) -> Array:
    r"""Moran's I of every gene, on the k nearest neighbors of each cell.

    .. math:: I = \frac{\sum_i z_i \cdot \frac1k \sum_{j \in N_k(i)} z_j}{\sum_i z_i^2}

    with z the centered expression: row-normalized weights, a cell itself excluded, neighbors not
    made mutual. On a lattice, where neighbors tie, take k as the lattice has it (6 for Visium).
    ``squidpy.gr.spatial_autocorr`` on
    ``squidpy.gr.spatial_neighbors(n_neighs=k, coord_type="generic")`` is the same.

    A conditional mean is smoother than tissue and inflates I: compare draws with the truth, by the
    mean over genes of ``abs(I - I_true)`` and by :func:`lins_concordance`.

    Parameters
    ----------
    values
        Expression, shape ``(n_cells, n_genes)``.
    positions
        Coordinates, shape ``(n_cells, n_dims)``, 2D or 3D.
    k
        Neighbors of a cell.

    Returns
    -------
    ndarray
        Shape ``(n_genes,)``; chance is ``-1 / (n_cells - 1)``, a constant gene gets 0.

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
    a, b = as_floats(x, "x"), as_floats(y, "y")
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
    """Shares of the cell types among the k nearest neighbors of every cell.

    Parameters
    ----------
    positions
        Coordinates, shape ``(n_cells, n_dims)``.
    labels
        Cell types, shape ``(n_cells,)``; compared as strings.
    k
        Number of neighbors, excluding the cell.
    types
        Names of the columns, shape ``(n_types,)``; by default the sorted types in ``labels``.

    Returns
    -------
    ndarray
        Shape ``(n_cells, n_types)``, rows sum to 1.

    Examples
    --------
    >>> neighborhood_composition([[0.0], [1], [3]], ["a", "a", "b"], k=2)
    array([[0.5, 0.5],
           [0.5, 0.5],
           [1. , 0. ]])
    """
    P = checked_points(positions, "positions")
    names = checked_labels(labels, len(P))
    columns = np.unique(names) if types is None else label_text(types, "types")
    unknown = np.setdiff1d(names, columns)
    if len(unknown):
        raise ValueError(f"types lacks {unknown.tolist()}, which labels holds.")
    one_hot = (names[:, None] == columns[None]).astype(np.float64)
    return np.asarray(_neighbor_graph(P, k) @ one_hot / k)


def composition_distance(
    positions: ArrayLike,
    labels: ArrayLike,
    other_positions: ArrayLike,
    other_labels: ArrayLike,
    k: int = 20,
) -> float:
    r"""Difference of two sections in the cell types around their cells.

    .. math:: \frac1C \sum_c W_1(S_c, S'_c)

    with :math:`S_c` the distribution over cells of the share of type c among the k nearest
    neighbors (:func:`neighborhood_composition`) and :math:`W_1` the 1-Wasserstein distance
    (:func:`scipy.stats.wasserstein_distance`), the mean over the types found in either section.
    The sections need neither cells nor frame in common. Differing abundances count too. Chance:
    shuffle ``other_labels``; the baseline is the distance of two real sections.

    Parameters
    ----------
    positions, labels, other_positions, other_labels, k
        As in :func:`neighborhood_composition`, for either section.

    Returns
    -------
    float
        Between 0, perfect, and 1.

    Examples
    --------
    >>> line = [[0.0, 0], [1, 0], [2.1, 0], [3, 0]]
    >>> composition_distance(line, ["a", "a", "b", "b"], line, ["b", "b", "a", "a"], k=1)
    0.0
    """
    types = np.union1d(label_text(labels), label_text(other_labels, "other_labels"))
    shares = neighborhood_composition(positions, labels, k, types=types)
    other = neighborhood_composition(other_positions, other_labels, k, types=types)
    distances = [wasserstein_distance(a, b) for a, b in zip(shares.T, other.T, strict=True)]
    return float(np.mean(distances))


def _nearest_distance(points: Array) -> Array:
    """Distance of every cell to its nearest other cell, ``(n,)``."""
    return np.asarray(KDTree(points).query(points, k=2)[0][:, 1])


def _median_spacing(nearest: Array) -> float:
    """Median nearest-neighbor distance of true cells; not 0."""
    spacing = float(np.median(nearest))
    if spacing == 0:
        raise ValueError(
            "true holds coincident cells: at least half have a nearest neighbor at distance 0, so "
            "that there is no spacing to measure by."
        )
    return spacing


def nearest_neighbor_scores(true: ArrayLike, generated: ArrayLike) -> dict[str, float]:
    r"""Spacing of generated cells against that of true ones.

    .. math::

        \text{nn\_ratio} = \frac{\operatorname{median}_j d(y_j)}{\operatorname{median}_i d(x_i)},
        \qquad \text{nn\_ks} = \sup_t |F_{d(y)}(t) - F_{d(x)}(t)|

    with d the distance of a cell to its nearest other cell in its own section and F its
    distribution function. Independent points are clumped (cells keep a distance), stacked cells
    have a ratio near 0 and a regular grid one above 1.

    Parameters
    ----------
    true, generated
        Coordinates in one unit, in any frames, shapes ``(n, d)`` and ``(m, d)``. All cells are
        used, as a subsample would be spaced more widely.

    Returns
    -------
    dict
        ``"nn_ratio"``, best 1; and ``"nn_ks"``, the two-sample Kolmogorov-Smirnov distance, between
        0 and 1, best 0.

    References
    ----------
    Clark & Evans (1954), Ecology 35, 445; :func:`scipy.stats.ks_2samp`.

    Examples
    --------
    >>> nearest_neighbor_scores([[0.0], [1], [2], [3]], [[0.0], [2], [4]])
    {'nn_ratio': 2.0, 'nn_ks': 1.0}
    """
    T, G = checked_sections(true, generated, least=2)
    tissue_size(T)
    nearest, generated_nearest = _nearest_distance(T), _nearest_distance(G)
    spacing = _median_spacing(nearest)
    relative = [np.round(d / spacing, DECIMALS) for d in (nearest, generated_nearest)]
    return {
        "nn_ratio": float(np.median(generated_nearest)) / spacing,
        "nn_ks": float(ks_2samp(*relative, method="asymp").statistic),
    }


def hull_of(points: Array, name: str) -> ConvexHull:
    """Convex hull of points in 2D or 3D."""
    try:
        return ConvexHull(points)
    except (QhullError, ValueError) as error:
        raise ValueError(
            f"{name} has no convex hull: its {len(points)} cells must span 2 or 3 dimensions and "
            f"not lie on one point, line or plane; found shape {points.shape}."
        ) from error


def _pair_correlation(P: Array, radii: Array, name: str) -> Array:
    n, d = P.shape
    density = n / hull_of(P, name).volume  # the area in 2D
    tree = KDTree(P)
    within = np.asarray(tree.count_neighbors(tree, radii), dtype=np.float64)  # ordered pairs
    within[radii == 0] = n  # a cell with itself is no pair, but coincident cells are
    volume = pi ** (d / 2) / gamma(d / 2 + 1) * radii**d
    return np.asarray(np.diff(within) / (n * density * np.diff(volume)))


def pair_correlation(points: ArrayLike, radii: ArrayLike) -> Array:
    r"""Pair-correlation function of cells: pairs at a distance, against pairs by chance.

    .. math::

        g_s = \frac{\#\{(i, j): i \ne j,\; r_s < \|x_i - x_j\| \le r_{s+1}\}}
        {n \, \rho \, (V(r_{s+1}) - V(r_s))}, \qquad \rho = n / |\text{hull}|

    with ordered pairs, V(r) the area of a disc (volume of a ball) and the number density taken in
    the convex hull of all cells. A first radius of 0 counts coincident cells too. About 1 for
    independent uniform cells at distances far below the size of the section; without edge
    correction it falls towards 0 at larger ones.

    Parameters
    ----------
    points
        Coordinates, shape ``(n, d)``, 2D or 3D.
    radii
        Borders of the shells, increasing and not negative, shape ``(n_shells + 1,)``.

    Returns
    -------
    ndarray
        Shape ``(n_shells,)``, not negative.

    References
    ----------
    Illian et al. (2008), Statistical Analysis and Modelling of Spatial Point Patterns, ch. 4.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).random((5000, 2))
    >>> pair_correlation(points, [0, 0.01, 0.02]).round(1)
    array([1., 1.])
    """
    P = checked_points(points, "points", 2)
    r = as_floats(radii, "radii")
    if r.ndim != 1 or len(r) < 2 or not (np.isfinite(r).all() and r[0] >= 0):
        raise ValueError(
            f"radii must be at least 2 finite numbers of 0 or more, shape (n_shells + 1,); found "
            f"shape {r.shape}."
        )
    if (np.diff(r) <= 0).any():
        raise ValueError("radii must increase.")
    return _pair_correlation(P, r, "points")


def pair_correlation_distance(true: ArrayLike, generated: ArrayLike, n_shells: int = 20) -> float:
    r"""Mean absolute difference of the pair-correlation functions of two sections.

    .. math:: \frac1S \sum_{s=1}^{S} |g_s(\text{generated}) - g_s(\text{true})|

    over S equally wide shells up to ten median nearest-neighbor distances of the true cells, each g
    (:func:`pair_correlation`) with the density of its own section.

    Parameters
    ----------
    true, generated
        Coordinates in one unit, in any frames, shapes ``(n, d)`` and ``(m, d)``.
    n_shells
        Number of shells.

    Returns
    -------
    float
        0 where the functions agree; no upper limit.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).random((500, 2))
    >>> pair_correlation_distance(points, points[::-1] + 5) < 0.001
    True
    """
    T, G = checked_sections(true, generated, least=2)
    tissue_size(T)
    if n_shells < 1:
        raise ValueError(f"n_shells must be at least 1, found {n_shells}.")
    reach = SHELLS_REACH * _median_spacing(_nearest_distance(T))
    # Distances on a lattice are multiples of the spacing: keep them off the borders.
    radii = np.linspace(0, reach * (1 + 10.0**-DECIMALS), n_shells + 1)
    g, generated_g = _pair_correlation(T, radii, "true"), _pair_correlation(G, radii, "generated")
    return float(np.abs(g - generated_g).mean())
