"""Between measured units and the standardised space in which the network works."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

VALUES = ("counts", "lognorm", "intensity")
CLIP = 10.0  # standardised expression beyond this is cut
LEAST_STD = 1e-3  # a gene that varies less in training carries no information
CHUNK = 4096


class ExpressionTransform(nn.Module):
    """Standardises expression with statistics of the training cells, stored as buffers.

    Counts are divided by a size factor, log1p-transformed and standardised per gene. The size
    factor of a cell is its total over the *visible* genes divided by the median total the training
    cells have over the same genes, so that hiding genes does not change the values of the others.
    That median is taken as the median total over all genes times the share of the visible ones.
    ``"intensity"`` values enter at log1p, ``"lognorm"`` values at the standardisation.

    Parameters
    ----------
    num_genes
        Number of genes.
    values
        One of ``"counts"``, ``"lognorm"``, ``"intensity"``.
    """

    mean: Tensor
    std: Tensor
    share: Tensor
    median_total: Tensor

    def __init__(self, num_genes: int, values: str = "counts") -> None:
        super().__init__()
        self.values = values
        self.register_buffer("mean", torch.zeros(num_genes))
        self.register_buffer("std", torch.ones(num_genes))
        self.register_buffer("share", torch.full((num_genes,), 1.0 / num_genes))
        self.register_buffer("median_total", torch.tensor(1.0))

    @torch.no_grad()
    def fit(self, values: sparse.csr_matrix) -> None:
        """Set the statistics from training cells ``(n_cells, G)``, a few thousand at a time."""
        n = values.shape[0]
        if self.values == "counts":
            gene_total = torch.from_numpy(np.asarray(values.sum(0), dtype=np.float64).ravel())
            self.median_total.fill_(max(float(np.median(np.asarray(values.sum(1)))), 1.0))
            self.share.copy_(gene_total / gene_total.sum().clamp_min(1e-12))
        total = torch.zeros(values.shape[1], dtype=torch.float64)
        square = torch.zeros_like(total)
        for start in range(0, n, CHUNK):
            chunk = torch.from_numpy(values[start : start + CHUNK].toarray()).float()
            logged = self.log(chunk, torch.ones_like(chunk, dtype=torch.bool)).double()
            total += logged.sum(0)
            square += logged.square().sum(0)
        self.mean.copy_(total / n)
        std = (square / n - (total / n).square()).clamp_min(0).sqrt()
        self.std.copy_(torch.where(std < LEAST_STD, torch.inf, std))

    def log(self, values: Tensor, visible: Tensor) -> Tensor:
        """Log-normalised values ``(..., G)``; hidden genes enter neither total nor reference."""
        if self.values == "lognorm":
            return values
        if self.values == "intensity":
            return torch.log1p(values)
        total = (values * visible).sum(-1, keepdim=True)  # (..., 1)
        reference = self.median_total * (self.share * visible).sum(-1, keepdim=True)
        return torch.log1p(values * reference / total.clamp_min(1.0))

    def forward(self, values: Tensor, visible: Tensor) -> Tensor:
        """Standardised values ``(..., G)``, zero where a gene is not ``visible``."""
        standardised = (self.log(values, visible) - self.mean) / self.std
        return standardised.clamp(-CLIP, CLIP) * visible


class PositionTransform(nn.Module):
    """Scales coordinates by one isotropic factor, the RMS radius of the training sections."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(1.0))

    @torch.no_grad()
    def fit(self, sections: list[NDArray[np.float64]]) -> None:
        """Set the scale from the coordinates ``(n_i, d)`` of each training section."""
        squares = np.concatenate([np.square(s - s.mean(0)).sum(1) for s in sections])
        self.scale.fill_(float(np.sqrt(squares.mean())))

    def forward(self, position: Tensor) -> Tensor:
        """From measured units to the standardised space."""
        return position / self.scale

    def inverse(self, position: Tensor) -> Tensor:
        """From the standardised space to measured units."""
        return position * self.scale
