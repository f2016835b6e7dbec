"""Draws from the learned distribution; knows no network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alphastomics.diffusion_model.geometry import kabsch
from alphastomics.diffusion_model.levels import KNOWN, sigma_from_level

Denoiser = Callable[[Tensor, Tensor], Tensor]


def sample_positions(
    denoise: Denoiser,
    mean: Tensor,
    levels: Tensor,
    sigma_data: float,
    weight: Tensor,
    *,
    allow_reflection: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Deterministic Heun sampler of EDM (Karras et al. 2022, algorithm 1).

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
    weight
        1 for cells whose frame counts, 0 for padding, ``(B, N)``.
    allow_reflection
        Whether the denoiser's output may be mirrored to fit the sample.
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
        """dz/dsigma (EDM eq. 3), with the clean positions superposed on the sample."""
        clean = denoise(z, levels[step])
        clean = clean @ kabsch(clean, z, weight, allow_reflection=allow_reflection)
        return (z - clean) / sigmas[step]

    for step in range(len(levels) - 1):
        size = sigmas[step + 1] - sigmas[step]
        first = slope(z, step)
        euler = z + size * first
        if levels[step + 1] <= KNOWN:
            return euler
        z = z + size * (first + slope(euler, step + 1)) / 2
    return z
