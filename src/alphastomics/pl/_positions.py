"""True beside generated positions."""

from __future__ import annotations

import os
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import squidpy as sq
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics.metrics import superpose_by
from alphastomics.pl._cells import point_size, write
from alphastomics.pl._colors import palette

MICROMETRES = ("µm", "μm", "um", "micrometre", "micrometer", "micron")
SCALE_BAR_UNIT = "um"  # as matplotlib-scalebar spells it


def _is_micrometres(adata: AnnData) -> bool:
    return str(adata.uns.get(_keys.UNITS, "")).lower().startswith(MICROMETRES)


def _panel(
    obs: pd.DataFrame,
    uns: dict[str, Any],
    shown: NDArray[np.float64],
    title: str,
    ax: Axes,
    **kwargs: Any,
) -> None:
    """One section at the coordinates ``shown`` ``(n, 2)``."""
    copy = AnnData(obs=obs, uns=uns, obsm={_keys.SPATIAL: shown})
    sq.pl.spatial_scatter(
        copy, spatial_key=_keys.SPATIAL, shape=None, ax=ax, title=title, library_id=[""], **kwargs
    )
    ax.set_aspect("equal")
    ax.set_xlabel("")
    ax.set_ylabel("")


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
    """Draw true beside generated positions, one row a section.

    Parameters
    ----------
    adata
        Cells with generated and, if there are any, true coordinates.
    key
        Name in ``.obsm`` of the generated coordinates.
    color
        Name in ``.obs`` of what colours the cells.
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
    if key not in adata.obsm:
        raise KeyError(
            f"key {key!r} is not in adata.obsm, which holds {sorted(adata.obsm)}: run "
            "model.predict or model.sample first, or correct the key."
        )
    if color is not None and color not in adata.obs:
        raise KeyError(f"color {color!r} is not in adata.obs, which holds {list(adata.obs)}.")
    obs, uns = adata.obs, dict(adata.uns)
    named = None if color is None else palette(adata, color)
    if named is not None:
        # Of all sections: the colours of a panel are those of its neighbours.
        obs = obs.assign(**{str(color): obs[color].astype("category")})
        uns[f"{color}_colors"] = named
    if scale_bar is None:
        scale_bar = _is_micrometres(adata)
    if scale_bar:
        kwargs = {"scalebar_dx": 1.0, "scalebar_units": SCALE_BAR_UNIT, **kwargs}
    section = np.full(adata.n_obs, "all cells")
    if section_key is not None and section_key in adata.obs:
        section = adata.obs[section_key].astype(str).to_numpy()
    names = pd.unique(section)
    has_truth = spatial_key in adata.obsm
    columns = 2 if has_truth else 1
    if ax is None:
        size = (panel_size * columns, panel_size * len(names))
        _, ax = plt.subplots(len(names), columns, figsize=size, squeeze=False, layout="constrained")
    given = np.asarray(ax, dtype=object)
    if given.size != len(names) * columns:
        raise ValueError(
            f"ax holds {given.size} axes, but there are {len(names) * columns} panels."
        )
    axes = given.reshape(len(names), columns)
    chosen = list(dims)
    for row, name in enumerate(names):
        cells = section == name
        part = obs[cells]
        generated = np.asarray(adata.obsm[key], dtype=np.float64)[cells]
        options = {"color": color, "size": point_size(len(generated)), **kwargs}
        if has_truth:
            true = np.asarray(adata.obsm[spatial_key], dtype=np.float64)[cells]
            located = ~np.isnan(true).any(1)
            if align and located.any():
                generated = superpose_by(generated, true, located)
            if located.any():
                shown, title = true[located][:, chosen], f"{name}: true"
                plain = {**options, "legend_loc": "none"}
                _panel(part[located], uns, shown, title, axes[row, 0], **plain)
            else:
                axes[row, 0].set_axis_off()
        options = {"legend_loc": "right margin" if row == 0 else "none", **options}
        _panel(part, uns, generated[:, chosen], f"{name}: {key}", axes[row, -1], **options)
    write(axes[0, 0], save)
    return np.asarray(axes)
