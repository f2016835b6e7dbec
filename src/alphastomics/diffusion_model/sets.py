"""A batch of sets of cells, in measured units."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics.diffusion_model.interface import Context


class CellSets(NamedTuple):
    """Sets of cells and what the network may see of them.

    Attributes
    ----------
    values
        Expression, ``(B, N, G)``.
    measured
        Whether a gene was measured, boolean ``(B, N, G)``; False for padding.
    position
        Coordinates relative to the centre of the set, ``(B, N, d)``; anything where not located.
    located
        Whether the position of a cell was measured, boolean ``(B, N)``; False for padding.
    position_known, expression_known
        Whether the network is given the position and the measured genes of a cell, boolean
        ``(B, N)``.
    label, batch
        Category of each cell, numbered from 1, 0 where there is none, ``(B, N)``.
    scope
        ``(B,)``, see :data:`~alphastomics.diffusion_model.module.SCOPES`.
    cell_mask
        True for real cells, boolean ``(B, N)``; ``None`` when nothing is padded.
    n_bank
        How many of the last cells are a bank, see
        :class:`~alphastomics.diffusion_model.interface.Context`.
    """

    values: Tensor
    measured: Tensor
    position: Tensor
    located: Tensor
    position_known: Tensor
    expression_known: Tensor
    label: Tensor
    batch: Tensor
    scope: Tensor
    cell_mask: Tensor | None
    n_bank: int = 0

    def take(self, chosen: Tensor) -> CellSets:
        """Keep some of the sets, ``(B,)``."""
        return self._map(lambda field: field[chosen])

    def to(self, device: torch.device) -> CellSets:
        """Move all tensors."""
        return self._map(lambda field: field.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> CellSets:
        fields = self._asdict().items()
        changed = {k: change(f) if isinstance(f, Tensor) else f for k, f in fields}
        return CellSets(**changed)  # type: ignore[arg-type]

    def context(self) -> Context:
        """Tell the network what it may know besides expression and positions.

        A label only where expression is unknown: elsewhere it could give the position away.
        """
        label = self.label.masked_fill(self.expression_known, 0)
        return Context(self.cell_mask, self.scope, label, self.batch, self.n_bank)
