"""Conformal 90 % intervals of estimated expression, and how reliable the estimates of a gene are.

Arrays in, arrays out; :mod:`alphastomics.model._calibration` makes the estimates of hidden values
that they are fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alphastomics.metrics import pcc

Values = NDArray[np.float32]
# What an estimate was made of: other genes of the cell, those and its position, or positions of
# cells among measured ones.
Pattern = Literal["genes", "genes_at_positions", "positions"]

LEVEL = 0.9
N_BINS = 5  # of cells with similar estimates of a gene
CELLS_PER_BIN = 100
LEAST_CELLS = 50  # of a gene, for an interval of its own
DIGITS = 5  # of what is saved


class Scored(NamedTuple):
    """Estimates of hidden expression of a section and the truth, log-normalized.

    Attributes
    ----------
    estimate, truth
        ``(n, G)``, NaN where a value was not estimated or not measured.
    """

    estimate: Values
    truth: Values


@dataclass(frozen=True)
class Intervals:
    """Bounds around estimates of each gene, from what the estimates of similar size were off by.

    The estimates of a gene are cut into bins, in each of which the errors of held-out cells give
    the bounds: split conformal prediction within groups (Vovk 2012; Lei & Wasserman 2014), so that
    nine of ten cells with an estimate of that size are within. Counts are skewed and their
    variance follows the mean, hence a lower and an upper bound, and bins. Where more than
    5 % of the cells in a bin have the lowest value, the interval begins there, and all 10 %
    lie above it: 5 % cannot be cut off below.

    Attributes
    ----------
    edges
        Estimates where a bin ends, ``(G, N_BINS - 1)``.
    lower, upper
        Bounds minus the estimate, ``(G, N_BINS)``; a lower one of NaN is the lowest value.
    reliability
        Correlation of estimates and truth over the held-out cells of a section, mean over sections,
        ``(G,)``; NaN for genes that no held-out cell measured.
    """

    edges: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    reliability: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        sections: Sequence[Scored],
        mean: NDArray[np.floating],
        std: NDArray[np.floating],
        lowest: float,
    ) -> Intervals | None:
        """Fit to held-out sections; ``None`` if they have too few cells.

        Parameters
        ----------
        sections
            Estimates and truth of each.
        mean, std
            Of the genes in training, ``(G,)``. In their units all genes together give the bounds of
            those that fewer than :data:`LEAST_CELLS` cells measured.
        lowest
            The lowest value there can be, ``-inf`` if there is none.
        """
        estimate = np.concatenate([scored.estimate for scored in sections])
        truth = np.concatenate([scored.truth for scored in sections])
        known = np.isfinite(estimate) & np.isfinite(truth)
        if known.sum() < LEAST_CELLS:
            return None
        spread = np.where(np.isfinite(std), std, 0.0).astype(np.float64)
        center = np.asarray(mean, dtype=np.float64)
        standard = (
            np.where(spread > 0, (v - center) / np.maximum(spread, 1e-12), np.nan)
            for v in (estimate, truth)
        )
        z, z_truth = (v[known] for v in standard)
        at_lowest = truth[known] <= lowest
        varies = np.isfinite(z)
        if varies.sum() < LEAST_CELLS:
            return None
        pooled = _bounds(z[varies], z_truth[varies], at_lowest[varies])
        G = estimate.shape[1]
        edges = center[:, None] + spread[:, None] * pooled[0]
        lower, upper = (spread[:, None] * bound for bound in pooled[1:])
        for gene in np.flatnonzero(known.sum(0) >= LEAST_CELLS):
            cells = known[:, gene]
            e, y = estimate[cells, gene], truth[cells, gene]
            edges[gene], lower[gene], upper[gene] = _bounds(e, y, y <= lowest)
        return cls(*(np.round(v, DIGITS) for v in (edges, lower, upper, _reliability(sections, G))))

    def bounds(self, estimate: Values, lowest: float) -> tuple[Values, Values]:
        """Lower and upper bounds of estimates ``(n, G)``, which lie between them."""
        lower, upper = np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)
        for gene, edges in enumerate(self.edges):
            values = estimate[:, gene]
            bin_ = np.searchsorted(edges, values, side="right")
            below = self.lower[gene][bin_]
            low = np.where(np.isnan(below), lowest, values + below)
            lower[:, gene] = np.minimum(values, np.maximum(low, lowest))
            upper[:, gene] = np.maximum(values, values + self.upper[gene][bin_])
        return lower, upper

    def to_json(self) -> dict[str, list[Any]]:
        """As plain lists, ``None`` for NaN."""
        saved: dict[str, list[Any]] = {}
        for name, array in vars(self).items():
            values = array.astype(object)
            values[np.isnan(array)] = None
            saved[name] = values.tolist()
        return saved

    @classmethod
    def from_json(cls, saved: dict[str, list[Any]]) -> Intervals:
        """Invert :meth:`to_json`."""
        return cls(**{name: np.asarray(v, dtype=np.float64) for name, v in saved.items()})


def quantile_of_next(values: NDArray[np.floating], level: float) -> float:
    """Value that the next one is below with a probability of ``level``, or the largest."""
    n = len(values)
    return float(np.sort(values)[min(int(np.ceil((n + 1) * level)), n) - 1])


def _bounds(
    estimate: NDArray[np.floating], truth: NDArray[np.floating], at_lowest: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Edges of bins, lower and upper bounds of a gene, from its cells ``(n,)``."""
    n_bins = int(np.clip(len(estimate) // CELLS_PER_BIN, 1, N_BINS))
    share = np.arange(1, N_BINS) * n_bins // N_BINS / n_bins  # equal where there are fewer
    edges = np.quantile(estimate, share)
    bin_ = np.searchsorted(edges, estimate, side="right")
    lower, upper = np.full(N_BINS, np.nan), np.full(N_BINS, np.nan)
    filled = np.unique(bin_)
    for i in filled:
        cells = bin_ == i
        error = (truth - estimate)[cells]
        begins_lowest = at_lowest[cells].mean() > (1 - LEVEL) / 2
        if not begins_lowest:
            lower[i] = -quantile_of_next(-error, (1 + LEVEL) / 2)
        upper[i] = quantile_of_next(error, LEVEL if begins_lowest else (1 + LEVEL) / 2)
    # Bins between equal edges are empty, and only reached from below.
    nearest = filled[np.minimum(np.searchsorted(filled, np.arange(N_BINS)), len(filled) - 1)]
    return edges, lower[nearest], upper[nearest]


def _reliability(sections: Sequence[Scored], n_genes: int) -> NDArray[np.float64]:
    """Mean over sections of the correlation over cells, ``(G,)``."""
    found = np.full((len(sections), n_genes), np.nan)
    for i, (estimate, truth) in enumerate(sections):
        known = np.isfinite(estimate) & np.isfinite(truth)
        for gene in np.flatnonzero(known.sum(0) >= LEAST_CELLS):
            cells = known[:, gene]
            found[i, gene] = pcc(truth[cells, gene, None], estimate[cells, gene, None])[0]
    measured = np.isfinite(found)
    total = np.where(measured, found, 0).sum(0)
    return np.where(measured.any(0), total / np.maximum(measured.sum(0), 1), np.nan)
