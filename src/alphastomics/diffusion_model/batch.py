"""Batches of sets of cells: in measured units, and standardized as the network reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from alphastomics.nn.spatial_bias import KnownPositions

SCOPES = ("section", "window")
SECTION, WINDOW = range(len(SCOPES))
Record = TypeVar("Record", "CellBatch", "StandardizedCells")


class CellBatch(NamedTuple):
    """Sets of cells in measured units, and what is known of them.

    Attributes
    ----------
    values
        Expression, ``(B, N, G)``.
    measured
        Whether a gene was measured, boolean ``(B, N, G)``; False for padding.
    position
        Coordinates relative to the center of the section, ``(B, N, d)``; ignored where not located.
    located
        Whether the position of a cell was measured, boolean ``(B, N)``; False for padding.
    position_known, expression_known
        Whether the network is given the position and the measured genes of a cell, boolean
        ``(B, N)``.
    label, batch
        Category of each cell, numbered from 1, 0 where there is none, ``(B, N)``.
    section
        Number of the training section, -1 for others, ``(B,)``.
    scope
        Index into :data:`SCOPES`, ``(B,)``: a random part of a section, or a window of it.
    cell_mask
        True for real cells, boolean ``(B, N)``; ``None`` when nothing is padded.
    n_support
        The last cells of each set, known ones that the others are only matched with.
    """

    values: Tensor
    measured: Tensor
    position: Tensor
    located: Tensor
    position_known: Tensor
    expression_known: Tensor
    label: Tensor
    batch: Tensor
    section: Tensor
    scope: Tensor
    cell_mask: Tensor | None
    n_support: int = 0

    def to(self, device: torch.device) -> CellBatch:
        """Move all tensors."""
        return _map(self, lambda field: field.to(device))

    @property
    def real(self) -> Tensor:
        """True for real cells, ``(B, N)``."""
        return torch.ones_like(self.located) if self.cell_mask is None else self.cell_mask

    def label_condition(self) -> Tensor:
        """Labels as a condition ``(B, N)``, 0 where expression is known."""
        return self.label.masked_fill(self.expression_known, 0)


class StandardizedCells(NamedTuple):
    """Sets of cells as the network reads them.

    Attributes
    ----------
    expression
        Standardized, ``(B, N, G)``; ignored where not known.
    gene_known
        Boolean ``(B, N, G)``.
    position
        In RMS radii and, for registered sets, in the common frame, ``(B, N, d)``; ignored where not
        known.
    position_known
        Boolean ``(B, N)``.
    registered
        Whether positions are in the common frame, boolean ``(B,)``; ``None`` for all of them.
    cell_mask, scope, label, batch, n_support
        As in :class:`CellBatch`; ``None`` for nothing masked, sections, and no condition.
    """

    expression: Tensor
    gene_known: Tensor
    position: Tensor
    position_known: Tensor
    registered: Tensor | None = None
    cell_mask: Tensor | None = None
    scope: Tensor | None = None
    label: Tensor | None = None
    batch: Tensor | None = None
    n_support: int = 0

    def split(self) -> tuple[StandardizedCells, StandardizedCells]:
        """Part the cells of the sets from those that they are only matched with."""
        n = self.position.shape[1] - self.n_support
        cells = self._cells(slice(None, n))
        return cells, self._cells(slice(n, None))

    def _cells(self, cells: slice) -> StandardizedCells:
        per_set = ("registered", "scope")
        return _map(self, lambda f: f[:, cells], leave=per_set)._replace(n_support=0)

    @property
    def real(self) -> Tensor:
        """True for real cells, ``(B, N)``."""
        mask = self.cell_mask
        return torch.ones_like(self.position_known) if mask is None else mask

    def where(self) -> KnownPositions | None:
        """Known positions; ``None`` if no position of the batch is known."""
        if not bool(self.position_known.any()):
            return None
        known = self.position_known
        return KnownPositions(torch.where(known[..., None], self.position, 0.0), known)


def _map(record: Record, change: Callable[[Tensor], Tensor], leave: tuple[str, ...] = ()) -> Record:
    """Change all tensors but those named."""
    changed = {
        name: change(field) if isinstance(field, Tensor) and name not in leave else field
        for name, field in record._asdict().items()
    }
    return record._replace(**changed)  # type: ignore[arg-type]
