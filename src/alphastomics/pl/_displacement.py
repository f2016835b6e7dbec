"""From true to generated positions."""

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
    new_axes,
    scatter,
    true_and_placed,
    with_unit,
    write,
)


def displacement(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section: str | None = None,
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
        Cells at their true positions, coloured by the distance to the generated ones.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = 0.9 * cells.obsm["spatial"]
    >>> al.pl.displacement(cells).get_title()
    'spatial_predicted: error'
    """
    chosen = cells_of(adata, section, section_key)
    _, true, generated = true_and_placed(adata, key, spatial_key, chosen, align=align)
    error = np.linalg.norm(generated - true, axis=1)
    ax = new_axes(ax)
    shown, to = true[:, list(dims)], generated[:, list(dims)]
    color_bar(ax, scatter(ax, shown, error, **kwargs), with_unit(adata, "distance to the truth"))
    some = np.random.default_rng(0).permutation(len(true))[:n_arrows]
    if len(some):
        arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.002}
        ax.quiver(*shown[some].T, *(to - shown)[some].T, color="black", alpha=0.6, **arrows)
        ends = np.concatenate([shown, to[some]])
        ax.update_datalim(ends)
        ax.autoscale_view()
    ax.set_title(f"{key}: error")
    write(ax, save)
    return ax
