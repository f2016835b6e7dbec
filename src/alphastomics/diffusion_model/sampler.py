"""Draws from the learned distribution; knows no network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alphastomics.diffusion_model.levels import KNOWN, sigma_from_level

Denoiser = Callable[[Tensor, Tensor], Tensor]


def sample_positions(
    denoise: Denoiser,
    mean: Tensor,
    levels: Tensor,
    sigma_data: float,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Deterministic Heun sampler of EDM (Karras et al. 2022, algorithm 1).

    The mean fixes the frame in which training added its noise, so nothing is superposed on the way.

    Parameters
    ----------
    denoise
        Maps noisy positions ``(B, N, d)`` and one level to expected clean ones.
    mean
        The conditional mean (the denoiser at level 1), ``(B, N, d)``. Far from the data, the
        probability flow is ``mean + sigma * noise`` up to terms in ``1 / sigma``: it starts here.
    levels
        Decreasing levels, the last one known, ``(n_steps + 1,)``.
    sigma_data
        Standard deviation of a coordinate.
    generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor
        Positions in the standardised space, ``(B, N, d)``.
    """
    sigmas = sigma_from_level(levels, sigma_data)
    z = mean + sigmas[0] * torch.randn(mean.shape, generator=generator).to(mean)

    def slope(z: Tensor, step: int) -> Tensor:
        """dz/dsigma, EDM eq. 3."""
        return (z - denoise(z, levels[step])) / sigmas[step]

    for step in range(len(levels) - 1):
        size = sigmas[step + 1] - sigmas[step]
        first = slope(z, step)
        euler = z + size * first
        if levels[step + 1] <= KNOWN:
            return euler
        z = z + size * (first + slope(euler, step + 1)) / 2
    return z
