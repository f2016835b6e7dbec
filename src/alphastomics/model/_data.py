"""What the model reads from AnnData."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from alphastomics.model._validate import check_adata, check_positions, check_values


@dataclass(frozen=True)
class SetupArgs:
    """The arguments of ``AlphaSTomics.setup_anndata``, as they are stored."""

    layer: str | None
    values: str
    spatial_key: str
    section_key: str | None
    labels_key: str | None


@dataclass(frozen=True)
class TissueData:
    """Cells in the order of the AnnData and genes in the order of the model.

    Attributes
    ----------
    expression
        Measured values, CSR ``(n, G)``; zero where the gene is not visible.
    visible
        Which of the model's genes were measured, ``(G,)``.
    position
        ``(n, d)`` in the units of the input, NaN rows where missing; ``None`` when all are.
    section
        Section of each cell, ``(n,)``.
    names
        Name of each cell, ``(n,)``.
    """

    expression: sparse.csr_matrix
    visible: NDArray[np.bool_]
    position: NDArray[np.float64] | None
    section: NDArray[np.str_]
    names: NDArray[np.str_]

    @cached_property
    def has_position(self) -> NDArray[np.bool_]:
        """Whether each cell's position is known, ``(n,)``."""
        if self.position is None:
            return np.zeros(len(self.section), dtype=bool)
        return np.asarray(~np.isnan(self.position).any(1))

    def without_position(self) -> TissueData:
        """Copy the same cells, their positions hidden."""
        return replace(self, position=None)

    def cells_of(self, section: str) -> NDArray[np.int64]:
        """Find the indices of the cells of a section."""
        return np.flatnonzero(self.section == section)


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


def _read_sections(adata: AnnData, section_key: str | None, *, required: bool) -> NDArray[np.str_]:
    if section_key is None or (section_key not in adata.obs and not required):
        return np.full(adata.n_obs, "all", dtype=object)
    if section_key not in adata.obs:
        raise KeyError(
            f"section_key {section_key!r} is not in adata.obs, which holds {list(adata.obs)}: "
            "correct section_key=, or pass section_key=None when all cells are one section."
        )
    column = adata.obs[section_key]
    if column.isna().any():
        raise ValueError(
            f"adata.obs[{section_key!r}] is missing for {int(column.isna().sum())} cells: "
            "name their section or drop them."
        )
    return column.astype(str).to_numpy(dtype=object)


def read_training(adata: AnnData, setup: SetupArgs, genes: pd.Index | None = None) -> TissueData:
    """Read and check an AnnData to learn from; ``genes`` gives the model's, if there is one."""
    check_adata(adata)
    if setup.spatial_key not in adata.obsm:
        raise KeyError(
            f"spatial_key {setup.spatial_key!r} is not in adata.obsm, which holds "
            f"{sorted(adata.obsm)}: training needs coordinates there."
        )
    if setup.labels_key is not None and setup.labels_key not in adata.obs:
        raise KeyError(
            f"labels_key {setup.labels_key!r} is not in adata.obs, which holds {list(adata.obs)}."
        )
    matrix, where = _read_matrix(adata, setup.layer)
    check_values(matrix, setup.values, where)
    section = _read_sections(adata, setup.section_key, required=True)
    position = np.asarray(adata.obsm[setup.spatial_key], dtype=np.float64)
    check_positions(position, section, setup.spatial_key)
    if genes is not None:
        column = adata.var_names.get_indexer(genes)
        if (column < 0).any():
            raise ValueError(
                f"adata lacks {int((column < 0).sum())} of the model's {len(genes)} genes, "
                f"{genes[column < 0][0]!r} among them: training further needs all of them."
            )
        matrix = _select_genes(matrix, column)
    visible = np.ones(matrix.shape[1], dtype=bool)
    return TissueData(matrix, visible, position, section, adata.obs_names.to_numpy(dtype=object))


def read_query(adata: AnnData, setup: SetupArgs, genes: pd.Index) -> TissueData:
    """Read cells to place, their genes matched by name; coordinates and section may be absent."""
    check_adata(adata)
    matrix, where = _read_matrix(adata, setup.layer)
    check_values(matrix, setup.values, where)
    column = adata.var_names.get_indexer(genes)  # (G,), -1 where missing
    visible = column >= 0
    if not visible.any():
        raise ValueError(
            "adata shares no gene with the model: its genes look like "
            f"{list(adata.var_names[:3])}, the model's like {list(genes[:3])}. "
            "Rename adata.var_names to match."
        )
    if not visible.all():
        warnings.warn(
            f"{int((~visible).sum())} of the model's {len(genes)} genes are missing from adata and "
            "are treated as unknown.",
            UserWarning,
            stacklevel=4,
        )
    aligned = _select_genes(matrix, column)
    position = None
    if setup.spatial_key in adata.obsm:
        position = np.asarray(adata.obsm[setup.spatial_key], dtype=np.float64)
    section = _read_sections(adata, setup.section_key, required=False)
    names = adata.obs_names.to_numpy(dtype=object)
    return TissueData(aligned, visible, position, section, names)


def _select_genes(matrix: sparse.csr_matrix, column: NDArray[np.int64]) -> sparse.csr_matrix:
    """Columns of a matrix in a new order; -1 gives an empty column."""
    found = np.flatnonzero(column >= 0)
    selector = sparse.csr_matrix(
        (np.ones(len(found), dtype=matrix.dtype), (column[found], found)),
        shape=(matrix.shape[1], len(column)),
    )
    return sparse.csr_matrix(matrix @ selector)
