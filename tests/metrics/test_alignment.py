import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group, special_ortho_group

from alphastomics import metrics


def points(n=40, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1)


@given(seed=st.integers(0, 1000), d=st.sampled_from([2, 3]))
def test_superpose_undoes_any_rotation_mirror_image_and_shift(seed, d):
    true = points(d=d, seed=seed)
    moved = true @ ortho_group.rvs(d, random_state=seed) + 7
    np.testing.assert_allclose(metrics.superpose(moved, true), true, atol=1e-9)


def test_superpose_keeps_handedness_and_size_unless_allowed():
    true = points()
    mirrored = true * [-1, 1]
    kept = metrics.superpose(mirrored, true, allow_reflection=False)
    assert not np.allclose(kept, true)
    assert metrics.rms_radius(kept) == pytest.approx(metrics.rms_radius(true))
    assert metrics.rms_radius(metrics.superpose(3 * true, true)) == pytest.approx(
        3 * metrics.rms_radius(true)
    )
    np.testing.assert_allclose(metrics.superpose(3 * true, true, allow_scale=True), true)


def test_superpose_is_the_least_squares_optimum():
    true, moving = points(seed=1), points(seed=2)
    best = np.square(metrics.superpose(moving, true) - true).sum()
    for seed in range(50):
        rotated = (moving - moving.mean(0)) @ ortho_group.rvs(2, random_state=seed) + true.mean(0)
        assert np.square(rotated - true).sum() >= best - 1e-9


@pytest.mark.parametrize("d", [2, 3])
def test_generalized_procrustes_puts_moved_copies_in_one_frame(d):
    true = points(d=d)
    draws = np.stack([true @ special_ortho_group.rvs(d, random_state=i) + i for i in range(5)])
    aligned = metrics.generalized_procrustes(draws)
    np.testing.assert_allclose(aligned, np.broadcast_to(draws[0], draws.shape), atol=1e-8)


def test_consensus_is_the_mean_and_medoid_the_most_central_draw():
    true = points()
    draws = np.stack([true + 3, true, true - 1])
    np.testing.assert_allclose(metrics.consensus(draws), true + 2 / 3)
    assert metrics.medoid(draws) == 1


def test_rms_radius_by_hand():
    assert metrics.rms_radius([[0, 0], [2, 0]]) == 1.0


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        (np.zeros((3, 2)), np.zeros((4, 2)), "same cells"),
        (np.zeros((3, 2)), np.full((3, 2), np.nan), "not finite"),
        (np.zeros(3), np.zeros(3), "shape"),
    ],
)
def test_bad_points_are_named(true, predicted, message):
    with pytest.raises(ValueError, match=message):
        metrics.procrustes_rmse(true, predicted)


@pytest.mark.parametrize("summary", [metrics.consensus, metrics.medoid])
def test_summaries_want_draws_that_are_finite(summary):
    with pytest.raises(ValueError, match=r"draws must have shape \(n_draws, n_cells, n_dims\)"):
        summary([[0.0, 1.0]])
    with pytest.raises(ValueError, match="draws holds values that are not finite"):
        summary([[[0.0, np.nan]]])


def test_the_name_of_version_0_1_warns():
    with pytest.warns(DeprecationWarning, match="now generalized_procrustes"):
        assert metrics.generalised_procrustes is metrics.generalized_procrustes
    with pytest.raises(AttributeError, match="no attribute 'generalised'"):
        metrics.generalised  # noqa: B018
