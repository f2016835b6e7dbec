"""Noise levels: what *known*, *unknown* and everything between mean.

A level is a number in [0, 1] per cell and modality. Level 0 is known, level 1 unknown. Between,
the value is diffused with noise of standard deviation

    sigma(level) = sigma_data * tan(pi / 2 * level),

so that 0 is the clean value and 1 pure noise. With this map the preconditioning of EDM (Karras et
al. 2022, arXiv:2206.00364, table 1) is a rotation: ``c_skip = cos^2``, ``c_out = sigma_data *
sin`` and ``c_in = cos / sigma_data`` of ``pi / 2 * level``, finite at both ends, and a level drawn
uniformly is the cosine schedule of Nichol & Dhariwal (2021, arXiv:2102.09672). Pure functions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics._choices import Schedule

KNOWN = 0.0
UNKNOWN = 1.0

# ln(sigma / sigma_data) of training ~ N(P_MEAN, P_STD^2) and sigma / sigma_data of sampling.
# EDM's values (P_mean -1.2, sigma_max 80, sigma_min .002 at sigma_data .5) are for images, where
# pixels are redundant; a cell's position carries little, so training dwells on more noise.
# Drawing in few steps wants none of them below .05 (docs/scale.md).
DIFFUSION_STEPS = 1000  # Nichol & Dhariwal 2021
P_MEAN, P_STD = -0.4, 1.4
SIGMA_MIN, SIGMA_MAX = 0.05, 20.0


class Preconditioning(NamedTuple):
    """EDM's coefficients, each of the shape of the level."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def sigma_from_level(level: Tensor, sigma_data: float) -> Tensor:
    """Noise standard deviation of a level; infinite at level 1."""
    sigma = sigma_data * torch.tan(math.pi / 2 * level)
    return torch.where(level >= UNKNOWN, torch.inf, sigma)


def level_from_sigma(sigma: Tensor, sigma_data: float) -> Tensor:
    """Level of a noise standard deviation, the inverse of :func:`sigma_from_level`."""
    return torch.atan(sigma / sigma_data) * (2 / math.pi)


def signal_and_noise(level: Tensor) -> tuple[Tensor, Tensor]:
    """``cos`` and ``sin`` of ``pi / 2 * level``; no signal at all at level 1."""
    angle = math.pi / 2 * level
    return torch.where(level >= UNKNOWN, 0.0, torch.cos(angle)), torch.sin(angle)


def precondition(level: Tensor, sigma_data: float) -> Preconditioning:
    """Coefficients of ``D(z) = c_skip z + c_out F(c_in z, c_noise)`` (EDM eq. 7)."""
    cos, sin = signal_and_noise(level)
    return Preconditioning(cos**2, sigma_data * sin, cos / sigma_data, noise_condition(level))


def noise_condition(level: Tensor) -> Tensor:
    """``c_noise = ln(sigma / sigma_data) / 4`` (EDM table 1), bounded at both ends."""
    return torch.log(torch.tan(math.pi / 2 * level).clamp(1e-4, 1e4)) / 4


def draw_levels(
    shape: tuple[int, ...],
    schedule: Schedule,
    generator: torch.Generator | None = None,
    *,
    diffusion_steps: int = DIFFUSION_STEPS,
) -> Tensor:
    """Levels strictly between known and unknown for training.

    ``"edm"`` draws ln(sigma / sigma_data) from a normal distribution; ``"cosine"`` draws one of the
    ``diffusion_steps - 1`` levels evenly between known and unknown.
    """
    if schedule == "cosine":
        step = torch.randint(1, diffusion_steps, shape, generator=generator)
        return step / diffusion_steps
    log_ratio = P_MEAN + P_STD * torch.randn(shape, generator=generator)
    return level_from_sigma(log_ratio.exp(), 1.0)


def sampling_levels(n_steps: int, schedule: Schedule) -> Tensor:
    """Decreasing levels of the sampler, ``(n_steps + 1,)``, the last one :data:`KNOWN`.

    ``"edm"`` spaces the logarithm of sigma evenly, in which DPM-Solver++ takes its steps
    (Lu et al. 2022, arXiv:2211.01095, section 4; EDM eq. 5 with an infinite rho); ``"cosine"``
    spaces the level evenly.
    """
    sigmas = torch.logspace(
        math.log10(SIGMA_MAX), math.log10(SIGMA_MIN), n_steps, dtype=torch.float64
    )
    levels = level_from_sigma(sigmas, 1.0)
    if schedule == "cosine":
        ramp = torch.linspace(0, 1, n_steps, dtype=torch.float64)
        levels = levels[0] + ramp * (levels[-1] - levels[0])
    return torch.cat([levels, levels.new_tensor([KNOWN])]).float()
