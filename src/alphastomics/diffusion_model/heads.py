"""Diffusion heads: small networks that turn the context vector of a cell into a distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from alphastomics.diffusion_model.noise_schedule import precondition
from alphastomics.nn.embeddings import FourierFeatures

WIDTH, BLOCKS = 160, 3
LEVEL_WIDTH = 32


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
        self.level = nn.Linear(self.level_features.size, LEVEL_WIDTH)
        # Modulation is a sum of one part for the context, computed once a cell, and one for the
        # noise level, computed once a draw: the width of the latter may be small.
        self.context = nn.Sequential(nn.Linear(d_model, WIDTH), nn.SiLU())
        self.context_modulation = nn.Linear(WIDTH, BLOCKS * 3 * WIDTH)
        self.level_modulation = nn.Linear(LEVEL_WIDTH, BLOCKS * 3 * WIDTH, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(BLOCKS)
        )
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.out = nn.Linear(WIDTH, size)
        for layer in (self.context_modulation, self.level_modulation, self.out):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def condition(self, tokens: Tensor) -> Tensor:
        """Modulation of the blocks by context vectors ``(M, D)``, ``(M, C)``; once for all draws."""
        return self.context_modulation(self.context(tokens))

    def forward(self, noisy: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """Expected clean values given noisy ones (EDM eq. 7).

        Parameters
        ----------
        noisy
            ``(..., F)``.
        sigma
            Noise level in units of ``sigma_data``, ``(...,)``.
        condition
            From :meth:`condition`, ``(..., C)``.

        Returns
        -------
        Tensor
            ``(..., F)``.
        """
        p = precondition(sigma)
        z = noisy / self.sigma_data
        h = self.value(self.features(p.c_in[..., None] * z))  # (..., W)
        level = silu(self.level(self.level_features(p.c_noise[..., None])))
        modulation = condition + self.level_modulation(level)  # (..., 3 W blocks)
        for block, part in zip(self.blocks, modulation.chunk(BLOCKS, dim=-1), strict=True):
            shift, scale, gate = part.chunk(3, dim=-1)  # each (..., W)
            h = h + gate * block(self.norm(h) * (1 + scale) + shift)
        network = self.out(self.norm(h))
        clean = p.c_skip[..., None] * z + p.c_out[..., None] * network
        return clean * self.sigma_data

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
        denoised = self(noisy, sigma, self.condition(tokens))
        weight = 1 / (self.sigma_data * precondition(sigma).c_out)
        return (weight[..., None] * (denoised - clean)).square()
