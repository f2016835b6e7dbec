"""Generated coordinates in the frame of true ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from alphastomics import _keys
from alphastomics.metrics import superpose_by

ALIGNED_SUFFIX = "_superposed"


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
    for name in (key, spatial_key):
        if name not in adata.obsm:
            raise KeyError(
                f"{name!r} is not in adata.obsm, which holds {sorted(adata.obsm)}: run "
                "model.predict or model.sample first, or correct the key."
            )
    adata = adata.copy() if copy else adata
    true = np.asarray(adata.obsm[spatial_key], dtype=np.float64)
    moved = np.array(adata.obsm[key], dtype=np.float64)
    if moved.shape != true.shape:
        raise ValueError(
            f"adata.obsm[{key!r}] has shape {moved.shape}, but adata.obsm[{spatial_key!r}] has "
            f"{true.shape}: superpose one set of coordinates at a time."
        )
    section = np.full(adata.n_obs, "all")
    if section_key is not None and section_key in adata.obs:
        section = adata.obs[section_key].astype(str).to_numpy()
    located = np.asarray(~np.isnan(true).any(axis=1))
    for name in pd.unique(section):
        cells = section == name
        if located[cells].any():
            moved[cells] = superpose_by(
                moved[cells], true[cells], located[cells], allow_reflection=allow_reflection
            )
    adata.obsm[key_added or key + ALIGNED_SUFFIX] = moved
    return adata if copy else None
