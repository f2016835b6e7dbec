"""Draws from the learned distribution; knows no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alphastomics._choices import SOLVERS, Solver
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
    solver: Solver = SOLVERS[0],
    generator: torch.Generator | None = None,
) -> State:
    """Follow the probability flow (Karras et al. 2022, eq. 1) of several modalities to the data.

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
    solver
        ``"dpmpp_2m"``: DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095, algorithm 2), one call of
        the denoiser a step; ``"ddim"`` (Song et al. 2021, arXiv:2010.02502, eq. 12), the same in
        first order; ``"heun"`` (Karras et al. 2022, algorithm 1), two calls a step.
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
    if solver == "heun":
        return _heun(denoise, z, levels, sigmas)
    return _multistep(denoise, z, levels, sigmas, order=1 if solver == "ddim" else 2)


def _multistep(
    denoise: Denoiser, z: State, levels: Tensor, sigmas: list[Tensor], order: int
) -> State:
    """Step as if the clean value were constant, or linear in ``log sigma`` to second order."""
    ratio = sigmas[0][1:] / sigmas[0][:-1]  # of successive sigmas, the same for all modalities
    size = -ratio.log()  # h of Lu et al. 2022
    before: State | None = None
    for step in range(len(ratio)):
        clean = ahead = denoise(z, levels[step])
        if order == 2 and before is not None and levels[step + 1] > KNOWN:
            weight = size[step] / (2 * size[step - 1])  # 1 / (2 r)
            ahead = tuple(a + weight * (a - b) for a, b in zip(clean, before, strict=True))
        z = tuple(d + ratio[step] * (a - d) for a, d in zip(z, ahead, strict=True))
        before = clean
    return z


def _heun(denoise: Denoiser, z: State, levels: Tensor, sigmas: list[Tensor]) -> State:
    """Trapezoids, the last one a rectangle."""

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
