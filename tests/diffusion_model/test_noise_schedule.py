import math

import pytest
import torch

from alphastomics._choices import SCHEDULES
from alphastomics.diffusion_model import levels


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_preconditioning_is_edm_table_1(sigma_data):
    level = torch.linspace(0.01, 0.99, 50)
    sigma = levels.sigma_from_level(level, sigma_data)
    total = sigma**2 + sigma_data**2
    c = levels.precondition(level, sigma_data)
    torch.testing.assert_close(c.c_skip, sigma_data**2 / total)
    torch.testing.assert_close(c.c_out, sigma * sigma_data / total.sqrt())
    torch.testing.assert_close(c.c_in, 1 / total.sqrt())
    torch.testing.assert_close(c.c_noise, (sigma / sigma_data).log() / 4)


def test_ends_are_exact():
    c = levels.precondition(torch.tensor([levels.KNOWN, levels.UNKNOWN]), 0.7)
    assert c.c_skip.tolist() == [1.0, 0.0]
    assert c.c_out[0] == 0.0
    assert c.c_out[1] == pytest.approx(0.7)
    assert c.c_in[1] == 0.0
    assert levels.sigma_from_level(torch.tensor([0.0, 1.0]), 0.7).tolist() == [0.0, math.inf]


def test_level_and_sigma_are_inverse():
    level = torch.linspace(0.01, 0.99, 20)
    back = levels.level_from_sigma(levels.sigma_from_level(level, 0.5), 0.5)
    torch.testing.assert_close(back, level)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_sampling_levels_fall_from_high_noise_to_known(schedule):
    steps = levels.sampling_levels(12, schedule)
    assert len(steps) == 13
    assert steps[-1] == levels.KNOWN
    assert (steps.diff() < 0).all()
    sigma = levels.sigma_from_level(steps, 1.0)
    assert sigma[0] == pytest.approx(levels.SIGMA_MAX, rel=1e-4)
    assert sigma[-2] == pytest.approx(levels.SIGMA_MIN, rel=1e-3)


def test_edm_spacing_is_even_in_log_sigma():
    sigma = levels.sigma_from_level(levels.sampling_levels(8, "edm"), 1.0)[:-1]
    ratio = sigma[1:] / sigma[:-1]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=0)


def test_drawn_levels_follow_their_schedule():
    generator = torch.Generator().manual_seed(0)
    edm = levels.draw_levels((20_000,), "edm", generator)
    log_ratio = levels.sigma_from_level(edm, 1.0).log()
    assert log_ratio.mean() == pytest.approx(levels.P_MEAN, abs=0.05)
    assert log_ratio.std() == pytest.approx(levels.P_STD, abs=0.05)
    ten = levels.draw_levels((1000,), "cosine", generator, diffusion_steps=10)
    torch.testing.assert_close(ten.unique(), torch.arange(1, 10) / 10)
    cosine = levels.draw_levels((20_000,), "cosine", generator)
    assert cosine.mean() == pytest.approx(0.5, abs=0.02)
    assert ((cosine > 0) & (cosine < 1)).all()
