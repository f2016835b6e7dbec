"""Distances of a drawn section from the true one as distributions of cells in space.

Rows of ``true`` and ``generated`` need not correspond, and the two may hold different numbers of
cells. Both are in one unit of length and, where the docstring says so, in one frame: superpose them
first (:func:`superpose`).
"""

from __future__ import annotations

from math import gamma, pi
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, KDTree, QhullError
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp
from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alphastomics.metrics._alignment import Array, checked_points, tissue_size
from alphastomics.metrics._expression import expression_matrix
from alphastomics.metrics._placement import MAX_ROWS, nearest_neighbors

Classifier = Literal["gradient_boosting", "logistic"]
Cells = NDArray[np.int64]

MIN_CELLS = 20  # of a cell type that is scored by itself
SHELLS_REACH = 10.0  # median nearest-neighbor distances of the truth
N_NEIGHBORS, N_COMPONENTS = 20, 20
MIN_CELLS_OF_AUC = 2 * (N_NEIGHBORS + 1)  # each half needs that many neighbors
DISTANCE_RANK = 5  # besides the first and the last neighbor
LEAST_DISTANCE = 1e-6  # coincident cells have a logarithm too
# Distances on a lattice tie, and a rotated copy has them but for rounding.
ROUNDING = 1e-9  # of a distance: one on the edge of a ball is not inside
DECIMALS = 6  # of distances in units of the section or its spacing, where they are compared


def _checked_section(points: ArrayLike, name: str, least: int) -> Array:
    """Check coordinates ``(n, d)`` of at least ``least`` cells and return them as floats."""
    P = checked_points(points, name)
    if len(P) < least:
        raise ValueError(f"{name} must have at least {least} cells, found {len(P)}.")
    return P


def _section_pair(true: ArrayLike, generated: ArrayLike, least: int = 1) -> tuple[Array, Array]:
    """Check two sections of the same number of dimensions and return them as float arrays."""
    T = _checked_section(true, "true", least)
    G = _checked_section(generated, "generated", least)
    if T.shape[1] != G.shape[1]:
        raise ValueError(
            f"true and generated must have the same dimensions, found {T.shape[1]} and "
            f"{G.shape[1]}."
        )
    return T, G


def _subsample(n: int, seed: int) -> Cells:
    """All rows, or a seeded random 2,000 of them; the same rows for the same n."""
    if n <= MAX_ROWS:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, MAX_ROWS, replace=False))


def _energy(X: Array, Y: Array, seed: int) -> float:
    X, Y = X[_subsample(len(X), seed)], Y[_subsample(len(Y), seed)]
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
        Coordinates in one frame, shapes ``(n, d)`` and ``(m, d)``. Of more than 2,000 cells, a
        seeded random 2,000 are taken.
    seed
        Of the cells taken.

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
    T, G = _section_pair(true, generated)
    return _energy(T, G, seed) / tissue_size(T)


def _checked_labels(labels: ArrayLike, n: int, name: str) -> NDArray[np.str_]:
    codes = np.asarray(labels).astype(str)
    if codes.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one entry a cell; found {codes.shape}.")
    return codes


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
    true, generated
        Coordinates in one frame, shapes ``(n, d)`` and ``(m, d)``. Of more than 2,000 cells of a
        type, a seeded random 2,000 are taken.
    labels
        Cell type of the true cells, shape ``(n,)``; compared as strings.
    generated_labels
        Cell type of the generated cells, shape ``(m,)``; ``labels`` by default.
    min_cells
        Cells that a type must have in both sections to count.
    seed
        Of the cells taken.

    Returns
    -------
    float
        0 for equal samples; NaN where no type has ``min_cells`` cells in both.

    References
    ----------
    Székely & Rizzo (2013), J. Stat. Plan. Inference 143, 1249.

    Examples
    --------
    >>> true, types = [[0.0, 0], [2, 0], [0, 0], [2, 0]], ["a", "a", "b", "b"]
    >>> energy_distance_by_type(true, true[::-1], types, min_cells=2)
    0.0
    >>> energy_distance_by_type(true, [[0.0, 0], [0, 0], [2, 0], [2, 0]], types, min_cells=2)
    1.0
    """
    T, G = _section_pair(true, generated)
    codes = _checked_labels(labels, len(T), "labels")
    generated_codes = _checked_labels(
        labels if generated_labels is None else generated_labels, len(G), "generated_labels"
    )
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
    T, G = _section_pair(true, generated)
    tissue_size(T)
    if not 1 <= k < len(T):
        raise ValueError(f"k must be between 1 and n_cells of true - 1 = {len(T) - 1}, found {k}.")
    radius = KDTree(T).query(T, k=k + 1)[0][:, k] * (1 - ROUNDING)
    inside = KDTree(G).query_ball_point(T, radius, return_length=True)  # (n,)
    inside = np.where(radius > 0, inside, 0)
    return {"density": float(inside.sum() / (k * len(G))), "coverage": float((inside > 0).mean())}


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

    with d the distance of a cell to its nearest other cell in its own section, in the units of the
    coordinates for both, and F its distribution function. Independent points are clumped (cells
    keep a distance), stacked cells have a ratio near 0 and a regular grid one above 1.

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
    >>> line = [[0.0, 0], [1, 0], [2, 0], [3, 0]]
    >>> nearest_neighbor_scores(line, [[0.0, 0], [2, 0], [4, 0]])
    {'nn_ratio': 2.0, 'nn_ks': 1.0}
    """
    T, G = _section_pair(true, generated, least=2)
    tissue_size(T)
    nearest, generated_nearest = _nearest_distance(T), _nearest_distance(G)
    spacing = _median_spacing(nearest)
    relative = [np.round(d / spacing, DECIMALS) for d in (nearest, generated_nearest)]
    return {
        "nn_ratio": float(np.median(generated_nearest)) / spacing,
        "nn_ks": float(ks_2samp(*relative, method="asymp").statistic),
    }


def _hull(points: Array, name: str) -> ConvexHull:
    try:
        return ConvexHull(points)
    except (QhullError, ValueError) as error:
        raise ValueError(
            f"{name} has no convex hull: its {len(points)} cells must span 2 or 3 dimensions and "
            f"not lie on one point, line or plane; found shape {points.shape}."
        ) from error


def _pair_correlation(P: Array, radii: Array, name: str) -> Array:
    n, d = P.shape
    density = n / _hull(P, name).volume  # the area in 2D
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
    P = _checked_section(points, "points", 2)
    r = np.asarray(radii, dtype=np.float64)
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

    References
    ----------
    Illian et al. (2008), Statistical Analysis and Modelling of Spatial Point Patterns, ch. 4.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).random((500, 2))
    >>> pair_correlation_distance(points, points[::-1] + 5) < 0.001
    True
    >>> stacked = np.repeat(points[::5], 5, axis=0)
    >>> pair_correlation_distance(points, stacked) > 1
    True
    """
    T, G = _section_pair(true, generated, least=2)
    tissue_size(T)
    if n_shells < 1:
        raise ValueError(f"n_shells must be at least 1, found {n_shells}.")
    reach = SHELLS_REACH * _median_spacing(_nearest_distance(T))
    # Distances on a lattice are multiples of the spacing: keep them off the borders.
    radii = np.linspace(0, reach * (1 + 10.0**-DECIMALS), n_shells + 1)
    g, generated_g = _pair_correlation(T, radii, "true"), _pair_correlation(G, radii, "generated")
    return float(np.abs(g - generated_g).mean())


def _checked_cells(
    points: ArrayLike, expression: ArrayLike, names: tuple[str, str], least: int
) -> tuple[Array, Array]:
    """Check positions and expression of the same cells and return them as float arrays."""
    P, X = _checked_section(points, names[0], least), expression_matrix(expression, names[1])
    if len(P) != len(X):
        raise ValueError(
            f"{names[0]} and {names[1]} must hold the same cells, found {len(P)} and {len(X)}."
        )
    return P, X


def _border_distance(points: Array, name: str) -> Array:
    """Distance of every cell to the nearest facet of the section's convex hull, ``(n,)``."""
    facets = _hull(points, name).equations  # (n_facets, d + 1): a unit normal and an offset
    outside = points @ facets[:, :-1].T + facets[:, -1]
    return np.asarray(np.maximum(-outside.max(1), 0))


def _mean_of_neighbors(
    points: Array, components: Array, k: int, groups: NDArray[Any], rows: Cells
) -> Array:
    """Mean components ``(len(rows), c)`` of the k nearest other cells of the same group."""
    mean = np.zeros((len(rows), components.shape[1]))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        chosen = np.flatnonzero(groups[rows] == group)
        near = nearest_neighbors(points[members], np.searchsorted(members, rows[chosen]), k)
        for neighbor in members[near].T:  # (len(chosen),)
            mean[chosen] += components[neighbor] / k
    return mean


def _surroundings(
    points: Array, components: Array, k: int, groups: NDArray[Any], rows: Cells, name: str
) -> Array:
    ranks = np.array([1, min(DISTANCE_RANK, k), k])
    distance = KDTree(points).query(points[rows], k=k + 1)[0][:, ranks]
    log_distance = np.log(np.maximum(distance, LEAST_DISTANCE))
    return np.column_stack(
        [
            components[rows],
            _mean_of_neighbors(points, components, k, groups, rows),
            np.round(log_distance, DECIMALS),
            np.round(_border_distance(points, name)[rows], DECIMALS),
        ]
    )


def surroundings(
    points: ArrayLike,
    components: ArrayLike,
    n_neighbors: int = N_NEIGHBORS,
    *,
    groups: ArrayLike | None = None,
) -> Array:
    """Features of every cell and its surroundings in its section.

    In this order: the cell's own expression components; their mean over the nearest cells; the
    natural logarithms of the distances to the 1st, 5th and last of these; and the distance to the
    border, which is that to the nearest facet of the convex hull of the section. Invariant to
    rotation, mirror image and shift. Divide coordinates by the :func:`rms_radius` of the true
    section first: distances below 1e-6 have the logarithm of 1e-6, and logarithms and distances are
    rounded to 6 decimals, so that a rotated copy of a lattice has the same.

    Parameters
    ----------
    points
        Coordinates, shape ``(n_cells, n_dims)``, 2D or 3D.
    components
        Expression of the same cells in few dimensions, as its first principal components, shape
        ``(n_cells, n_components)``.
    n_neighbors
        Nearest cells to average over, the cell itself excluded.
    groups
        Group of each cell, shape ``(n_cells,)``. The mean is then over the nearest cells of the
        cell's own group, so that cells of different groups have no neighbor in common; distances
        are to all cells in any case.

    Returns
    -------
    ndarray
        Shape ``(n_cells, 2 * n_components + 4)``.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> surroundings(rng.random((50, 2)), rng.random((50, 3)), n_neighbors=10).shape
    (50, 10)
    """
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, found {n_neighbors}.")
    P, C = _checked_cells(points, components, ("points", "components"), n_neighbors + 1)
    group = np.zeros(len(P)) if groups is None else np.asarray(groups)
    if group.shape != (len(P),):
        raise ValueError(
            f"groups must have shape ({len(P)},), one entry a cell; found {group.shape}."
        )
    smallest = np.unique(group, return_counts=True)[1].min()
    if smallest <= n_neighbors:
        raise ValueError(
            f"groups must have at least n_neighbors + 1 = {n_neighbors + 1} cells each, found one "
            f"of {smallest}."
        )
    return _surroundings(P, C, n_neighbors, group, np.arange(len(P)), "points")


def _make_classifier(name: Classifier, seed: int) -> ClassifierMixin:
    if name == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return HistGradientBoostingClassifier(random_state=seed)


def two_sample_auc(
    true_points: ArrayLike,
    true_expression: ArrayLike,
    generated_points: ArrayLike,
    generated_expression: ArrayLike,
    *,
    classifier: Classifier = "gradient_boosting",
    n_splits: int = 5,
    seed: int = 0,
) -> float:
    r"""Area under the ROC curve of a classifier that tells true from generated cells.

    .. math::

        P(s(\text{generated}) > s(\text{true}))
        + \tfrac12 P(s(\text{generated}) = s(\text{true}))

    with s the score of cells that were left out. The classifier gets :func:`surroundings` of every
    cell in its own section: its first 20 expression components, their mean over 20 near cells, log
    distances to the 1st, 5th and 20th nearest, and the distance to the border.

    Cross-validated by halves, ``n_splits`` times two folds. Near cells share most of their
    surroundings, so that with random folds of cells even two samples of one tissue are told apart:
    a test cell resembles its neighbors in training. Both sections are therefore cut into two random
    halves of their cells, the mean is over the 20 nearest cells *of the same half*, and the
    components are fitted on the true cells of the half in training. Where both sections have the
    same expression, row by row, they are cut alike: a cell is never in training under one label and
    in the test under the other.

    Parameters
    ----------
    true_points, generated_points
        Coordinates in one unit, in any frames, shapes ``(n, d)`` and ``(m, d)``, 2D or 3D; at least
        42 cells each.
    true_expression, generated_expression
        Log-normalized expression of those cells, shapes ``(n, n_genes)`` and ``(m, n_genes)``.
    classifier
        ``"gradient_boosting"`` (histogram-based, scikit-learn's defaults) or ``"logistic"`` (on
        standardized features).
    n_splits
        How often the sections are cut into halves.
    seed
        Of the halves, the classifier, and the 2,000 cells taken of a larger section after their
        surroundings were computed in the whole of it.

    Returns
    -------
    float
        The mean over all folds: .5 where the classifier cannot tell them apart, 1 where it always
        can. Not cut off below .5.

    References
    ----------
    Lopez-Paz & Oquab (2017), ICLR, arXiv:1610.06545; halves: Dietterich (1998), Neural Computation
    10, 1895.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> points, expression = rng.random((200, 2)), rng.random((200, 5))
    >>> two_sample_auc(points, expression, points, expression, classifier="logistic")
    0.5
    >>> two_sample_auc(points, expression, 2 * points, expression, classifier="logistic") > 0.9
    True
    """
    if classifier not in get_args(Classifier):
        raise ValueError(
            f"classifier must be one of {', '.join(get_args(Classifier))}; found {classifier!r}."
        )
    if n_splits < 1:
        raise ValueError(f"n_splits must be at least 1, found {n_splits}.")
    T, X = _checked_cells(
        true_points, true_expression, ("true_points", "true_expression"), MIN_CELLS_OF_AUC
    )
    G, Y = _checked_cells(
        generated_points,
        generated_expression,
        ("generated_points", "generated_expression"),
        MIN_CELLS_OF_AUC,
    )
    for a, b, name in ((T, G, "points"), (X, Y, "expression")):
        if a.shape[1] != b.shape[1]:
            raise ValueError(
                f"true_{name} and generated_{name} must have the same columns, found "
                f"{a.shape[1]} and {b.shape[1]}."
            )
    size, rng = tissue_size(T), np.random.default_rng(seed)
    sections = (
        (T / size, X, _subsample(len(T), seed), "true_points"),
        (G / size, Y, _subsample(len(G), seed), "generated_points"),
    )
    n, m = (len(rows) for _, _, rows, _ in sections)
    is_generated = np.repeat([False, True], [n, m])
    same_cells = np.array_equal(X, Y)
    areas = []
    for _ in range(n_splits):
        half = rng.permutation(len(X)) % 2
        halves = (half, half if same_cells else rng.permutation(len(Y)) % 2)
        for training in (0, 1):
            pca = PCA(min(N_COMPONENTS, X.shape[1]), random_state=seed)
            with np.errstate(invalid="ignore"):  # shares of no variance, where X is constant
                pca.fit(X[half == training])
            features = np.concatenate(
                [
                    _surroundings(P, pca.transform(E), N_NEIGHBORS, own_half, rows, name)
                    for (P, E, rows, name), own_half in zip(sections, halves, strict=True)
                ]
            )
            in_training = np.concatenate(
                [
                    own_half[rows] == training
                    for (_, _, rows, _), own_half in zip(sections, halves, strict=True)
                ]
            )
            model = _make_classifier(classifier, seed)
            model.fit(features[in_training], is_generated[in_training])
            score = model.predict_proba(features[~in_training])[:, 1]
            areas.append(roc_auc_score(is_generated[~in_training], score))
    return float(np.mean(areas))
