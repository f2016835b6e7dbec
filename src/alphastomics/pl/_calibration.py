"""Whether radii hold what they say."""

from __future__ import annotations

import os

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from alphastomics import _keys
from alphastomics.pl._cells import cells_of, new_axes, true_and_placed, with_unit, write

LEVEL = 0.9


def calibration(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section: str | None = None,
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
    spatial_key
        Name in ``.obsm`` of the true coordinates.
    section, section_key, ax, save
        As in :func:`alphastomics.pl.displacement`.
    align
        Whether to superpose generated positions on the true ones first; False where the frame was
        given, as by a reference.
    n_groups
        Number of groups, of equal size.

    Returns
    -------
    Axes
        For every group the error below which 90 % of its cells are, which should be their radius:
        on the diagonal they are right, above it too small. The title tells the share of all cells
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
    column = key + _keys.RADIUS_SUFFIX
    if column not in adata.obs:
        raise KeyError(
            f"{column!r} is not in adata.obs: model.predict writes it if the model is calibrated "
            "(model.calibrate(), or train(val_sections=))."
        )
    chosen = cells_of(adata, section, section_key)
    cells, true, placed = true_and_placed(adata, key, spatial_key, chosen, align=align)
    radius = adata.obs[column].to_numpy(dtype=float)[cells]
    told = ~np.isnan(radius)
    if told.sum() < n_groups:
        raise ValueError(
            f"{int(told.sum())} cells have a true position, a generated one and a radius, which "
            f"does not make n_groups={n_groups} groups: ask for fewer."
        )
    true, placed, radius = true[told], placed[told], radius[told]
    error = np.linalg.norm(placed - true, axis=1)
    groups = np.array_split(np.argsort(radius, kind="stable"), n_groups)
    said = [radius[group].mean() for group in groups]
    found = [np.quantile(error[group], LEVEL) for group in groups]
    ax = new_axes(ax)
    ends = [0, 1.05 * max(*said, *found)]
    ax.plot(ends, ends, color="0.6", linestyle="--", label="right")
    ax.plot(said, found, marker="o", label="cells of similar radius")
    ax.set(xlim=ends, ylim=ends, xlabel=with_unit(adata, "radius"))
    ax.set_ylabel(with_unit(adata, "error that 90 % stay below"))
    ax.set_title(f"{(error <= radius).mean():.0%} of cells within their radius".replace("%", " %"))
    ax.legend(frameon=False)
    write(ax, save)
    return ax
