import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.spatial.distance import jensenshannon
from scipy.stats import pearsonr, zscore
from sklearn.linear_model import LinearRegression

from alphastomics import metrics


@pytest.fixture
def true():
    return np.random.default_rng(0).gamma(1.5, size=(80, 6))


@pytest.fixture
def predicted(true):
    return true + np.random.default_rng(1).gamma(2.0, size=true.shape)


PER_GENE = {
    "pcc": metrics.pcc,
    "ssim": metrics.ssim,
    "expression_rmse": metrics.expression_rmse,
    "jensen_shannon": metrics.jensen_shannon,
    "partial_pcc": lambda t, p: metrics.partial_pcc(t, p, np.sin(np.arange(len(t)))),
}
each = pytest.mark.parametrize("metric", PER_GENE.values(), ids=PER_GENE.keys())


@each
def test_one_value_per_gene_whatever_its_scale(metric, true, predicted):
    scores = metric(true, predicted)
    assert scores.shape == (6,)
    np.testing.assert_allclose(metric(3 * true, 7 * predicted), scores)


@each
def test_genes_are_scored_one_by_one(metric, true, predicted):
    order = [3, 0, 5]
    scores = metric(true[:, order], predicted[:, order])
    np.testing.assert_allclose(scores, metric(true, predicted)[order])


@pytest.mark.parametrize("name", ["pcc", "ssim", "expression_rmse", "jensen_shannon"])
def test_cells_may_come_in_any_order(name, true, predicted):
    order = np.random.default_rng(2).permutation(len(true))
    scores = PER_GENE[name](true[order], predicted[order])
    np.testing.assert_allclose(scores, PER_GENE[name](true, predicted))


@pytest.mark.parametrize(
    ("name", "perfect"),
    [("pcc", 1), ("ssim", 1), ("expression_rmse", 0), ("jensen_shannon", 0), ("partial_pcc", 1)],
)
def test_value_of_a_perfect_prediction(name, perfect, true):
    np.testing.assert_allclose(PER_GENE[name](true, true), perfect, atol=1e-9)


def test_pcc_is_scipys_and_ignores_a_shift(true, predicted):
    expected = [pearsonr(t, p).statistic for t, p in zip(true.T, predicted.T, strict=True)]
    np.testing.assert_allclose(metrics.pcc(true, predicted), expected)
    np.testing.assert_allclose(metrics.pcc(true + 5, predicted - 3), expected)


def test_expression_rmse_is_the_error_of_z_scores(true, predicted):
    expected = np.sqrt(np.square(zscore(true) - zscore(predicted)).mean(0))
    scores = metrics.expression_rmse(true, predicted)
    np.testing.assert_allclose(scores, expected)
    np.testing.assert_allclose(scores, np.sqrt(2 * (1 - metrics.pcc(true, predicted))))


def test_partial_pcc_is_the_correlation_of_residuals(true, predicted):
    covariate = true.mean(1) + np.random.default_rng(3).normal(size=len(true))
    C = covariate[:, None]
    rest = [X - LinearRegression().fit(C, X).predict(C) for X in (true, predicted)]
    scores = metrics.partial_pcc(true, predicted, covariate)
    np.testing.assert_allclose(scores, metrics.pcc(*rest))
    np.testing.assert_allclose(metrics.partial_pcc(true, predicted, 3 * covariate - 2), scores)


def test_partial_pcc_sees_nothing_in_the_covariate_itself(true):
    covariate = true.mean(1)
    same = np.tile(covariate[:, None], (1, 6)).astype(np.float32)
    np.testing.assert_array_equal(metrics.partial_pcc(true, same, covariate), 0)
    assert (metrics.pcc(true, same) > 0.1).all()


def test_partial_pcc_of_a_constant_covariate_is_pcc(true, predicted):
    scores = metrics.partial_pcc(true, predicted, np.full(len(true), 0.1))
    np.testing.assert_allclose(scores, metrics.pcc(true, predicted))


def test_ssim_by_hand():
    true, predicted = np.array([[0.0], [2.0]]), np.array([[4.0], [0.0]])  # scaled: 0 1 and 1 0
    c2 = 0.03**2
    expected = (-0.25 + c2 / 2) / (0.25 + c2 / 2)  # means and standard deviations agree
    np.testing.assert_allclose(metrics.ssim(true, predicted), expected)


def test_ssim_of_a_constant_prediction_by_hand():
    true, predicted = np.array([[0.0], [1.0]]), np.array([[3.0], [3.0]])
    luminance = (2 * 0.5 * 1 + 0.01**2) / (0.25 + 1 + 0.01**2)
    contrast = 0.03**2 / (0.25 + 0.03**2)
    np.testing.assert_allclose(metrics.ssim(true, predicted), luminance * contrast)


def test_jensen_shannon_is_the_square_of_scipys_distance(true, predicted):
    expected = jensenshannon(true, predicted, axis=0) ** 2
    np.testing.assert_allclose(metrics.jensen_shannon(true, predicted), expected)


def test_jensen_shannon_of_disjoint_genes_is_ln_2_and_of_silent_ones_even():
    true = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    predicted = np.array([[-1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    even = jensenshannon([0, 1], [0.5, 0.5]) ** 2
    scores = metrics.jensen_shannon(true, predicted)
    np.testing.assert_allclose(scores, [np.log(2), even, 0], atol=1e-12)


def test_constant_genes_get_the_documented_values(true):
    constant = np.full_like(true, 0.1)
    np.testing.assert_array_equal(metrics.pcc(true, constant), 0)
    np.testing.assert_array_equal(metrics.pcc(constant, true), 0)
    np.testing.assert_allclose(metrics.expression_rmse(true, constant), 1)
    np.testing.assert_array_equal(metrics.expression_rmse(constant, 2 * constant), 0)
    zero = np.zeros_like(true)
    np.testing.assert_allclose(metrics.ssim(zero, zero), 1)


@each
def test_bad_expression_is_named(metric, true):
    with pytest.raises(ValueError, match=r"same cells and genes, found \(80, 6\) and \(80, 5\)"):
        metric(true, true[:, :5])
    with pytest.raises(ValueError, match="predicted holds values that are not finite"):
        metric(true, np.full_like(true, np.nan))
    with pytest.raises(ValueError, match=r"true must have shape \(n_cells, n_genes\)"):
        metric(true[:, 0], true)
    with pytest.raises(ValueError, match=r"predicted is sparse: pass predicted.toarray\(\)"):
        metric(true, csr_matrix(true))


def test_bad_covariates_and_negative_truth_are_named(true):
    with pytest.raises(ValueError, match="covariate must have one number per cell"):
        metrics.partial_pcc(true, true, [1.0, 2.0])
    with pytest.raises(ValueError, match="covariate holds values that are not finite"):
        metrics.partial_pcc(true, true, np.full(len(true), np.inf))
    with pytest.raises(ValueError, match="true must not be negative"):
        metrics.jensen_shannon(-true, true)
