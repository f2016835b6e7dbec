import numpy as np
import pytest

from alphastomics import metrics
from alphastomics.tl import expression_scores


@pytest.fixture
def hidden():
    """Positions, true and predicted expression of hidden cells."""
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(120, 2))
    true = np.log1p(rng.poisson(np.exp(positions @ rng.normal(size=(2, 8)))))
    return positions, true, true + 0.5 * rng.gamma(1.0, size=true.shape)


def test_medians_over_genes_of_the_metrics(hidden):
    positions, true, predicted = hidden
    covariate = true[:, :4].mean(1)
    scores = expression_scores(true, predicted, positions, covariate)
    partial = metrics.partial_pcc(true, predicted, covariate)
    moran = [metrics.morans_i(values, positions) for values in (true, predicted)]
    expected = {
        "pcc": np.median(metrics.pcc(true, predicted)),
        "pcc_mean": metrics.pcc(true, predicted).mean(),
        "ssim": np.median(metrics.ssim(true, predicted)),
        "rmse": np.median(metrics.expression_rmse(true, predicted)),
        "js": np.median(metrics.jensen_shannon(true, predicted)),
        "partial_pcc": np.median(partial),
        "partial_pcc_mean": partial.mean(),
        "moran_concordance": metrics.lins_concordance(*moran),
        "moran_difference": np.abs(moran[0] - moran[1]).mean(),
        "moran_true": np.median(moran[0]),
        "moran_predicted": np.median(moran[1]),
        "n_cells": 120,
        "n_genes": 8,
    }
    assert scores == pytest.approx(expected)
    assert list(scores) == list(expected)


def test_what_is_not_given_is_not_scored(hidden):
    _, true, predicted = hidden
    names = {"pcc", "pcc_mean", "ssim", "rmse", "js", "n_cells", "n_genes"}
    assert set(expression_scores(true, predicted)) == names


def test_genes_constant_in_the_truth_are_left_out(hidden):
    positions, true, predicted = hidden
    wider = [np.insert(values, 3, fill, axis=1) for values, fill in ((true, 0.1), (predicted, 2))]
    assert expression_scores(*wider, positions) == expression_scores(true, predicted, positions)
    with pytest.raises(ValueError, match="true is constant in every gene"):
        expression_scores(np.ones((5, 2)), np.ones((5, 2)))


def test_few_cells_have_fewer_neighbors(hidden):
    positions, true, predicted = (values[:5] for values in hidden)
    assert np.isfinite(expression_scores(true, predicted, positions)["moran_concordance"])


def test_a_smoother_wins_the_correlation_and_loses_morans_i(hidden):
    positions, true, _ = hidden
    smooth = true[np.argsort(((positions[:, None] - positions) ** 2).sum(-1), 1)[:, 1:21]].mean(1)
    noisy = true[np.random.default_rng(1).permutation(len(true))]
    assert expression_scores(true, smooth)["pcc"] > expression_scores(true, noisy)["pcc"] + 0.2
    moran = expression_scores(true, smooth, positions)
    assert moran["moran_predicted"] > moran["moran_true"] + 0.2
    assert moran["moran_concordance"] < 0.5
