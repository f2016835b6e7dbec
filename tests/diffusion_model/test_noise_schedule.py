"""Noise levels of training and of sampling, and the preconditioning."""

import math
from typing import get_args

import pytest
import torch

from alphastomics.config import Schedule
from alphastomics.diffusion_model import noise_schedule


def test_preconditioning_is_edm_table_1_for_data_of_unit_variance():
    sigma = torch.logspace(-3, 3, 50)
    total = sigma**2 + 1
    c = noise_schedule.precondition(sigma)
    torch.testing.assert_close(c.c_skip, 1 / total)
    torch.testing.assert_close(c.c_out, sigma / total.sqrt())
    torch.testing.assert_close(c.c_in, 1 / total.sqrt())
    torch.testing.assert_close(c.c_noise, sigma.log() / 4)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_sampling_noise_falls_from_the_highest_level_to_zero(schedule):
    sigma = noise_schedule.sampling_sigmas(12, schedule)
    assert len(sigma) == 13
    assert sigma[0] == pytest.approx(noise_schedule.SIGMA_MAX, rel=1e-4)
    assert sigma[-2] == pytest.approx(noise_schedule.SIGMA_MIN, rel=1e-3)
    assert sigma[-1] == 0
    assert (sigma.diff() < 0).all()


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_one_step_goes_from_the_highest_level_to_zero(schedule):
    sigma = noise_schedule.sampling_sigmas(1, schedule)
    assert sigma.tolist() == pytest.approx([noise_schedule.SIGMA_MAX, 0.0], rel=1e-4)


def test_edm_spaces_the_logarithm_of_sigma_evenly_and_cosine_the_angle():
    log_sigma = noise_schedule.sampling_sigmas(8, "edm")[:-1].log()
    angle = noise_schedule.sampling_sigmas(8, "cosine")[:-1].atan()
    for spaced in (log_sigma, angle):
        steps = spaced.diff()
        torch.testing.assert_close(steps, steps[:1].expand_as(steps), rtol=1e-3, atol=0)


def quantile(sigma, schedule):
    """Share of training noise below ``sigma``."""
    if schedule == "cosine":
        return sigma.atan() / (math.pi / 2)
    return torch.special.ndtr((sigma.log() - noise_schedule.P_MEAN) / noise_schedule.P_STD)


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("n", [1, 10, 500])
def test_every_batch_has_the_quantiles_of_its_schedule(schedule, n):
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        sigma = noise_schedule.draw_sigmas(n, schedule, generator)
        assert sigma.shape == (n,)
        expected = (torch.arange(n) + 0.5) / n
        found = quantile(sigma, schedule).sort().values
        assert ((found - expected).abs() <= 0.5 / n + 2e-3).all()


def test_the_level_of_a_cell_does_not_depend_on_its_place_in_the_batch():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([noise_schedule.draw_sigmas(4, "edm", generator) for _ in range(3000)])
    log_sigma = drawn.log()
    torch.testing.assert_close(
        log_sigma.mean(0), torch.full((4,), noise_schedule.P_MEAN), atol=0.12, rtol=0
    )
    torch.testing.assert_close(
        log_sigma.std(0), torch.full((4,), noise_schedule.P_STD), atol=0.1, rtol=0
    )


def test_the_cosine_schedule_has_as_many_levels_as_diffusion_steps():
    generator = torch.Generator().manual_seed(0)
    ten = noise_schedule.draw_sigmas(1000, "cosine", generator, diffusion_steps=10)
    levels = quantile(ten, "cosine").unique()
    torch.testing.assert_close(levels, torch.arange(1, 10) / 10)
    edm = noise_schedule.draw_sigmas(1000, "edm", generator, diffusion_steps=10)
    assert len(edm.unique()) > 900


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_the_same_generator_gives_the_same_levels(schedule):
    first, again, other = (
        noise_schedule.draw_sigmas(20, schedule, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).all()
