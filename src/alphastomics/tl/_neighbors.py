"""Neighbours in generated coordinates."""

from __future__ import annotations

from typing import Any

from anndata import AnnData

from alphastomics import _keys
from alphastomics._quiet import quiet


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
    """Build the graph of spatial neighbours from generated coordinates.

    :func:`squidpy.gr.spatial_neighbors` on ``.obsm[key]``, each section by itself, so that its
    graph functions run on them: pass those ``connectivity_key=key_added``.

    Parameters
    ----------
    adata
        Cells with generated coordinates.
    key
        Name in ``.obsm`` of the generated coordinates ``(n_cells, n_dims)``.
    n_neighbors
        Number of neighbours of a cell.
    section_key
        Name in ``.obs`` of the section, squidpy's ``library_key``; all cells are one section when
        it is absent.
    key_added
        Prefix of what is written; ``key`` by default.
    copy
        Whether to return a copy instead of writing into ``adata``.
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
    >>> cells.obsm["spatial_predicted"] = cells.obsm["spatial"]
    >>> al.tl.neighbors(cells)
    >>> cells.obsp["spatial_predicted_connectivities"].shape
    (50, 50)
    """
    import squidpy as sq

    if key not in adata.obsm:
        raise KeyError(
            f"key {key!r} is not in adata.obsm, which holds {sorted(adata.obsm)}: run "
            "model.predict or model.sample first, or correct the key."
        )
    adata = adata.copy() if copy else adata
    sections = section_key if section_key is not None and section_key in adata.obs else None
    with quiet("spatialdata._logging"):
        sq.gr.spatial_neighbors(
            adata,
            spatial_key=key,
            library_key=sections,
            coord_type="generic",
            n_neighs=n_neighbors,
            key_added=key_added or key,
            **kwargs,
        )
    return adata if copy else None
