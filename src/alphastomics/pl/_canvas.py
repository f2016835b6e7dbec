"""Axes of figures: their size, frame and scale bar, and what is returned, shown and saved."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.artist import ArtistInspector
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar  # type: ignore[import-untyped]
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._coordinates import Points
from alphastomics._options import nearest_name
from alphastomics._validate import check_number
from alphastomics.pl._colors import Palette, colormap_of

if TYPE_CHECKING:  # axes, which are returned but for return_fig=True, can be used as such
    Figure = Any
else:
    from matplotlib.figure import Figure

Drawn = TypeVar("Drawn")

DPI = 150
WIDEST = 10.0  # inches; text of 10 points stays above 7 where a page is 7 inches wide
MARGIN = 0.04  # of the larger side, around all cells
BAR = 0.25  # most of the width that a scale bar takes
BAR_HEIGHT = 0.34  # inches, below the cells, for a scale bar and its label
BAR_SIZE = 9  # points
TITLE = 0.3  # inches
BACKGROUND = "#DEDEDE"  # color of the cells of a reference
RASTERIZED_FROM = 5000  # cells
# How `uns["units"]` begins, and what is written.
SPELLINGS = {
    "µm": r"(µm|μm|um\b|micron|micromet)",
    "px": r"(px\b|pixel)",
    "mm": r"(mm\b|millimet)",
    "nm": r"(nm\b|nanomet)",
}


class Frame(NamedTuple):
    """Limits of axes ``(x, y)``, y downwards, as of an image."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def ratio(self) -> float:
        """Height by width, of a panel: not too narrow and not too flat."""
        width, height = self.high - self.low
        return float(np.clip(height / width, 0.4, 2.0))


def frame_of(points: Sequence[Points]) -> Frame:
    """Frame around all points ``(n, 2)``, with a margin."""
    stacked = np.concatenate(points)
    if not len(stacked):
        return Frame(np.zeros(2), np.ones(2))
    low, high = stacked.min(0), stacked.max(0)
    margin = MARGIN * max(np.ptp([low, high], axis=0).max(), np.abs([low, high]).max() * 1e-9)
    margin = margin or 1.0
    return Frame(low - margin, high + margin)


def unit_of(*cells: AnnData | None) -> str | None:
    """Unit of coordinates, of the first that names one."""
    for adata in cells:
        text = "" if adata is None else str(adata.uns.get(_keys.UNITS, "")).strip()
        if text:
            found = (unit for unit, spelled in SPELLINGS.items() if re.match(spelled, text, re.I))
            return next(found, re.split(r"[\s,;(]", text)[0])
    return None


def with_unit(label: str, unit: str | None) -> str:
    """Label of an axis, with the unit if it is known."""
    return label if unit is None else f"{label} ({unit})"


def new_axes(ax: Axes | None, height: float = 4.2, width: float = 5.5) -> Axes:
    """Take the axes given, or make new ones."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def panel_axes(
    ax: Sequence[Axes] | NDArray[np.object_] | Axes | None,
    shape: tuple[int, int],
    side: float,
    ratio: float,
    extra: float = 0.0,
) -> NDArray[np.object_]:
    """Axes of ``shape`` (rows, columns), given or new.

    Parameters
    ----------
    ax
        Axes that are given.
    shape
        Number of rows and columns.
    side
        Larger side of a panel, in inches; less where the figure would be wider than a page.
    ratio
        Height of a panel by its width.
    extra
        Width for a legend or color bar, in inches.
    """
    n_rows, n_columns = shape
    if ax is None:
        width = min(side / max(ratio, 1.0), (WIDEST - extra) / n_columns)
        size = (width * n_columns + extra, (width * ratio + TITLE + BAR_HEIGHT) * n_rows)
        _, ax = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="compressed")
    given = np.asarray(ax, dtype=object)
    if given.size != n_rows * n_columns:
        raise ValueError(f"ax holds {given.size} axes, but there are {n_rows * n_columns} panels.")
    return given.reshape(n_rows, n_columns)


def finish_map(ax: Axes, frame: Frame, title: str, unit: str | None = None) -> None:
    """Set the frame and title of a map, without axes; a scale bar below the cells, of a unit."""
    (left, top), (right, bottom) = frame
    if unit is not None:
        height = ax.get_position().height * ax.get_figure(root=True).get_figheight()  # type: ignore[union-attr]
        bottom += (bottom - top) * np.clip(BAR_HEIGHT / height, 0.05, 0.5)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    ax.set_title(title, fontsize="medium")
    ax.set_axis_off()
    if unit is not None:
        length = round_length(BAR * (right - left))
        ax.add_artist(
            AnchoredSizeBar(
                ax.transData,
                length,
                f"{length:,.10g} {unit}",
                "lower left",
                pad=0,
                borderpad=0.1,
                sep=2,
                frameon=False,
                size_vertical=0.006 * (bottom - top),
                fontproperties={"size": BAR_SIZE},
            )
        )


def round_length(most: float) -> float:
    """Largest 1, 2 or 5 times a power of ten up to ``most``."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)) * power)


def point_size(n_cells: int) -> float:
    """Marker area in points squared, smaller for more cells."""
    return float(np.clip(12_000 / max(n_cells, 1), 0.5, 40))


def check_points(size: float | None, options: dict[str, Any]) -> None:
    """Raise unless markers have a size, and matplotlib knows all their options."""
    if size is not None:
        check_number("size", size)
        if not size > 0:
            raise ValueError(f"size must be above 0, found {size}.")
    setters = ArtistInspector(PathCollection)
    aliases = {alias for names in setters.aliasd.values() for alias in names}
    known = {*signature(Axes.scatter).parameters, *setters.get_setters(), *aliases}
    for name in options:
        if name not in known:
            raise TypeError(
                f"{name!r} is neither an option of this figure nor of matplotlib's scatter."
                f"{nearest_name(name, known)}"
            )


def scatter(
    ax: Axes,
    points: Points,
    colors: NDArray[np.float64] | str,
    size: float | None,
    options: dict[str, Any],
    palette: Palette = None,
) -> PathCollection:
    """Draw cells at ``(n, 2)``, by numbers ``(n,)``, the highest on top, or in colors."""
    options = {
        "s": point_size(len(points)) if size is None else size,
        "linewidths": 0,
        "rasterized": len(points) >= RASTERIZED_FROM,
        **options,
    }
    if isinstance(colors, np.ndarray) and colors.ndim == 1:
        order = np.argsort(np.where(np.isnan(colors), -np.inf, colors), kind="stable")
        points, colors = points[order], colors[order]
        options = {"cmap": colormap_of(palette), "plotnonfinite": True, **options}
    else:
        options = {k: v for k, v in options.items() if k not in ("cmap", "vmin", "vmax", "norm")}
    return ax.scatter(points[:, 0], points[:, 1], c=colors, **options)


def draw_background(ax: Axes, points: Points, size: float | None) -> None:
    """Draw the cells of a reference in light gray, behind others."""
    scatter(ax, points, BACKGROUND, size, {"zorder": 0.5})


def color_bar(
    axes: Axes | Sequence[Axes],
    drawn: ScalarMappable,
    label: str,
    values: NDArray[np.float64] | None = None,
) -> None:
    """Add one color bar for all axes, with arrows where ``values`` lie beyond its ends."""
    first = axes if isinstance(axes, Axes) else axes[0]
    values = np.asarray(drawn.get_array() if values is None else values)
    low, high = drawn.get_clim()
    beyond = (bool(np.nanmin(values) < low), bool(np.nanmax(values) > high))
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond]
    first.get_figure(root=True).colorbar(  # type: ignore[union-attr]
        drawn, ax=axes, label=label, shrink=0.7, extend=extend
    )


def finish(
    drawn: Drawn, *, show: bool | None, return_fig: bool, save: str | os.PathLike[str] | None
) -> Drawn | Figure:
    """Save and show the figure of axes where requested; return the figure or the axes."""
    figure = np.atleast_1d(np.asarray(drawn, dtype=object)).flat[0].get_figure(root=True)
    if save is not None:
        figure.savefig(save, dpi=DPI, bbox_inches="tight")
    if show:
        plt.show()
    return figure if return_fig else drawn
