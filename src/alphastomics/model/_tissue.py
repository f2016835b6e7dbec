"""The cells that the model learns from or fills in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from alphastomics.diffusion_model.transforms import Rows

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class TissueData:
    """Cells in the order of the AnnData and genes in the order of the model.

    Attributes
    ----------
    expression
        Measured values ``(n, G)``, a CSR matrix or what reads its rows from disk; zero where the
        gene was not measured.
    panels
        The gene panels, boolean ``(n_panels, G)``: which of the model's genes they measure.
    panel
        Panel of each cell, ``(n,)``.
    expression_known
        Whether a cell's expression was measured at all, ``(n,)``.
    position
        ``(n, d)`` in the units of the input, NaN rows where missing; ``None`` when all are.
    section
        Section of each cell, ``(n,)``.
    names
        Name of each cell, ``(n,)``.
    label, batch
        Number of each cell's type and batch, 0 where there is none, ``(n,)``.
    block
        A random part of its section in which each cell is stored, ``(n,)``; all the same in memory.
    """

    expression: Rows
    panels: Mask
    panel: NDArray[np.int64]
    expression_known: Mask
    position: NDArray[np.float64] | None
    section: NDArray[np.str_]
    names: NDArray[np.str_]
    label: NDArray[np.int64]
    batch: NDArray[np.int64]
    block: NDArray[np.int64]

    @cached_property
    def has_position(self) -> Mask:
        """Whether each cell's position is known, ``(n,)``."""
        if self.position is None:
            return np.zeros(len(self.section), dtype=bool)
        return np.asarray(~np.isnan(self.position).any(1))

    def measured(self, cells: NDArray[np.int64]) -> Mask:
        """Whether each gene of each cell was measured, ``(len(cells), G)``."""
        return np.asarray(self.panels[self.panel[cells]] & self.expression_known[cells, None])

    def take(self, cells: NDArray[np.int64]) -> TissueData:
        """Copy some of the cells."""
        per_cell = {
            f.name: getattr(self, f.name)[cells]
            for f in fields(self)
            if f.name not in ("panels", "position")
        }
        position = None if self.position is None else self.position[cells]
        return TissueData(panels=self.panels, position=position, **per_cell)

    def shuffle(
        self,
        cells: NDArray[np.int64],
        rng: np.random.Generator,
        n: int,
        *,
        located: bool = False,
    ) -> NDArray[np.int64]:
        """Shuffle the cells of random blocks, of as few as hold ``n``, with a position if asked."""
        blocks, block = np.unique(self.block[cells], return_inverse=True)
        if len(blocks) > 1:
            counted = self.has_position[cells] if located else np.ones(len(cells))
            order = rng.permutation(len(blocks))
            held = np.cumsum(np.bincount(block, weights=counted)[order])
            cells = cells[np.isin(block, order[: np.searchsorted(held, n) + 1])]
        return rng.permutation(cells)

    def cells_of(self, section: str) -> NDArray[np.int64]:
        """Find the indices of the cells of a section."""
        return np.flatnonzero(self.section == section)
