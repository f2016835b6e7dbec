"""Distances of two samples as distributions, whose rows need not correspond."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist, pdist

from alphastomics.metrics._alignment import tissue_size
from alphastomics.metrics._arrays import (
    MAX_ROWS,
    Array,
    check_neighbors,
    checked_labels,
    checked_sections,
    subsample,
)
from alphastomics.metrics._expression import centered, expression_matrix

MIN_CELLS = 20  # of a cell type that is scored by itself
# Distances on a lattice tie, and a rotated copy has them but for rounding.
ROUNDING = 1e-9  # of a distance: a cell on the edge of a ball is not inside


def _two_samples(x: ArrayLike, y: ArrayLike, names: tuple[str, str]) -> tuple[Array, Array]:
    X, Y = expression_matrix(x, names[0]), expression_matrix(y, names[1])
    if X.shape[1] != Y.shape[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same columns, found {X.shape[1]} and "
            f"{Y.shape[1]}."
        )
    for sample, name in ((X, names[0]), (Y, names[1])):
        if len(sample) < 2:
            raise ValueError(f"{name} must have at least 2 rows, found {len(sample)}.")
    return X, Y


def mmd2(x: ArrayLike, y: ArrayLike, bandwidth: float | None = None, *, seed: int = 0) -> float:
    r"""Squared maximum mean discrepancy of two samples, unbiased; chance (same source) is 0.

    .. math::

        \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{nm} \sum_{i,j} k(x_i, y_j),
        \quad k(a, b) = e^{-\|a - b\|^2 / 2 h^2}

    Being unbiased it may be slightly negative. With the median bandwidth the value compares only
    within one pooled sample: give ``bandwidth`` to compare several generators.

    Parameters
    ----------
    x, y
        Samples of shapes ``(n, p)`` and ``(m, p)``. Scale columns of different units first.
    bandwidth
        The kernel's h, in the units of ``x``; by default the median Euclidean distance of two
        pooled rows (the mean distance where more than half of them coincide).
    seed
        Random seed of the 2,000 rows taken from a larger sample.

    Returns
    -------
    float
        About 0 for samples of one source, at most 2.

    References
    ----------
    Gretton et al. (2012), JMLR 13, 723, eq. 3 and section 8.

    Examples
    --------
    >>> round(mmd2([[0.0], [0.0]], [[9.0], [9.0]], bandwidth=1.0), 6)
    2.0
    """
    X, Y = _two_samples(x, y, ("x", "y"))
    if bandwidth is not None and not 0 < bandwidth < np.inf:
        raise ValueError(f"bandwidth must be positive, found {bandwidth}.")
    rng = np.random.default_rng(seed)
    X, Y = (
        sample if len(sample) <= MAX_ROWS else rng.choice(sample, MAX_ROWS, replace=False)
        for sample in (X, Y)
    )
    h = bandwidth
    if h is None:
        pooled = pdist(np.concatenate([X, Y]))
        h = float(np.median(pooled)) or float(pooled.mean())
    if h == 0:
        return 0.0
    squared = (pdist(X, "sqeuclidean"), pdist(Y, "sqeuclidean"), cdist(X, Y, "sqeuclidean"))
    within_x, within_y, between = (np.exp(-each / (2 * h**2)).mean() for each in squared)
    return float(within_x + within_y - 2 * between)


def moment_distance(true: ArrayLike, generated: ArrayLike) -> dict[str, float]:
    r"""Mean error of the genes' means and standard deviations, in true standard deviations.

    .. math::

        \frac1G \sum_g \frac{|\bar y_g - \bar x_g|}{s_{x_g}}, \qquad
        \frac1G \sum_g \frac{|s_{y_g} - s_{x_g}|}{s_{x_g}}

    A constant prediction has an ``"sd"`` of 1. Genes that are constant in ``true`` have no unit and
    are left out.

    Parameters
    ----------
    true, generated
        Expression of the same genes, shapes ``(n, n_genes)`` and ``(m, n_genes)``.

    Returns
    -------
    dict
        ``"mean"`` and ``"sd"``: the two averages over genes; 0 is perfect.

    Examples
    --------
    >>> moment_distance([[0.0], [2.0]], [[1.0], [5.0], [1.0], [5.0]])
    {'mean': 2.0, 'sd': 1.0}
    """
    X, Y = _two_samples(true, generated, ("true", "generated"))
    sd, sd_generated = (np.sqrt(np.square(centered(sample)).mean(0)) for sample in (X, Y))
    varies = sd > 0
    if not varies.any():
        raise ValueError("true is constant in every gene: there is no unit to compare in.")
    mean_error = np.abs(Y.mean(0) - X.mean(0))[varies] / sd[varies]
    sd_error = np.abs(sd_generated - sd)[varies] / sd[varies]
    return {"mean": float(mean_error.mean()), "sd": float(sd_error.mean())}


def _energy(X: Array, Y: Array, seed: int) -> float:
    X, Y = X[subsample(len(X), seed)], Y[subsample(len(Y), seed)]
    energy = 2 * cdist(X, Y).mean() - cdist(X, X).mean() - cdist(Y, Y).mean()
    return max(float(energy), 0.0)  # never negative but for rounding


def energy_distance(true: ArrayLike, generated: ArrayLike, *, seed: int = 0) -> float:
    r"""Energy distance of the positions of two sections, in RMS radii of the true one.

    .. math::

        \frac{2\,E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|}{R},
        \quad R = \sqrt{E\|X - E X\|^2}

    with X true and Y generated positions, and means over all pairs, a cell with itself included
    (the V-statistic, which is never negative). Two samples of one source have
    :math:`(1/n + 1/m)\, E\|X - X'\| / R` on average: compare with two halves of the truth.

    Parameters
    ----------
    true, generated
        Coordinates in one frame, shapes ``(n, d)`` and ``(m, d)``.
    seed
        Random seed of the 2,000 cells sampled from a larger section.

    Returns
    -------
    float
        0 for equal samples; no upper limit.

    References
    ----------
    Székely & Rizzo (2013), J. Stat. Plan. Inference 143, 1249.

    Examples
    --------
    >>> energy_distance([[0.0, 0], [2, 0]], [[5.0, 0]])
    7.0
    """
    T, G = checked_sections(true, generated)
    return _energy(T, G, seed) / tissue_size(T)


def energy_distance_by_type(
    true: ArrayLike,
    generated: ArrayLike,
    labels: ArrayLike,
    generated_labels: ArrayLike | None = None,
    min_cells: int = MIN_CELLS,
    *,
    seed: int = 0,
) -> float:
    r"""Mean over cell types of the energy distance between the positions of each type.

    .. math:: \frac{1}{C} \sum_{c=1}^{C} \frac{\mathcal{E}(X_c, Y_c)}{R}

    with :math:`\mathcal{E}` the numerator of :func:`energy_distance` and R the RMS radius of *all*
    true cells. Types count equally, whatever their number of cells.

    Parameters
    ----------
    true, generated, seed
        As in :func:`energy_distance`; the 2,000 cells are of a type.
    labels
        Cell type of the true cells, shape ``(n,)``; compared as strings.
    generated_labels
        Cell type of the generated cells, shape ``(m,)``; ``labels`` by default.
    min_cells
        Cells that a type must have in both sections to count.

    Returns
    -------
    float
        0 for equal samples; NaN where no type has ``min_cells`` cells in both.

    Examples
    --------
    >>> true, types = [[0.0, 0], [2, 0], [0, 0], [2, 0]], ["a", "a", "b", "b"]
    >>> energy_distance_by_type(true, true[::-1], types, min_cells=2)
    0.0
    >>> energy_distance_by_type(true, [[0.0, 0], [0, 0], [2, 0], [2, 0]], types, min_cells=2)
    1.0
    """
    T, G = checked_sections(true, generated)
    codes = checked_labels(labels, len(T))
    other = labels if generated_labels is None else generated_labels
    generated_codes = checked_labels(other, len(G), "generated_labels")
    size = tissue_size(T)
    distances = [
        _energy(X, Y, seed) / size
        for X, Y in ((T[codes == name], G[generated_codes == name]) for name in np.unique(codes))
        if min(len(X), len(Y)) >= max(min_cells, 1)
    ]
    return float(np.mean(distances)) if distances else float("nan")


def density_coverage(true: ArrayLike, generated: ArrayLike, k: int = 5) -> dict[str, float]:
    r"""Density and coverage of generated positions around the true ones.

    .. math::

        \text{density} = \frac{1}{k m} \sum_{j=1}^{m} \sum_{i=1}^{n}
        1\{\|y_j - x_i\| < r_k(x_i)\}, \qquad
        \text{coverage} = \frac1n \sum_{i=1}^{n} 1\{\exists j: \|y_j - x_i\| < r_k(x_i)\}

    with :math:`r_k(x_i)` the distance of a true cell x to its k-th nearest true cell, itself
    excluded. Density is below 1 where generated cells lie where no tissue is and above 1 where they
    crowd in its dense parts; coverage falls where parts of the tissue stay empty.

    Parameters
    ----------
    true, generated
        Coordinates in one frame, shapes ``(n, d)`` and ``(m, d)``.
    k
        Neighbors that set the radius.

    Returns
    -------
    dict
        ``"density"``, 1 on average for samples of one source; and ``"coverage"``, between 0 and 1,
        about :math:`1 - 2^{-k}` for as many cells of one source. Both are 1 for an exact copy
        without ties.

    References
    ----------
    Naeem et al. (2020), ICML, arXiv:2002.09797, eqs. 4 and 5.

    Examples
    --------
    >>> line = [[0.0, 0], [1, 0], [3, 0], [7, 0]]
    >>> density_coverage(line, line, k=1)
    {'density': 1.0, 'coverage': 1.0}
    >>> density_coverage(line, [[0.1, 0], [0.2, 0]], k=1)
    {'density': 2.0, 'coverage': 0.5}
    """
    T, G = checked_sections(true, generated)
    tissue_size(T)
    check_neighbors(k, len(T))
    radius = KDTree(T).query(T, k=k + 1)[0][:, k] * (1 - ROUNDING)
    inside = KDTree(G).query_ball_point(T, radius, return_length=True)  # (n,)
    inside = np.where(radius > 0, inside, 0)
    return {"density": float(inside.sum() / (k * len(G))), "coverage": float((inside > 0).mean())}
