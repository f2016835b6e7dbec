"""Baselines of expression: hidden cells by their position, hidden genes by a reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.spatial import KDTree
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors

from alphastomics._validate import check_seed
from alphastomics.metrics._arrays import (
    MAX_ROWS,
    Array,
    Cells,
    Labels,
    checked_labels,
    checked_points,
)
from alphastomics.metrics._expression import expression_matrix, z_scores

KNN = (5, 20, 50)
N_DONORS = 20
BANDWIDTH_NEIGHBORS = (1, 2, 4, 8, 16, 32, 64, 128)
TRUNCATE = 3.0  # bandwidths
CHUNK = 1000
RIDGE_ALPHAS = np.logspace(-1, 5, 13)
PRINCIPAL_VECTORS, SPAGE_NEIGHBORS, LEAST_SIMILARITY = 50, 50, 0.3


def choose_neighbors(neighbors: Cells, rng: np.random.Generator) -> Cells:
    """Choose a random neighbor ``(m,)`` of those ``(m, k)`` of each cell."""
    rows = np.arange(len(neighbors))
    return np.asarray(neighbors[rows, rng.integers(neighbors.shape[1], size=len(rows))])


def similar_cells(query: Array, candidates: Array, k: int) -> Cells:
    """Find the k candidates (all, if fewer) nearest to each query cell by cosine, ``(m, k)``."""
    k = min(k, len(candidates))
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(candidates)
    return np.asarray(search.kneighbors(query, return_distance=False))


def gaussian_smooth(
    known: Array, values: Array, query: Array, bandwidth: float, excluded: Cells | None = None
) -> Array:
    """Kernel regression of ``values (n, G)`` from ``known (n, d)`` to ``query (m, d)``.

    Weights ``exp(-d² / 2h²)``, cut off at 3 bandwidths; a query cell with no known cell so near
    takes its nearest. ``excluded (m,)`` is the known cell each query cell must not use: itself.
    """
    excluded = np.full(len(query), -1) if excluded is None else excluded
    tree = KDTree(known)
    smooth = np.empty((len(query), values.shape[1]))
    for rows in np.split(np.arange(len(query)), range(CHUNK, len(query), CHUNK)):
        pairs = KDTree(query[rows]).sparse_distance_matrix(
            tree, TRUNCATE * bandwidth, output_type="ndarray"
        )
        pairs = pairs[pairs["j"] != excluded[rows][pairs["i"]]]
        weight = np.exp(-((pairs["v"] / bandwidth) ** 2) / 2)
        W = csr_array((weight, (pairs["i"], pairs["j"])), shape=(len(rows), len(known)))
        total = W.sum(1)
        smooth[rows] = (W @ values) / np.where(total > 0, total, 1)[:, None]
        alone = rows[total == 0]
        nearest, second = tree.query(query[alone], k=2)[1].T
        smooth[alone] = values[np.where(nearest == excluded[alone], second, nearest)]
    return smooth


def leave_one_out_bandwidth(
    positions: ArrayLike, expression: ArrayLike, *, seed: int | None = None
) -> float:
    """Bandwidth with which a Gaussian kernel best predicts each cell from the others.

    Least squared error over z-scored genes, one bandwidth for all genes. Candidates are the median
    distances to the 1st, 2nd, 4th, …, 128th nearest cell. Of more than 2,000 cells, the error is
    that of a seeded random 2,000, each predicted from all others.

    Parameters
    ----------
    positions
        Coordinates, shape ``(n_cells, n_dims)``.
    expression
        Shape ``(n_cells, n_genes)``.
    seed
        Of the cells that are predicted.

    Returns
    -------
    float
        In the units of ``positions``.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=100)
    >>> bool(leave_one_out_bandwidth(cells.obsm["spatial"], cells.X.toarray()) > 0)
    True
    """
    P = checked_points(positions, "positions")
    X = expression_matrix(expression, "expression")
    _check_same_cells(P, X, "positions", "expression")
    Z, n = z_scores(X), len(P)
    rows = np.sort(np.random.default_rng(check_seed(seed)).permutation(n)[:MAX_ROWS])
    ranks = [k for k in BANDWIDTH_NEIGHBORS if k < n]
    distances = KDTree(P).query(P[rows], k=[k + 1 for k in ranks])[0]  # the 1st is the cell itself
    candidates = [float(b) for b in np.unique(np.median(distances, axis=0)) if b > 0]
    if not candidates:
        raise ValueError("positions coincide for most cells: there is no bandwidth to choose.")
    errors = [
        np.square(gaussian_smooth(P, Z, P[rows], b, rows) - Z[rows]).sum() for b in candidates
    ]
    return candidates[int(np.argmin(errors))]


def principal_vector_transfer(query: Array, cells: Array, values: Array) -> Array:
    """SpaGE (Abdelaal et al. 2020, NAR 48, e107): nearest cells by the factors that both have.

    Both data sets are projected on the principal vectors of the cells' principal components, those
    of a cosine of at least 0.3 with the query's; the 50 nearest by cosine distance ``d`` have the
    weight ``1 - d / Σ d``, those of negative similarity none.

    Parameters
    ----------
    query, cells
        Standardized visible genes, ``(n, V)`` and ``(m, V)``.
    values
        What is transferred, ``(m, H)``.

    Returns
    -------
    ndarray
        Shape ``(n, H)``.
    """

    def components(X: Array) -> Array:
        directions: Array = np.linalg.svd(X - X.mean(0), full_matrices=False)[2]
        return directions[:PRINCIPAL_VECTORS]

    own = components(cells)
    rotation, cosine, _ = np.linalg.svd(own @ components(query).T, full_matrices=False)
    vectors = (rotation.T @ own)[: max(1, int((cosine >= LEAST_SIMILARITY).sum()))]
    search = NearestNeighbors(n_neighbors=min(SPAGE_NEIGHBORS, len(cells)), metric="cosine")
    distance, nearest = search.fit(cells @ vectors.T).kneighbors(query @ vectors.T)
    similar = distance < 1
    distance = np.where(similar, distance, 0)
    weight = similar * (1 - distance / np.maximum(distance.sum(1, keepdims=True), 1e-12))
    weight /= np.maximum(weight.sum(1, keepdims=True), 1e-12)
    start = np.arange(0, nearest.size + 1, nearest.shape[1])
    mean = csr_array((weight.ravel(), nearest.ravel(), start), shape=(len(query), len(cells)))
    return np.asarray(mean @ values)


def _check_same_cells(first: Array, second: Array, first_name: str, second_name: str) -> None:
    if len(first) != len(second) or len(first) < 3:
        raise ValueError(
            f"{first_name} and {second_name} must hold the same 3 or more cells, found "
            f"{len(first)} and {len(second)}."
        )


def _type_means(expression: Array, labels: Labels, wanted: Labels) -> Array:
    """Mean expression of the known cells of each wanted type, of all where it has none."""
    means = np.tile(expression.mean(0), (len(wanted), 1))
    for label in np.intersect1d(labels, wanted):
        means[wanted == label] = expression[labels == label].mean(0)
    return means


def expression_baselines(
    positions_known: ArrayLike,
    expression_known: ArrayLike,
    positions_hidden: ArrayLike,
    labels_known: ArrayLike | None = None,
    labels_hidden: ArrayLike | None = None,
    *,
    seed: int | None = None,
) -> Iterator[tuple[str, Array]]:
    """Baseline predictions of the expression of hidden cells from their positions.

    - ``"constant"``: the mean of the known cells.
    - ``"knn5"``, ``"knn20"``, ``"knn50"``: the mean of the 5, 20 or 50 nearest known cells.
    - ``"gaussian"``: a Gaussian kernel with the bandwidth of :func:`leave_one_out_bandwidth`.
    - ``"donor"``: one of the 20 nearest known cells at random, for comparison with a sample.
    - ``"cell-type mean"``, with labels: an oracle, which has the types of the hidden cells.

    Parameters
    ----------
    positions_known, positions_hidden
        Coordinates in one frame, shapes ``(n, n_dims)`` and ``(m, n_dims)``.
    expression_known
        Log-normalized expression of the known cells, shape ``(n, n_genes)``.
    labels_known, labels_hidden
        Cell types, shapes ``(n,)`` and ``(m,)``; both or neither.
    seed
        Of the donors, and of the cells left out in large sections; ``None`` for
        ``al.settings.seed``.

    Returns
    -------
    iterator
        Pairs of a name and the predicted expression ``(m, n_genes)``, of the methods for which
        there are enough known cells.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> positions, expression = rng.normal(size=(60, 2)), rng.poisson(3, size=(60, 4))
    >>> [name for name, _ in expression_baselines(positions[:40], expression[:40], positions[40:])]
    ['constant', 'knn5', 'knn20', 'gaussian', 'donor']
    """
    P = checked_points(positions_known, "positions_known")
    Q = checked_points(positions_hidden, "positions_hidden")
    X = expression_matrix(expression_known, "expression_known")
    _check_same_cells(P, X, "positions_known", "expression_known")
    if P.shape[1] != Q.shape[1]:
        raise ValueError(
            "positions_known and positions_hidden must have the same dimensions, found "
            f"{P.shape[1]} and {Q.shape[1]}."
        )
    labels = None
    if labels_known is not None or labels_hidden is not None:
        labels = (
            checked_labels(np.asarray(labels_known), len(P), "labels_known"),
            checked_labels(np.asarray(labels_hidden), len(Q), "labels_hidden"),
        )
    return _expression_predictions(P, X, Q, labels, check_seed(seed))


# Apart from the public functions, so that these check their input at the call.
def _expression_predictions(
    P: Array, X: Array, Q: Array, labels: tuple[Labels, Labels] | None, seed: int
) -> Iterator[tuple[str, Array]]:
    yield "constant", np.tile(X.mean(0), (len(Q), 1))
    tree = KDTree(P)
    for k in (k for k in KNN if k <= len(P)):
        yield f"knn{k}", X[tree.query(Q, k=range(1, k + 1))[1]].mean(1)
    yield "gaussian", gaussian_smooth(P, X, Q, leave_one_out_bandwidth(P, X, seed=seed))
    donors = tree.query(Q, k=range(1, min(N_DONORS, len(P)) + 1))[1]
    yield "donor", X[choose_neighbors(donors, np.random.default_rng(seed))]
    if labels is not None:
        yield "cell-type mean", _type_means(X, *labels)


def imputation_baselines(
    spatial_visible: ArrayLike,
    reference_visible: ArrayLike,
    reference_hidden: ArrayLike,
    *,
    seed: int | None = None,
) -> Iterator[tuple[str, Array]]:
    """Baseline predictions of genes outside a panel from dissociated cells.

    - ``"constant"``: the reference mean.
    - ``"visible mean"``: the mean of a cell's visible genes for each hidden gene; no reference.
    - ``"knn5"``, ``"knn20"``, ``"knn50"``: the mean of the 5, 20 or 50 reference cells nearest by
      cosine similarity.
    - ``"donor"``: one of the 20 nearest at random.
    - ``"ridge"``: ridge regression of the hidden genes on the visible ones, fitted to the reference
      with a penalty per gene chosen by leave-one-out.
    - ``"spage"``: SpaGE (Abdelaal et al. 2020), the 50 nearest reference cells by the factors that
      both data sets share.

    Genes are z-scored in each data set separately, except in ``"visible mean (plain)"`` and
    ``"knn… (plain)"``.

    Parameters
    ----------
    spatial_visible
        Expression of the genes in the panel, shape ``(n_cells, n_visible)``, log-normalized over
        these genes only.
    reference_visible, reference_hidden
        Dissociated cells: the same genes, shape ``(m, n_visible)``, and those to predict, shape
        ``(m, n_hidden)``, log-normalized by the visible genes only.
    seed
        Of the donors.

    Returns
    -------
    iterator
        As of :func:`expression_baselines`, shape ``(n_cells, n_hidden)``, in the units of the
        reference; ``"visible mean"`` as z-scores, its plain variant in the units of the section.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> visible = rng.normal(size=(60, 5))
    >>> baselines = dict(imputation_baselines(visible[:20], visible[20:], visible[20:, :2] + 1))
    >>> baselines["ridge"].shape
    (20, 2)
    """
    S = expression_matrix(spatial_visible, "spatial_visible")
    R = expression_matrix(reference_visible, "reference_visible")
    H = expression_matrix(reference_hidden, "reference_hidden")
    if S.shape[1] != R.shape[1]:
        raise ValueError(
            "spatial_visible and reference_visible must hold the same genes, found "
            f"{S.shape[1]} and {R.shape[1]}."
        )
    _check_same_cells(R, H, "reference_visible", "reference_hidden")
    return _imputation_predictions(S, R, H, check_seed(seed))


def _imputation_predictions(S: Array, R: Array, H: Array, seed: int) -> Iterator[tuple[str, Array]]:
    yield "constant", np.tile(H.mean(0), (len(S), 1))
    S_z, R_z = z_scores(S), z_scores(R)
    for suffix, visible in (("", S_z), (" (plain)", S)):
        yield f"visible mean{suffix}", np.tile(visible.mean(1, keepdims=True), (1, H.shape[1]))
    for suffix, query, fitted in (("", S_z, R_z), (" (plain)", S, R)):
        nearest = similar_cells(query, fitted, max(KNN))
        for k in (k for k in KNN if k <= len(R)):
            yield f"knn{k}{suffix}", H[nearest[:, :k]].mean(1)
        if not suffix:
            donors = choose_neighbors(nearest[:, :N_DONORS], np.random.default_rng(seed))
            yield "donor", H[donors]
    ridge = RidgeCV(RIDGE_ALPHAS, alpha_per_target=True).fit(R_z, H)
    yield "ridge", ridge.predict(S_z).reshape(len(S), H.shape[1])
    yield "spage", principal_vector_transfer(S_z, R_z, H)
