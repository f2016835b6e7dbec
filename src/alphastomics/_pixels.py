"""Scale of the images of sections, and of coordinates in their pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._anndata import sections_of
from alphastomics._compat import warn

SAME_SIZE = 1.1  # pixels whose sizes differ less are taken for the same
# 10x Genomics, Space Ranger, spatial outputs: "the diameter of a theoretical 65 µm spot", although
# spots are 55 µm wide; Visium HD has the size of a pixel.
SPOT_DIAMETER = 65.0  # µm


def pixel_sizes(adata: AnnData) -> dict[str, float | None]:
    """µm per pixel of the full image of each library; None where it is unknown."""
    libraries = adata.uns.get(_keys.SPATIAL, {})
    if not isinstance(libraries, dict):
        return {}
    return {
        name: _pixel_size(library.get("scalefactors", {}))
        for name, library in libraries.items()
        if isinstance(library, dict)
    }


def _pixel_size(factors: Mapping[str, float]) -> float | None:
    if "microns_per_pixel" in factors:
        return float(factors["microns_per_pixel"])
    if "spot_diameter_fullres" in factors:
        return SPOT_DIAMETER / float(factors["spot_diameter_fullres"])
    return None


def micrometres_per_pixel(adata: AnnData, section_key: str | None) -> NDArray[np.float64]:
    """Size of a pixel in the section of every cell, ``(n_cells,)``.

    A section has the scale of the library of its name; of the only library, if there is one.

    Raises
    ------
    ValueError
        If ``.uns["spatial"]`` has no scale.
    """
    sizes = pixel_sizes(adata)
    only = next(iter(sizes.values())) if len(sizes) == 1 else None
    if only is not None:
        return np.full(adata.n_obs, only)
    section = sections_of(adata, section_key)
    known = {name: size for name, size in sizes.items() if size is not None}
    strange = sorted(set(pd.unique(section)) - set(known))
    if strange:
        raise ValueError(
            f"adata.uns['spatial'] has no scale for the sections {strange}, but for "
            f"{sorted(known)}: name sections like their libraries, or pass a number as factor."
        )
    return np.array([known[name] for name in section])


def check_pixels(adata: AnnData, spatial_key: str) -> None:
    """Warn if sections come in pixels of different size: distances would not compare."""
    sizes = [size for size in pixel_sizes(adata).values() if size is not None]
    if spatial_key == _keys.SPATIAL and sizes and max(sizes) > SAME_SIZE * min(sizes):
        warn(
            f"pixels of these Visium sections are {min(sizes):.3g} to {max(sizes):.3g} µm wide, so "
            "that distances do not compare: put positions in µm by "
            "al.pp.normalize_positions(adata, factor='visium', key_added='spatial_um') and set up "
            "with spatial_key='spatial_um'."
        )
