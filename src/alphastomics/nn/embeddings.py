"""Embeddings of the two modalities of a cell and of categories."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """Values with sines and cosines of them, for detail (Tancik et al. 2020).

    Parameters
    ----------
    num_frequencies
        Frequencies for each value, geometrically spaced from 1 to ``max_frequency``.
    max_frequency
        Highest angular frequency.
    """

    frequencies: Tensor

    def __init__(self, num_frequencies: int = 8, max_frequency: float = 32.0) -> None:
        super().__init__()
        exponents = torch.linspace(0.0, math.log(max_frequency), num_frequencies)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)
        self.size = 1 + 2 * num_frequencies  # features of one value

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., F)`` to ``(..., F * size)``."""
        phase = (x[..., None] * self.frequencies).flatten(-2)
        return torch.cat([x, phase.sin(), phase.cos()], dim=-1)


class ModalityEmbedding(nn.Module):
    """Embedding of one modality of a cell, or its learned *unknown* token.

    Parameters
    ----------
    value
        Network that maps the values of a cell to ``d_model`` numbers.
    d_model
        Width of a token.
    """

    def __init__(self, value: nn.Module, d_model: int) -> None:
        super().__init__()
        self.value = value
        self.unknown = nn.Parameter(torch.zeros(d_model))

    def forward(self, value: Tensor, known: Tensor) -> Tensor:
        """Embed values ``(B, N, F)`` of which cells are ``known`` ``(B, N)`` as ``(B, N, D)``."""
        return torch.where(known[..., None], self.value(value), self.unknown)


class ExpressionEmbedding(ModalityEmbedding):
    """Embedding of the known genes of a cell, or its learned *unknown* token.

    Parameters
    ----------
    num_genes
        Number of genes ``G``.
    d_model
        Width of a token.
    """

    def __init__(self, num_genes: int, d_model: int) -> None:
        super().__init__(nn.Linear(2 * num_genes, d_model), d_model)

    def forward(self, value: Tensor, known: Tensor) -> Tensor:
        """Embed values ``(B, N, G)``, 0 where not ``known`` ``(B, N, G)``, as ``(B, N, D)``."""
        linear = cast(nn.Linear, self.value)
        of_value, of_mask = linear.weight.chunk(2, dim=1)  # (D, G): no (B, N, 2G) in memory
        x = F.linear(value, of_value, linear.bias) + F.linear(known.to(value), of_mask)
        return torch.where(known.any(-1, keepdim=True), x, self.unknown)


class PositionEmbedding(ModalityEmbedding):
    """Embedding of a position in units of the RMS radius, or of an unknown one.

    Parameters
    ----------
    position_dim
        Dimension ``d`` of space.
    d_model
        Width of a token.
    """

    def __init__(self, position_dim: int, d_model: int) -> None:
        features = FourierFeatures()
        value = nn.Sequential(
            features,
            nn.Linear(position_dim * features.size, d_model),
            nn.GELU(),
            nn.Linear(d_model, d_model),
        )
        super().__init__(value, d_model)


class OptionalEmbedding(nn.Embedding):
    """Embedding of a category; 0 stands for *not given* and adds nothing.

    Parameters
    ----------
    num_categories
        Number of categories, numbered from 1.
    d_model
        Width of a token.
    """

    def __init__(self, num_categories: int, d_model: int) -> None:
        super().__init__(num_categories + 1, d_model, padding_idx=0)

    def reset_parameters(self) -> None:
        """Draw the weights; later draws of other layers do not depend on the number of rows."""
        # The stream of the caller is used as by a layer without categories.
        seed = int(torch.randn(self.embedding_dim, device="cpu").view(torch.int32)[0])
        own = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.weight[0] = 0.0
            rows = torch.randn(self.weight[1:].shape, generator=own, device="cpu")
            self.weight[1:].copy_(0.02 * rows)
