"""Reader of coordinates in AnnData, given or generated."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import issparse

from alphastomics._validate import check_rows, require_adata, short
from alphastomics.metrics._arrays import as_floats

Points = NDArray[np.float64]
LARGEST, SMALLEST = 1e100, 1e-100  # coordinate and extent that can be computed with


def read_coordinates(
    adata: AnnData,
    key: str,
    name: str = "key",
    *,
    call: str = "model.predict or model.sample",
    where: str = "adata",
) -> Points:
    """Read coordinates ``(n_cells, n_dims)``, or draws of them, from ``.obsm[key]``."""
    require_adata(adata, where)
    if not isinstance(key, str):
        raise TypeError(f"{name} must be a name in {where}.obsm, found {short(key)}.")
    if key not in adata.obsm:
        raise KeyError(
            f"{name} {key!r} is not in {where}.obsm, which holds {sorted(adata.obsm)}: run {call} "
            "first, or correct the key."
        )
    values = adata.obsm[key]
    return as_floats(values.toarray() if issparse(values) else values, f"{where}.obsm[{key!r}]")


def point_set(adata: AnnData, key: str, name: str = "key", *, where: str = "adata") -> Points:
    """Read one set of coordinates ``(n_cells, n_dims)``, NaN rows where there is none."""
    points = read_coordinates(adata, key, name, where=where)
    if points.ndim != 2 or not points.shape[1]:
        raise ValueError(
            f"{where}.obsm[{key!r}] has shape {points.shape}, but one set of coordinates, "
            "(n_cells, n_dims), is needed: name another key."
        )
    check_rows(points, f"{where}.obsm[{key!r}]")
    if np.abs(points).max(initial=0, where=~np.isnan(points)) > LARGEST:
        raise ValueError(
            f"{where}.obsm[{key!r}] holds coordinates beyond {LARGEST:g}, whose squares are not "
            "finite: correct or rescale them."
        )
    return points


def is_known(points: Points) -> NDArray[np.bool_]:
    """Mask of cells with a position, ``(n_cells,)``."""
    return np.asarray(~np.isnan(points).any(axis=1))
