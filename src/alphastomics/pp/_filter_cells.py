"""Filter of cells by their expression."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._anndata import expression_known, read_matrix, sections_of
from alphastomics._validate import check_at_least, require_adata


def enough_expression(
    matrix: sparse.csr_matrix,
    known: NDArray[np.bool_],
    section: str,
    *,
    min_genes: int,
    min_counts: float,
) -> NDArray[np.bool_]:
    """Mask of cells with enough expression, ``(n_cells,)``; unmeasured cells always."""
    n_genes = np.asarray((matrix > 0).sum(1)).ravel()
    total = np.asarray(matrix.sum(1, dtype=np.float64)).ravel()
    keep = ~known | ((n_genes >= min_genes) & (total >= min_counts))
    if not keep.any():
        raise ValueError(
            f"section {section!r} keeps none of its {len(keep)} cells: at most {n_genes.max()} "
            f"genes and a total of {total.max():g} in a cell, but min_genes is {min_genes} and "
            f"min_counts is {min_counts:g}. Lower them or leave the section out."
        )
    return np.asarray(keep)


def filter_cells(
    adata: AnnData,
    *,
    min_genes: int = 0,
    min_counts: float = 0,
    layer: str | None = None,
    section_key: str | None = _keys.SECTION,
    copy: bool = False,
) -> AnnData | None:
    """Drop cells with too little expression, except cells whose expression was not measured.

    The latter have ``.obs["expression_known"]`` False.

    Parameters
    ----------
    adata
        Cells of one or more sections, ``(n_cells, n_genes)``.
    min_genes
        Minimum number of expressed genes per cell.
    min_counts
        Minimum total per cell, in the unit of the layer.
    layer
        Layer to count in; by default ``.X``.
    section_key
        Name in ``.obs`` of the section; None when all cells are one section.
    copy
        Whether to return a copy instead of changing ``adata``.

    Returns
    -------
    AnnData or None
        Remaining cells, in their order; ValueError if a section would lose all of its cells.

    Examples
    --------
    >>> import alphastomics as al
    >>> atlas = al.datasets.simulate_tissue(n_sections=2, n_cells=100)
    >>> al.pp.filter_cells(atlas, min_genes=40)
    >>> int((atlas.X > 0).sum(1).min()) >= 40
    True
    """
    require_adata(adata)
    check_at_least("min_genes", min_genes, 0)
    check_at_least("min_counts", min_counts, 0)
    matrix, known = read_matrix(adata, layer), expression_known(adata.obs)
    section = sections_of(adata, section_key)
    keep = np.zeros(adata.n_obs, dtype=bool)
    for name in pd.unique(section):
        cells = np.flatnonzero(section == name)
        keep[cells] = enough_expression(
            matrix[cells], known[cells], name, min_genes=min_genes, min_counts=min_counts
        )
    adata = adata.copy() if copy else adata
    adata._inplace_subset_obs(keep)
    return adata if copy else None
