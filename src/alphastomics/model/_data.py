"""What the model reads from AnnData."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._obs import as_names, sections_of
from alphastomics._visium import check_pixels
from alphastomics.diffusion_model.transforms import Rows
from alphastomics.model._rows import GenesOfCells, RowsOnDisk
from alphastomics.model._tissue import Mask, TissueData
from alphastomics.model._validate import (
    check_adata,
    check_position_rows,
    check_positions,
    check_values,
)


@dataclass(frozen=True)
class SetupArgs:
    """The arguments of ``AlphaSTomics.setup_anndata``, as they are stored."""

    layer: str | None
    values: str
    spatial_key: str
    section_key: str | None
    labels_key: str | None
    batch_key: str | None = None


@dataclass(frozen=True)
class Categories:
    """Names of the cell types and batches of training; the network numbers them from 1."""

    labels: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()


def _read_matrix(adata: AnnData, layer: str | None) -> tuple[sparse.csr_matrix, str]:
    """Read the expression matrix as CSR, without touching the AnnData, and what to call it."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"layer {layer!r} is not in adata.layers, which holds {sorted(adata.layers)}: "
            "correct layer=, or use layer=None for adata.X."
        )
    matrix, where = (
        (adata.X, "adata.X") if layer is None else (adata.layers[layer], f"adata.layers[{layer!r}]")
    )
    if matrix is None:
        raise ValueError("adata.X is None: name the layer to read by layer=.")
    if adata.isbacked and layer is None:
        matrix = matrix[:]
    return sparse.csr_matrix(matrix), where


def _read_expression(
    adata: AnnData, setup: SetupArgs, genes: GenesOfCells, *, required: bool
) -> Rows:
    """Read expression; of a query whose rows can be read from disk, when they are needed."""
    if adata.isbacked and setup.layer is None and not required:
        rows = RowsOnDisk.of(adata, setup.values, genes)
        if rows is not None:
            return rows
    matrix, where = _read_matrix(adata, setup.layer)
    expression = genes.select(matrix)
    check_values(expression, setup.values, where)
    return expression


def _read_sections(adata: AnnData, section_key: str | None, *, required: bool) -> NDArray[np.str_]:
    absent = section_key is not None and section_key not in adata.obs and not required
    return sections_of(adata, None if absent else section_key)


def _read_known(adata: AnnData) -> Mask:
    """Whether each cell's expression was measured, ``(n,)``."""
    if _keys.EXPRESSION_KNOWN not in adata.obs:
        return np.ones(adata.n_obs, dtype=bool)
    column = adata.obs[_keys.EXPRESSION_KNOWN]
    if column.isna().any() or not column.isin([True, False]).all():
        raise ValueError(
            f"adata.obs[{_keys.EXPRESSION_KNOWN!r}] must hold True or False only, found "
            f"{sorted(map(str, pd.unique(column)))[:5]}: it says which cells' expression is known."
        )
    return column.to_numpy(dtype=bool)


def _read_panels(adata: AnnData, section: NDArray[np.str_]) -> tuple[Mask, NDArray[np.int64]]:
    """Gene panels ``(n_panels, n_vars)`` and that of each cell; one when nothing says otherwise."""
    if _keys.MEASURED not in adata.varm:
        return np.ones((1, adata.n_vars), dtype=bool), np.zeros(adata.n_obs, dtype=np.int64)
    table = adata.varm[_keys.MEASURED]
    names = pd.unique(section)
    if not isinstance(table, pd.DataFrame) or not set(names) <= set(map(str, table.columns)):
        raise ValueError(
            f"adata.varm[{_keys.MEASURED!r}] must be a DataFrame with a boolean column for each "
            f"section ({', '.join(map(repr, names[:5]))}, ...): it says which genes a section's "
            "panel measures."
        )
    table = table.rename(columns=str)
    panels = np.stack([table[name].to_numpy(dtype=bool) for name in names])
    empty = names[~panels.any(1)]
    if len(empty):
        raise ValueError(
            f"adata.varm[{_keys.MEASURED!r}] says that section {empty[0]!r} measures no gene."
        )
    return panels, pd.Index(names).get_indexer(pd.Index(section))


def _read_categories(
    adata: AnnData, key: str | None, names: tuple[str, ...], argument: str
) -> NDArray[np.int64]:
    """Find the number of each cell's category, from 1; 0 where it is missing."""
    if key is None or key not in adata.obs:
        return np.zeros(adata.n_obs, dtype=np.int64)
    column = adata.obs[key]
    code = pd.Index(names).get_indexer(pd.Index(as_names(column))) + 1
    unseen = (code == 0) & ~column.isna().to_numpy()
    if unseen.any() and argument == "labels_key":
        raise ValueError(
            f"adata.obs[{key!r}] ({argument}) holds {column[unseen].iloc[0]!r}, which the model "
            f"never saw; it knows {', '.join(map(repr, names))}. Rename it, or set it to NaN."
        )
    return np.asarray(code, dtype=np.int64)


def _names_in(adata: AnnData, key: str | None) -> tuple[str, ...]:
    return () if key is None else tuple(sorted(as_names(adata.obs[key].dropna()).unique()))


def read_categories(adata: AnnData, setup: SetupArgs) -> Categories:
    """Names of the cell types and batches of the training cells."""
    for argument, key in (("labels_key", setup.labels_key), ("batch_key", setup.batch_key)):
        if key is not None and key not in adata.obs:
            raise KeyError(
                f"{argument} {key!r} is not in adata.obs, which holds {list(adata.obs)}."
            )
    return Categories(_names_in(adata, setup.labels_key), _names_in(adata, setup.batch_key))


def read_training(
    adata: AnnData,
    setup: SetupArgs,
    categories: Categories | None = None,
    genes: pd.Index | None = None,
) -> TissueData:
    """Read and check an AnnData to learn from.

    ``categories`` and ``genes`` are those of the model, if there is one already.
    """
    check_adata(adata)
    if setup.spatial_key not in adata.obsm:
        remedy = " (a table of SpatialData gets them by al.io.read_table)"
        raise KeyError(
            f"spatial_key {setup.spatial_key!r} is not in adata.obsm, which holds "
            f"{sorted(adata.obsm)}: training needs coordinates there"
            f"{remedy if 'spatialdata_attrs' in adata.uns else ''}."
        )
    own_categories = read_categories(adata, setup)
    if genes is not None:
        column = adata.var_names.get_indexer(genes)
        if (column < 0).any():
            raise ValueError(
                f"adata lacks {int((column < 0).sum())} of the model's {len(genes)} genes, "
                f"{genes[column < 0][0]!r} among them: training further needs all of them."
            )
    else:
        genes = adata.var_names
    data = _read(adata, setup, categories or own_categories, genes, required=True)
    assert data.position is not None
    check_positions(data.position, data.section, setup.spatial_key)
    check_pixels(adata, setup.spatial_key)
    if not data.panels.all(0).any():
        raise ValueError(
            f"adata.varm[{_keys.MEASURED!r}] leaves no gene that all sections measure: at least "
            "one is needed to compare their depth."
        )
    return data


def read_query(
    adata: AnnData, setup: SetupArgs, categories: Categories, genes: pd.Index, name: str = "adata"
) -> TissueData:
    """Read cells to fill in, their genes matched by name; coordinates, section may be absent."""
    check_adata(adata, name)
    found = adata.var_names.isin(genes).sum()
    if not found:
        raise ValueError(
            f"{name} shares no gene with the model: its genes look like "
            f"{list(adata.var_names[:3])}, the model's like {list(genes[:3])}. "
            f"Rename {name}.var_names to match."
        )
    if found < len(genes):
        warnings.warn(
            f"{len(genes) - found} of the model's {len(genes)} genes are missing from {name} and "
            "are treated as unknown.",
            UserWarning,
            stacklevel=5,
        )
    return _read(adata, setup, categories, genes, required=False)


def _read(
    adata: AnnData, setup: SetupArgs, categories: Categories, genes: pd.Index, *, required: bool
) -> TissueData:
    """Read an AnnData whose names were checked, genes in the given order."""
    expression_known = _read_known(adata)
    section = _read_sections(adata, setup.section_key, required=required)
    position = None
    if setup.spatial_key in adata.obsm:
        position = np.asarray(adata.obsm[setup.spatial_key], dtype=np.float64)
        check_position_rows(position, setup.spatial_key)
    panels, panel = _read_panels(adata, section)
    column = adata.var_names.get_indexer(genes)  # (G,), -1 where missing
    panels = panels[:, column] & (column >= 0)
    expression = _read_expression(
        adata, setup, GenesOfCells(column, panels, panel, expression_known), required=required
    )
    return TissueData(
        expression=expression,
        panels=panels,
        panel=panel,
        expression_known=expression_known,
        position=position,
        section=section,
        names=adata.obs_names.to_numpy(dtype=object),
        label=_read_categories(adata, setup.labels_key, categories.labels, "labels_key"),
        batch=_read_categories(adata, setup.batch_key, categories.batches, "batch_key"),
        block=np.zeros(adata.n_obs, dtype=np.int64),
    )
