"""Maps of true and generated positions."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._anndata import obs_column
from alphastomics._compat import squidpy, without_deprecations
from alphastomics._coordinates import is_known, point_set
from alphastomics.metrics import superpose_by
from alphastomics.pl._cells import check_dims, palette, panel_axes, point_size, write
from alphastomics.tl._coordinates import read_placed, sections_if_named

MICROMETERS = ("µm", "μm", "um", "micrometre", "micrometer", "micron")
SCALE_BAR = {"scalebar_dx": 1.0, "scalebar_units": "um"}  # as matplotlib-scalebar spells it


def _panel(
    obs: pd.DataFrame, uns: dict[str, Any], points: NDArray[np.float64], ax: Axes, **options: Any
) -> None:
    """Draw the cells of a section at ``points (n, 2)``."""
    cells = AnnData(obs=obs, uns=uns, obsm={_keys.SPATIAL: points})
    with without_deprecations("No data for colormapping"):
        squidpy().pl.spatial_scatter(
            cells, spatial_key=_keys.SPATIAL, shape=None, ax=ax, library_id=[""], **options
        )
    ax.set_aspect("equal")
    ax.set(xlabel="", ylabel="")


def positions(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    color: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = _keys.SECTION,
    align: bool = True,
    scale_bar: bool | None = None,
    dims: tuple[int, int] = (0, 1),
    panel_size: float = 4.0,
    ax: NDArray[np.object_] | Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> NDArray[np.object_]:
    """Draw true beside generated positions, a row per section.

    Parameters
    ----------
    adata
        Cells with generated and, if there are any, true coordinates.
    key
        Name in ``.obsm`` of the generated coordinates.
    color
        Name in ``.obs`` of what colors the cells.
    spatial_key
        Name in ``.obsm`` of the true coordinates; only generated ones are drawn when it is absent.
    section_key
        Name in ``.obs`` of the section; all cells are one section when it is absent.
    align
        Whether to rotate, mirror and shift generated positions onto the true ones; never scaled.
    scale_bar
        Whether to draw one, in µm; by default when ``.uns["units"]`` says the unit is µm.
    dims
        The two dimensions to draw, for 3D coordinates.
    panel_size
        Height and width of a panel in inches.
    ax
        As many axes as there are panels, row by row; new ones by default.
    save
        File to write.
    **kwargs
        More options of :func:`squidpy.pl.spatial_scatter`, such as ``size`` or ``palette``.

    Returns
    -------
    ndarray of Axes
        Shape ``(n_sections, 2)``, or ``(n_sections, 1)`` without true coordinates.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = cells.obsm["spatial"][:, ::-1]
    >>> [ax.get_title() for ax in al.pl.positions(cells, color="cell_type")[0]]
    ['section_0: true', 'section_0: spatial_predicted']
    """
    generated = point_set(adata, key)
    placeable = is_known(generated)
    if not placeable.any():
        raise ValueError(f"adata.obsm[{key!r}] is NaN for every cell: there is nothing to draw.")
    if color is not None:
        obs_column(adata, color, "color")
    obs, uns = adata.obs, dict(adata.uns)
    colors = None if color is None else palette(adata, color)
    if colors is not None:
        # Of all sections, so that a category has the same color in every panel.
        obs = obs.assign(**{str(color): obs[color].astype("category")})
        uns[f"{color}_colors"] = colors
    if scale_bar is None:
        scale_bar = str(uns.get(_keys.UNITS, "")).lower().startswith(MICROMETERS)
    kwargs = {"color": color, **(SCALE_BAR if scale_bar else {}), **kwargs}
    section = sections_if_named(adata, section_key)
    names, shown = pd.unique(section), check_dims(dims, generated)
    true = None
    if spatial_key in adata.obsm:
        true = point_set(adata, spatial_key, "spatial_key")
        read_placed(adata, key, true, spatial_key)
    axes = panel_axes(ax, (len(names), 1 if true is None else 2), (panel_size, panel_size))
    for row, name in enumerate(names):
        cells = section == name
        placed, title = generated[cells], "all cells" if name == "all" else name
        options = {"size": point_size(len(placed)), **kwargs}
        known = placeable[cells]
        if true is not None:
            located = is_known(true[cells])
            if align and (located & known).any():
                placed = superpose_by(placed, true[cells], located & known)
            if located.any():
                plain = {**options, "title": f"{title}: true", "legend_loc": "none"}
                points = true[cells][located][:, shown]
                _panel(obs[cells][located], uns, points, axes[row, 0], **plain)
            else:
                axes[row, 0].set_axis_off()
        options = {"legend_loc": "right margin" if row == 0 else "none", **options}
        if known.any():
            options["title"] = f"{title}: {key}"
            _panel(obs[cells][known], uns, placed[known][:, shown], axes[row, -1], **options)
        else:
            axes[row, -1].set_axis_off()
    write(axes[0, 0], save)
    return axes
