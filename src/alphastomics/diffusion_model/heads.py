"""Diffusion heads: small networks that turn the context vector of a cell into a distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alphastomics.diffusion_model.noise_schedule import precondition
from alphastomics.nn.embeddings import FourierFeatures

WIDTH, BLOCKS = 128, 3
CONTEXT_DROPOUT = 0.1  # of cells, whose values are learned without their context
GUIDANCE = 1.2  # weight of the context in draws of positions; more is sharper and less diverse


class DiffusionHead(nn.Module):
    """Denoiser of the values of single cells given their context vector (Li et al. 2024).

    A residual MLP with adaptive layer norm (Peebles & Xie 2023, arXiv:2212.09748) and the
    preconditioning of EDM. Cells are independent of each other given their context.

    Parameters
    ----------
    size
        Number of values ``F`` of a cell.
    d_model
        Width of a context vector.
    sigma_data
        Standard deviation of a value.
    num_frequencies
        Frequencies of the sines and cosines of the noisy values, 0 for the values alone.
    """

    def __init__(
        self, size: int, d_model: int, sigma_data: float, *, num_frequencies: int = 8
    ) -> None:
        super().__init__()
        self.size, self.sigma_data = size, sigma_data
        self.features = FourierFeatures(num_frequencies)
        self.level_features = FourierFeatures(8, 16.0)
        self.value = nn.Linear(size * self.features.size, WIDTH)
        # The context modulates the blocks, computed once for all noise levels of a cell; the noise
        # level is added to the input, which is cheap.
        self.level = nn.Sequential(
            nn.Linear(self.level_features.size, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)
        )
        self.context = nn.Sequential(nn.Linear(d_model, WIDTH), nn.SiLU())
        self.context_modulation = nn.Linear(WIDTH, BLOCKS * 3 * WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(BLOCKS)
        )
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.out = nn.Linear(WIDTH, size)
        self.no_context = nn.Parameter(torch.zeros(BLOCKS * 3 * WIDTH))
        # A new head gives c_skip z, the best linear denoiser without context.
        for layer in (self.context_modulation, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def condition(self, tokens: Tensor) -> Tensor:
        """Map context vectors ``(M, D)`` to the modulation of the blocks, ``(M, C)``."""
        return self.context_modulation(self.context(tokens))

    def forward(self, noisy: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """Estimate clean values given noisy ones (EDM eq. 7).

        Parameters
        ----------
        noisy
            ``(..., F)``.
        sigma
            Noise level in units of ``sigma_data``, ``(...,)``; one for all cells may be ``(1,)``.
        condition
            From :meth:`condition`, ``(..., C)``.

        Returns
        -------
        Tensor
            ``(..., F)``.
        """
        p = precondition(sigma)
        z = noisy / self.sigma_data
        level = self.level(self.level_features(p.c_noise[..., None]))  # (..., W)
        h = self.value(self.features(p.c_in[..., None] * z)) + level
        for block, part in zip(self.blocks, condition.chunk(BLOCKS, dim=-1), strict=True):
            shift, scale, gate = part.chunk(3, dim=-1)  # each (..., W)
            h = h + gate * block(self.norm(h) * (1 + scale) + shift)
        network = self.out(self.norm(h))
        clean = p.c_skip[..., None] * z + p.c_out[..., None] * network
        return clean * self.sigma_data

    def guided(self, noisy: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """Denoise, the context having more weight (Ho & Salimans 2022, arXiv:2207.12598)."""
        # Independent draws blur the borders of layers; more weight of the context sharpens them.
        clean = self(noisy, sigma, condition)
        without = self(noisy, sigma, self.no_context)
        return without + GUIDANCE * (clean - without)

    def loss(
        self,
        clean: Tensor,
        tokens: Tensor,
        sigma: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Denoising error of every value with the weight ``1 / c_out^2`` of EDM, ``(K, M, F)``.

        Parameters
        ----------
        clean
            Values of cells, ``(M, F)``.
        tokens
            Their context vectors, ``(M, D)``.
        sigma
            ``K`` noise levels for each cell, ``(K, M)``.
        generator
            Source of the noise, on the CPU.
        """
        noise = torch.randn(*sigma.shape, self.size, generator=generator).to(clean)
        noisy = clean + self.sigma_data * sigma[..., None] * noise  # (K, M, F)
        condition = self.condition(tokens)
        # Without its context in part of the cases, so that it can be guided.
        shown = torch.rand(len(tokens), generator=generator).to(clean) >= CONTEXT_DROPOUT
        condition = torch.where(shown[:, None], condition, self.no_context)
        denoised = self(noisy, sigma, condition)
        weight = 1 / (self.sigma_data * precondition(sigma).c_out)
        return (weight[..., None] * (denoised - clean)).square()


def require_finite(values: Tensor, head: str) -> None:
    """Raise if a head gives values that are not finite."""
    if not bool(torch.isfinite(values).all()):
        raise FloatingPointError(
            f"the {head} gave values that are not finite: the training diverged. Train again with "
            "a lower learning rate, and check model.history for the step at which the loss grew."
        )
