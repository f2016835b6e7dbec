"""Rows of expression with the genes of the model, in memory or read when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from anndata import AnnData
from anndata.abc import CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from alphastomics._genes import select_genes
from alphastomics.model._tissue import Mask
from alphastomics.model._validate import check_values


@dataclass(frozen=True)
class GenesOfCells:
    """Where the genes of the model are in a matrix, and of which cells they were measured.

    Attributes
    ----------
    column
        Column of every gene, -1 where there is none, ``(G,)``.
    panels, panel, known
        As in :class:`~alphastomics.model._tissue.TissueData`.
    """

    column: NDArray[np.int64]
    panels: Mask
    panel: NDArray[np.int64]
    known: Mask

    def select(
        self, matrix: sparse.csr_matrix, cells: NDArray[np.int64] | slice = slice(None)
    ) -> sparse.csr_matrix:
        """Bring the genes of some cells into their order, without what was not measured."""
        return _only_measured(
            select_genes(matrix, self.column), self.panels, self.panel[cells], self.known[cells]
        )


class RowsOnDisk:
    """Expression of an AnnData that is open on disk, read and checked when indexed."""

    def __init__(self, dataset: Any, values: str, genes: GenesOfCells) -> None:
        self.dataset, self.values, self.genes = dataset, values, genes
        self.shape = (int(dataset.shape[0]), len(genes.column))

    @classmethod
    def of(cls, adata: AnnData, values: str, genes: GenesOfCells) -> RowsOnDisk | None:
        """Open ``adata.X``; ``None`` if it is a view or its rows cannot be read one by one."""
        if adata.is_view or not isinstance(adata.X, CSRDataset | h5py.Dataset):
            return None
        return cls(adata.X, values, genes)

    def __getitem__(self, cells: Any) -> sparse.csr_matrix:
        """Read rows by number, in any order, by a slice or by a mask."""
        if isinstance(cells, slice):
            cells = np.arange(*cells.indices(self.shape[0]))
        cells = np.asarray(cells)
        cells = np.flatnonzero(cells) if cells.dtype == bool else cells
        unique, place = np.unique(cells, return_inverse=True)
        if not len(unique):
            return sparse.csr_matrix(self.shape).astype(np.float32)[:0]
        read = self.genes.select(sparse.csr_matrix(self.dataset[unique]), unique)
        check_values(read, self.values, "adata.X")
        return read if np.array_equal(unique, cells) else read[place]


def _only_measured(
    matrix: sparse.csr_matrix, panels: Mask, panel: NDArray[np.int64], known: Mask
) -> sparse.csr_matrix:
    """Drop values of genes that a cell's panel does not measure, and of unmeasured cells."""
    if panels.all() and known.all():
        return matrix
    coo = matrix.tocoo()
    keep = panels[panel[coo.row], coo.col] & known[coo.row]
    return sparse.csr_matrix((coo.data[keep], (coo.row[keep], coo.col[keep])), shape=matrix.shape)
