"""Expression in few dimensions: factors, observations drawn given them, and stored cells."""

import pytest
import torch

from alphastomics.priors.expression_factors import ExpressionDraw, ExpressionFactors

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


@pytest.fixture(scope="module")
def fitted():
    factors = ExpressionFactors(G, has_depth=False)
    values, _ = low_rank()
    factors.fit(values - values.mean(0), seed=0)
    everything = torch.ones(N, dtype=torch.float)
    factors.fit_observations(values, values, None, everything, torch.zeros(N, dtype=torch.long))
    return factors


def described(factors, values):
    known = torch.ones_like(values, dtype=torch.bool)
    return factors.encode(values, known, torch.ones(len(values)))


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
        factors = ExpressionFactors(num_genes, has_depth=False)
        factors.fit(low_rank(num_genes=num_genes)[0], seed=0)
        values, signal = low_rank(seed=2, num_genes=num_genes)
        decoded = factors.decode(described(factors, values))
        assert decoded.var(0).sum() == pytest.approx(float(signal.var(0).sum()), rel=0.06)

    def test_drawn_factors_and_noise_have_the_variance_of_the_data(self, fitted):
        drawn = fitted.decode(torch.randn(N, fitted.n_factors)).var(0) + fitted.noise**2
        assert drawn.mean() == pytest.approx(float(low_rank()[0].var(0).mean()), rel=0.1)

    def test_genes_that_were_not_measured_count_as_average(self, fitted):
        values, _ = low_rank(seed=2)
        known = torch.rand(N, G, generator=torch.Generator().manual_seed(0)) > 0.3
        one = torch.ones(N)
        partial = fitted.encode(values, known, one)
        loud = values.masked_fill(~known, 1e3)
        assert torch.equal(fitted.encode(loud, known, one), partial)
        whole = described(fitted, values)
        for k in range(K):
            assert torch.corrcoef(torch.stack([partial[:, k], whole[:, k]]))[0, 1] > 0.9
        assert partial[:, :K].std() == pytest.approx(1.0, abs=0.25)

    def test_depth_is_described_for_counts_and_comes_back(self):
        factors = ExpressionFactors(G, has_depth=True)
        factors.fit(low_rank()[0], seed=0)
        factors.log_depth_mean.fill_(0.3)
        factors.log_depth_std.fill_(0.5)
        depth = torch.rand(10) + 0.5
        values = low_rank(10)[0]
        both = factors.encode(values, torch.ones(10, G, dtype=torch.bool), depth)
        assert both.shape == (10, factors.size) == (10, factors.n_factors + 1)
        back = factors.split(both)
        torch.testing.assert_close(back.depth, depth)
        assert torch.equal(back.factors, both[:, :-1])

    def test_values_without_depth_have_a_depth_of_one(self, fitted):
        values, _ = low_rank(10)
        assert fitted.size == fitted.n_factors
        factors, depth = fitted.split(described(fitted, values))
        assert (depth == 1).all()
        assert torch.equal(factors, described(fitted, values))

    def test_fewer_cells_than_genes_are_enough(self):
        factors = ExpressionFactors(G, has_depth=False)
        values, _ = low_rank(10)
        factors.fit(values - values.mean(0), seed=0)
        assert torch.isfinite(described(factors, values)).all()


def simulated_counts(n=3000, dispersion=0.4, num_genes=G):
    """Negative-binomial counts of cells of different depth, and their rates at depth 1."""
    torch.manual_seed(0)
    level = torch.linspace(-2.5, 1.5, num_genes)
    rate = torch.exp(0.7 * low_rank(n, num_genes=num_genes)[1] + level)
    depth = torch.exp(0.4 * torch.randn(n))
    mean = rate * depth[:, None]
    if dispersion:
        shape = torch.full_like(mean, 1 / dispersion)
        return torch.poisson(mean * torch.distributions.Gamma(shape, shape).sample()), rate, depth
    return torch.poisson(mean), rate, depth


def observed(counts, rate, depth):
    factors = ExpressionFactors(G, has_depth=True)
    factors.fit(torch.log1p(counts) - torch.log1p(counts).mean(0), seed=0)
    labels = torch.zeros(len(counts), dtype=torch.long)
    factors.fit_observations(torch.log1p(counts), rate, counts, depth, labels)
    return factors


class TestCounts:
    @pytest.mark.parametrize("dispersion", [0.0, 0.4, 2.0])
    def test_drawn_counts_have_the_zeros_and_means_of_the_tissue(self, dispersion):
        counts, rate, depth = simulated_counts(dispersion=dispersion)
        factors = observed(counts, rate, depth)
        drawn = factors.draw_counts(rate, depth, torch.Generator().manual_seed(0))
        assert torch.equal(drawn, drawn.round())
        zeros, expected = ((x == 0).float().mean(0) for x in (drawn, counts))
        assert zeros.mean() == pytest.approx(float(expected.mean()), abs=0.01)
        torch.testing.assert_close(zeros, expected, atol=0.04, rtol=0)
        torch.testing.assert_close(drawn.mean(0), counts.mean(0), atol=0.05, rtol=0.15)

    @pytest.mark.parametrize("num_genes", [40, 80, 200])
    def test_bootstrapped_cells_have_the_zeros_and_variance_of_the_tissue(self, num_genes):
        """Rates are decoded: noise of counting is drawn, and must not be in the rates as well."""
        counts, _, depth = simulated_counts(num_genes=num_genes)
        logged = torch.log1p(counts / depth[:, None])
        center, scale = logged.mean(0), logged.std(0)
        values = (logged - center) / scale

        def rates(factors, described):
            return torch.expm1(factors.decode(described) * scale + center).clamp_min(0)

        factors = ExpressionFactors(num_genes, has_depth=True)
        factors.fit(values, seed=0)
        everything, labels = torch.ones_like(counts).bool(), torch.zeros(len(counts)).long()
        state = factors.split(factors.encode(values, everything, depth))
        factors.fit_observations(values, rates(factors, state.factors), counts, depth, labels)
        cells = factors.bootstrap(labels, torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(0)
        drawn = factors.draw_counts(rates(factors, cells.factors), cells.depth, generator)
        zeros, expected = ((x == 0).float().mean() for x in (drawn, counts))
        assert float(zeros) == pytest.approx(float(expected), abs=0.02)
        assert (drawn.var(0) / counts.var(0)).mean() == pytest.approx(1, abs=0.15)

    def test_dispersion_is_recovered_and_zero_for_poisson_counts(self):
        overdispersed, poisson = (observed(*simulated_counts(dispersion=x)) for x in (0.4, 0.0))
        often_counted = slice(G // 2, None)
        assert overdispersed.dispersion[often_counted].median() == pytest.approx(0.4, abs=0.1)
        assert poisson.dispersion[often_counted].median() < 0.03

    def test_rates_that_are_too_low_are_scaled_to_the_counts(self):
        counts, rate, depth = simulated_counts()
        biased = observed(counts, rate / torch.linspace(1, 3, G), depth)
        drawn = biased.draw_counts(rate / torch.linspace(1, 3, G), depth)
        torch.testing.assert_close(drawn.mean(0), counts.mean(0), atol=0.05, rtol=0.15)

    def test_variance_grows_with_the_dispersion(self):
        factors = ExpressionFactors(2, has_depth=True)
        factors.dispersion.copy_(torch.tensor([0.0, 0.5]))
        mean = torch.full((20_000, 2), 4.0)
        drawn = factors.draw_counts(mean / 2, torch.full((20_000,), 2.0))
        torch.testing.assert_close(drawn.mean(0), mean[0], atol=0.1, rtol=0)
        torch.testing.assert_close(drawn.var(0), torch.tensor([4.0, 12.0]), atol=0, rtol=0.06)

    def test_the_same_generator_gives_the_same_counts_and_the_process_keeps_its_state(self):
        factors = ExpressionFactors(G, has_depth=True)
        factors.dispersion.fill_(0.5)
        rate, depth = torch.full((50, G), 3.0), torch.ones(50)
        state = torch.get_rng_state()
        first, again, other = (
            factors.draw_counts(rate, depth, torch.Generator().manual_seed(seed))
            for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)


class TestStoredCells:
    @pytest.fixture
    def stored(self):
        factors = ExpressionFactors(2, has_depth=True)
        factors.stored_factors = torch.arange(8.0).view(4, 2)
        factors.stored_depth = torch.tensor([1.0, 2, 3, 4])
        factors.stored_label = torch.tensor([1, 1, 2, 0])
        return factors

    def test_drawn_cells_are_stored_ones(self, stored):
        any_type = torch.zeros(200, dtype=torch.int64)
        drawn = stored.bootstrap(any_type, torch.Generator().manual_seed(0))
        assert isinstance(drawn, ExpressionDraw)
        assert set(drawn.depth.tolist()) == {1, 2, 3, 4}
        torch.testing.assert_close(drawn.factors[:, 0], 2 * (drawn.depth - 1))

    def test_types_are_respected(self, stored):
        drawn = stored.bootstrap(torch.tensor([2, 1, 1, 2]), torch.Generator().manual_seed(0))
        assert drawn.depth[[0, 3]].tolist() == [3, 3]
        assert set(drawn.depth[[1, 2]].tolist()) <= {1, 2}
        with pytest.raises(ValueError, match="no training cell of type number 7"):
            stored.bootstrap(torch.tensor([7]))

    def test_training_cells_are_stored_as_they_are_described(self, fitted):
        values, _ = low_rank()
        assert torch.equal(fitted.stored_factors, described(fitted, values))
        counts, rate, depth = simulated_counts()
        factors = observed(counts, rate, depth)
        assert torch.equal(factors.stored_depth, depth)
        everything = torch.ones_like(counts, dtype=torch.bool)
        encoded = factors.encode(torch.log1p(counts), everything, depth)
        assert torch.equal(factors.stored_factors, factors.split(encoded).factors)
        log_depth = (factors.stored_depth.log() - factors.log_depth_mean) / factors.log_depth_std
        assert log_depth.mean() == pytest.approx(0, abs=1e-4)
        assert log_depth.std() == pytest.approx(1, abs=1e-3)

    def test_a_model_takes_the_number_of_stored_cells_from_what_is_loaded(self, fitted):
        other = ExpressionFactors(G, has_depth=False)
        other.load_state_dict(fitted.state_dict())
        for name, value in fitted.state_dict().items():
            assert torch.equal(other.state_dict()[name], value)
