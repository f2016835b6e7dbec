"""Errors and uncertainties of placed cells."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._coordinates import Points, is_known, point_set
from alphastomics._validate import check_integer
from alphastomics.pl._canvas import (
    Figure,
    check_points,
    color_bar,
    draw_background,
    finish,
    finish_map,
    frame_of,
    panel_axes,
    scatter,
    unit_of,
    with_unit,
)
from alphastomics.pl._cells import cells_of, check_dims, reference_points, true_and_placed
from alphastomics.pl._colors import Palette, color_limits
from alphastomics.pl._words import in_words
from alphastomics.tl._coordinates import UNCERTAINTY_SUFFIX

SUFFIXES = (_keys.RADIUS_SUFFIX, UNCERTAINTY_SUFFIX)
SIDE, COLOR_BAR = 4.2, 1.0  # inches, of a map and its color bar


def displacement(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section: str | float | None = None,
    section_key: str | None = _keys.SECTION,
    align: bool = True,
    n_arrows: int = 30,
    dims: tuple[int, int] = (0, 1),
    palette: Palette = None,
    size: float | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Axes | Figure:
    """Plot the error of every cell at its true position, with arrows to some predicted positions.

    Parameters
    ----------
    adata
        Cells with predicted and true coordinates.
    key
        Name in ``.obsm`` of the predicted coordinates.
    spatial_key
        Name in ``.obsm`` of the true coordinates, where cells are drawn.
    section, section_key
        Section to draw, and its column in ``.obs``. Needed where there are several.
    align
        Whether to rotate, reflect and translate predicted onto true positions, without scaling.
    n_arrows
        Number of cells with an arrow, evenly distributed over the section; 0 for the errors alone.
    dims
        The two dimensions to draw, for 3D coordinates; errors are in all of them.
    palette
        Colormap, or its name.
    size
        Area of a marker, in points squared; by default smaller for more cells.
    ax
        Where to draw; new axes by default.
    show
        Whether to call :func:`matplotlib.pyplot.show`. Notebooks show figures without it.
    return_fig
        Whether to return the figure in place of its axes.
    save
        File to write.
    **kwargs
        More options of :meth:`matplotlib.axes.Axes.scatter`.

    Returns
    -------
    Axes or Figure
        Cells at their true positions, colored by the distance to the predicted ones; y points
        down, as in squidpy.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = 0.9 * cells.obsm["spatial"]
    >>> al.pl.displacement(cells).get_title()
    'Error of predicted positions'
    """
    check_integer("n_arrows", n_arrows, 0)
    check_points(size, kwargs)
    chosen = cells_of(adata, section, section_key)
    _, true, placed = true_and_placed(adata, key, spatial_key, chosen, align=align)
    shown = check_dims(dims, true)
    error = np.linalg.norm(placed - true, axis=1)
    start, end = true[:, shown], placed[:, shown]
    moved = spread_out(start, n_arrows)
    frame, unit = frame_of([start, end[moved]]), unit_of(adata)
    ax = _map_axes(ax, frame.ratio)
    drawn = scatter(ax, start, error, size, _limited(error, kwargs), palette)
    if len(moved):
        _draw_arrows(ax, start[moved], end[moved])
    finish_map(ax, frame, f"Error of {in_words(key)} positions", unit)
    color_bar(ax, drawn, with_unit("distance to the true position", unit))
    return finish(ax, show=show, return_fig=return_fig, save=save)


def _map_axes(ax: Axes | None, ratio: float) -> Axes:
    """Take the axes given, or make new ones for a map with a color bar."""
    axes: Axes = panel_axes(ax, (1, 1), SIDE, ratio, COLOR_BAR)[0, 0]
    return axes


def _limited(values: NDArray[np.float64], options: dict[str, Any]) -> dict[str, Any]:
    """Options with color limits, unless they are given: few large values leave others alike."""
    low, high = color_limits(values)
    return {"vmin": low, "vmax": high, **options}


def spread_out(points: Points, n: int) -> NDArray[np.int64]:
    """Numbers of up to ``n`` points, each the farthest one from those before it."""
    if not n:
        return np.empty(0, dtype=np.int64)
    distance = np.linalg.norm(points - points.mean(0), axis=1)
    chosen = [int(distance.argmin())]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(n, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        distance[chosen] = -1.0
    return np.array(chosen)


def _draw_arrows(ax: Axes, start: Points, end: Points) -> None:
    """Draw arrows in data coordinates, with a white rim that sets them off the cells."""
    shape = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006, "headwidth": 4}
    ax.quiver(*start.T, *(end - start).T, color="black", edgecolor="white", linewidth=0.6, **shape)


def uncertainty(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    column: str | None = None,
    reference: AnnData | None = None,
    spatial_key: str = _keys.SPATIAL,
    section: str | float | None = None,
    section_key: str | None = _keys.SECTION,
    dims: tuple[int, int] = (0, 1),
    palette: Palette = None,
    size: float | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Axes | Figure:
    """Plot cells at their predicted positions, colored by the uncertainty of these.

    Parameters
    ----------
    adata
        Cells with predicted coordinates.
    key, section, section_key, dims, palette, size, ax, show, return_fig, save, **kwargs
        As in :func:`displacement`.
    column
        Column of ``.obs`` with the uncertainty; by default that of ``key``: the 90 % radius of a
        calibrated model, or what :func:`alphastomics.tl.uncertainty` wrote.
    reference
        Cells that the others were placed into, drawn behind them in light gray.
    spatial_key
        Name in ``reference.obsm`` of their coordinates.

    Returns
    -------
    Axes or Figure

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = cells.obsm["spatial"]
    >>> cells.obs["spatial_predicted_radius"] = 20.0
    >>> al.pl.uncertainty(cells).get_title()
    'Uncertainty of predicted positions'
    """
    check_points(size, kwargs)
    chosen = cells_of(adata, section, section_key)
    points = point_set(adata, key)[chosen]
    shown = check_dims(dims, points)
    found = _uncertainty_column(adata, key, column)
    values = adata.obs[found].to_numpy(dtype=float)[chosen]
    present = is_known(points) & ~np.isnan(values)
    if not present.any():
        raise ValueError(
            f"no cell has both a position in adata.obsm[{key!r}] and a value in "
            f"adata.obs[{found!r}]: name others, or another section."
        )
    background = np.empty((0, 2))
    if reference is not None:
        background = reference_points(reference, spatial_key, points.shape[1])
        background = background[is_known(background)][:, shown]
    placed, unit = points[present][:, shown], unit_of(adata, reference)
    frame = frame_of([placed, background])
    ax = _map_axes(ax, frame.ratio)
    values = values[present]
    drawn = scatter(ax, placed, values, size, _limited(values, kwargs), palette)
    if len(background):
        draw_background(ax, background, size)
    finish_map(ax, frame, f"Uncertainty of {in_words(key)} positions", unit)
    label, is_length = _uncertainty_label(found, key)
    color_bar(ax, drawn, with_unit(label, unit if is_length else None))
    return finish(ax, show=show, return_fig=return_fig, save=save)


def _uncertainty_column(adata: AnnData, key: str, column: str | None) -> str:
    """Column of ``.obs`` with the uncertainty of a key."""
    names = [column] if column is not None else [key + suffix for suffix in SUFFIXES]
    found = next((name for name in names if name in adata.obs), None)
    if found is None:
        raise KeyError(
            f"{' or '.join(map(repr, names))} is not in adata.obs: a radius is written by "
            "model.predict of a calibrated model (model.calibrate() or train(val_sections=)), "
            "the spread of draws by al.tl.uncertainty."
        )
    return found


def _uncertainty_label(column: str, key: str) -> tuple[str, bool]:
    """Label of the values of a column, and whether they are lengths."""
    if column.endswith(_keys.RADIUS_SUFFIX):
        return "90 % radius", True
    if column.endswith(UNCERTAINTY_SUFFIX):
        return "root mean squared distance of samples from their mean", True
    return in_words(column), False
