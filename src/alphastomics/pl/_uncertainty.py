"""How sure positions are."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from alphastomics import _keys
from alphastomics.pl._cells import (
    cells_of,
    color_bar,
    coordinates,
    new_axes,
    scatter,
    with_unit,
    write,
)
from alphastomics.tl._uncertainty import UNCERTAINTY_SUFFIX

SUFFIXES = (_keys.RADIUS_SUFFIX, UNCERTAINTY_SUFFIX)


def uncertainty(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    column: str | None = None,
    section: str | None = None,
    section_key: str | None = _keys.SECTION,
    dims: tuple[int, int] = (0, 1),
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw cells where they were placed, coloured by how far off they may be.

    Parameters
    ----------
    adata
        Cells with generated coordinates.
    key
        Name in ``.obsm`` of the coordinates.
    column
        Name in ``.obs`` of the uncertainty; by default that of ``key``: the 90 % radius of a
        calibrated model, or what :func:`alphastomics.tl.uncertainty` wrote.
    section, section_key, dims, ax, save
        As in :func:`alphastomics.pl.displacement`.
    **kwargs
        More options of :meth:`matplotlib.axes.Axes.scatter`.

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
    points = coordinates(adata, key)[chosen]
    names = [column] if column is not None else [key + suffix for suffix in SUFFIXES]
    found = [name for name in names if name in adata.obs]
    if not found:
        raise KeyError(
            f"{' or '.join(repr(name) for name in names)} is not in adata.obs: a radius is written "
            "by model.predict of a calibrated model (model.calibrate() or train(val_sections=)), "
            "the spread of draws by al.tl.uncertainty."
        )
    values = adata.obs[found[0]].to_numpy(dtype=float)[chosen]
    there = ~(np.isnan(points).any(1) | np.isnan(values))
    ax = new_axes(ax)
    drawn = scatter(ax, points[there][:, list(dims)], values[there], **kwargs)
    of_radius = found[0].endswith(_keys.RADIUS_SUFFIX)
    label = "90 % radius" if of_radius else "spread of draws"
    color_bar(ax, drawn, with_unit(adata, label))
    ax.set_title(found[0])
    write(ax, save)
    return ax
