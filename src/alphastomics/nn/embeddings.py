"""Embeddings of noise levels and of the two modalities of a cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SinusoidalFeatures(nn.Module):
    """Sines and cosines of a scalar at geometrically spaced frequencies.

    Parameters
    ----------
    num_features
        Number of output features; even.
    max_frequency
        Highest angular frequency; the lowest is 1.
    """

    frequencies: Tensor

    def __init__(self, num_features: int = 32, max_frequency: float = 32.0) -> None:
        super().__init__()
        exponents = torch.linspace(0.0, math.log(max_frequency), num_features // 2)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(...,)`` to ``(..., num_features)``."""
        phase = x[..., None] * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class LevelEmbedding(nn.Module):
    """Embeds how much of a modality is known: its state and, when noisy, how noisy.

    Parameters
    ----------
    d_model
        Width of a token.
    """

    KNOWN, NOISY, UNKNOWN = 0, 1, 2

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.state = nn.Embedding(3, d_model)
        features = SinusoidalFeatures()
        self.noise = nn.Sequential(
            features,
            nn.Linear(2 * len(features.frequencies), d_model),
            nn.SiLU(),
            nn.Linear(d_model, d_model),
        )

    def forward(self, state: Tensor, log_noise: Tensor) -> Tensor:
        """Embed states and log noise scales.

        Parameters
        ----------
        state
            ``KNOWN``, ``NOISY`` or ``UNKNOWN`` per cell, shape ``(B, N)``.
        log_noise
            Noise conditioning per cell, shape ``(B, N)``; read only where the state is ``NOISY``.
        """
        noisy = (state == self.NOISY)[..., None]
        return self.state(state) + torch.where(noisy, self.noise(log_noise), 0.0)  # (B, N, D)


class FourierPositions(nn.Module):
    """A position and sines and cosines of its coordinates, for detail (Tancik et al. 2020).

    Parameters
    ----------
    position_dim
        Dimension ``d`` of space.
    num_frequencies
        Frequencies per coordinate, geometrically spaced from 1 to 32 in units of the RMS radius.
    """

    def __init__(self, position_dim: int, num_frequencies: int = 8) -> None:
        super().__init__()
        self.features = SinusoidalFeatures(2 * num_frequencies)
        self.out_features = position_dim * (1 + 2 * num_frequencies)

    def forward(self, position: Tensor) -> Tensor:
        """Map ``(B, N, d)`` to ``(B, N, out_features)``."""
        return torch.cat([position, self.features(position).flatten(-2)], dim=-1)


class ModalityEmbedding(nn.Module):
    """Embeds one modality of a cell, or its learned *unknown* token.

    Parameters
    ----------
    in_features
        Number of values per cell.
    d_model
        Width of a token.
    hidden
        Hidden width of a two-layer map; ``None`` for a linear one.
    """

    def __init__(self, in_features: int, d_model: int, hidden: int | None = None) -> None:
        super().__init__()
        self.value: nn.Module = nn.Linear(in_features, d_model)
        if hidden is not None:
            self.value = nn.Sequential(
                nn.Linear(in_features, hidden), nn.GELU(), nn.Linear(hidden, d_model)
            )
        self.unknown = nn.Parameter(torch.zeros(d_model))
        self.level = LevelEmbedding(d_model)

    def forward(self, value: Tensor, state: Tensor, log_noise: Tensor) -> Tensor:
        """Embed values ``(B, N, F)`` of given states ``(B, N)`` as ``(B, N, D)``."""
        unknown = (state == LevelEmbedding.UNKNOWN)[..., None]
        return torch.where(unknown, self.unknown, self.value(value)) + self.level(state, log_noise)


class OptionalEmbedding(nn.Embedding):
    """Embeds a category; 0 stands for *not given* and adds nothing.

    Parameters
    ----------
    num_categories
        Number of categories, numbered from 1.
    d_model
        Width of a token.
    """

    def __init__(self, num_categories: int, d_model: int) -> None:
        super().__init__(num_categories + 1, d_model, padding_idx=0)
        nn.init.normal_(self.weight[1:], std=0.02)
