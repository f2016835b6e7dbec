"""Radii of placed cells against their errors."""

from __future__ import annotations

import os

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import binom

from alphastomics import _keys
from alphastomics._validate import check_integer, require_adata
from alphastomics.pl._canvas import Figure, check_points, finish, new_axes, unit_of, with_unit
from alphastomics.pl._cells import cells_of, true_and_placed
from alphastomics.pl._colors import Palette, line_colors

LEVEL, CONFIDENCE = 0.9, 0.95


def calibration(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section: str | float | None = None,
    section_key: str | None = _keys.SECTION,
    align: bool = True,
    n_groups: int = 10,
    palette: Palette = None,
    size: float | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Axes | Figure:
    """Plot the errors of cells with similar radii against the radius.

    Parameters
    ----------
    adata
        Cells with predicted and true coordinates, and a radius.
    key
        Name in ``.obsm`` of the predicted coordinates; ``.obs[key + "_radius"]`` is their radius.
    spatial_key, section, section_key, align, ax, show, return_fig, save
        As in :func:`displacement`. ``align=False`` where the frame was given, as by a reference.
    n_groups
        Number of groups, of equal size.
    palette
        Colors; the first one is taken.
    size
        Area of a marker, in points squared.

    Returns
    -------
    Axes or Figure
        For every group the 90 % quantile of the error, which should equal the radius: on the
        diagonal the radius is right, above it too small. Bars are 95 % confidence intervals of the
        quantile, from order statistics (cells as independent, so they are rather too short). The
        title gives the share of all cells within their radius.

    Examples
    --------
    >>> import numpy as np
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = cells.obsm["spatial"] + np.arange(50)[:, None]
    >>> cells.obs["spatial_predicted_radius"] = 2.0 * np.arange(50)
    >>> al.pl.calibration(cells, align=False).get_title()
    '100 % of cells within their radius'
    """
    require_adata(adata)
    check_integer("n_groups", n_groups, 1)
    check_points(size, {})
    column = f"{key}{_keys.RADIUS_SUFFIX}"
    if column not in adata.obs:
        raise KeyError(
            f"{column!r} is not in adata.obs: model.predict writes it if the model is calibrated "
            "(model.calibrate(), or train(val_sections=))."
        )
    chosen = cells_of(adata, section, section_key)
    cells, true, placed = true_and_placed(adata, key, spatial_key, chosen, align=align)
    radius = adata.obs[column].to_numpy(dtype=float)[cells]
    known = ~np.isnan(radius)
    if known.sum() < n_groups:
        raise ValueError(
            f"{int(known.sum())} cells have a true position, a predicted one and a radius, which "
            f"does not make n_groups={n_groups} groups: ask for fewer."
        )
    radius, error = radius[known], np.linalg.norm(placed[known] - true[known], axis=1)
    groups = np.array_split(np.argsort(radius, kind="stable"), n_groups)
    means = np.array([radius[group].mean() for group in groups])
    quantiles = np.array([quantile_interval(error[group]) for group in groups])
    (color,) = line_colors(palette, ["cells of similar radius"])
    ax = new_axes(ax)
    _draw_calibration(ax, means, quantiles, color, size)
    unit = unit_of(adata)
    ax.set_xlabel(with_unit("radius", unit))
    ax.set_ylabel(with_unit("90 % quantile of the error", unit))
    share = f"{(error <= radius).mean():.0%}".replace("%", " %")
    ax.set_title(f"{share} of cells within their radius", fontsize="medium")
    return finish(ax, show=show, return_fig=return_fig, save=save)


def quantile_interval(error: NDArray[np.float64]) -> tuple[float, float, float]:
    """90 % quantile of errors ``(n,)``, and its 95 % confidence interval by order statistics."""
    ordered, n = np.sort(error), len(error)
    tail = (1 - CONFIDENCE) / 2
    low, high = (int(binom.ppf(level, n, LEVEL)) for level in (tail, 1 - tail))
    at_least = ordered[max(low - 1, 0)]
    return float(np.quantile(error, LEVEL)), float(at_least), float(ordered[min(high, n - 1)])


def _draw_calibration(
    ax: Axes,
    radius: NDArray[np.float64],
    quantiles: NDArray[np.float64],
    color: str,
    size: float | None,
) -> None:
    """Draw quantiles of errors with their intervals ``(n_groups, 3)``, and the diagonal."""
    ends = [0.0, 1.05 * max(radius.max(), quantiles.max()) or 1.0]
    ax.plot(ends, ends, color="0.6", linestyle="--", label="radius equals the quantile")
    middle, low, high = quantiles.T
    bars = np.stack([np.maximum(middle - low, 0), np.maximum(high - middle, 0)])
    markersize = 5.0 if size is None else size**0.5
    ax.errorbar(
        radius,
        middle,
        bars,
        marker="o",
        color=color,
        markersize=markersize,
        elinewidth=1.0,
        label="cells of similar radius, with 95 % intervals",
    )
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    ax.legend(frameon=False, fontsize="small", loc="lower right")
