"""Autocorrelation of expression: nearby cells exchange places until it is that of training."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from alphastomics.priors import autocorrelation
from alphastomics.priors.autocorrelation import AutocorrelationPrior

N, K = 1000, 3


def morans_i(points, factors, k=8):
    """Mean product of a cell and its neighbors, in units of the variance."""
    z = (factors - factors.mean(0)) / factors.std(0)
    near = KDTree(points).query(points, k + 1)[1][:, 1:]
    return (z * z[near].mean(1)).mean(0)


def section(seed, *, n=N, n_dims=2, noise=0.7):
    """Cells of a unit area; a smooth pattern and noise in each factor."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (n, n_dims))
    smooth = [np.sin(4 * (k + 1) * points[:, k % n_dims] + k) for k in range(K)]
    return points, np.stack(smooth, axis=1) + noise * rng.normal(size=(n, K))


def fitted_to(sections, n_cells=N):
    prior = AutocorrelationPrior(K)
    located = [(points, lambda cells, f=factors: f[cells]) for points, factors in sections]
    prior.fit(located, seed=0)
    assert prior.n_cells == np.mean([len(points) for points, _ in sections])
    prior.n_cells.fill_(n_cells)
    return prior


@pytest.fixture(scope="module", params=[2, 3], ids=["2D", "3D"])
def n_dims(request):
    return request.param


@pytest.fixture(scope="module")
def prior(n_dims):
    return fitted_to([section(seed, n_dims=n_dims) for seed in (0, 1)])


@pytest.fixture(scope="module")
def target(n_dims):
    return np.mean([morans_i(*section(seed, n_dims=n_dims)) for seed in (0, 1)], axis=0)


@pytest.fixture(params=["each drawn by itself", "shuffled", "too smooth"])
def drawn(request, n_dims):
    """A section whose autocorrelation is not that of the tissue."""
    if request.param == "too smooth":
        return section(5, n_dims=n_dims, noise=0.1)
    points, factors = section(5, n_dims=n_dims)
    rng = np.random.default_rng(0)
    if request.param == "shuffled":
        return rng.permutation(points), factors
    return points + rng.normal(0, 0.1, points.shape), factors


def exchanged(prior, points, factors, seed=0):
    return prior.exchange(points, factors, np.random.default_rng(seed))


def sorted_rows(points):
    return points[np.lexsort(points.T)]


class TestExchange:
    def test_it_makes_the_autocorrelation_that_of_training(self, prior, target, drawn):
        before = np.abs(morans_i(*drawn) - target)
        assert before.max() > 0.1
        found = morans_i(exchanged(prior, *drawn), drawn[1])
        np.testing.assert_allclose(found, target, atol=0.01)

    def test_it_returns_the_same_positions_in_another_order(self, prior, drawn):
        points, factors = (part.copy() for part in drawn)
        moved = exchanged(prior, points, factors)
        np.testing.assert_array_equal(sorted_rows(moved), sorted_rows(points))
        assert (moved != points).any()
        np.testing.assert_array_equal(points, drawn[0])  # what was given is left alone
        np.testing.assert_array_equal(factors, drawn[1])

    def test_cells_stay_in_their_region(self, prior, n_dims):
        points, factors = section(5, n_dims=n_dims)
        points = points + np.random.default_rng(0).normal(0, 0.1, points.shape)
        distance = np.linalg.norm(exchanged(prior, points, factors) - points, axis=1)
        # Cells that exchange places are among the 60 nearest, whose distance this is.
        reach = np.median(KDTree(points).query(points, 61)[0][:, -1])
        assert np.median(distance) < reach
        assert np.quantile(distance, 0.9) < 2.5 * reach
        anywhere = np.random.default_rng(0).permutation(points) - points
        assert np.median(distance) < 0.4 * np.median(np.linalg.norm(anywhere, axis=1))

    def test_a_section_like_those_of_training_hardly_changes(self, prior, n_dims):
        points, factors = section(5, n_dims=n_dims)
        moved = exchanged(prior, points, factors)
        assert (moved != points).any(1).mean() < 0.15
        of_itself = fitted_to([(points, factors)])
        np.testing.assert_array_equal(exchanged(of_itself, points, factors), points)

    def test_a_pattern_that_is_there_is_kept(self, prior, n_dims):
        """Exchanges are local, so the expression of a region is that of before."""
        points, factors = section(5, n_dims=n_dims)
        points = points + np.random.default_rng(0).normal(0, 0.1, points.shape)
        moved = exchanged(prior, points, factors)
        left = [np.corrcoef(x[:, 0], factors[:, 0])[0, 1] for x in (points, moved)]
        assert abs(left[0]) > 0.3
        assert left[1] == pytest.approx(left[0], abs=0.15)

    def test_the_same_randomness_gives_the_same_places(self, prior, drawn):
        first, again, other = (exchanged(prior, *drawn, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize("scale", [1e-3, 1e4])
    def test_units_do_not_matter(self, prior, n_dims, scale):
        points, factors = section(5, n_dims=n_dims, noise=0.1)
        expected = scale * exchanged(prior, points, factors)
        found = exchanged(prior, scale * points, 3 - 2 * factors)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


class TestOneExchange:
    """Exchanges are made one by one here, and Moran's I is computed anew after each."""

    @pytest.fixture(params=["neighbors", "others"])
    def pair(self, request, monkeypatch):
        """The only two cells that may exchange their places, in the only sweep."""
        points, _ = section(3, n=200)
        near = KDTree(points).query(points, 31)[1][:, 1:]

        def choose(cell):
            one, other = cell, near[cell, 0 if request.param == "neighbors" else -1]
            chosen = np.array([one]), np.array([other])
            monkeypatch.setattr(autocorrelation, "SWEEPS", 1)
            monkeypatch.setattr(autocorrelation, "_disjoint_pairs", lambda nearby, rng: chosen)
            return [one, other]

        return choose

    @pytest.mark.parametrize("n_factors", [1, K])
    def test_it_is_made_where_it_brings_the_autocorrelation_closer(self, pair, n_factors):
        points, factors = section(3, n=200)
        factors = factors[:, :n_factors]
        before = morans_i(points, factors)
        for cell in range(40):
            one, other = pair(cell)
            swapped = points.copy()
            swapped[[one, other]] = points[[other, one]]
            change = morans_i(swapped, factors) - before
            if np.abs(change).max() < 1e-9:
                continue  # cells of the same neighborhood
            prior = AutocorrelationPrior(n_factors)
            prior.n_cells.fill_(200)
            # The target is a little more, or less, than halfway between before and after.
            for share, expected in ((0.52, swapped), (0.48, points), (-1.0, points)):
                prior.moran[:] = prior.moran.new_tensor(before + share * change)
                np.testing.assert_array_equal(exchanged(prior, points, factors), expected)


class TestFit:
    def test_it_takes_the_mean_of_sections_for_all_numbers_of_neighbors(self):
        sections = [section(0), section(1, n=500, noise=0.2)]
        prior = fitted_to(sections, n_cells=750)
        for k, found in zip((8, 32, 128), prior.moran.numpy(), strict=True):
            expected = np.mean([morans_i(*each, k) for each in sections], axis=0)
            np.testing.assert_allclose(found, expected, atol=0.05)
        assert float(prior.n_cells) == 750

    @pytest.mark.parametrize("n", [2, 5, 20])
    def test_sections_of_few_cells_are_no_error(self, n):
        prior = fitted_to([section(0, n=n), section(1)])
        assert np.isfinite(prior.moran.numpy()).all()

    def test_factors_that_do_not_vary_are_not_autocorrelated(self):
        points, factors = section(0)
        factors[:, 1] = 3
        prior = fitted_to([(points, factors)])
        assert not prior.moran[:, 1].any()
        assert np.isfinite(exchanged(prior, points, factors)).all()


class TestFewerCells:
    def test_cells_of_a_thin_section_are_as_much_alike_as_distant_ones(self):
        prior = fitted_to([section(seed) for seed in (0, 1)])
        moran = prior.moran.numpy()
        for n, expected in ((N, moran[0]), (N // 4, moran[1]), (N // 16, moran[2])):
            np.testing.assert_allclose(prior._target(n), expected, atol=0.02)
        np.testing.assert_allclose(prior._target(10 * N), moran[0])
        np.testing.assert_allclose(prior._target(3), moran[2])
        between = prior._target(N // 2)
        assert (between < moran[0]).all()
        assert (between > moran[1]).all()

    def test_a_part_of_the_cells_of_a_tissue_hardly_changes(self):
        n_cells = 8 * N
        prior = fitted_to([section(seed, n=n_cells, noise=0.3) for seed in (0, 1)], n_cells)
        points, factors = section(5, n=n_cells, noise=0.3)
        chosen = np.random.default_rng(0).permutation(n_cells)[:N]
        points, factors = points[chosen], factors[chosen]
        assert (exchanged(prior, points, factors) != points).any(1).mean() < 0.15
        prior.n_cells.fill_(N)  # as if they were the nearest cells of the tissue
        assert (exchanged(prior, points, factors) != points).any(1).mean() > 0.2


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_cells_stay(prior, n_dims, n):
    points, factors = (part[:n] for part in section(5, n_dims=n_dims))
    np.testing.assert_array_equal(exchanged(prior, points, factors), points)


@pytest.mark.parametrize("n", [3, 8, 9, 30])
def test_a_few_cells_exchange_places(prior, n_dims, n):
    points, factors = (part[:n] for part in section(5, n_dims=n_dims))
    moved = exchanged(prior, points, factors)
    np.testing.assert_array_equal(sorted_rows(moved), sorted_rows(points))


def test_cells_at_one_place_are_no_error(prior, n_dims):
    points, factors = section(5, n_dims=n_dims)
    same = np.repeat(points[:100], 10, axis=0)
    moved = exchanged(prior, same, factors)
    np.testing.assert_array_equal(sorted_rows(moved), sorted_rows(same))
    nowhere = np.zeros((20, n_dims))
    np.testing.assert_array_equal(exchanged(prior, nowhere, factors[:20]), nowhere)


def test_without_a_fit_nothing_moves():
    points, factors = section(5)
    np.testing.assert_array_equal(exchanged(AutocorrelationPrior(K), points, factors), points)


def test_a_large_section_has_the_target_of_all_its_cells_and_not_of_a_patch():
    points, factors = section(7, n=12_000)
    found = fitted_to([(points, factors)], 12_000).moran[0].numpy()
    np.testing.assert_allclose(found, morans_i(points, factors), atol=0.05)
