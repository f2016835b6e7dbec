"""Unit and origin of positions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._anndata import sections_of
from alphastomics._coordinates import is_known, point_set
from alphastomics._output import check_key
from alphastomics._pixels import micrometres_per_pixel
from alphastomics._validate import check_position_rows, short

VISIUM = "visium"


def normalize_positions(
    adata: AnnData,
    *,
    factor: float | Literal["visium"] = 1.0,
    units: str | None = None,
    center: bool = False,
    spatial_key: str = _keys.SPATIAL,
    key_added: str | None = None,
    section_key: str | None = _keys.SECTION,
    copy: bool = False,
) -> AnnData | None:
    """Scale positions by one factor and center each section, keeping the aspect.

    All axes are scaled alike: scaling each by its own range would distort the tissue. The model
    needs neither; this is for sections that come in different units.

    Parameters
    ----------
    adata
        Cells with ``.obsm[spatial_key]`` ``(n_cells, n_dims)``, NaN rows where unknown.
    factor
        Factor of the positions, such as the µm per pixel. ``"visium"``: that of each
        section, by the scale factors in ``.uns["spatial"]`` (``microns_per_pixel`` of Visium HD, or
        ``spot_diameter_fullres``, which 10x defines as 65 µm); name another ``key_added``, because
        the image stays in pixels.
    units
        Their unit after that, such as ``"µm"``. If None, ``.uns["units"]`` is unchanged, and µm for
        Visium.
    center
        Whether to move the mean of the known positions of each section to 0.
    spatial_key
        Name in ``.obsm`` of the positions.
    key_added
        Name in ``.obsm`` to write to; by default ``spatial_key``.
    section_key, copy
        As in :func:`filter_cells`.

    Returns
    -------
    AnnData or None
        Writes ``.obsm[key_added]`` and, if given, ``.uns["units"]``.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=2, n_cells=100)
    >>> al.pp.normalize_positions(cells, factor=0.001, units="mm", center=True)
    >>> bool(abs(cells.obsm["spatial"][:100].mean(0)).max() < 1e-9)
    True
    """
    key_added = spatial_key if key_added is None else key_added
    check_key("key_added", key_added, {})
    given = point_set(adata, spatial_key, "spatial_key")
    check_position_rows(given, spatial_key)
    position = given * _factors(adata, factor, section_key)[:, None]
    if isinstance(factor, str):
        if key_added == spatial_key:
            raise ValueError(
                f"key_added is missing: positions in µm under {spatial_key!r} would not fit the "
                "image, which is in pixels. Pass key_added='spatial_um'."
            )
        units = units or "µm"
    if center:
        section = sections_of(adata, section_key)
        known = is_known(position)
        for name in pd.unique(section[known]):
            cells = section == name
            position[cells] -= position[cells & known].mean(0)
    adata = adata.copy() if copy else adata
    adata.obsm[key_added] = position
    if units is not None:
        adata.uns[_keys.UNITS] = units
    return adata if copy else None


def _factors(adata: AnnData, factor: Any, section_key: str | None) -> NDArray[np.float64]:
    """Factor of the position of each cell, ``(n_cells,)``."""
    if isinstance(factor, str) and factor == VISIUM:
        return micrometres_per_pixel(adata, section_key)
    is_number = isinstance(factor, int | float | np.integer | np.floating)
    number = float(factor) if is_number else np.nan
    if not 0 < number < np.inf:
        raise ValueError(f"factor must be a number above 0 or 'visium', found {short(factor)}.")
    return np.full(adata.n_obs, number)
