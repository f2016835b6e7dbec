"""Between measured units and the standardized space in which the network works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

CLIP = 10.0  # standardized expression beyond this is cut
LEAST_STD = 1e-3  # a gene that varies less in training carries no information
CHUNK = 4096


class Rows(Protocol):
    """A sparse matrix, or what reads parts of one from disk."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""

    def __getitem__(self, rows: Any) -> sparse.csr_matrix:
        """Read some of the rows."""


Panel = tuple[Rows, NDArray[np.bool_]]


def _chunks(panels: Sequence[Panel]) -> Iterator[tuple[sparse.csr_matrix, NDArray[np.bool_]]]:
    """Read a few thousand rows at a time."""
    for values, measured in panels:
        for start in range(0, values.shape[0], CHUNK):
            yield values[start : start + CHUNK], measured


class ExpressionTransform(nn.Module):
    """Standardizes expression with statistics of the training cells, stored as buffers.

    Counts are divided by a size factor, log1p-transformed and standardized per gene. The size
    factor of a cell is its total over the *counted* genes divided by the median total the training
    cells have over the same genes, so that hiding genes does not change the values of the others.
    That median is taken as the median total over all genes times the share of the counted ones.
    ``"intensity"`` values enter at log1p, ``"lognorm"`` values at the standardization.

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
    def fit(self, panels: Sequence[Panel]) -> None:
        """Set the statistics from training cells, a few thousand at a time.

        Parameters
        ----------
        panels
            For every group of cells with one gene panel its values ``(n_cells, G)`` and which genes
            were measured, ``(G,)``. At least one gene must be in all panels.
        """
        if self.values == "counts":
            self._fit_depth(panels)
        total = torch.zeros(len(self.mean), dtype=torch.float64)
        square, n = torch.zeros_like(total), torch.zeros_like(total)
        for rows, measured in _chunks(panels):
            genes = torch.from_numpy(measured)
            chunk = torch.from_numpy(rows.toarray()).float()
            logged = self.log(chunk, genes.expand_as(chunk)).double()
            total += torch.where(genes, logged.sum(0), 0.0)
            square += torch.where(genes, logged.square().sum(0), 0.0)
            n += genes * len(chunk)
        n = n.clamp_min(1)
        self.mean.copy_(total / n)
        std = (square / n - (total / n).square()).clamp_min(0).sqrt()
        self.std.copy_(torch.where(std < LEAST_STD, torch.inf, std))

    def _fit_depth(self, panels: Sequence[Panel]) -> None:
        """Share of each gene in a cell's total, each panel scaled by the genes that all have."""
        common = np.logical_and.reduce([measured for _, measured in panels])
        share, n = np.zeros(len(common)), np.zeros(len(common))
        totals = []
        for values, measured in panels:
            by_gene = np.zeros(len(common))
            for rows, _ in _chunks([(values, measured)]):
                by_gene += np.asarray(rows.sum(0), dtype=np.float64).ravel()
                totals.append(np.asarray(rows[:, common].sum(1)).ravel())
            share += values.shape[0] * by_gene / max(by_gene[common].sum(), 1e-12)
            n += values.shape[0] * measured
        share /= np.maximum(n, 1)
        median = np.median(np.concatenate(totals)) * share.sum() / share[common].sum()
        self.median_total.fill_(max(float(median), 1.0))
        self.share.copy_(torch.from_numpy(share / share.sum()))

    def log(self, values: Tensor, counted: Tensor) -> Tensor:
        """Log-normalized values ``(..., G)``; only ``counted`` genes enter total and reference."""
        return self.log_at_depth(values, self.depth(values, counted))

    def log_at_depth(self, values: Tensor, depth: Tensor) -> Tensor:
        """Log-normalized values ``(..., G)`` of cells of known depth ``(...,)``."""
        if self.values == "lognorm":
            return values
        if self.values == "intensity":
            return torch.log1p(values)
        return (values / depth[..., None]).log1p_()

    def depth(self, values: Tensor, counted: Tensor) -> Tensor:
        """Size factor: depth of each cell relative to the median of training, ``(...,)``.

        1 for values that are not counts.
        """
        if self.values != "counts":
            return torch.ones_like(values[..., 0])
        mask = counted.to(values)
        total = torch.linalg.vecdot(values, mask)
        reference = self.median_total * (mask @ self.share)
        return total.clamp_min(1.0) / reference.clamp_min(1e-12)

    def forward(self, values: Tensor, counted: Tensor) -> Tensor:
        """Standardized values ``(..., G)``."""
        return self.standardize(self.log(values, counted))

    def standardize(self, logged: Tensor) -> Tensor:
        """Standardized values of log-normalized ones, ``(..., G)``."""
        return (logged - self.mean).div_(self.std).clamp_(-CLIP, CLIP)

    def inverse(self, standardized: Tensor) -> Tensor:
        """Log-normalized values ``(..., G)``; those below zero are set to zero (not for lognorm).

        A gene that did not vary in training gets its mean.
        """
        logged = torch.where(self.std.isinf(), 0.0, standardized * self.std) + self.mean
        return logged if self.values == "lognorm" else logged.clamp_min(0.0)

    def unlog(self, logged: Tensor, depth: Tensor | None = None) -> Tensor:
        """Invert :meth:`log`: whole counts of cells of depths ``(...,)``, or intensities.

        The depth is the median of training by default.
        """
        values = self.unlogged(logged)
        if self.values != "counts":
            return values
        return (values if depth is None else values * depth[..., None]).round()

    def unlogged(self, logged: Tensor) -> Tensor:
        """Invert the logarithm, if one was taken: expected counts of the median depth."""
        return logged if self.values == "lognorm" else torch.expm1(logged)


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
        """From measured units to the standardized space."""
        return position / self.scale

    def inverse(self, position: Tensor) -> Tensor:
        """From the standardized space to measured units."""
        return position * self.scale
