"""Classifier that separates true from generated cells by their surroundings."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alphastomics.metrics._alignment import tissue_size
from alphastomics.metrics._arrays import (
    Array,
    Cells,
    checked_labels,
    checked_points,
    nearest_neighbors,
    subsample,
)
from alphastomics.metrics._expression import expression_matrix
from alphastomics.metrics._pattern import DECIMALS, hull_of

Classifier = Literal["gradient_boosting", "logistic"]

N_NEIGHBORS, N_COMPONENTS = 20, 20
MIN_CELLS_OF_AUC = 2 * (N_NEIGHBORS + 1)  # each half needs that many neighbors
DISTANCE_RANK = 5  # besides the first and the last neighbor
LEAST_DISTANCE = 1e-6  # coincident cells have a logarithm too


def _checked_cells(
    points: ArrayLike, expression: ArrayLike, names: tuple[str, str], least: int
) -> tuple[Array, Array]:
    """Check positions and expression of the same cells and return them as floats."""
    P, X = checked_points(points, names[0], least), expression_matrix(expression, names[1])
    if len(P) != len(X):
        raise ValueError(
            f"{names[0]} and {names[1]} must hold the same cells, found {len(P)} and {len(X)}."
        )
    return P, X


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
    distance = KDTree(points).query(points[rows], k=k + 1)[0][:, [1, min(DISTANCE_RANK, k), k]]
    facets = hull_of(points, name).equations  # (n_facets, d + 1): a unit normal and an offset
    outside = points @ facets[:, :-1].T + facets[:, -1]
    border_distance = np.maximum(-outside.max(1), 0)[rows]
    return np.column_stack(
        [
            components[rows],
            _mean_of_neighbors(points, components, k, groups, rows),
            np.round(np.log(np.maximum(distance, LEAST_DISTANCE)), DECIMALS),
            np.round(border_distance, DECIMALS),
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
    group = checked_labels(np.zeros(len(P)) if groups is None else groups, len(P), "groups")
    smallest = np.unique(group, return_counts=True)[1].min()
    if smallest <= n_neighbors:
        raise ValueError(
            f"groups must have at least n_neighbors + 1 = {n_neighbors + 1} cells each, found one "
            f"of {smallest}."
        )
    return _surroundings(P, C, n_neighbors, group, np.arange(len(P)), "points")


class _Sample(NamedTuple):
    points: Array  # in RMS radii of the true section
    expression: Array
    rows: Cells  # that are scored
    name: str


def _fold_auc(
    samples: tuple[_Sample, _Sample],
    halves: tuple[NDArray[np.int64], NDArray[np.int64]],
    training: int,
    classifier: Classifier,
    seed: int,
) -> float:
    """Area under the curve of a classifier fitted on one half of the cells, on the other."""
    X = samples[0].expression
    pca = PCA(min(N_COMPONENTS, X.shape[1]), random_state=seed)
    with np.errstate(invalid="ignore"):  # shares of no variance, where X is constant
        pca.fit(X[halves[0] == training])
    features = np.concatenate(
        [
            _surroundings(P, pca.transform(E), N_NEIGHBORS, half, rows, name)
            for (P, E, rows, name), half in zip(samples, halves, strict=True)
        ]
    )
    is_generated = np.repeat([False, True], [len(sample.rows) for sample in samples])
    in_training = training == np.concatenate(
        [half[sample.rows] for sample, half in zip(samples, halves, strict=True)]
    )
    model = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        if classifier == "logistic"
        else HistGradientBoostingClassifier(random_state=seed)
    )
    model.fit(features[in_training], is_generated[in_training])
    score = model.predict_proba(features[~in_training])[:, 1]
    return float(roc_auc_score(is_generated[~in_training], score))


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
    r"""Area under the ROC curve of a classifier of true and generated cells.

    .. math::

        P(s(\text{generated}) > s(\text{true}))
        + \tfrac12 P(s(\text{generated}) = s(\text{true}))

    with s the score of cells that were left out. The classifier gets :func:`surroundings` of every
    cell in its own section: its first 20 expression components, their mean over 20 near cells, log
    distances to the 1st, 5th and 20th nearest, and the distance to the border.

    Cross-validated by halves, ``n_splits`` times two folds. Near cells share most of their
    surroundings, so that with random folds a test cell resembles its neighbors in training, and
    even two samples of one tissue differ. Both sections are therefore cut into two random halves of
    their cells, the mean is over the 20 nearest cells *of the same half*, and the components are
    fitted on the true cells of the half in training. Where both sections have the same expression,
    row by row, they are cut alike: no cell is in training under one label and in the test under the
    other.

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
        Random seed of the halves, the classifier, and the 2,000 cells that are sampled from a
        larger section, whose surroundings are those in the whole section.

    Returns
    -------
    float
        The mean over all folds: .5 where the classifier cannot separate them, 1 where it always
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
    samples = (
        _Sample(T / size, X, subsample(len(T), seed), "true_points"),
        _Sample(G / size, Y, subsample(len(G), seed), "generated_points"),
    )
    same_cells = np.array_equal(X, Y)
    areas = []
    for _ in range(n_splits):
        half = rng.permutation(len(X)) % 2
        halves = (half, half if same_cells else rng.permutation(len(Y)) % 2)
        areas += [_fold_auc(samples, halves, training, classifier, seed) for training in (0, 1)]
    return float(np.mean(areas))
