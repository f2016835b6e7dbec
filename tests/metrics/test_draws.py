import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import special_ortho_group

import alphastomics as al
from alphastomics import metrics


def uniform(n=200, d=2, seed=0):
    return np.random.default_rng(seed).random((n, d))


def moved(points, seed=0):
    """Points in another frame, a mirror image."""
    R = special_ortho_group.rvs(points.shape[1], random_state=seed)
    R[:, 0] *= -1
    return points @ R + 7


def hexagonal(side=20, spacing=137.0):
    i, j = np.meshgrid(np.arange(side), np.arange(side))
    return spacing * np.column_stack([(i + (j % 2) / 2).ravel(), (j * np.sqrt(3) / 2).ravel()])


def two_samples_of_a_tissue(n=500, seed=0):
    """Positions and log expression of two samples of one tissue, in one frame."""
    tissue = al.datasets.simulate_tissue(n_sections=1, n_cells=2 * n, n_genes=40, seed=seed)
    counts = tissue.X.toarray().astype(float)
    X = np.log1p(counts / counts.sum(1, keepdims=True) * np.median(counts.sum(1)))
    P = tissue.obsm["spatial"]
    return P[:n], X[:n], P[n:], X[n:]


def test_energy_distance_by_hand_and_in_units_of_the_truth():
    true = [[0.0, 0], [2, 0]]  # RMS radius 1, mean distance of two, with itself, 1
    assert metrics.energy_distance(true, [[100.0, 0]]) == pytest.approx(2 * 99 - 1)
    assert metrics.energy_distance(true, [[100.0, 0], [100, 4]]) == pytest.approx(
        (100 + 98 + np.hypot(100, 4) + np.hypot(98, 4)) / 2 - 1 - 2
    )
    assert metrics.energy_distance(np.multiply(true, 9), [[900.0, 0]]) == pytest.approx(197)


@pytest.mark.parametrize("d", [2, 3])
def test_energy_distance_in_a_common_frame_and_in_any_order(d):
    x, y = uniform(80, d), uniform(50, d, seed=1) + 0.1
    before = metrics.energy_distance(x, y)
    assert metrics.energy_distance(moved(x), moved(y)) == pytest.approx(before)
    assert metrics.energy_distance(x[::-1], np.roll(y, 7, axis=0)) == pytest.approx(before)
    assert metrics.energy_distance(x, x[::-1]) == pytest.approx(0, abs=1e-12)
    assert 0 < before < metrics.energy_distance(x, y + 0.3)


def test_energy_distance_takes_a_seeded_2000_cells():
    x, y = uniform(2500), uniform(2200, seed=1)
    first, second = (metrics.energy_distance(x, y, seed=seed) for seed in (0, 1))
    assert first == metrics.energy_distance(x, y, seed=0)
    assert first != second
    assert first == pytest.approx(second, abs=0.01)


def test_energy_distance_by_type_is_the_mean_over_types_that_are_large_enough():
    true = np.concatenate([uniform(30), uniform(40, seed=1) + 2, uniform(5, seed=2) + 9])
    generated = true[::-1] + 0.5
    types = np.repeat(["a", "b", "rare"], [30, 40, 5])
    size = metrics.rms_radius(true)
    generated_types = types[::-1]
    expected = np.mean(
        [
            metrics.energy_distance(true[types == t], generated[generated_types == t])
            * metrics.rms_radius(true[types == t])
            / size
            for t in ("a", "b")
        ]
    )
    score = metrics.energy_distance_by_type(true, generated, types, generated_types)
    assert score == pytest.approx(expected)
    with_rare = metrics.energy_distance_by_type(
        true, generated, types, generated_types, min_cells=5
    )
    assert with_rare != pytest.approx(expected)
    assert np.isnan(metrics.energy_distance_by_type(true, true, types, min_cells=50))


def test_energy_distance_by_type_finds_types_that_changed_places():
    true = np.concatenate([uniform(30), uniform(30, seed=1) + 2])
    types = np.repeat(["a", "b"], 30)
    swapped = np.roll(true, 30, axis=0)
    assert metrics.energy_distance(true, swapped) == pytest.approx(0, abs=1e-12)
    assert metrics.energy_distance_by_type(true, swapped, types) > 1


def test_density_and_coverage_as_in_the_paper():
    true, generated, k = uniform(60), uniform(40, seed=1) * 1.2, 3
    radius = np.sort(cdist(true, true), axis=1)[:, k]
    inside = cdist(true, generated) < radius[:, None]
    scores = metrics.density_coverage(true, generated, k)
    assert scores["density"] == pytest.approx(inside.sum() / (k * 40))
    assert scores["coverage"] == pytest.approx(inside.any(1).mean())
    turned = metrics.density_coverage(moved(true), moved(generated), k)
    assert turned == pytest.approx(scores)


def test_density_and_coverage_of_a_copy_of_a_collapse_and_of_another_place():
    true = uniform(300)
    assert metrics.density_coverage(true, true[::-1]) == {"density": 1, "coverage": 1}
    collapsed = metrics.density_coverage(true, np.repeat(true[:1], 300, axis=0))
    assert collapsed["coverage"] < 0.05
    assert metrics.density_coverage(true, true + 10) == {"density": 0, "coverage": 0}


def test_spacing_of_a_lattice_scaled_by_two_and_of_stacked_cells():
    lattice = hexagonal()
    scores = metrics.nearest_neighbor_scores(lattice, 2 * moved(lattice))
    assert scores == pytest.approx({"nn_ratio": 2, "nn_ks": 1})
    stacked = metrics.nearest_neighbor_scores(lattice, np.repeat(lattice[::4], 4, axis=0))
    assert stacked == {"nn_ratio": 0, "nn_ks": 1}


@pytest.mark.parametrize("points", [hexagonal(), uniform(2500), uniform(2500, 3)])
def test_a_moved_copy_has_the_spacing_and_the_pairs_of_the_truth(points):
    """All of its cells: a subsample would be spaced more widely; ties differ by rounding only."""
    copy = moved(points)
    assert metrics.nearest_neighbor_scores(points, copy) == pytest.approx(
        {"nn_ratio": 1, "nn_ks": 0}, abs=1e-3
    )
    assert metrics.pair_correlation_distance(points, copy) == pytest.approx(0, abs=1e-3)


def test_independent_cells_are_more_clumped_than_a_lattice():
    lattice = hexagonal()
    independent = uniform(400) * np.ptp(lattice, axis=0)
    scores = metrics.nearest_neighbor_scores(lattice, independent)
    assert scores["nn_ratio"] == pytest.approx(0.45, abs=0.1)
    assert metrics.pair_correlation_distance(lattice, independent) > 0.3


@pytest.mark.parametrize("d", [2, 3])
def test_pair_correlation_by_hand_and_of_independent_cells(d):
    points = uniform(3000, d)
    radii = np.array([0.02, 0.05, 0.08])
    g = metrics.pair_correlation(points, radii)
    distance = cdist(points, points)
    pairs = np.array(
        [((distance > a) & (distance <= b)).sum() for a, b in ((0.02, 0.05), (0.05, 0.08))]
    )
    shell = np.pi * np.diff(radii**2) if d == 2 else 4 / 3 * np.pi * np.diff(radii**3)
    np.testing.assert_allclose(g, pairs / (3000 * 3000 * shell), rtol=0.05)  # unit cube, hull ~ 1
    np.testing.assert_allclose(g, 1, atol=0.15)
    np.testing.assert_allclose(metrics.pair_correlation(moved(3 * points), 3 * radii), g)


def test_coincident_cells_are_pairs_of_the_first_shell():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    density, disc = 8, np.pi * 0.1**2
    g = metrics.pair_correlation(np.repeat(square, 2, axis=0), [0, 0.1, 0.2])
    np.testing.assert_allclose(g, [8 / (8 * density * disc), 0])


def test_surroundings_of_a_square():
    points = np.array([[0.0, 0], [4, 0], [4, 4], [0, 4], [1, 2]])
    components = np.arange(5.0)[:, None]
    features = metrics.surroundings(points, components, n_neighbors=2)
    assert features.shape == (5, 6)
    np.testing.assert_allclose(features[:, 0], components[:, 0])
    assert features[4, 1] == pytest.approx((0 + 3) / 2)
    np.testing.assert_allclose(np.exp(features[4, 2:5]), np.sqrt(5))
    np.testing.assert_allclose(features[:, 5], [0, 0, 0, 0, 1])


def test_surroundings_do_not_depend_on_the_frame_or_the_order():
    points, components = uniform(300, 3), uniform(300, 4, seed=1)
    features = metrics.surroundings(points, components)
    np.testing.assert_allclose(metrics.surroundings(moved(points), components), features, atol=2e-6)
    order = np.random.default_rng(2).permutation(300)
    shuffled = metrics.surroundings(points[order], components[order])
    np.testing.assert_allclose(shuffled, features[order], atol=2e-6)


def test_cells_of_other_groups_are_not_averaged():
    points, components = uniform(100), uniform(100, 2, seed=1)
    group = np.arange(100) % 2
    features = metrics.surroundings(points, components, 5, groups=group)
    apart = metrics.surroundings(points[group == 1], components[group == 1], 5)
    np.testing.assert_allclose(features[group == 1, 2:4], apart[:, 2:4])
    changed = np.where(group[:, None] == 0, 100, components)
    again = metrics.surroundings(points, changed, 5, groups=group)
    np.testing.assert_array_equal(again[group == 1], features[group == 1])


def test_auc_of_two_samples_of_one_tissue_is_chance():
    """Random folds of cells would give .98: a test cell resembles its neighbors in training."""
    areas = [
        metrics.two_sample_auc(*two_samples_of_a_tissue(seed=seed), n_splits=1) for seed in range(6)
    ]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.1)


def test_auc_of_shuffled_and_of_scattered_positions():
    P, X, _, _ = two_samples_of_a_tissue()
    rng = np.random.default_rng(0)
    assert metrics.two_sample_auc(P, X, P[rng.permutation(500)], X, n_splits=1) > 0.8
    scattered = P + rng.normal(size=P.shape) * 0.3 * metrics.rms_radius(P)
    for classifier in ("gradient_boosting", "logistic"):
        area = metrics.two_sample_auc(P, X, scattered, X, classifier=classifier, n_splits=1)
        assert area > 0.8


def test_auc_of_the_same_cells_at_the_same_places_is_a_half():
    """A copy of a cell in training would otherwise give its twin away under the wrong label."""
    P, X, _, _ = two_samples_of_a_tissue(200)
    assert metrics.two_sample_auc(P, X, P.copy(), X.copy(), n_splits=2) == 0.5
    turned = metrics.two_sample_auc(P, X, moved(P), X, n_splits=2)
    assert turned == pytest.approx(0.5, abs=0.03)


def test_auc_does_not_depend_on_the_frame_or_the_unit_and_follows_its_seed():
    P, X, Q, Y = two_samples_of_a_tissue(150)
    first = metrics.two_sample_auc(P, X, Q + 0.2 * P, Y, n_splits=1)
    assert metrics.two_sample_auc(P, X, Q + 0.2 * P, Y, n_splits=1) == first
    other = metrics.two_sample_auc(moved(3 * P), X, moved(3 * (Q + 0.2 * P), 1), Y, n_splits=1)
    assert other == pytest.approx(first, abs=0.03)
    assert metrics.two_sample_auc(P, X, Q + 0.2 * P, Y, n_splits=1, seed=1) != first


@pytest.mark.filterwarnings("error")
def test_auc_of_large_sections_and_of_constant_expression():
    P, Q = uniform(2500), uniform(2500, seed=1)
    zeros = [np.zeros((len(points), 3)) for points in (P, Q)]
    area = metrics.two_sample_auc(P, zeros[0], Q, zeros[1], classifier="logistic")
    assert area == pytest.approx(0.5, abs=0.05)


LINE = np.column_stack([np.arange(50.0), np.zeros(50)])
POINTS, GENES = uniform(50), uniform(50, 6, seed=1)
SAME_PLACE = np.ones((50, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.energy_distance(SAME_PLACE, POINTS), "all true positions coincide"),
        (lambda: metrics.energy_distance(POINTS, uniform(9, 3)), "same dimensions, found 2 and 3"),
        (
            lambda: metrics.energy_distance(POINTS, POINTS[:0]),
            "generated must have at least 1 cell",
        ),
        (lambda: metrics.energy_distance(POINTS, POINTS * np.nan), "generated holds values that"),
        (
            lambda: metrics.energy_distance_by_type(POINTS, POINTS, ["a"]),
            r"labels must have one entry per cell, shape \(50,\)",
        ),
        (
            lambda: metrics.energy_distance_by_type(POINTS, POINTS[:9], ["a"] * 50),
            r"generated_labels must have one entry per cell, shape \(9,\)",
        ),
        (lambda: metrics.density_coverage(POINTS[:5], POINTS), "k must be between 1 and .*= 4"),
        (lambda: metrics.density_coverage(SAME_PLACE, POINTS), "all true positions coincide"),
        (
            lambda: metrics.nearest_neighbor_scores(POINTS, POINTS[:1]),
            "generated must have at least 2 cells, found 1",
        ),
        (
            lambda: metrics.nearest_neighbor_scores(POINTS.repeat(2, axis=0), POINTS),
            "true holds coincident cells",
        ),
        (lambda: metrics.pair_correlation(LINE, [0, 1]), "points has no convex hull"),
        (lambda: metrics.pair_correlation(POINTS, [0, 2, 1]), "radii must increase"),
        (lambda: metrics.pair_correlation(POINTS, [-1, 2]), "radii must be at least 2 finite"),
        (lambda: metrics.pair_correlation_distance(POINTS, SAME_PLACE), "generated has no convex"),
        (lambda: metrics.pair_correlation_distance(POINTS, POINTS, 0), "n_shells must be"),
        (lambda: metrics.surroundings(POINTS[:20], GENES[:20]), "points must have at least 21"),
        (
            lambda: metrics.surroundings(POINTS, GENES[:9]),
            "points and components must hold the same",
        ),
        (
            lambda: metrics.surroundings(POINTS, GENES, groups=np.arange(50) % 5),
            r"groups must have at least n_neighbors \+ 1 = 21 cells each, found one of 10",
        ),
        (
            lambda: metrics.two_sample_auc(POINTS[:41], GENES[:41], POINTS, GENES),
            "true_points must have at least 42 cells, found 41",
        ),
        (
            lambda: metrics.two_sample_auc(POINTS, GENES, POINTS, GENES[:, :2]),
            "true_expression and generated_expression must have the same columns, found 6 and 2",
        ),
        (
            lambda: metrics.two_sample_auc(POINTS, GENES, POINTS, GENES[:4]),
            "generated_points and generated_expression must hold the same cells",
        ),
        (
            lambda: metrics.two_sample_auc(POINTS, GENES, LINE, GENES),
            "generated_points has no convex hull",
        ),
        (lambda: metrics.two_sample_auc(SAME_PLACE, GENES, POINTS, GENES), "all true positions"),
        (
            lambda: metrics.two_sample_auc(POINTS, GENES, POINTS, GENES, classifier="forest"),
            "classifier must be one of gradient_boosting, logistic; found 'forest'",
        ),
        (
            lambda: metrics.two_sample_auc(POINTS, GENES, POINTS, GENES, n_splits=0),
            "n_splits must be at least 1",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
