"""Distance of two samples as distributions: their rows need not correspond."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist, pdist

from alphastomics.metrics._alignment import Array
from alphastomics.metrics._expression import centered, expression_matrix
from alphastomics.metrics._placement import MAX_ROWS


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


def _median_distance(pooled: Array) -> float:
    """Median distance of two pooled rows, or their mean where most coincide."""
    distances = pdist(pooled)
    return float(np.median(distances)) or float(distances.mean())


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
        Samples of shapes ``(n, p)`` and ``(m, p)``. Of more than 2,000 rows, a seeded random 2,000
        are taken. Scale columns of different units first.
    bandwidth
        The kernel's h, in the units of ``x``; by default the median Euclidean distance of two
        pooled rows (the mean distance where more than half of them coincide).
    seed
        Of the rows taken.

    Returns
    -------
    float
        About 0 for samples of one source, at most 2.

    References
    ----------
    Gretton et al. (2012), JMLR 13, 723, eq. 3 and section 8.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(200, 3)), rng.normal(size=(300, 3))
    >>> bool(abs(mmd2(x, y)) < 0.01), bool(mmd2(x, y + 2) > 0.3)
    (True, True)
    """
    X, Y = _two_samples(x, y, ("x", "y"))
    if bandwidth is not None and not 0 < bandwidth < np.inf:
        raise ValueError(f"bandwidth must be positive, found {bandwidth}.")
    rng = np.random.default_rng(seed)
    X, Y = (
        sample if len(sample) <= MAX_ROWS else rng.choice(sample, MAX_ROWS, replace=False)
        for sample in (X, Y)
    )
    h = _median_distance(np.concatenate([X, Y])) if bandwidth is None else bandwidth
    if h == 0:
        return 0.0
    within_x, within_y, between = (
        np.exp(-squared / (2 * h**2)).mean()
        for squared in (
            pdist(X, "sqeuclidean"),
            pdist(Y, "sqeuclidean"),
            cdist(X, Y, "sqeuclidean"),
        )
    )
    return float(within_x + within_y - 2 * between)


def moment_distance(true: ArrayLike, generated: ArrayLike) -> dict[str, float]:
    r"""Mean error of the genes' means and standard deviations, in true standard deviations.

    .. math::

        \frac1G \sum_g \frac{|\bar y_g - \bar x_g|}{s_{x_g}}, \qquad
        \frac1G \sum_g \frac{|s_{y_g} - s_{x_g}|}{s_{x_g}}

    0 is perfect. A constant prediction has an ``"sd"`` of 1. Genes that are constant in ``true``
    have no unit and are left out.

    Parameters
    ----------
    true, generated
        Expression of the same genes, shapes ``(n, n_genes)`` and ``(m, n_genes)``.

    Returns
    -------
    dict
        ``"mean"`` and ``"sd"``: the two averages over genes.

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
