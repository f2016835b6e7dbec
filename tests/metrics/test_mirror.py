import numpy as np
import pytest
from scipy.stats import ortho_group

from alphastomics.metrics import mirror_ambiguity


def mirrored(n_draws=4, n=400, d=2, noise=0.0, seed=0):
    """Draws of a long tissue; each cell comes on either side of its middle."""
    rng = np.random.default_rng(seed)
    tissue = rng.normal(size=(n, d)) * np.array([3.0, 1.0, 0.5])[:d]
    draws = np.repeat(tissue[None], n_draws, axis=0)
    draws[..., 0] *= rng.choice([-1, 1], size=(n_draws, n))
    return draws + noise * rng.normal(size=draws.shape), tissue


@pytest.mark.parametrize("d", [2, 3])
def test_cells_on_either_side_at_the_same_distance_are_a_mirror(d):
    draws, _ = mirrored(d=d, noise=0.1)
    report = mirror_ambiguity(draws)
    assert report["ambiguous"] is True
    assert report["opposite_sides"] == pytest.approx(0.5, abs=0.05)
    assert report["same_distance"] > 0.9


def test_draws_that_agree_are_none():
    _, tissue = mirrored()
    rng = np.random.default_rng(1)
    report = mirror_ambiguity(tissue + 0.3 * rng.normal(size=(4, *tissue.shape)))
    assert report["ambiguous"] is False
    assert report["opposite_sides"] < 0.2


def test_equal_draws_are_none():
    _, tissue = mirrored()
    report = mirror_ambiguity(np.stack([tissue, tissue]))
    assert report["ambiguous"] is False
    assert report["opposite_sides"] == 0
    assert report["same_distance"] == pytest.approx(1)


def test_draws_of_which_nothing_is_known_are_none():
    """Noise puts cells on opposite sides as often, but not at the same distance."""
    report = mirror_ambiguity(np.random.default_rng(0).normal(size=(5, 400, 2)))
    assert report["ambiguous"] is False
    assert abs(report["same_distance"]) < 0.1


def test_the_axis_of_the_mirror_need_not_be_an_axis_of_space():
    draws, _ = mirrored(noise=0.1)
    expected = mirror_ambiguity(draws)
    turned = mirror_ambiguity(7 * draws @ ortho_group.rvs(2, random_state=0) + 100)
    assert turned["ambiguous"]
    for key in ("opposite_sides", "same_distance"):
        assert turned[key] == pytest.approx(expected[key])


def test_a_mirror_across_the_short_axis_is_found():
    draws, _ = mirrored(noise=0.1)
    assert mirror_ambiguity(draws * [0.2, 1.0])["ambiguous"]


@pytest.mark.parametrize("shape", [(1, 10, 2), (10, 2), (2, 3, 10, 2)])
def test_two_draws_are_needed(shape):
    with pytest.raises(ValueError, match=r"draws must have shape .* n_draws at least 2"):
        mirror_ambiguity(np.zeros(shape))


def test_flat_tissue_in_space_has_the_mirror_of_its_plane():
    draws, _ = mirrored(noise=0.1)
    in_space = np.concatenate([draws, np.zeros_like(draws[..., :1])], axis=-1)
    assert mirror_ambiguity(in_space) == pytest.approx(mirror_ambiguity(draws))
