import numpy as np
import pytest
from scipy.stats import ortho_group, spearmanr

from alphastomics import metrics


@pytest.fixture(params=[2, 3])
def placed(request):
    """True and predicted positions, and radii that know the errors in part."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(200, request.param)) * 10
    scale = rng.gamma(2.0, size=200)
    return true, true + scale[:, None] * rng.normal(size=true.shape), 2 * scale


def test_coverage_counts_the_errors_within_the_radius(placed):
    true, predicted, radius = placed
    errors = np.linalg.norm(true - predicted, axis=1)
    assert metrics.coverage(true, predicted, radius, align=False) == (errors <= radius).mean()
    assert metrics.coverage(true, predicted, np.quantile(errors, 0.9), align=False) == 0.9


def test_scores_after_superposition_ignore_the_frame_but_not_the_size(placed):
    true, predicted, radius = placed
    moved = predicted @ ortho_group.rvs(true.shape[1], random_state=0) + 100
    before = metrics.radius_scores(true, predicted, radius)
    assert metrics.radius_scores(true, moved, radius) == pytest.approx(before)
    assert metrics.coverage(true, moved, radius) == before["coverage"]
    assert metrics.coverage(true, moved, radius, align=False) == 0
    assert metrics.coverage(true, true / 3, 1.0) < 0.5
    scaled = metrics.radius_scores(7 * true, 7 * predicted, 7 * radius)
    assert scaled == pytest.approx(before)


def test_radius_scores_by_their_definitions(placed):
    true, predicted, radius = placed
    scores = metrics.radius_scores(true, predicted, radius, align=False)
    errors = np.linalg.norm(true - predicted, axis=1)
    assert scores["radius"] == pytest.approx(np.median(radius) / metrics.rms_radius(true))
    expected = spearmanr(radius, errors).statistic
    assert scores["radius_error_spearman"] == pytest.approx(expected)
    assert expected > 0.3


def test_a_huge_constant_radius_covers_and_is_found_out(placed):
    true, predicted, _ = placed
    scores = metrics.radius_scores(true, predicted, 1e6)
    assert scores["coverage"] == 1
    assert scores["radius"] > 1e3
    assert scores["radius_error_spearman"] == 0


@pytest.mark.parametrize(
    ("radius", "message"),
    [
        (np.ones(3), r"radius must be one number or have shape \(200,\)"),
        (-1.0, "radius must be finite and not negative"),
        (np.nan, "radius must be finite and not negative"),
    ],
)
def test_bad_radii_are_named(placed, radius, message):
    with pytest.raises(ValueError, match=message):
        metrics.coverage(placed[0], placed[1], radius)
