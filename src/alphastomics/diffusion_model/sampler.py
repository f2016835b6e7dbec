"""Draws from a denoiser along the probability flow; knows no network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    sigmas: Tensor,
    sigma_data: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Follow the probability flow (Karras et al. 2022, eq. 1) from noise to data.

    DPM-Solver++ of second order (Lu et al. 2022, arXiv:2211.01095, algorithm 2), one call of the
    denoiser a step.

    Parameters
    ----------
    denoise
        Maps noisy values ``(M, F)`` and one noise level to expected clean values.
    start
        Center of the noise, ``(M, F)``, such as the conditional mean.
    sigmas
        Falling noise levels in units of ``sigma_data``, the last one 0, ``(n_steps + 1,)``.
    sigma_data
        Standard deviation of the data.
    generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor
        ``(M, F)``.
    """
    noise = torch.randn(start.shape, generator=generator).to(start)
    z = start + sigma_data * sigmas[0] * noise
    ratio = sigmas[1:] / sigmas[:-1]  # of successive sigmas
    size = -ratio.log()  # h of Lu et al. 2022
    before: Tensor | None = None
    for step in range(len(ratio)):
        clean = ahead = denoise(z, sigmas[step])
        if before is not None and step + 1 < len(ratio):
            weight = size[step] / (2 * size[step - 1])  # 1 / (2 r)
            ahead = clean + weight * (clean - before)
        z = ahead + ratio[step] * (z - ahead)
        before = clean
    return z
