"""What figures of the cells of one section share."""

from __future__ import annotations

import os
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
from alphastomics.metrics import superpose_by

Points = NDArray[np.float64]
COLOR_MAP = "viridis"  # even in lightness, and told apart by the colour-blind
RASTERIZED_FROM = 5000  # cells


def cells_of(adata: AnnData, section: str | None, section_key: str | None) -> NDArray[np.bool_]:
    """Which cells to draw: those of a section, or all of the only one."""
    if section_key is None or section_key not in adata.obs:
        if section is not None:
            raise KeyError(
                f"section={section!r} was asked for, but adata.obs has no column {section_key!r}: "
                "correct section_key, or leave section out."
            )
        return np.ones(adata.n_obs, dtype=bool)
    names = adata.obs[section_key].astype(str).to_numpy()
    there = sorted(pd.unique(names))
    if section is None and len(there) > 1:
        raise ValueError(f"adata holds {len(there)} sections: name one of {there} by section=.")
    wanted = there[0] if section is None else str(section)
    if wanted not in there:
        raise ValueError(f"section={section!r} is none of {there}.")
    return names == wanted


def coordinates(adata: AnnData, key: str, what: str = "key") -> Points:
    """Read one set of coordinates, ``(n_cells, n_dims)``."""
    if key not in adata.obsm:
        raise KeyError(
            f"{what} {key!r} is not in adata.obsm, which holds {sorted(adata.obsm)}: run "
            "model.predict or model.sample first, or correct the key."
        )
    points = np.asarray(adata.obsm[key], dtype=np.float64)
    if points.ndim != 2:
        raise ValueError(
            f"adata.obsm[{key!r}] has shape {points.shape}: draw one set of coordinates at a time."
        )
    return points


def true_and_placed(
    adata: AnnData, key: str, spatial_key: str, chosen: NDArray[np.bool_], *, align: bool
) -> tuple[NDArray[np.int64], Points, Points]:
    """Cells that have both positions, ``(n,)``, and these, ``(n, n_dims)``, in one frame."""
    true, placed = coordinates(adata, spatial_key, "spatial_key"), coordinates(adata, key)
    if placed.shape != true.shape:
        raise ValueError(
            f"adata.obsm[{key!r}] has {placed.shape[1]} columns and adata.obsm[{spatial_key!r}] "
            f"{true.shape[1]}: they must be of the same dimension."
        )
    cells = np.flatnonzero(chosen & ~(np.isnan(true).any(1) | np.isnan(placed).any(1)))
    if not len(cells):
        raise ValueError(
            f"no cell has both a position in adata.obsm[{spatial_key!r}] and one in "
            f"adata.obsm[{key!r}]: name other keys, or another section."
        )
    true, placed = true[cells], placed[cells]
    if align:
        placed = superpose_by(placed, true, np.ones(len(true), dtype=bool))
    return cells, true, placed


def new_axes(ax: Axes | None) -> Axes:
    """Take the axes given, or make some."""
    if ax is None:
        _, ax = plt.subplots(figsize=(5, 4.2), layout="constrained")
    return ax


def point_size(n_cells: int, panel: float = 5.0) -> float:
    """Marker area in points squared, smaller the more cells and the smaller the panel (inches)."""
    return float(np.clip(12_000 / max(n_cells, 1), 0.5, 40) * panel / 5)


def scatter(ax: Axes, points: Points, values: Any = None, **options: Any) -> PathCollection:
    """Draw cells at ``points`` ``(n, 2)``, the highest values on top, and no axes around them.

    ``values`` are numbers ``(n,)``, or colours ``(n, 4)``.
    """
    if values is not None and np.ndim(values) > 1:
        options["c"] = values
    elif values is not None:
        order = np.argsort(values, kind="stable")
        points, options["c"] = points[order], np.asarray(values)[order]
        options.setdefault("cmap", COLOR_MAP)
    options = {
        "s": point_size(len(points)),
        "linewidths": 0,
        "rasterized": len(points) >= RASTERIZED_FROM,
        **options,
    }
    drawn = ax.scatter(points[:, 0], points[:, 1], **options)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return drawn


def legend(ax: Axes, colors: dict[str, str], *, outside: bool) -> None:
    """Name the colours of categories beside the axes, or beside all axes of the figure."""
    handles = [ax.scatter([], [], color=color, label=name) for name, color in colors.items()]
    if outside:
        figure = ax.get_figure(root=True)
        figure.legend(handles=handles, loc="outside right center", frameon=False)  # type: ignore[union-attr]
    else:
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def color_bar(ax: Axes, drawn: ScalarMappable, label: str) -> None:
    """Explain colours beside the axes."""
    ax.get_figure(root=True).colorbar(drawn, ax=ax, label=label, shrink=0.7)  # type: ignore[union-attr]


def write(ax: Axes, save: str | os.PathLike[str] | None) -> None:
    """Save the figure, if asked to."""
    if save is not None:
        ax.get_figure(root=True).savefig(save, dpi=150, bbox_inches="tight")  # type: ignore[union-attr]


def with_unit(adata: AnnData, label: str) -> str:
    """Name the unit of coordinates, if it is known."""
    unit = adata.uns.get(_keys.UNITS)
    return label if unit is None else f"{label} ({str(unit).split(' ')[0]})"
