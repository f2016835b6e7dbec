import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel

from alphastomics import metrics


def samples(n=60, m=40, p=3, shift=0.5):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, p)), rng.normal(size=(m, p)) + shift


@pytest.mark.parametrize("bandwidth", [None, 0.7])
def test_mmd2_is_the_unbiased_estimate_from_full_kernels(bandwidth):
    x, y = samples()
    h = np.median(pdist(np.concatenate([x, y]))) if bandwidth is None else bandwidth
    K, L, M = (rbf_kernel(a, b, gamma=1 / (2 * h**2)) for a, b in ((x, x), (y, y), (x, y)))
    off = [(A.sum() - np.trace(A)) / (len(A) * (len(A) - 1)) for A in (K, L)]
    expected = off[0] + off[1] - 2 * M.mean()
    assert metrics.mmd2(x, y, bandwidth) == pytest.approx(expected)
    assert metrics.mmd2(y, x, bandwidth) == pytest.approx(expected)


def test_mmd2_ignores_a_common_shift_scale_and_the_order_of_rows():
    x, y = samples()
    before = metrics.mmd2(x, y)
    assert metrics.mmd2(5 * x + 2, 5 * y + 2) == pytest.approx(before)
    assert metrics.mmd2(x[::-1], np.roll(y, 7, axis=0)) == pytest.approx(before)


def test_mmd2_of_one_source_is_zero_on_average_and_grows_with_the_shift():
    rng = np.random.default_rng(0)
    same = [metrics.mmd2(rng.normal(size=(40, 2)), rng.normal(size=(40, 2))) for _ in range(200)]
    assert np.mean(same) == pytest.approx(0, abs=0.003)
    assert min(same) < 0
    near, far = (metrics.mmd2(*samples(shift=shift)) for shift in (0.5, 2))
    assert 0 < near < far


def test_mmd2_takes_a_seeded_2000_rows():
    x, y = samples(2500, 2200, 2)
    first, second = (metrics.mmd2(x, y, seed=seed) for seed in (0, 1))
    assert first == metrics.mmd2(x, y, seed=0)
    assert first != second
    assert first == pytest.approx(second, abs=0.02)


def test_mmd2_where_most_rows_coincide():
    x, y = np.zeros((20, 2)), np.zeros((20, 2))
    assert metrics.mmd2(x, y) == 0
    y[0] = 1
    assert np.isfinite(metrics.mmd2(x, y))


def test_moment_distance_by_hand_in_units_of_the_truth():
    true = np.array([[0.0, 1.0, 7.0], [2.0, 5.0, 7.0]])  # means 1, 3; sd 1, 2; the last constant
    generated = np.array([[1.0, 3.0, 9.0], [2.0, 3.0, 8.0]])  # means 1.5, 3; sd 0.5, 0
    scores = metrics.moment_distance(true, generated)
    assert scores == pytest.approx({"mean": 0.25, "sd": 0.75})
    scaled = metrics.moment_distance(true * [10, 0.1, 1] + 3, generated * [10, 0.1, 1] + 3)
    assert scaled == pytest.approx(scores)
    assert metrics.moment_distance(true, true) == {"mean": 0, "sd": 0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x, y: metrics.mmd2(x, y[:, :2]),
            "x and y must have the same columns, found 3 and 2",
        ),
        (lambda x, y: metrics.mmd2(x, y, -1.0), "bandwidth must be positive, found -1.0"),
        (lambda x, y: metrics.mmd2(x[:1], y), "x must have at least 2 rows"),
        (
            lambda x, y: metrics.moment_distance(x, y[:, :2]),
            "true and generated must have the same",
        ),
        (lambda x, y: metrics.moment_distance(0 * x, y), "true is constant in every gene"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*samples())
