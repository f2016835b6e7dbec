import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import KNeighborsRegressor

from alphastomics import metrics
from alphastomics.tl._expression_baselines import (
    expression_baselines,
    gaussian_smooth,
    imputation_baselines,
    leave_one_out_bandwidth,
)


def section(n=300, d=2, seed=0):
    """Positions, expression that follows them, and labels that follow it."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-2, 2, size=(n, d))
    rate = np.exp(np.sin(2 * positions @ rng.normal(size=(d, 6))))
    expression = np.log1p(rng.poisson(2 * rate))
    return positions, expression, np.where(expression[:, 0] > 1, "a", "b")


def split_baselines(d=2, seed=0):
    positions, expression, labels = section(d=d)
    return expression[200:], dict(
        expression_baselines(
            positions[:200],
            expression[:200],
            positions[200:],
            labels[:200],
            labels[200:],
            seed=seed,
        )
    )


@pytest.mark.parametrize("d", [2, 3])
def test_expression_baselines_are_those_of_the_protocol(d):
    true, baselines = split_baselines(d)
    names = ["constant", "knn5", "knn20", "knn50", "gaussian", "donor", "cell-type mean"]
    assert list(baselines) == names
    assert all(predicted.shape == true.shape for predicted in baselines.values())
    pcc = {name: np.median(metrics.pcc(true, predicted)) for name, predicted in baselines.items()}
    assert pcc["constant"] == 0
    assert pcc["gaussian"] > pcc["donor"]
    assert pcc["gaussian"] > 0.15


def test_knn_baselines_are_those_of_scikit_learn():
    positions, expression, _ = section()
    _, baselines = split_baselines()
    for k in (5, 20, 50):
        knn = KNeighborsRegressor(k).fit(positions[:200], expression[:200])
        np.testing.assert_allclose(baselines[f"knn{k}"], knn.predict(positions[200:]))
    np.testing.assert_allclose(baselines["constant"], expression[:200].mean(0)[None].repeat(100, 0))


def test_donors_are_whole_cells_among_the_20_nearest_and_follow_the_seed():
    positions, expression, _ = section()
    _, baselines = split_baselines()
    nearest = cdist(positions[200:], positions[:200]).argsort(1)[:, :20]
    for donor, candidates in zip(baselines["donor"], nearest, strict=True):
        assert (expression[candidates] == donor).all(1).any()
    np.testing.assert_array_equal(split_baselines()[1]["donor"], baselines["donor"])
    assert (split_baselines(seed=1)[1]["donor"] != baselines["donor"]).any()


def test_cell_type_means_and_the_mean_of_all_for_a_type_no_known_cell_has():
    positions, expression, labels = section()
    baselines = dict(
        expression_baselines(
            positions[:200], expression[:200], positions[200:202], labels[:200], ["a", "new"]
        )
    )
    expected = [expression[:200][labels[:200] == "a"].mean(0), expression[:200].mean(0)]
    np.testing.assert_allclose(baselines["cell-type mean"], expected)


def test_baselines_do_not_depend_on_the_frame():
    positions, expression, _ = section()
    moved = 3 * positions @ [[0, 1], [1, 0]] + 5
    before = dict(expression_baselines(positions[:200], expression[:200], positions[200:]))
    after = dict(expression_baselines(moved[:200], expression[:200], moved[200:]))
    for name, predicted in before.items():
        np.testing.assert_allclose(after[name], predicted)


def dense_smooth(P, X, Q, h, leave_out=False):
    distances = cdist(Q, P)
    W = np.where(distances <= 3 * h, np.exp(-((distances / h) ** 2) / 2), 0)
    if leave_out:
        np.fill_diagonal(W, 0)
    return W @ X / W.sum(1, keepdims=True)


def test_gaussian_smooth_is_the_dense_kernel_average():
    positions, expression, _ = section(2500)
    P, Q, X = positions[:1000], positions[1000:], expression[:1000].astype(float)
    np.testing.assert_allclose(gaussian_smooth(P, X, Q, 0.5), dense_smooth(P, X, Q, 0.5))
    itself = np.arange(1000)
    left_out = gaussian_smooth(P, X, P, 0.5, itself)
    np.testing.assert_allclose(left_out, dense_smooth(P, X, P, 0.5, leave_out=True))


def test_gaussian_smooth_takes_the_nearest_other_cell_where_none_is_near():
    P, X = np.array([[0.0], [1.0], [5.0]]), np.array([[1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(gaussian_smooth(P, X, np.array([[9.0]]), 0.1), [[3.0]])
    left_out = gaussian_smooth(P, X, P, 0.1, np.arange(3))
    np.testing.assert_array_equal(left_out, [[2.0], [1.0], [2.0]])


def test_bandwidth_has_the_least_leave_one_out_error_and_follows_the_pattern():
    positions, expression, _ = section()
    best = leave_one_out_bandwidth(positions, expression)
    Z = (expression - expression.mean(0)) / expression.std(0)

    def error(h):
        return np.square(dense_smooth(positions, Z, positions, h, leave_out=True) - Z).sum()

    assert all(error(best) <= error(best * factor) for factor in (2, 4))
    noise = np.random.default_rng(1).normal(size=(300, 6))
    assert leave_one_out_bandwidth(positions, noise) > best
    assert leave_one_out_bandwidth(10 * positions, 3 * expression + 1) == pytest.approx(10 * best)


def test_baselines_that_need_more_cells_are_left_out():
    positions, expression, _ = section(12)
    baselines = dict(expression_baselines(positions[:10], expression[:10], positions[10:]))
    assert list(baselines) == ["constant", "knn5", "gaussian", "donor"]


def panel(seed=0):
    """A section and dissociated cells of the same types: visible and hidden genes of each."""
    rng = np.random.default_rng(seed)
    programs = rng.gamma(1.0, size=(4, 15))
    section, reference = (
        np.log1p(rng.poisson(4 * programs[rng.integers(4, size=n)])).astype(float)
        for n in (200, 300)
    )
    return section[:, :10], reference[:, :10], reference[:, 10:], section[:, 10:]


def test_imputation_baselines_are_those_of_the_protocol():
    *inputs, true = panel()
    baselines = dict(imputation_baselines(*inputs))
    assert set(baselines) == {
        *("constant", "visible mean", "visible mean (plain)", "donor", "ridge", "spage"),
        *(f"knn{k}{suffix}" for k in (5, 20, 50) for suffix in ("", " (plain)")),
    }
    assert all(predicted.shape == true.shape for predicted in baselines.values())
    for name in ("knn50", "ridge", "spage"):
        assert np.median(metrics.pcc(true, baselines[name])) > 0.5
    np.testing.assert_allclose(baselines["visible mean (plain)"][:, 2], inputs[0].mean(1))
    again = dict(imputation_baselines(*inputs))
    np.testing.assert_array_equal(again["donor"], baselines["donor"])


def test_knn_transfer_is_scikit_learns_and_blind_to_the_platform():
    visible, reference, hidden, _ = panel()
    baselines = dict(imputation_baselines(visible, reference, hidden))
    z, z_reference = ((X - X.mean(0)) / X.std(0) for X in (visible, reference))
    knn = KNeighborsRegressor(20, metric="cosine", algorithm="brute")
    np.testing.assert_allclose(baselines["knn20"], knn.fit(z_reference, hidden).predict(z))
    plain = knn.fit(reference, hidden).predict(visible)
    np.testing.assert_allclose(baselines["knn20 (plain)"], plain)
    shifted = dict(imputation_baselines(3 * visible + np.arange(10), reference, hidden))
    for name in ("knn20", "ridge", "spage", "visible mean"):
        np.testing.assert_allclose(shifted[name], baselines[name])


def test_spage_compares_cells_by_what_both_data_sets_share():
    """Genes that vary in the section alone are noise: they must not decide who is similar."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(400, 1))
    loading = rng.normal(size=(1, 12))
    cells = shared @ loading + 0.3 * rng.normal(size=(400, 12))
    artefact = np.zeros((150, 12))
    artefact[:, :4] = rng.normal(size=(150, 1)) * 4
    predicted = dict(imputation_baselines(cells[:150] + artefact, cells[150:], shared[150:]))
    true = shared[:150]
    assert metrics.pcc(true, predicted["spage"])[0] > 0.7


def test_spage_of_cells_without_a_similar_one_is_finite():
    visible = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    predicted = dict(imputation_baselines(visible, np.abs(visible), visible[:, :1]))["spage"]
    assert np.isfinite(predicted).all()


def test_one_hidden_gene_keeps_its_axis():
    visible, reference, hidden, _ = panel()
    for _, predicted in imputation_baselines(visible, reference, hidden[:, :1]):
        assert predicted.shape == (200, 1)


def test_bad_inputs_are_named_at_the_call():
    P, X, labels = section(30)
    with pytest.raises(ValueError, match="positions_known and expression_known must hold the same"):
        expression_baselines(P, X[:20], P)
    with pytest.raises(ValueError, match="same dimensions, found 2 and 1"):
        expression_baselines(P, X, P[:, :1])
    with pytest.raises(ValueError, match="labels_hidden must have one entry per cell"):
        expression_baselines(P, X, P, labels)
    with pytest.raises(ValueError, match="positions coincide"):
        leave_one_out_bandwidth(np.zeros((30, 2)), X)
    with pytest.raises(
        ValueError, match="spatial_visible and reference_visible must hold the same"
    ):
        imputation_baselines(X, X[:, :3], X)
    with pytest.raises(ValueError, match="reference_visible and reference_hidden must hold"):
        imputation_baselines(X, X, X[:9])
