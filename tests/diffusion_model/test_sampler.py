"""The sampler with denoisers that are known in closed form."""

import pytest
import torch

from alphastomics.diffusion_model.interface import NoisyCells
from alphastomics.diffusion_model.levels import KNOWN, UNKNOWN, level_from_sigma, sampling_levels
from alphastomics.diffusion_model.sampler import sample

MEAN = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.0, 3.0])
SPREAD = 0.3, 1.4
SIGMA_DATA = 0.7, 1.0
N = 20_000


def gaussian(z, level):
    """The exact denoiser of N(MEAN, SPREAD^2)."""
    clean = []
    for noisy, mean, s, sigma_data in zip(z, MEAN, SPREAD, SIGMA_DATA, strict=True):
        sigma = sigma_data * torch.tan(torch.pi / 2 * level)
        clean.append((s**2 * noisy + sigma**2 * mean) / (s**2 + sigma**2))
    return tuple(clean)


def start():
    return tuple(mean.expand(1, N, -1) for mean in MEAN)


@pytest.mark.parametrize("schedule", ["edm", "cosine"])
def test_draws_of_two_modalities_have_the_mean_and_spread_of_the_data(schedule):
    drawn = sample(
        gaussian,
        start(),
        tuple(torch.ones_like(mean) for mean in start()),
        sampling_levels(40, schedule),
        SIGMA_DATA,
        generator=torch.Generator().manual_seed(0),
    )
    for x, mean, s in zip(drawn, MEAN, SPREAD, strict=True):
        torch.testing.assert_close(x.mean((0, 1)), mean, atol=0.03, rtol=0)
        torch.testing.assert_close(x.std((0, 1)), torch.full_like(mean, s), atol=0.03, rtol=0)
    position, expression = drawn[0][0, :, 0], drawn[1][0, :, 0]
    assert torch.corrcoef(torch.stack([position, expression]))[0, 1].abs() < 0.03


def test_known_entries_never_move():
    generator = torch.Generator().manual_seed(0)
    hidden = tuple((torch.rand(m.shape, generator=generator) > 0.4).float() for m in start())
    known = tuple(torch.randn(m.shape, generator=generator) for m in start())
    mean = tuple(torch.where(h > 0, m, k) for h, m, k in zip(hidden, start(), known, strict=True))

    def denoise(z, level):
        return tuple(
            torch.where(h > 0, clean, noisy)
            for h, clean, noisy in zip(hidden, gaussian(z, level), z, strict=True)
        )

    drawn = sample(denoise, mean, hidden, sampling_levels(8, "edm"), SIGMA_DATA)
    for x, h, k in zip(drawn, hidden, known, strict=True):
        assert torch.equal(x[h == 0], k[h == 0])
        assert not torch.isclose(x[h > 0], k[h > 0], atol=0, rtol=1e-6).float().mean() > 0.01


def test_same_generator_same_draw():
    one = (torch.zeros(1, 5, 2),)
    draws = [
        sample(
            lambda z, level: tuple(0.5 * x for x in z),
            one,
            (torch.ones(1, 5, 1),),
            sampling_levels(3, "edm"),
            [0.7],
            generator=torch.Generator().manual_seed(seed),
        )[0]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.isclose(draws[0], draws[2]).any()


def test_a_single_step_is_enough_for_a_denoiser_that_knows_the_answer():
    answer = torch.randn(1, 6, 2)
    drawn = sample(
        lambda z, level: (answer,),
        (torch.zeros(1, 6, 2),),
        (torch.ones(1, 6, 1),),
        sampling_levels(1, "edm"),
        [0.7],
    )
    torch.testing.assert_close(drawn[0], answer, atol=1e-4, rtol=0)


def test_the_network_keeps_what_is_known_through_the_sampler(module):
    generator = torch.Generator().manual_seed(0)
    B, n, G, d = 2, 9, module.num_genes, module.position_dim
    position_known = torch.rand(B, n, generator=generator) > 0.5
    gene_known = torch.rand(B, n, G, generator=generator) > 0.5
    position = torch.randn(B, n, d, generator=generator)
    expression = torch.randn(B, n, G, generator=generator)

    def denoise(z, level):
        cells = NoisyCells(
            z[1],
            torch.where(gene_known, KNOWN, level),
            z[0],
            torch.where(position_known, KNOWN, level),
        )
        out = module(cells)
        return out.position, out.expression

    with torch.inference_mode():
        mean = denoise((position, expression), torch.tensor(UNKNOWN))
        hidden = (~position_known[..., None]).float(), (~gene_known).float()
        levels = sampling_levels(6, "edm")
        drawn = sample(denoise, mean, hidden, levels, (module.sigma_data, 1.0))
    assert torch.equal(drawn[0][position_known], position[position_known])
    assert torch.equal(drawn[1][gene_known], expression[gene_known])
    assert all(torch.isfinite(x).all() for x in drawn)


def error_of(solver, n_steps):
    """Largest error of a draw, from the exact flow of the Gaussian."""
    sigmas = torch.logspace(1, -3, n_steps, dtype=torch.float64)
    levels = torch.cat([level_from_sigma(sigmas, 1.0), sigmas.new_tensor([KNOWN])])
    noise = torch.Generator().manual_seed(0)
    ones = tuple(torch.ones_like(mean) for mean in start())
    drawn = sample(gaussian, start(), ones, levels, SIGMA_DATA, solver=solver, generator=noise)
    noise, errors = torch.Generator().manual_seed(0), []
    for x, mean, s, sigma_data in zip(drawn, start(), SPREAD, SIGMA_DATA, strict=True):
        sigma = sigma_data * torch.tan(torch.pi / 2 * levels[0])
        z = mean + sigma * torch.randn(mean.shape, generator=noise)
        exact = mean + (z - mean) * s / (s**2 + sigma**2).sqrt()
        errors.append(((x - exact) / s).abs().max())
    return float(max(errors))


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("heun", 2)])
def test_every_solver_converges_to_the_flow_in_its_order(solver, order):
    coarse, fine = error_of(solver, 32), error_of(solver, 64)
    assert fine < 0.2
    assert coarse / fine > 0.8 * 2**order


def test_solvers_of_one_pass_a_step_take_one():
    calls = []

    def denoise(z, level):
        calls.append(float(level))
        return gaussian(z, level)

    ones = tuple(torch.ones_like(mean) for mean in start())
    levels = sampling_levels(8, "edm")
    for solver, n in (("ddim", 8), ("dpmpp_2m", 8), ("heun", 15)):
        calls.clear()
        sample(denoise, start(), ones, levels, SIGMA_DATA, solver=solver)
        assert len(calls) == n
