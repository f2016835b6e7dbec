"""Generated coordinates: their frame, their neighbors and the spread of their draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._anndata import sections_of
from alphastomics._compat import quiet
from alphastomics.metrics import superpose_by

ALIGNED_SUFFIX = "_superposed"
UNCERTAINTY_SUFFIX = "_uncertainty"


def read_coordinates(
    adata: AnnData, key: str, name: str = "key", call: str = "model.predict or model.sample"
) -> NDArray[np.float64]:
    """Read coordinates ``(n_cells, n_dims)``, or draws of them, from ``.obsm[key]``."""
    if key not in adata.obsm:
        raise KeyError(
            f"{name} {key!r} is not in adata.obsm, which holds {sorted(adata.obsm)}: run {call} "
            "first, or correct the key."
        )
    return np.asarray(adata.obsm[key], dtype=np.float64)


def sections_if_named(adata: AnnData, section_key: str | None) -> NDArray[np.str_]:
    """Section of each cell ``(n_cells,)``; a single section if the column is absent."""
    return sections_of(adata, section_key if section_key in adata.obs else None)


def superpose(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = _keys.SECTION,
    allow_reflection: bool = True,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Rotate, mirror and shift generated coordinates onto the true ones, section by section.

    Parameters
    ----------
    adata
        Cells with generated and true coordinates.
    key
        Name in ``.obsm`` of the generated coordinates ``(n_cells, n_dims)``.
    spatial_key
        Name in ``.obsm`` of the true coordinates; rows of NaN do not count, but are moved along.
    section_key
        Name in ``.obs`` of the section; all cells are one section when it is absent.
    allow_reflection
        Whether a mirror image may be taken.
    key_added
        Where to write; ``key + "_superposed"`` by default.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Returns
    -------
    AnnData or None
        Writes ``.obsm[key_added]``, ``(n_cells, n_dims)``; never scaled. Sections without a true
        position stay as they are.

    Examples
    --------
    >>> import numpy as np
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = -cells.obsm["spatial"]
    >>> al.tl.superpose(cells)
    >>> np.allclose(cells.obsm["spatial_predicted_superposed"], cells.obsm["spatial"])
    True
    """
    moved = read_coordinates(adata, key).copy()
    true = read_coordinates(adata, spatial_key, "spatial_key")
    if moved.shape != true.shape:
        raise ValueError(
            f"adata.obsm[{key!r}] has shape {moved.shape}, but adata.obsm[{spatial_key!r}] has "
            f"{true.shape}: superpose one set of coordinates at a time."
        )
    section = sections_if_named(adata, section_key)
    located = np.asarray(~np.isnan(true).any(axis=1))
    for name in pd.unique(section[located]):
        cells = section == name
        moved[cells] = superpose_by(
            moved[cells], true[cells], located[cells], allow_reflection=allow_reflection
        )
    adata = adata.copy() if copy else adata
    adata.obsm[key_added or key + ALIGNED_SUFFIX] = moved
    return adata if copy else None


def neighbors(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    n_neighbors: int = 6,
    section_key: str | None = _keys.SECTION,
    key_added: str | None = None,
    copy: bool = False,
    **kwargs: Any,
) -> AnnData | None:
    """Build squidpy's graph of spatial neighbors, section by section.

    Parameters
    ----------
    adata, key, section_key, copy
        As in :func:`superpose`.
    n_neighbors
        Number of neighbors of a cell.
    key_added
        Prefix of what is written; ``key`` by default. It is the ``connectivity_key`` of squidpy.
    **kwargs
        More options of :func:`squidpy.gr.spatial_neighbors`.

    Returns
    -------
    AnnData or None
        Writes ``.obsp[key_added + "_connectivities"]``, ``.obsp[key_added + "_distances"]`` and
        ``.uns[key_added + "_neighbors"]``.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> al.tl.neighbors(cells, "spatial")
    >>> cells.obsp["spatial_connectivities"].shape
    (50, 50)
    """
    import squidpy as sq

    read_coordinates(adata, key)
    adata = adata.copy() if copy else adata
    options = {"coord_type": "generic", "n_neighs": n_neighbors, "key_added": key_added or key}
    library_key = section_key if section_key in adata.obs else None
    with quiet("spatialdata._logging"):
        sq.gr.spatial_neighbors(
            adata, spatial_key=key, library_key=library_key, **options, **kwargs
        )
    return adata if copy else None


def uncertainty(
    adata: AnnData,
    key: str = _keys.SAMPLED + _keys.DRAWS_SUFFIX,
    *,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Measure how far the draws of a cell's position lie from their mean.

    Parameters
    ----------
    adata
        Cells with several draws, ``model.sample(..., n_samples=8, point=None)``.
    key
        Name in ``.obsm`` of the draws, ``(n_cells, n_draws, n_dims)``, in one frame.
    key_added
        Column of ``.obs`` to write; ``key + "_uncertainty"`` by default.
    copy
        As in :func:`superpose`.

    Returns
    -------
    AnnData or None
        Writes ``.obs[key_added]``, the root mean squared distance of a cell's draws from their
        mean, in the unit of the coordinates; 0 where the position was known.

    Examples
    --------
    >>> import numpy as np
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["draws"] = np.tile([[[3.0, 4.0]], [[0.0, 0.0]]], (25, 2, 1))
    >>> al.tl.uncertainty(cells, "draws", key_added="spread")
    >>> float(cells.obs["spread"].iloc[0])
    0.0
    """
    call = "model.sample(n_samples=8, point=None)"
    draws = read_coordinates(adata, key, call=call)
    if draws.ndim != 3 or draws.shape[1] < 2:
        raise ValueError(
            f"adata.obsm[{key!r}] must have shape (n_cells, n_draws, n_dims) with two draws at "
            f"least, found {draws.shape}: run {call}."
        )
    adata = adata.copy() if copy else adata
    square = np.square(draws - draws.mean(1, keepdims=True)).sum(-1)  # (n_cells, n_draws)
    adata.obs[key_added or key + UNCERTAINTY_SUFFIX] = np.sqrt(square.mean(1))
    return adata if copy else None
