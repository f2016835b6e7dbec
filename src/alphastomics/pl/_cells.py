"""Cells of one section, their axes and colors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._anndata import section_names, sections_of
from alphastomics._coordinates import Points, is_known, point_set
from alphastomics._validate import require_adata
from alphastomics.metrics import superpose_by
from alphastomics.tl._coordinates import read_placed

COLOR_MAP = "viridis"  # even in lightness, and distinct to the color-blind
# Distinct to the color-blind (Okabe & Ito 2008), the palest last.
FEW = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
RASTERIZED_FROM = 5000  # cells


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


def new_axes(ax: Axes | None, height: float = 4.2) -> Axes:
    """Take the axes given, or make new ones."""
    if ax is None:
        _, ax = plt.subplots(figsize=(5, height), layout="constrained")
    return ax


def panel_axes(
    ax: Sequence[Axes] | NDArray[np.object_] | Axes | None,
    shape: tuple[int, int],
    panel: tuple[float, float],
) -> NDArray[np.object_]:
    """Axes of ``shape`` (rows, columns), given or new; a new one has a width and a height."""
    (n_rows, n_columns), (width, height) = shape, panel
    if ax is None:
        size = (width * n_columns, height * n_rows)
        _, ax = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    given = np.asarray(ax, dtype=object)
    if given.size != n_rows * n_columns:
        raise ValueError(f"ax holds {given.size} axes, but there are {n_rows * n_columns} panels.")
    return given.reshape(n_rows, n_columns)


def point_size(n_cells: int) -> float:
    """Marker area in points squared, smaller for more cells."""
    return float(np.clip(12_000 / max(n_cells, 1), 0.5, 40))


def scatter(ax: Axes, points: Points, values: Points, **options: Any) -> PathCollection:
    """Draw cells at ``(n, 2)`` without axes, the highest of their ``values (n,)`` on top."""
    order = np.argsort(values, kind="stable")
    options = {
        "c": values[order],
        "cmap": COLOR_MAP,
        "s": point_size(len(points)),
        "linewidths": 0,
        "rasterized": len(points) >= RASTERIZED_FROM,
        **options,
    }
    drawn = ax.scatter(points[order, 0], points[order, 1], **options)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return drawn


def color_bar(ax: Axes, drawn: ScalarMappable, label: str) -> None:
    """Add a color bar."""
    ax.get_figure(root=True).colorbar(drawn, ax=ax, label=label, shrink=0.7)  # type: ignore[union-attr]


def write(ax: Axes, save: str | os.PathLike[str] | None) -> None:
    """Save the figure, if a file is named."""
    if save is not None:
        ax.get_figure(root=True).savefig(save, dpi=150, bbox_inches="tight")  # type: ignore[union-attr]


def with_unit(adata: AnnData, label: str) -> str:
    """Name the unit of coordinates, if it is known."""
    unit = adata.uns.get(_keys.UNITS)
    return label if unit is None else f"{label} ({str(unit).split(' ')[0]})"


def palette(adata: AnnData, color: str) -> list[str] | None:
    """Colors of the categories of a column: those in ``uns``, or the default; None of numbers."""
    column = adata.obs[color]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return None
    n = len(column.astype("category").cat.categories)
    given = list(adata.uns.get(f"{color}_colors", ()))
    if len(given) >= n:
        return given[:n]
    if n <= len(FEW):
        return list(FEW[:n])
    from scanpy.plotting import palettes

    choices = (palettes.default_20, palettes.default_28, palettes.default_102)
    many = next((colors for colors in choices if n <= len(colors)), choices[-1])
    return [many[i % len(many)] for i in range(n)]
