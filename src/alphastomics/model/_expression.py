"""Expression of an AnnData with the genes of the model, in memory or on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from anndata import AnnData
from anndata.abc import CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from alphastomics._anndata import Mask, as_csr, matrix_name, read_matrix, select_genes
from alphastomics._hints import count_hint
from alphastomics._validate import check_values, row_numbers
from alphastomics.diffusion_model.transforms import Rows


@dataclass(frozen=True)
class GeneIndexer:
    """Selection of the genes of the model from a matrix, without values that were not measured.

    Attributes
    ----------
    column
        Column of every gene, -1 where there is none, ``(G,)``.
    panels, panel, known
        As in :class:`~alphastomics.model._data.CellTable`.
    """

    column: NDArray[np.int64]
    panels: Mask
    panel: NDArray[np.int64]
    known: Mask

    def select(
        self, matrix: sparse.csr_matrix, cells: NDArray[np.int64] | slice = slice(None)
    ) -> sparse.csr_matrix:
        """Genes of cells, whose rows ``matrix`` holds, in the order of the model."""
        matrix, panel = select_genes(matrix, self.column), self.panel[cells]
        if self.panels.all() and self.known.all():
            return matrix
        coo = matrix.tocoo()
        measured = self.panels[panel[coo.row], coo.col] & self.known[cells][coo.row]
        return sparse.csr_matrix(
            (coo.data[measured], (coo.row[measured], coo.col[measured])), shape=matrix.shape
        )


class BackedExpression:
    """Expression of an AnnData that is open on disk, read and checked when indexed."""

    def __init__(self, dataset: Any, values: str, genes: GeneIndexer) -> None:
        self.dataset, self.values, self.genes = dataset, values, genes
        self.shape = (int(dataset.shape[0]), len(genes.column))

    def __getitem__(self, cells: Any) -> sparse.csr_matrix:
        """Read rows by number, in any order, by a slice or by a mask."""
        cells = row_numbers(cells, self.shape[0])
        unique, place = np.unique(cells, return_inverse=True)
        if not len(unique):
            return sparse.csr_matrix(self.shape).astype(np.float32)[:0]
        read = self.genes.select(as_csr(self.dataset[unique], "adata.X"), unique)
        read = check_values(read, self.values, "adata.X")
        return read if np.array_equal(unique, cells) else read[place]


def read_expression(
    adata: AnnData, layer: str | None, values: str, genes: GeneIndexer, *, lazy: bool
) -> Rows:
    """Read expression; if ``lazy``, rows of a file that is open are read when they are needed."""
    on_disk = adata.isbacked and layer is None and not adata.is_view
    if on_disk and lazy and isinstance(adata.X, CSRDataset | h5py.Dataset):
        return BackedExpression(adata.X, values, genes)
    expression = genes.select(read_matrix(adata, layer))
    try:
        return check_values(expression, values, matrix_name(layer))
    except ValueError as error:
        hint = count_hint(adata) if values == "counts" else ""
        if not hint:
            raise
        raise ValueError(f"{error} Hint: {hint}.") from None
