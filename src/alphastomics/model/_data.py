"""Cells as the model reads them from AnnData."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._anndata import (
    Mask,
    as_names,
    expression_known,
    gene_names,
    obs_column,
    read_panels,
    read_positions,
    sections_of,
)
from alphastomics._compat import warn
from alphastomics._coordinates import is_known
from alphastomics._hints import coordinate_hint, gene_hint
from alphastomics._pixels import check_pixels
from alphastomics._validate import MIN_CELLS, check_adata, check_positions
from alphastomics.diffusion_model.transforms import Rows
from alphastomics.model._expression import GeneIndexer, read_expression


@dataclass(frozen=True)
class SetupArgs:
    """Arguments of ``AlphaSTomics.setup_anndata``, as they are stored."""

    layer: str | None
    values: str
    spatial_key: str
    section_key: str | None
    labels_key: str | None
    batch_key: str | None = None

    def check(self) -> None:
        """Raise unless keys are text; all but that of positions may be None."""
        keys = {name: key for name, key in asdict(self).items() if name != "values"}
        for name, key in keys.items():
            if not isinstance(key, str) and (key is not None or name == "spatial_key"):
                raise TypeError(
                    f"{name} must be the name of a part of adata, found {key!r} "
                    f"({type(key).__name__})."
                )


@dataclass(frozen=True)
class Categories:
    """Names of the cell types and batches of training; the network numbers them from 1."""

    labels: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellTable:
    """Cells in the order of the AnnData, with the genes of the model in its order.

    Attributes
    ----------
    expression
        Measured values ``(n, G)``, a CSR matrix or a reader of its rows on disk; zero where the
        gene was not measured.
    panels
        Gene panels, boolean ``(n_panels, G)``: which of the model's genes each measures.
    panel
        Number of the panel of each cell, ``(n,)``.
    expression_known
        Whether the expression of a cell was measured at all, ``(n,)``.
    position
        ``(n, d)`` in the units of the input, rows of NaN where missing.
    section
        Section of each cell, ``(n,)``.
    names
        Name of each cell, ``(n,)``.
    label, batch
        Number of the type and of the batch of each cell, 0 where there is none, ``(n,)``.
    block
        Storage block of each cell, a random part of its section, ``(n,)``; 0 in memory.
    """

    expression: Rows
    panels: Mask
    panel: NDArray[np.int64]
    expression_known: Mask
    position: NDArray[np.float64]
    section: NDArray[np.str_]
    names: NDArray[np.str_]
    label: NDArray[np.int64]
    batch: NDArray[np.int64]
    block: NDArray[np.int64]

    @cached_property
    def has_position(self) -> Mask:
        """Mask of cells with a known position, ``(n,)``."""
        return is_known(self.position)

    def measured(self, cells: NDArray[np.int64]) -> Mask:
        """Mask of measured genes of cells, ``(len(cells), G)``."""
        return np.asarray(self.panels[self.panel[cells]] & self.expression_known[cells, None])

    def subset(self, cells: NDArray[np.int64]) -> CellTable:
        """Table of some cells."""
        per_cell = {
            f.name: getattr(self, f.name)[cells] for f in fields(self) if f.name != "panels"
        }
        return CellTable(panels=self.panels, **per_cell)

    def shuffle(
        self, cells: NDArray[np.int64], rng: np.random.Generator, n: int, *, located: bool = False
    ) -> NDArray[np.int64]:
        """Shuffle the cells of random storage blocks, of as few as hold ``n``.

        With ``located``, ``n`` of them with a position.
        """
        blocks, block = np.unique(self.block[cells], return_inverse=True)
        if len(blocks) > 1:
            counted = self.has_position[cells] if located else np.ones(len(cells))
            order = rng.permutation(len(blocks))
            held = np.cumsum(np.bincount(block, weights=counted)[order])
            cells = cells[np.isin(block, order[: np.searchsorted(held, n) + 1])]
        return rng.permutation(cells)

    def cells_of(self, section: str) -> NDArray[np.int64]:
        """Indices of the cells of a section."""
        return np.flatnonzero(self.section == section)


def concatenate(first: CellTable, second: CellTable) -> CellTable:
    """Cells of two tables; sections keep their names."""
    values = {
        f.name: np.concatenate([getattr(first, f.name), getattr(second, f.name)])
        for f in fields(CellTable)
        if f.name not in ("expression", "panel")
    }
    return CellTable(
        expression=sparse.csr_matrix(sparse.vstack([first.expression[:], second.expression[:]])),
        panel=np.concatenate([first.panel, second.panel + len(first.panels)]),
        **values,
    )


def without_genes(table: CellTable, hidden: Mask) -> CellTable:
    """Table in which some genes ``(G,)`` are unknown in all cells."""
    expression = table.expression[:]
    visible = sparse.diags((~hidden).astype(expression.dtype))
    return replace(
        table, panels=table.panels & ~hidden, expression=sparse.csr_matrix(expression @ visible)
    )


def category_numbers(
    adata: AnnData, key: str | None, names: tuple[str, ...], argument: str
) -> NDArray[np.int64]:
    """Number of the category of each cell, from 1; 0 where it is missing, -1 if not among them."""
    if key is None or key not in adata.obs:
        return np.zeros(adata.n_obs, dtype=np.int64)
    column = obs_column(adata, key, argument)
    code = pd.Index(names, dtype=object).get_indexer(pd.Index(as_names(column)))
    return np.asarray(np.where(column.isna(), 0, np.where(code < 0, -1, code + 1)), dtype=np.int64)


def require_seen_labels(
    adata: AnnData, setup: SetupArgs, categories: Categories, cells: Mask | slice = slice(None)
) -> None:
    """Raise if a label that is an input was not in the training data."""
    key, names = setup.labels_key, categories.labels
    unseen = np.flatnonzero(category_numbers(adata, key, names, "labels_key")[cells] < 0)
    if len(unseen):
        found = adata.obs[key].to_numpy(dtype=object)[cells][unseen[0]]
        raise ValueError(
            f"adata.obs[{key!r}] (labels_key) holds {found!r}, which was not in the "
            f"training data; these had {', '.join(map(repr, names))}. Rename it, or set it to NaN."
        )


def _warn_of_unseen_batches(
    adata: AnnData, setup: SetupArgs, categories: Categories, name: str
) -> None:
    key, names = setup.batch_key, categories.batches
    unseen = category_numbers(adata, key, names, "batch_key") < 0
    if unseen.any():
        found = ", ".join(map(repr, as_names(adata.obs[key][unseen]).unique()[:5]))
        warn(
            f"{name}.obs[{key!r}] (batch_key) holds {found} in {int(unseen.sum())} of "
            f"{adata.n_obs} cells, which was not in the training data; these "
            f"had {', '.join(map(repr, names))}. These cells are treated as of no batch."
        )


def read_categories(adata: AnnData, setup: SetupArgs) -> Categories:
    """Names of the cell types and batches of the training cells."""

    def names(argument: str, key: str | None) -> tuple[str, ...]:
        if key is None:
            return ()
        return tuple(sorted(as_names(obs_column(adata, key, argument).dropna()).unique()))

    return Categories(names("labels_key", setup.labels_key), names("batch_key", setup.batch_key))


def check_linked(table: CellTable, training: Mask) -> None:
    """Raise if too few of the cells to train on ``(n,)`` have both a position and expression."""
    located, known = table.has_position & training, table.expression_known & training
    n_linked = int((located & known).sum())
    if n_linked < MIN_CELLS:
        raise ValueError(
            f"{n_linked} of the {int(training.sum())} cells to train on have both a position "
            f"({int(located.sum())} have one) and measured expression ({int(known.sum())}, by "
            f"adata.obs[{_keys.EXPRESSION_KNOWN!r}]), but at least {MIN_CELLS} are needed: nothing "
            "else links the two."
        )


def read_training(
    adata: AnnData,
    setup: SetupArgs,
    categories: Categories | None = None,
    genes: pd.Index | None = None,
    n_dims: int | None = None,
) -> CellTable:
    """Read and check training cells.

    Parameters
    ----------
    adata, setup
        Sections, at least one with coordinates, and their keys.
    categories, genes, n_dims
        Those of the model, if there is one already.
    """
    check_adata(adata)
    if setup.spatial_key not in adata.obsm:
        remedy = coordinate_hint(adata, setup.spatial_key)
        if _keys.SPATIALDATA in adata.uns:
            remedy = "a table of SpatialData gets them by al.io.read_table"
        raise KeyError(
            f"spatial_key {setup.spatial_key!r} is not in adata.obsm, which holds "
            f"{sorted(adata.obsm)}: training needs coordinates there"
            f"{f' ({remedy})' if remedy else ''}."
        )
    own_categories = read_categories(adata, setup)
    if genes is not None:
        column = gene_names(adata).get_indexer(genes)
        if (column < 0).any():
            raise ValueError(
                f"adata lacks {int((column < 0).sum())} of the model's {len(genes)} genes, "
                f"{genes[column < 0][0]!r} among them: training further needs all of them."
            )
    else:
        genes = gene_names(adata)
    if categories is not None:
        require_seen_labels(adata, setup, categories)
    table = _read(adata, setup, categories or own_categories, genes, n_dims or 2, required=True)
    check_positions(table.position, table.section, setup.spatial_key)
    check_linked(table, np.ones(len(table.names), dtype=bool))
    check_pixels(adata, setup.spatial_key)
    if not table.panels.all(0).any():
        raise ValueError(
            f"adata.varm[{_keys.MEASURED!r}] leaves no gene that all sections measure: at least "
            "one is needed to compare their depth."
        )
    if n_dims is not None and table.position.shape[1] != n_dims:
        raise ValueError(
            f"adata.obsm[{setup.spatial_key!r}] has {table.position.shape[1]} columns, but the "
            f"model is {n_dims}D: pass sections of its dimension."
        )
    return table


def read_query(
    adata: AnnData,
    setup: SetupArgs,
    categories: Categories,
    genes: pd.Index,
    n_dims: int,
    name: str = "adata",
) -> CellTable:
    """Read and check a query or reference, genes matched by name.

    Coordinates and section may be absent.

    Parameters
    ----------
    adata, setup
        Cells, and the keys of the training cells.
    categories, genes, n_dims
        Those of the model.
    name
        Name of the argument, for messages.
    """
    check_adata(adata, name)
    found = gene_names(adata).isin(genes).sum()
    hint = gene_hint(adata, genes, name) if found < len(genes) else ""
    if not found:
        remedy = f" Hint: {hint}." if hint else f" Rename {name}.var_names to match."
        raise ValueError(
            f"{name} shares no gene with the model: its genes look like "
            f"{list(adata.var_names[:3])}, the model's like {list(genes[:3])}.{remedy}"
        )
    if found < len(genes):
        warn(
            f"{len(genes) - found} of the model's {len(genes)} genes are missing from {name} and "
            f"are treated as unknown.{f' Hint: {hint}.' if hint else ''}"
        )
    _warn_of_unseen_batches(adata, setup, categories, name)
    table = _read(adata, setup, categories, genes, n_dims, required=False)
    if table.position.shape[1] != n_dims:
        raise ValueError(
            f"{name}.obsm[{setup.spatial_key!r}] has {table.position.shape[1]} columns, "
            f"but the model is {n_dims}D: pass cells of its dimension, or "
            "delete those coordinates to have the cells placed."
        )
    return table


def _read(
    adata: AnnData,
    setup: SetupArgs,
    categories: Categories,
    genes: pd.Index,
    n_dims: int,
    *,
    required: bool,
) -> CellTable:
    """Read an AnnData whose names were checked, genes in the given order."""
    known = expression_known(adata.obs)
    absent = setup.section_key is not None and setup.section_key not in adata.obs
    section = sections_of(adata, None if absent and not required else setup.section_key)
    position = np.full((adata.n_obs, n_dims), np.nan)
    if setup.spatial_key in adata.obsm:
        position = read_positions(adata, setup.spatial_key)
    panels, panel = read_panels(adata, section)
    column = gene_names(adata).get_indexer(genes)  # (G,), -1 where missing
    panels = panels[:, column] & (column >= 0)
    genes_of_cells = GeneIndexer(column, panels, panel, known)
    return CellTable(
        expression=read_expression(
            adata, setup.layer, setup.values, genes_of_cells, lazy=not required
        ),
        panels=panels,
        panel=panel,
        expression_known=known,
        position=position,
        section=section,
        names=adata.obs_names.to_numpy(dtype=object),
        label=category_numbers(adata, setup.labels_key, categories.labels, "labels_key").clip(0),
        batch=category_numbers(adata, setup.batch_key, categories.batches, "batch_key").clip(0),
        block=np.zeros(adata.n_obs, dtype=np.int64),
    )


def units_of(adata: AnnData) -> str:
    """Unit of coordinates in ``.uns["units"]``, empty if there is none."""
    units = adata.uns.get(_keys.UNITS)
    return units if isinstance(units, str) else ""


def described(table: CellTable, setup: SetupArgs) -> str:
    """Line that says what a setup found."""
    sections = pd.unique(table.section)
    located = int(table.has_position.sum())
    text = (
        f"setup_anndata: {len(table.names):,} cells, {table.panels.shape[1]:,} genes "
        f"({setup.values}), {len(sections)} section{'s' * (len(sections) != 1)}, "
        f"{table.position.shape[1]}D positions of {located:,} cells in obsm[{setup.spatial_key!r}]"
    )
    n_labels = len(np.unique(table.label[table.label > 0]))
    return (
        text
        if setup.labels_key is None
        else f"{text}, {n_labels} types in obs[{setup.labels_key!r}]"
    )
