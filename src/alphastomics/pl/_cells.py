"""Cells to draw: those of a section, in two dimensions, with both of their positions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics._anndata import section_names, sections_of
from alphastomics._coordinates import Points, is_known, point_set
from alphastomics._validate import require_adata
from alphastomics.metrics import superpose_by
from alphastomics.tl._coordinates import read_placed


def cells_of(
    adata: AnnData, section: str | float | None, section_key: str | None
) -> NDArray[np.bool_]:
    """Mask of cells to draw, ``(n_cells,)``: those of a section, or all of the only one."""
    require_adata(adata)
    if section_key is None or section_key not in adata.obs:
        if section is not None:
            raise KeyError(
                f"section={section!r} is named, but adata.obs has no column {section_key!r}: "
                "correct section_key, or leave section out."
            )
        return np.ones(adata.n_obs, dtype=bool)
    names = sections_of(adata, section_key)
    present = sorted(pd.unique(names))
    if section is None and len(present) > 1:
        raise ValueError(f"adata holds {len(present)} sections: name one of {present} by section=.")
    wanted = present if section is None else section_names("section", section, present)
    if len(wanted) != 1:
        raise ValueError(f"section names {len(wanted)} sections: draw one at a time.")
    return names == wanted[0]


def check_dims(dims: tuple[int, int], points: Points) -> list[int]:
    """Two dimensions to draw; raise unless coordinates ``(n, d)`` have them."""
    chosen = list(dims) if isinstance(dims, Iterable) else [dims]
    there = range(points.shape[1])
    if len(chosen) != 2 or not all(isinstance(i, int | np.integer) and i in there for i in chosen):
        raise ValueError(
            f"dims must be two of the dimensions {list(there)} of the coordinates, found {dims!r}."
        )
    return chosen


def true_and_placed(
    adata: AnnData, key: str, spatial_key: str, chosen: NDArray[np.bool_], *, align: bool
) -> tuple[NDArray[np.int64], Points, Points]:
    """Cells that have both positions, ``(n,)``, and these, ``(n, n_dims)``, in one frame."""
    true = point_set(adata, spatial_key, "spatial_key")
    placed = read_placed(adata, key, true, spatial_key)
    cells = np.flatnonzero(chosen & is_known(true) & is_known(placed))
    if not len(cells):
        raise ValueError(
            f"no cell has both a position in adata.obsm[{spatial_key!r}] and one in "
            f"adata.obsm[{key!r}]: name other keys, or another section."
        )
    true, placed = true[cells], placed[cells]
    if align:
        placed = superpose_by(placed, true, np.ones(len(true), dtype=bool))
    return cells, true, placed


def reference_points(reference: AnnData, spatial_key: str, n_dims: int) -> Points:
    """Positions of a reference, ``(n_cells, n_dims)``, NaN where there is none."""
    points = point_set(reference, spatial_key, "spatial_key", where="reference")
    if points.shape[1] != n_dims:
        raise ValueError(
            f"reference.obsm[{spatial_key!r}] has {points.shape[1]} columns, but the coordinates "
            f"of the cells have {n_dims}: pass the reference that they were placed into."
        )
    if not is_known(points).any():
        raise ValueError(f"reference.obsm[{spatial_key!r}] is NaN for every cell.")
    return points
