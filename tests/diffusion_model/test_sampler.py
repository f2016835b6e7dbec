"""The sampler with denoisers in closed form, and the rounds of a draw."""

import pytest
import torch

from alphastomics.diffusion_model.noise_schedule import sampling_sigmas
from alphastomics.diffusion_model.rounds import round_ends
from alphastomics.diffusion_model.sampler import sample

MEAN, SPREAD = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 0.4, 0.8])
SIGMA_DATA = 0.7
N = 20_000


def gaussian(z, sigma):
    """The exact denoiser of N(MEAN, SPREAD^2)."""
    noise = (SIGMA_DATA * sigma) ** 2
    return (SPREAD**2 * z + noise * MEAN) / (SPREAD**2 + noise)


def start(n=N):
    return MEAN.expand(n, -1)


@pytest.mark.parametrize("schedule", ["edm", "cosine"])
def test_draws_have_the_mean_and_spread_of_the_data(schedule):
    generator = torch.Generator().manual_seed(0)
    drawn = sample(gaussian, start(), sampling_sigmas(40, schedule), SIGMA_DATA, generator)
    torch.testing.assert_close(drawn.mean(0), MEAN, atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.std(0), SPREAD, atol=0.03, rtol=0)
    correlation = drawn.T.corrcoef()
    torch.testing.assert_close(correlation, torch.eye(3), atol=0.03, rtol=0)


def test_the_same_generator_gives_the_same_draw():
    draws = []
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        draws.append(sample(gaussian, start(5), sampling_sigmas(3, "edm"), SIGMA_DATA, generator))
    assert torch.equal(draws[0], draws[1])
    assert not torch.isclose(draws[0], draws[2]).any()


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_cells_without_any_uncertainty_are_drawn_exactly(n_steps):
    answer = torch.randn(6, 2)
    sigmas = sampling_sigmas(n_steps, "edm")
    drawn = sample(lambda z, sigma: answer, torch.zeros(6, 2), sigmas, SIGMA_DATA)
    torch.testing.assert_close(drawn, answer, atol=1e-5, rtol=0)


def error_of(n_steps):
    """Largest error of a draw, from the exact flow of the Gaussian."""
    sigmas = torch.logspace(1, -3, n_steps, dtype=torch.float64)
    sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    mean = start(100).double()
    drawn = sample(gaussian, mean, sigmas, SIGMA_DATA, torch.Generator().manual_seed(0))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)).double()
    noisy = SIGMA_DATA * sigmas[0] * noise
    exact = mean + noisy * SPREAD / (SPREAD**2 + (SIGMA_DATA * sigmas[0]) ** 2).sqrt()
    return float(((drawn - exact) / SPREAD).abs().max())


def test_it_converges_to_the_flow_in_second_order():
    coarse, fine = error_of(32), error_of(64)
    assert fine < 0.2
    assert coarse / fine > 0.8 * 2**2


def test_every_step_takes_one_call_of_the_denoiser_at_its_level():
    levels = []

    def denoise(z, sigma):
        levels.append(float(sigma))
        return gaussian(z, sigma)

    sigmas = sampling_sigmas(8, "edm")
    sample(denoise, start(5), sigmas, SIGMA_DATA)
    assert levels == sigmas[:-1].tolist()


class TestRoundEnds:
    @pytest.mark.parametrize("n_cells", [1, 2, 7, 100, 1001])
    @pytest.mark.parametrize("n_rounds", [1, 2, 8, 50])
    def test_every_round_draws_cells_and_all_are_drawn_in_the_end(self, n_cells, n_rounds):
        ends = round_ends(n_cells, n_rounds)
        assert len(ends) == min(n_rounds, n_cells)
        assert ends[-1] == n_cells
        sizes = [end - before for before, end in zip([0, *ends], ends, strict=False)]
        assert min(sizes) >= 1
        assert sum(sizes) == n_cells

    def test_one_round_draws_all_cells(self):
        assert round_ends(100, 1) == [100]

    def test_few_cells_come_first(self):
        ends = round_ends(1000, 8)
        sizes = [end - before for before, end in zip([0, *ends], ends, strict=False)]
        assert sizes == sorted(sizes)
        assert sizes[0] < 1000 / 8 < sizes[-1]
