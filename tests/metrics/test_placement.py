import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group, spearmanr
from sklearn.neighbors import NearestNeighbors

from alphastomics import metrics


@pytest.fixture
def true():
    return np.random.default_rng(0).normal(size=(60, 2)) * [2, 1]


@pytest.fixture
def predicted(true):
    return true + np.random.default_rng(1).normal(size=true.shape)


INVARIANT = {
    "distance_spearman": metrics.distance_spearman,
    "procrustes_rmse": metrics.procrustes_rmse,
    "rigid_rmse": lambda t, p: metrics.procrustes_rmse(t, p, allow_scale=False),
    "neighbor_recall": lambda t, p: metrics.neighbor_recall(t, p, 5),
    "contact_precision": lambda t, p: metrics.contact_precision(t, p, 0.1),
    "rssd": metrics.rssd,
    "niche_cosine": lambda t, p: metrics.niche_cosine(t, p, np.arange(len(t)) % 4, 5),
    "spread": metrics.spread,
}


@pytest.mark.parametrize("metric", INVARIANT.values(), ids=INVARIANT.keys())
def test_invariant_to_rotation_mirror_image_and_shift(metric, true, predicted):
    moved = predicted @ ortho_group.rvs(2, random_state=3) + [100, -5]
    assert metric(true, moved) == pytest.approx(metric(true, predicted), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "perfect"),
    [
        ("distance_spearman", 1),
        ("procrustes_rmse", 0),
        ("rigid_rmse", 0),
        ("neighbor_recall", 1),
        ("contact_precision", 1),
        ("rssd", 0),
        ("niche_cosine", 1),
        ("spread", 1),
    ],
)
def test_value_of_a_perfect_placement(name, perfect, true):
    assert INVARIANT[name](true, true) == pytest.approx(perfect, abs=1e-9)


def test_distance_spearman_is_scipys_row_by_row(true, predicted):
    D, D_hat = cdist(true, true), cdist(predicted, predicted)
    rows = []
    for i in range(len(true)):
        others = np.arange(len(true)) != i
        rows.append(spearmanr(D[i, others], D_hat[i, others]).statistic)
    np.testing.assert_allclose(metrics.distance_spearman_per_cell(true, predicted), rows)
    assert metrics.distance_spearman(true, predicted) == pytest.approx(np.mean(rows))


def test_distance_spearman_of_large_sections_scores_a_seeded_2000():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(2500, 2))
    noisy = true + 0.5 * rng.normal(size=true.shape)
    assert len(metrics.distance_spearman_per_cell(true, noisy)) == 2000
    first, second = (metrics.distance_spearman(true, noisy, seed=s) for s in (0, 1))
    assert first == metrics.distance_spearman(true, noisy, seed=0)
    assert first != second
    assert first == pytest.approx(second, abs=0.02)


def test_constant_prediction_has_no_distance_correlation(true):
    assert metrics.distance_spearman(true, np.zeros_like(true)) == 0.0


def test_neighbor_recall_is_that_of_scikit_learn(true, predicted):
    sets = [
        NearestNeighbors(n_neighbors=7).fit(X).kneighbors(return_distance=False)
        for X in (true, predicted)
    ]
    by_hand = np.mean([len(set(a) & set(b)) / 7 for a, b in zip(*sets, strict=True)])
    assert metrics.neighbor_recall(true, predicted, 7) == pytest.approx(by_hand)


def test_neighbors_exclude_the_cell_itself_even_among_coincident_points():
    true = np.arange(8.0)[:, None] * [1, 0]
    collapsed = np.zeros((8, 2))
    assert 0 <= metrics.neighbor_recall(true, collapsed, 2) <= 1


def test_contact_precision_by_hand():
    true = np.array([[0.0, 0], [1, 0], [5, 0], [20, 0]])
    predicted = np.array([[0.0, 0], [9, 0], [1, 0], [30, 0]])  # nearest pair: 0 and 2
    assert metrics.contact_precision(true, predicted, 0.1) == 0.0
    assert metrics.contact_precision(true, true, 0.1) == 1.0


def test_rssd_and_rmse_agree(true, predicted):
    rigid = metrics.procrustes_rmse(true, predicted, allow_scale=False, relative=False)
    assert metrics.rssd(true, predicted) / np.sqrt(len(true)) == pytest.approx(rigid)


def test_niche_cosine_by_hand():
    line = np.arange(6.0)[:, None] * [1, 0]
    labels = ["a", "a", "a", "b", "b", "b"]
    swapped = line[[0, 4, 2, 3, 1, 5]]
    assert metrics.niche_cosine(line, line, labels, 2) == pytest.approx(1)
    assert metrics.niche_cosine(line, swapped, labels, 2) < 1


def test_spread_of_a_shrunk_placement(true):
    assert metrics.spread(true, 0.5 * true) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: metrics.neighbor_recall(t, t, len(t)), "k must be between 1 and"),
        (lambda t: metrics.contact_precision(t, t, 1.5), "q must be between 0 and 1"),
        (lambda t: metrics.niche_cosine(t, t, ["a"], 5), "labels must have one entry per cell"),
        (lambda t: metrics.distance_spearman(t[:2], t[:2]), "at least 3 cells"),
    ],
)
def test_bad_arguments_are_named(call, message, true):
    with pytest.raises(ValueError, match=message):
        call(true)


@pytest.mark.parametrize("metric", [metrics.spread, metrics.procrustes_rmse])
def test_tissue_without_a_size_is_an_error(metric):
    with pytest.raises(ValueError, match="all true positions coincide"):
        metric(np.ones((5, 2)), np.eye(5, 2))
