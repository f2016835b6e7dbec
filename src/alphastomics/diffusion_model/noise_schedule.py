"""Noise levels of the diffusion heads, in units of the data's standard deviation.

A noise level is ``sigma / sigma_data``. Preconditioning and training distribution are those of EDM
(Karras et al. 2022, arXiv:2206.00364, table 1). The cosine schedule of Nichol & Dhariwal (2021,
arXiv:2102.09672) draws ``t`` evenly, with ``sigma / sigma_data = tan(pi / 2 t)``. Pure functions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics.config import DIFFUSION_STEPS, Schedule

# ln(sigma / sigma_data) of training ~ N(P_MEAN, P_STD^2), and the levels of sampling. EDM's values
# (P_mean -1.2, sigma_max 80, sigma_min .002 at sigma_data .5) are for images, whose pixels are
# redundant; the position of a cell carries little, so training dwells on more noise.
P_MEAN, P_STD = -0.8, 1.4
SIGMA_MIN, SIGMA_MAX = 0.02, 10.0


class Preconditioning(NamedTuple):
    """EDM's coefficients for data of unit variance, each of the shape of the noise level."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def precondition(sigma: Tensor) -> Preconditioning:
    """Coefficients of ``D(z) = c_skip z + c_out F(c_in z, c_noise)`` (EDM eq. 7)."""
    c_in = (sigma.square() + 1).rsqrt()
    return Preconditioning(c_in.square(), sigma * c_in, c_in, sigma.log() / 4)


def draw_sigmas(
    n: int,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    *,
    diffusion_steps: int = DIFFUSION_STEPS,
) -> Tensor:
    """Noise levels for training, ``(n,)``, stratified: their distribution is met in every batch.

    Stratification lowers the variance of the loss (Kingma et al. 2021, arXiv:2107.00630, I.1).
    """
    strata = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    uniform = strata[torch.randperm(n, generator=generator)].clamp(1e-6, 1 - 1e-6)
    if schedule == "cosine":
        step = (uniform * (diffusion_steps - 1)).floor() + 1
        return torch.tan(math.pi / 2 * step / diffusion_steps)
    return torch.exp(P_MEAN + P_STD * torch.special.ndtri(uniform))


def sampling_sigmas(n_steps: int, schedule: Schedule) -> Tensor:
    """Falling noise levels of the sampler, ``(n_steps + 1,)``, the last one 0.

    ``"edm"`` spaces the logarithm of sigma evenly, in which DPM-Solver++ takes its steps
    (Lu et al. 2022, arXiv:2211.01095, section 4); ``"cosine"`` spaces ``t`` evenly.
    """
    sigmas = torch.logspace(
        math.log10(SIGMA_MAX), math.log10(SIGMA_MIN), n_steps, dtype=torch.float64
    )
    if schedule == "cosine":
        first, last = (math.atan(sigma) for sigma in (SIGMA_MAX, SIGMA_MIN))
        sigmas = torch.tan(torch.linspace(first, last, n_steps, dtype=torch.float64))
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()
