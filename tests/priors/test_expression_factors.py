"""Expression in few dimensions: gene factors and depth describe a cell."""

import pytest
import torch

from alphastomics.priors.expression_factors import ExpressionFactors

N, G, K = 2000, 80, 3
NOISE = 0.5  # standard deviation


def low_rank(n=N, seed=0, num_genes=G):
    """Standardized expression of three factors, and its part without noise."""
    generator = torch.Generator().manual_seed(1)
    loading = torch.randn(K, num_genes, generator=generator) * torch.tensor([[3.0], [2.0], [1.0]])
    loading *= (1 - NOISE**2) ** 0.5 / loading.norm(dim=0)  # genes have a variance of 1
    generator.manual_seed(seed)
    signal = torch.randn(n, K, generator=generator) @ loading
    return signal + NOISE * torch.randn(n, num_genes, generator=generator), signal


def depths(n=N):
    return torch.exp(0.3 + 0.5 * torch.randn(n, generator=torch.Generator().manual_seed(0)))


def fit_to(values, *, has_depth=False, seed=0):
    factors = ExpressionFactors(values.shape[1], has_depth=has_depth)
    factors.fit(values - values.mean(0), depths(len(values)), seed)
    return factors


@pytest.fixture(scope="module")
def fitted():
    return fit_to(low_rank()[0])


@pytest.fixture(scope="module")
def counting():
    return fit_to(low_rank()[0], has_depth=True)


def described(factors, values):
    known = torch.ones_like(values, dtype=torch.bool)
    return factors.encode(values, known, depths(len(values)))


class TestFactors:
    def test_they_are_white(self, fitted):
        factors = described(fitted, low_rank()[0])[:, :K]
        torch.testing.assert_close(factors.T.cov(), torch.eye(K), atol=0.02, rtol=0)

    def test_they_explain_the_signal_of_other_cells(self, fitted):
        values, signal = low_rank(seed=2)
        factors = described(fitted, values)[:, :K]
        predicted = factors @ torch.linalg.lstsq(factors, signal).solution
        unexplained = (predicted - signal).square().sum() / signal.square().sum()
        # What even the posterior mean given the true loading leaves is about 2 %.
        assert unexplained < 0.04

    @pytest.mark.parametrize("num_genes", [30, 80, 200])
    def test_decoded_expression_varies_as_the_signal_and_not_as_the_noise(self, num_genes):
        factors = fit_to(low_rank(num_genes=num_genes)[0])
        values, signal = low_rank(seed=2, num_genes=num_genes)
        decoded = factors.decode(described(factors, values))
        assert decoded.var(0).sum() == pytest.approx(float(signal.var(0).sum()), rel=0.06)

    def test_drawn_factors_have_the_variance_of_the_signal(self, fitted):
        generator = torch.Generator().manual_seed(0)
        drawn = fitted.decode(torch.randn(N, fitted.n_factors, generator=generator)).var(0)
        assert drawn.mean() == pytest.approx(float(low_rank()[1].var(0).mean()), rel=0.1)

    def test_genes_that_were_not_measured_count_as_average(self, fitted):
        values, _ = low_rank(seed=2)
        known = torch.rand(N, G, generator=torch.Generator().manual_seed(0)) > 0.3
        partial = fitted.of_genes(values, known)
        assert torch.equal(fitted.of_genes(values.masked_fill(~known, 1e3), known), partial)
        whole = described(fitted, values)
        for k in range(K):
            assert torch.corrcoef(torch.stack([partial[:, k], whole[:, k]]))[0, 1] > 0.9
        assert partial[:, :K].std() == pytest.approx(1.0, abs=0.25)

    def test_a_cell_without_a_measured_gene_is_average(self, fitted):
        values, _ = low_rank(5)
        assert not fitted.of_genes(values, torch.zeros(5, G, dtype=torch.bool)).any()

    def test_fewer_cells_than_genes_are_enough(self):
        values, _ = low_rank(10)
        factors = fit_to(values)
        assert torch.isfinite(described(factors, values)).all()
        assert torch.isfinite(factors.decode(described(factors, values))).all()

    def test_the_seed_gives_the_fit_and_the_process_keeps_its_state(self):
        values, _ = low_rank(200)
        torch.manual_seed(5)
        state = torch.get_rng_state()
        first = fit_to(values, seed=1)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(3)
        assert torch.equal(fit_to(values, seed=1).encoder, first.encoder)


class TestDepth:
    def test_counts_are_described_by_their_depth_too(self, counting):
        values, _ = low_rank()
        both = described(counting, values)
        assert both.shape == (N, counting.size) == (N, counting.n_factors + 1)
        everything = torch.ones_like(values, dtype=torch.bool)
        assert torch.equal(both[:, :-1], counting.of_genes(values, everything))
        log_depth = depths().log()
        expected = (log_depth - log_depth.mean()) / log_depth.std()
        torch.testing.assert_close(both[:, -1], expected, atol=1e-4, rtol=1e-4)

    def test_expression_without_noise_is_that_of_any_depth(self, counting):
        shallow = described(counting, low_rank()[0])
        deep = shallow.clone()
        deep[:, -1] += 2
        assert torch.equal(counting.decode(deep), counting.decode(shallow))

    def test_values_that_are_not_counts_have_none(self, fitted):
        values, _ = low_rank(10)
        assert fitted.size == fitted.n_factors
        everything = torch.ones_like(values, dtype=torch.bool)
        expected = fitted.of_genes(values, everything)
        assert torch.equal(fitted.encode(values, everything, torch.full((10,), 7.0)), expected)

    def test_cells_of_one_depth_can_be_described(self):
        factors = ExpressionFactors(G, has_depth=True)
        values, _ = low_rank(50)
        factors.fit(values - values.mean(0), torch.ones(50), seed=0)
        everything = torch.ones_like(values, dtype=torch.bool)
        assert not factors.encode(values, everything, torch.ones(50))[:, -1].any()


class TestWeight:
    def test_a_factor_weighs_the_expression_that_it_makes_and_depth_one(self, fitted, counting):
        made = fitted.decode(torch.eye(fitted.n_factors)).norm(dim=1)
        torch.testing.assert_close(fitted.weight, made)
        torch.testing.assert_close(counting.weight, torch.cat([made, torch.ones(1)]))

    def test_factors_of_noise_weigh_little(self, fitted):
        assert fitted.weight[:K].min() > 3 * fitted.weight[K:].max()

    def test_weighted_differences_are_those_of_expression(self, fitted):
        first, second = described(fitted, low_rank(20)[0]), described(fitted, low_rank(20, 3)[0])
        distance = ((first - second) * fitted.weight).norm(dim=1)
        expected = (fitted.decode(first) - fitted.decode(second)).norm(dim=1)
        torch.testing.assert_close(distance, expected)
