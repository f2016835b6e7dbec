"""What the verbs read from an AnnData."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys


def matrix_of(adata: AnnData, layer: str | None) -> sparse.csr_matrix:
    """Read ``.X`` or a layer as CSR ``(n_cells, n_genes)``."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"layer {layer!r} is not in adata.layers, which holds {sorted(adata.layers)}."
        )
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("adata.X is None: name the layer to read by layer=.")
    return sparse.csr_matrix(matrix)


def expression_known(obs: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each cell's expression was measured, ``(n_cells,)``."""
    if _keys.EXPRESSION_KNOWN not in obs:
        return np.ones(len(obs), dtype=bool)
    column = obs[_keys.EXPRESSION_KNOWN]
    if not column.isin([True, False]).all():
        raise ValueError(
            f"obs[{_keys.EXPRESSION_KNOWN!r}] must hold True or False only, found "
            f"{sorted(map(str, pd.unique(column)))[:5]}: it says which cells' expression is known."
        )
    return column.to_numpy(dtype=bool)


def panel_of(adata: AnnData, section: str) -> NDArray[np.bool_]:
    """Whether a section measures each gene, ``(n_genes,)``."""
    if _keys.MEASURED not in adata.varm:
        return np.ones(adata.n_vars, dtype=bool)
    table = adata.varm[_keys.MEASURED]
    if section not in table:
        raise KeyError(
            f"adata.varm[{_keys.MEASURED!r}] has no column for section {section!r}; it holds "
            f"{list(table)}."
        )
    return np.asarray(table[section], dtype=bool)
