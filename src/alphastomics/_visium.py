"""What a Visium section tells of its scale."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._obs import sections_of

SAME_SIZE = 1.1  # pixels whose sizes differ less are taken for the same
SPOT_DIAMETER = 55.0  # µm; 10x Genomics, Visium Spatial Gene Expression


def spot_diameters(adata: AnnData) -> dict[str, float]:
    """Diameter of a spot in pixels of the full image, of every library that tells it."""
    libraries = adata.uns.get(_keys.SPATIAL, {})
    if not isinstance(libraries, dict):
        return {}
    factors = {
        name: library.get("scalefactors", {})
        for name, library in libraries.items()
        if isinstance(library, dict)
    }
    return {
        name: float(found["spot_diameter_fullres"])
        for name, found in factors.items()
        if "spot_diameter_fullres" in found
    }


def micrometres_per_pixel(adata: AnnData, section_key: str | None) -> NDArray[np.float64]:
    """Size of a pixel in the section of every cell, ``(n_cells,)``.

    A section has the scale of the library of its name; of the only library, if there is one.

    Raises
    ------
    ValueError
        If ``.uns["spatial"]`` does not tell it.
    """
    diameters = spot_diameters(adata)
    if len(diameters) == 1:
        return np.full(adata.n_obs, SPOT_DIAMETER / next(iter(diameters.values())))
    section = sections_of(adata, section_key)
    strange = sorted(set(pd.unique(section)) - set(diameters))
    if strange:
        raise ValueError(
            f"adata.uns['spatial'] has no spot_diameter_fullres for the sections {strange}, but "
            f"for {sorted(diameters)}: name sections like their libraries, or pass a number."
        )
    return np.array([SPOT_DIAMETER / diameters[name] for name in section])


def check_pixels(adata: AnnData, spatial_key: str) -> None:
    """Warn if sections come in pixels of different size: distances would not compare."""
    sizes = spot_diameters(adata).values()
    if spatial_key == _keys.SPATIAL and sizes and max(sizes) > SAME_SIZE * min(sizes):
        warnings.warn(
            f"the spots of these Visium sections are {min(sizes):g} to {max(sizes):g} pixels wide, "
            "so that their pixels differ in size: put positions in µm by "
            "al.pp.normalize_positions(adata, factor='visium', key_added='spatial_um') and set up "
            "with spatial_key='spatial_um'.",
            UserWarning,
            stacklevel=4,
        )
