"""Draws from the learned distribution; knows no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alphastomics.diffusion_model.levels import KNOWN, sigma_from_level

State = tuple[Tensor, ...]
Denoiser = Callable[[State, Tensor], State]


def sample(
    denoise: Denoiser,
    mean: State,
    hidden: State,
    levels: Tensor,
    sigma_data: Sequence[float],
    *,
    generator: torch.Generator | None = None,
) -> State:
    """Deterministic Heun sampler of EDM (Karras et al. 2022, algorithm 1), several modalities.

    What is known never moves: the denoiser returns it as it is, so its slope is zero.

    Parameters
    ----------
    denoise
        Maps noisy modalities, each ``(B, N, F)``, and one level to expected clean ones.
    mean
        The conditional means (the denoiser at level 1), each ``(B, N, F)``, known values in place.
        Far from the data, the probability flow is ``mean + sigma * noise`` up to terms in
        ``1 / sigma``: it starts here.
    hidden
        Where noise is added, of the shape of ``mean``.
    levels
        Decreasing levels, the last one known, ``(n_steps + 1,)``.
    sigma_data
        Standard deviation of each modality.
    generator
        Source of randomness, on the CPU.

    Returns
    -------
    tuple of Tensor
        The modalities in the standardised space, each ``(B, N, F)``.
    """
    sigmas = [sigma_from_level(levels, scale) for scale in sigma_data]  # each (n_steps + 1,)
    z = tuple(
        m + sigma[0] * h * torch.randn(m.shape, generator=generator).to(m)
        for m, h, sigma in zip(mean, hidden, sigmas, strict=True)
    )

    def slope(z: State, step: int) -> State:
        """dz/dsigma, EDM eq. 3."""
        clean = denoise(z, levels[step])
        return tuple((a - b) / s[step] for a, b, s in zip(z, clean, sigmas, strict=True))

    for step in range(len(levels) - 1):
        sizes = [s[step + 1] - s[step] for s in sigmas]
        first = slope(z, step)
        euler = tuple(a + size * f for a, size, f in zip(z, sizes, first, strict=True))
        if levels[step + 1] <= KNOWN:
            return euler
        second = slope(euler, step + 1)
        z = tuple(
            a + size * (f + g) / 2 for a, size, f, g in zip(z, sizes, first, second, strict=True)
        )
    return z
