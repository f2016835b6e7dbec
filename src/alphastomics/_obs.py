"""What the table of the cells says."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray


def as_names(column: pd.Series) -> pd.Series:
    """Categories as text; whole numbers alike, whether or not a missing one made them floats."""
    plain = pd.Series(np.asarray(column), index=column.index)
    if pd.api.types.is_float_dtype(plain.dtype) and (plain.dropna() % 1 == 0).all():
        plain = plain.astype("Int64")
    return plain.astype(str)


def sections_of(adata: AnnData, section_key: str | None) -> NDArray[np.str_]:
    """Read the section of each cell ``(n_cells,)``; with no key all cells are one section."""
    if section_key is None:
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
    return as_names(column).to_numpy(dtype=object)
