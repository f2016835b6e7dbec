"""What a call asks for: which values are known, which are to be filled in."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alphastomics.model._tissue import Mask, TissueData
from alphastomics.model._validate import check_choice

MODES = ("auto", "expr_to_pos", "pos_to_expr", "joint")


@dataclass(frozen=True)
class Request:
    """Cells with their known and unknown values; query cells first, then those of a reference.

    Attributes
    ----------
    data
        All cells.
    n_query
        Number of cells that are written to.
    position_known
        Whether the position of a cell is given, ``(n,)``.
    expression_known
        Whether the measured genes of a cell are given, ``(n,)``.
    fill_position, fill_expression
        Whether positions and expression are asked for.
    query_shift, query_scale
        Mean and standard deviation of the query's standardised genes, each ``(G,)``, if it is to be
        standardised by itself.
    """

    data: TissueData
    n_query: int
    position_known: Mask
    expression_known: Mask
    fill_position: bool
    fill_expression: bool
    query_shift: NDArray[np.float32] | None = None
    query_scale: NDArray[np.float32] | None = None

    @property
    def n(self) -> int:
        """Number of cells, those of the reference with them."""
        return len(self.data.names)

    @property
    def to_fill(self) -> Mask:
        """Cells that lack something that is asked for, ``(n,)``."""
        lacking = np.zeros(self.n, dtype=bool)
        if self.fill_position:
            lacking |= ~self.position_known
        if self.fill_expression:
            all_measured = np.asarray(self.data.panels.all(axis=1))[self.data.panel]
            lacking |= ~(self.expression_known & all_measured)
        lacking[self.n_query :] = False
        return lacking

    def unframed_sections(self) -> list[tuple[str, NDArray[np.int64]]]:
        """Name and cells of the query's sections whose frame nothing known fixes."""
        if self.position_known[self.n_query :].any():
            return []
        sections = self.data.section[: self.n_query]
        cells = {name: np.flatnonzero(sections == name) for name in pd.unique(sections)}
        return [(n, c) for n, c in cells.items() if not self.position_known[c].any()]


def join(first: TissueData, second: TissueData) -> TissueData:
    """Put the cells of two data sets behind each other; sections keep their names."""
    n_dims = next(d.position.shape[1] for d in (first, second) if d.position is not None)

    def position(data: TissueData) -> NDArray[np.float64]:
        if data.position is None:
            return np.full((len(data.names), n_dims), np.nan)
        return data.position

    values = {
        f.name: np.concatenate([getattr(first, f.name), getattr(second, f.name)])
        for f in fields(TissueData)
        if f.name not in ("expression", "panel", "position")
    }
    return TissueData(
        expression=sparse.csr_matrix(sparse.vstack([first.expression[:], second.expression[:]])),
        panel=np.concatenate([first.panel, second.panel + len(first.panels)]),
        position=np.concatenate([position(first), position(second)]),
        **values,
    )


def make_request(
    query: TissueData,
    reference: TissueData | None,
    mode: str,
    *,
    spatial_key: str,
    predicts: bool,
) -> Request:
    """Turn a mode into a pattern of known and unknown, or say why it makes none.

    Parameters
    ----------
    query, reference
        Cells to fill in; cells to learn from that stay as they are.
    mode
        One of :data:`MODES`.
    spatial_key
        Name to use in messages.
    predicts
        Whether a mean is asked for: there is none of nothing.
    """
    check_choice("mode", mode, MODES)
    where = f"adata.obsm[{spatial_key!r}]"
    position_known = query.has_position.copy()
    expression_known = query.expression_known.copy()
    if mode in ("expr_to_pos", "joint"):
        position_known[:] = False
    if mode in ("pos_to_expr", "joint"):
        expression_known[:] = False
    if mode == "auto":
        fill_position = not position_known.all()
        fill_expression = not expression_known.all() or _panels_differ(query)
        if not (fill_position or fill_expression):
            raise ValueError(
                f"mode='auto' fills in what is missing, but nothing is missing: every cell has a "
                f"position in {where} and its expression. Pass mode='expr_to_pos' to hide the "
                "positions and place every cell anew, or mode='pos_to_expr' to hide expression."
            )
    else:
        fill_position, fill_expression = mode != "pos_to_expr", mode != "expr_to_pos"

    n_query = len(query.names)
    data = query
    if reference is not None:
        data = join(query, reference)
        position_known = np.concatenate([position_known, reference.has_position])
        expression_known = np.concatenate([expression_known, reference.expression_known])
    _require_something_known(
        mode, position_known, expression_known, n_query, where, predicts=predicts
    )
    return Request(data, n_query, position_known, expression_known, fill_position, fill_expression)


def _panels_differ(query: TissueData) -> bool:
    """Whether some cells lack genes that others of the same AnnData have."""
    used = query.panels[np.unique(query.panel)]
    return bool((used.any(0) & ~used.all(0)).any())


def _require_something_known(
    mode: str,
    position_known: Mask,
    expression_known: Mask,
    n_query: int,
    where: str,
    *,
    predicts: bool,
) -> None:
    if mode == "expr_to_pos" and not expression_known[:n_query].any():
        raise ValueError(
            "mode='expr_to_pos' hides everything: no cell's expression is known "
            "(adata.obs['expression_known'] is False throughout). Use model.sample(mode='joint')."
        )
    if mode == "pos_to_expr" and not position_known.any():
        raise ValueError(
            f"mode='pos_to_expr' hides everything: no cell has a position in {where}. "
            "Use mode='expr_to_pos' to place the cells."
        )
    if predicts and not (position_known.any() or expression_known.any()):
        raise ValueError(
            f"mode={mode!r} hides everything, and the mean of every tissue says nothing: use "
            "model.sample or model.generate to draw one, or pass reference=."
        )


def hide_gene_columns(data: TissueData, hidden: Mask) -> TissueData:
    """Copy the cells, some genes ``(G,)`` unknown in all of them."""
    expression = data.expression[:]
    keep = sparse.diags((~hidden).astype(expression.dtype))
    return replace(
        data, panels=data.panels & ~hidden, expression=sparse.csr_matrix(expression @ keep)
    )
