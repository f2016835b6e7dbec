"""Maps of true and predicted positions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._anndata import name_list
from alphastomics._coordinates import Points, is_known, point_set
from alphastomics.metrics import superpose_by
from alphastomics.pl._canvas import (
    Figure,
    Frame,
    check_points,
    color_bar,
    draw_background,
    finish,
    finish_map,
    frame_of,
    panel_axes,
    point_size,
    scatter,
    unit_of,
)
from alphastomics.pl._cells import check_dims, reference_points
from alphastomics.pl._colors import PALETTE, Paint, Palette, legend, names_of_colors, paint_of
from alphastomics.pl._words import capitalized, in_words, uncapitalized
from alphastomics.tl._coordinates import read_placed, sections_if_named

LEGEND_ROW, LEGEND_LETTER = 0.2, 0.075  # inches


class _Panel(NamedTuple):
    """Cells in a panel: what they are, rows in the query (0) or reference (1), ``(n, 2)``."""

    title: str
    source: int
    cells: NDArray[np.int64]
    points: Points


def positions(
    adata: AnnData,
    key: str | Sequence[str] = _keys.PREDICTED,
    *,
    color: str | Sequence[str] | None = None,
    reference: AnnData | None = None,
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = _keys.SECTION,
    align: bool | None = None,
    scale_bar: bool | None = None,
    dims: tuple[int, int] = (0, 1),
    panel_size: float = 4.0,
    palette: Palette = None,
    size: float | None = None,
    legend_loc: str | None = "right margin",
    ax: NDArray[np.object_] | Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> NDArray[np.object_] | Figure:
    """Plot true and predicted positions side by side, one row per section and color.

    All panels of a section have the same limits, and y points down, as in squidpy.

    Parameters
    ----------
    adata
        Cells with predicted and, if there are any, true coordinates.
    key
        Name in ``.obsm`` of the predicted coordinates, or several names, each with its own column.
    color
        Column of ``.obs`` or gene of ``.X`` that colors the cells, or several of them.
    reference
        Cells that the others were placed into. They get a panel of their own, colored as the
        others where they have the column or gene, and are drawn in light gray behind the others.
    spatial_key
        Name in ``.obsm`` of the true coordinates, which are left out when there are none.
    section_key
        Name in ``.obs`` of the section; all cells are one section when it is absent.
    align
        Whether to rotate, reflect and translate predicted onto true positions, without scaling; by
        default unless a reference gives the frame.
    scale_bar
        Whether to draw a scale bar; by default when ``.uns["units"]`` of the cells, or else of the
        reference, names the unit.
    dims
        The two dimensions to draw, for 3D coordinates.
    panel_size
        Larger side of a panel, in inches; less where the figure would be wider than a page.
    palette
        Colors: for categories a list, a dictionary by name, or a colormap; for numbers a colormap
        or its name. By default categories have the colors of ``.uns[f"{color}_colors"]``, or those
        of ``al.pl.PALETTE``, 20 colors that color-blind readers can distinguish.
    size
        Area of a marker, in points squared; by default smaller for more cells.
    legend_loc
        Where to name the categories: ``"right margin"``, a place in the axes as of
        :meth:`matplotlib.axes.Axes.legend`, or None.
    ax
        As many axes as there are panels, row by row; new ones by default.
    show
        Whether to call :func:`matplotlib.pyplot.show`. Notebooks show figures without it.
    return_fig
        Whether to return the figure in place of its axes.
    save
        File to write.
    **kwargs
        More options of :meth:`matplotlib.axes.Axes.scatter`, such as ``alpha`` or ``vmax``.

    Returns
    -------
    ndarray of Axes or Figure
        Shape ``(n_sections * n_colors, n_panels)``, with a panel for the reference and for the
        true coordinates, if there are any, and for each key.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = cells.obsm["spatial"][:, ::-1]
    >>> axes = al.pl.positions(cells, color=["cell_type", "gene_0"])
    >>> [[ax.get_title() for ax in row] for row in axes]
    [['True positions', 'Predicted positions'], ['True positions', 'Predicted positions']]
    """
    colors = names_of_colors(color)
    rows, frames = _sections(
        adata, key, reference, spatial_key, section_key, dims=dims, align=align
    )
    check_points(size, kwargs)
    paints = [None if c is None else paint_of(adata, c, palette, reference) for c in colors]
    unit = unit_of(adata, reference)
    if scale_bar is not None:
        unit = (unit or "µm") if scale_bar else None
    ratio = max(frame.ratio for frame in frames.values())
    n_legend, extra = _legend_size(paints, panel_size * min(ratio, 1.0), legend_loc)
    n_panels = len(next(iter(rows.values())))
    axes = panel_axes(ax, (len(rows) * len(colors), n_panels), panel_size, ratio, extra)
    for row, (name, paint) in enumerate((name, paint) for name in rows for paint in paints):
        drawn = _draw_row(axes[row], rows[name], paint, size, kwargs, palette)
        for own, panel in zip(axes[row], rows[name], strict=True):
            if len(panel.points):
                title = panel.title if len(rows) == 1 else f"{name}: {uncapitalized(panel.title)}"
                finish_map(own, frames[name], title, unit)
            else:
                own.set_axis_off()
        _explain(axes[row], drawn, paint, n_legend, legend_loc if row < len(colors) else None)
    return finish(axes, show=show, return_fig=return_fig, save=save)


def _sections(
    adata: AnnData,
    key: str | Sequence[str],
    reference: AnnData | None,
    spatial_key: str,
    section_key: str | None,
    *,
    dims: tuple[int, int],
    align: bool | None,
) -> tuple[dict[str, list[_Panel]], dict[str, Frame]]:
    """Panels of every section, and the frame that they share."""
    keys = name_list("key", key)
    if not keys:
        raise ValueError("key is empty: name the coordinates to draw.")
    placed = {name: point_set(adata, name) for name in keys}
    for name, points in placed.items():
        if not is_known(points).any():
            raise ValueError(
                f"adata.obsm[{name!r}] is NaN for every cell: there is nothing to draw."
            )
    first = placed[keys[0]]
    shown = check_dims(dims, first)
    true = point_set(adata, spatial_key, "spatial_key") if spatial_key in adata.obsm else None
    for name in keys:
        read_placed(adata, name, first if true is None else true, spatial_key)
    if true is not None and not is_known(true).any():
        true = None
    align = reference is None if align is None else align
    known = _reference_panel(reference, spatial_key, shown, first.shape[1])
    section = sections_if_named(adata, section_key)
    rows, frames = {}, {}
    for name in map(str, pd.unique(section)):
        cells = np.flatnonzero(section == name)
        rows[name] = [*known, *_panels(cells, placed, true, shown, align=align)]
        frames[name] = frame_of([panel.points for panel in rows[name]])
    return rows, frames


def _reference_panel(
    reference: AnnData | None, spatial_key: str, shown: list[int], n_dims: int
) -> list[_Panel]:
    """Panel of the reference, if there is one."""
    if reference is None:
        return []
    points = reference_points(reference, spatial_key, n_dims)
    known = np.flatnonzero(is_known(points))
    return [_Panel("Reference", 1, known, points[known][:, shown])]


def _panels(
    cells: NDArray[np.int64],
    placed: dict[str, Points],
    true: Points | None,
    shown: list[int],
    *,
    align: bool,
) -> list[_Panel]:
    """Panels of a section: its true coordinates, if there can be any, and each predicted ones."""
    panels = []
    if true is not None:
        located = cells[is_known(true[cells])]
        panels.append(_Panel("True positions", 0, located, true[located][:, shown]))
    for key, points in placed.items():
        moved = points[cells]
        if true is not None and align:
            both = is_known(true[cells]) & is_known(moved)
            moved = superpose_by(moved, true[cells], both) if both.any() else moved
        known = is_known(moved)
        title = capitalized(f"{in_words(key)} positions")
        panels.append(_Panel(title, 0, cells[known], moved[known][:, shown]))
    return panels


def _draw_row(
    axes: NDArray[np.object_],
    panels: Sequence[_Panel],
    paint: Paint | None,
    size: float | None,
    options: dict[str, Any],
    palette: Palette,
) -> ScalarMappable | None:
    """Draw the cells of each panel in their colors, those of the reference behind others."""
    background = [panel.points for panel in panels if panel.source == 1]
    area = point_size(sum(map(len, background)) + max(len(panel.points) for panel in panels))
    area = area if size is None else size
    if paint is not None and paint.colors is None:
        low, high = paint.limits
        options = {"vmin": low, "vmax": high, **options}
    drawn = None
    for ax, panel in zip(axes, panels, strict=True):
        if not len(panel.points):
            continue
        colors = PALETTE[0] if paint is None else paint.of(panel.source, panel.cells)
        drawn = scatter(ax, panel.points, colors, area, options, palette)
        for points in background if panel.source == 0 else []:
            draw_background(ax, points, area)
    return drawn


def _legend_size(
    paints: Sequence[Paint | None], height: float, loc: str | None
) -> tuple[int, float]:
    """Columns of the longest legend, and the width in inches of legends or color bars."""
    named = [list(paint.colors) for paint in paints if paint is not None and paint.colors]
    if loc != "right margin" or not named:
        return 1, 0.9 if any(paint is not None for paint in paints) else 0.0
    n_columns = max(int(np.ceil((len(names) + 1) * LEGEND_ROW / height)) for names in named)
    longest = max(len(name) for names in named for name in names)
    return n_columns, n_columns * (0.35 + LEGEND_LETTER * longest)


def _explain(
    axes: NDArray[np.object_],
    drawn: ScalarMappable | None,
    paint: Paint | None,
    n_columns: int,
    legend_loc: str | None,
) -> None:
    """Add the legend of categories to a row of panels, or the color bar of numbers."""
    if paint is None or drawn is None:
        return
    if paint.colors is None:
        color_bar(list(axes), drawn, paint.label, np.concatenate(paint.values))
    elif legend_loc not in (None, "none"):
        legend(axes[-1], paint, n_columns, legend_loc)
