"""How far draws disagree about a cell."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from alphastomics import _keys

UNCERTAINTY_SUFFIX = "_uncertainty"


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
        Whether to return a copy instead of writing into ``adata``.

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
    if key not in adata.obsm:
        raise KeyError(
            f"key {key!r} is not in adata.obsm, which holds {sorted(adata.obsm)}: call "
            "model.sample(n_samples=8, point=None) first, or correct the key."
        )
    draws = np.asarray(adata.obsm[key], dtype=np.float64)
    if draws.ndim != 3 or draws.shape[1] < 2:
        raise ValueError(
            f"adata.obsm[{key!r}] must have shape (n_cells, n_draws, n_dims) with two draws at "
            f"least, found {draws.shape}: call model.sample(n_samples=8, point=None)."
        )
    adata = adata.copy() if copy else adata
    square = np.square(draws - draws.mean(1, keepdims=True)).sum(-1)  # (n_cells, n_draws)
    adata.obs[key_added or key + UNCERTAINTY_SUFFIX] = np.sqrt(square.mean(1))
    return adata if copy else None
