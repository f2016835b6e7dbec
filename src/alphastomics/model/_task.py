"""Inference task: which values are known, and which are to be estimated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._anndata import Mask
from alphastomics._validate import check_integer, short
from alphastomics.model._data import CellTable, concatenate
from alphastomics.model._query import blank_cells, check_reference

MODES = ("auto", "expr_to_pos", "pos_to_expr", "joint")
MIN_SET = 2
MAX_SET, MAX_PLACED_SET = 2048, 8192  # cells of a set, where positions are unknown or known
Cells = NDArray[np.int64]


def in_words(section: str) -> str:
    """Section of a query, in messages."""
    return "the query" if section == _keys.ONLY_SECTION else f"section {section!r} of the query"


class QueryStandards(NamedTuple):
    """Statistics by which the genes of sections of a query are standardized.

    Attributes
    ----------
    shift, scale
        Mean and standard deviation of its standardized genes, ``(n_sections, G)``.
    section
        Number of the section of each query cell, ``(n_query,)``.
    own
        Which sections are standardized by themselves, ``(n_sections,)``; the others have shift 0
        and scale 1.
    """

    shift: NDArray[np.float32]
    scale: NDArray[np.float32]
    section: NDArray[np.int64]
    own: NDArray[np.bool_]

    def is_own(self, cell: int) -> bool:
        """True if the section of a query cell is standardized by itself."""
        return bool(self.own[self.section[cell]])


@dataclass(frozen=True)
class InferenceTask:
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
        Whether positions and expression are estimated.
    blank
        Query cells of which nothing is known, which are left out: no estimates, no context.
    embed
        Whether all other query cells are to be embedded, those too that lack nothing.
    standards
        Of the sections of the query, if these are to be standardized by themselves.
    novel
        Query cells of sections unlike those of training, ``(n_query,)``; ``None`` if there are
        none.
    """

    data: CellTable
    n_query: int
    position_known: Mask
    expression_known: Mask
    fill_position: bool
    fill_expression: bool
    blank: Cells = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    embed: bool = False
    standards: QueryStandards | None = None
    novel: Mask | None = None

    @property
    def n(self) -> int:
        """Number of cells, the reference included."""
        return len(self.data.names)

    def set_size(self, max_cells: int | None = None) -> int:
        """Maximum number of cells of a set: ``max_cells``, or by default."""
        if max_cells is not None:
            return int(max_cells)
        return MAX_SET if self.fill_position else MAX_PLACED_SET

    @property
    def to_fill(self) -> Mask:
        """Query cells that lack a value that is estimated, ``(n,)``."""
        lacking = np.full(self.n, self.embed)
        if self.fill_position:
            lacking |= ~self.position_known
        if self.fill_expression:
            all_measured = np.asarray(self.data.panels.all(axis=1))[self.data.panel]
            lacking |= ~(self.expression_known & all_measured)
        return lacking & self.in_query

    @property
    def in_query(self) -> Mask:
        """Query cells but those of which nothing is known, ``(n,)``."""
        within = np.arange(self.n) < self.n_query
        within[self.blank] = False
        return within

    @property
    def reads_label(self) -> Mask:
        """Cells whose label is a condition: expression is estimated, of which nothing is known."""
        return ~self.expression_known & self.fill_expression

    def unframed_sections(self) -> list[tuple[str, NDArray[np.int64]]]:
        """Name and cells of the query's sections whose frame no known position fixes."""
        if self.position_known[self.n_query :].any():
            return []
        sections = self.data.section[: self.n_query]
        within = self.in_query[: self.n_query]
        names = pd.unique(sections[within])
        cells = {name: np.flatnonzero(within & (sections == name)) for name in names}
        return [(name, c) for name, c in cells.items() if not self.position_known[c].any()]


def check_set_size(max_cells_per_set: int | None) -> None:
    """Raise unless a set can have as many cells."""
    if max_cells_per_set is not None:
        check_integer("max_cells_per_set", max_cells_per_set, MIN_SET)


def make_task(
    query: CellTable,
    reference: CellTable | None,
    mode: str,
    *,
    training_mode: str,
    spatial_key: str,
    predicts: bool,
    embed: bool = False,
    leave_out_blank: bool = True,
    hint: str = "",
) -> InferenceTask:
    """Make the task of a mode, or raise if there is nothing to estimate or nothing is known.

    Parameters
    ----------
    query, reference
        Cells to fill in; cells to learn from that stay as they are.
    mode
        One of :data:`MODES`.
    training_mode
        That of the model, which may not have learned what the mode needs.
    spatial_key
        Key of the coordinates, for messages.
    predicts
        Whether the mean is estimated, for which some value must be known.
    embed
        Whether cells are embedded, those too that lack nothing.
    leave_out_blank
        Whether cells of which nothing is known have no estimates.
    hint
        Where else there may be coordinates, for messages.
    """
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
        if not (fill_position or fill_expression or embed):
            raise ValueError(
                f"mode='auto' predicts what is missing, but nothing is missing: every cell has a "
                f"position in {where} and its expression. Pass mode='expr_to_pos' to mask the "
                "positions and place every cell, or mode='pos_to_expr' to mask expression."
            )
    else:
        fill_position, fill_expression = mode != "pos_to_expr", mode != "expr_to_pos"

    _require_something_known(
        mode,
        position=reference is not None or bool(position_known.any()),
        expression=bool(expression_known.any()),
        where=f"adata.obsm[{spatial_key!r}]{f' ({hint})' if hint else ''}",
        predicts=predicts,
    )
    require_direction(training_mode, position=fill_position, expression=fill_expression)
    blank = np.zeros(0, dtype=np.int64)
    if leave_out_blank:
        blank = blank_cells(query, position_known, expression_known)
    data = query
    if reference is not None:
        check_reference(query, reference, position_known, fill_position=fill_position)
        data = concatenate(query, reference)
        position_known = np.concatenate([position_known, reference.has_position])
        expression_known = np.concatenate([expression_known, reference.expression_known])
    return InferenceTask(
        data,
        len(query.names),
        position_known,
        expression_known,
        fill_position,
        fill_expression,
        blank,
        embed,
    )


def imputation_task(query: CellTable, reference: CellTable | None) -> InferenceTask:
    """Make the task of estimating genes, given the others and the positions that are known."""
    blank = blank_cells(query, query.has_position, query.expression_known)
    data = query
    if reference is not None:
        check_reference(query, reference, query.has_position, fill_position=False)
        data = concatenate(query, reference)
    return InferenceTask(
        data,
        len(query.names),
        position_known=data.has_position,
        expression_known=data.expression_known,
        fill_position=False,
        fill_expression=True,
        blank=blank,
    )


def _panels_differ(query: CellTable) -> bool:
    """True if cells lack genes that others of the same AnnData have."""
    used = query.panels[np.unique(query.panel)]
    return bool((used.any(0) & ~used.all(0)).any())


def _require_something_known(
    mode: str, *, position: bool, expression: bool, where: str, predicts: bool
) -> None:
    """Raise if no position is known, or no expression of the query, where it takes one."""
    if mode == "expr_to_pos" and not expression:
        raise ValueError(
            "mode='expr_to_pos' masks all values: no cell's expression is known "
            "(adata.obs['expression_known'] is False throughout). Use model.sample(mode='joint')."
        )
    if mode == "pos_to_expr" and not position:
        raise ValueError(
            f"mode='pos_to_expr' masks all values: no cell has a position in {where}. "
            "Use mode='expr_to_pos' to place the cells."
        )
    if predicts and not (position or expression):
        raise ValueError(
            f"mode={mode!r} masks all values, and the mean over all tissues is uninformative: use "
            "model.sample or model.generate, or pass reference=."
        )


def require_direction(training_mode: str, *, position: bool, expression: bool) -> None:
    """Raise if a model was trained for the other direction only."""
    for needed, other, what in (
        (position, "pos_to_expr", "place cells"),
        (expression, "expr_to_pos", "predict expression"),
    ):
        if needed and training_mode == other:
            raise ValueError(
                f"This model was trained with training_mode={training_mode!r} and cannot {what}: "
                "train one with training_mode='joint'."
            )


def genes_to_impute(
    model_genes: pd.Index, query_genes: pd.Index, genes: Iterable[str] | str | None
) -> NDArray[np.int64]:
    """Numbers of the genes of the model to estimate: named ones in order, or those that lack."""
    if genes is None:
        chosen = np.flatnonzero(~model_genes.isin(query_genes))
        if not len(chosen):
            raise ValueError(
                "adata has all genes of the model, so there is nothing to impute: name by "
                "genes= those to mask and impute."
            )
        return chosen
    if not isinstance(genes, Iterable) or isinstance(genes, bytes | Mapping | AnnData):
        raise TypeError(
            f"genes must be a list of names of genes, found {short(genes)} "
            f"({type(genes).__name__})."
        )
    named = [genes] if isinstance(genes, str) else list(genes)
    strange = [gene for gene in named if not isinstance(gene, str)]
    if strange:
        raise TypeError(
            f"genes must be a list of names of genes, found {short(strange[0])} "
            f"({type(strange[0]).__name__}) in it."
        )
    unknown = [gene for gene in named if gene not in model_genes]
    if unknown:
        raise ValueError(
            f"genes names {short(unknown[0])}, which is not among the {len(model_genes)} genes of "
            f"the model, such as {', '.join(map(repr, model_genes[:3]))}."
        )
    if not named:
        raise ValueError(
            "genes is empty: name the genes to impute, or pass None for all missing ones."
        )
    repeated = pd.Index(named)[pd.Index(named).duplicated()]
    if len(repeated):
        raise ValueError(f"genes names {repeated[0]!r} more than once: name each gene once.")
    return np.asarray(model_genes.get_indexer(pd.Index(named)))
