"""Errors and uncertainties of placed cells."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from alphastomics import _keys
from alphastomics._coordinates import is_known, point_set
from alphastomics._validate import check_integer, require_adata
from alphastomics.pl._cells import (
    cells_of,
    check_dims,
    color_bar,
    new_axes,
    scatter,
    true_and_placed,
    with_unit,
    write,
)
from alphastomics.tl._coordinates import UNCERTAINTY_SUFFIX

LEVEL = 0.9
SUFFIXES = (_keys.RADIUS_SUFFIX, UNCERTAINTY_SUFFIX)


def displacement(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section: str | float | None = None,
    section_key: str | None = _keys.SECTION,
    align: bool = True,
    n_arrows: int = 100,
    dims: tuple[int, int] = (0, 1),
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw how far off cells were placed, with arrows from true to generated positions.

    Parameters
    ----------
    adata
        Cells with generated and true coordinates.
    key
        Name in ``.obsm`` of the generated coordinates.
    spatial_key
        Name in ``.obsm`` of the true coordinates, where cells are drawn.
    section, section_key
        Which section to draw; its name in ``.obs``. Needed where there are several.
    align
        Whether to rotate, mirror and shift generated positions onto the true ones; never scaled.
    n_arrows
        How many cells get an arrow, chosen at random; 0 for a map of the errors alone.
    dims
        The two dimensions to draw, for 3D coordinates; errors are in all of them.
    ax
        Where to draw; new axes by default.
    save
        File to write.
    **kwargs
        More options of :meth:`matplotlib.axes.Axes.scatter`.

    Returns
    -------
    Axes
        Cells at their true positions, colored by the distance to the generated ones.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = 0.9 * cells.obsm["spatial"]
    >>> al.pl.displacement(cells).get_title()
    'spatial_predicted: error'
    """
    check_integer("n_arrows", n_arrows, 0)
    chosen = cells_of(adata, section, section_key)
    _, true, generated = true_and_placed(adata, key, spatial_key, chosen, align=align)
    drawn_dims = check_dims(dims, true)
    error = np.linalg.norm(generated - true, axis=1)
    ax = new_axes(ax)
    shown, to = true[:, drawn_dims], generated[:, drawn_dims]
    color_bar(ax, scatter(ax, shown, error, **kwargs), with_unit(adata, "distance to the truth"))
    moved = np.random.default_rng(0).permutation(len(true))[:n_arrows]
    if len(moved):
        arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.002}
        ax.quiver(*shown[moved].T, *(to - shown)[moved].T, color="black", alpha=0.6, **arrows)
        ax.update_datalim(np.concatenate([shown, to[moved]]))
        ax.autoscale_view()
    ax.set_title(f"{key}: error")
    write(ax, save)
    return ax


def uncertainty(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    column: str | None = None,
    section: str | float | None = None,
    section_key: str | None = _keys.SECTION,
    dims: tuple[int, int] = (0, 1),
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw cells where they were placed, colored by how far off they may be.

    Parameters
    ----------
    adata
        Cells with generated coordinates.
    key, section, section_key, dims, ax, save, **kwargs
        As in :func:`displacement`.
    column
        Name in ``.obs`` of the uncertainty; by default that of ``key``: the 90 % radius of a
        calibrated model, or what :func:`alphastomics.tl.uncertainty` wrote.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = cells.obsm["spatial"]
    >>> cells.obs["spatial_predicted_radius"] = 20.0
    >>> al.pl.uncertainty(cells).get_title()
    'spatial_predicted_radius'
    """
    chosen = cells_of(adata, section, section_key)
    points = point_set(adata, key)[chosen]
    shown = check_dims(dims, points)
    names = [column] if column is not None else [key + suffix for suffix in SUFFIXES]
    found = next((name for name in names if name in adata.obs), None)
    if found is None:
        raise KeyError(
            f"{' or '.join(map(repr, names))} is not in adata.obs: a radius is written by "
            "model.predict of a calibrated model (model.calibrate() or train(val_sections=)), "
            "the spread of draws by al.tl.uncertainty."
        )
    values = adata.obs[found].to_numpy(dtype=float)[chosen]
    present = is_known(points) & ~np.isnan(values)
    if not present.any():
        raise ValueError(
            f"no cell has both a position in adata.obsm[{key!r}] and a value in "
            f"adata.obs[{found!r}]: name others, or another section."
        )
    ax = new_axes(ax)
    drawn = scatter(ax, points[present][:, shown], values[present], **kwargs)
    label = "90 % radius" if found.endswith(_keys.RADIUS_SUFFIX) else "spread of draws"
    color_bar(ax, drawn, with_unit(adata, label))
    ax.set_title(found)
    write(ax, save)
    return ax


def calibration(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section: str | float | None = None,
    section_key: str | None = _keys.SECTION,
    align: bool = True,
    n_groups: int = 10,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the errors of cells of similar radius against the radius.

    Parameters
    ----------
    adata
        Cells with generated and true coordinates, and a radius.
    key
        Name in ``.obsm`` of the generated coordinates; ``.obs[key + "_radius"]`` is their radius.
    spatial_key, section, section_key, align, ax, save
        As in :func:`displacement`. ``align=False`` where the frame was given, as by a reference.
    n_groups
        Number of groups, of equal size.

    Returns
    -------
    Axes
        For every group the error below which 90 % of its cells are, which should be their radius:
        on the diagonal they are right, above it too small. The title gives the share of all cells
        within their radius.

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
            f"{int(known.sum())} cells have a true position, a generated one and a radius, which "
            f"does not make n_groups={n_groups} groups: ask for fewer."
        )
    radius, error = radius[known], np.linalg.norm(placed[known] - true[known], axis=1)
    groups = np.array_split(np.argsort(radius, kind="stable"), n_groups)
    mean_radius = [radius[group].mean() for group in groups]
    quantile = [np.quantile(error[group], LEVEL) for group in groups]
    ax = new_axes(ax)
    ends = [0, 1.05 * max(*mean_radius, *quantile)]
    ax.plot(ends, ends, color="0.6", linestyle="--", label="right")
    ax.plot(mean_radius, quantile, marker="o", label="cells of similar radius")
    ax.set(xlim=ends, ylim=ends, xlabel=with_unit(adata, "radius"))
    ax.set_ylabel(with_unit(adata, "error that 90 % stay below"))
    ax.set_title(f"{(error <= radius).mean():.0%} of cells within their radius".replace("%", " %"))
    ax.legend(frameon=False)
    write(ax, save)
    return ax
