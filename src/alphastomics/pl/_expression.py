"""Maps of measured and generated expression."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import KDTree

from alphastomics import _keys
from alphastomics._coordinates import is_known, point_set
from alphastomics._validate import check_integer, require_adata
from alphastomics.pl._cells import cells_of, check_dims, color_bar, panel_axes, scatter, write


def expression(
    adata: AnnData,
    gene: str,
    layers: Sequence[str | None] | str | None = (None, _keys.EXPRESSION_PREDICTED),
    *,
    smoothed: int = 0,
    spatial_key: str = _keys.SPATIAL,
    section: str | float | None = None,
    section_key: str | None = _keys.SECTION,
    dims: tuple[int, int] = (0, 1),
    ax: Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> NDArray[np.object_]:
    """Draw a gene in several layers, such as the truth, its mean and a draw.

    Parameters
    ----------
    adata
        Cells with coordinates.
    gene
        Name of the gene.
    layers
        Layers to draw, one or several, ``None`` for ``.X``. Each has its own color scale, from the
        1st to the 99th percentile.
    smoothed
        Draw also the mean of the first layer over a cell and so many nearest ones.
    spatial_key
        Name in ``.obsm`` of where to draw cells; may be generated coordinates.
    section, section_key, dims, save, **kwargs
        As in :func:`displacement`.
    ax
        As many axes as there are panels; new ones by default.

    Returns
    -------
    ndarray of Axes
        One for each layer, and one for the smoothed first one.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> axes = al.pl.expression(cells, "gene_0", [None], smoothed=10)
    >>> [ax.get_title() for ax in axes]
    ['X', 'X, mean of 11 cells']
    """
    require_adata(adata)
    check_integer("smoothed", smoothed, 0)
    layers = [layers] if layers is None or isinstance(layers, str) else layers
    if not isinstance(gene, str) or gene not in adata.var_names:
        raise KeyError(f"gene {gene!r} is not in adata.var_names, such as {adata.var_names[0]!r}.")
    absent = [name for name in layers if name is not None and name not in adata.layers]
    if absent or not layers:
        raise KeyError(
            f"layers {absent} are not in adata.layers, which holds {list(adata.layers)}."
        )
    chosen = cells_of(adata, section, section_key)
    points = point_set(adata, spatial_key, "spatial_key")
    shown = check_dims(dims, points)
    cells = np.flatnonzero(chosen & is_known(points))
    if not len(cells):
        raise ValueError(f"adata.obsm[{spatial_key!r}] has no position of these cells.")
    points = points[cells]
    panels = {name or "X": _values(adata, gene, name)[cells] for name in layers}
    if smoothed:
        first, values = next(iter(panels.items()))
        _, near = KDTree(points).query(points, min(smoothed + 1, len(points)))
        panels[f"{first}, mean of {smoothed + 1} cells"] = values[near].mean(1)
    drawn = panel_axes(ax, (1, len(panels)), (4.4, 3.8))[0]
    for axes, (title, values) in zip(drawn, panels.items(), strict=True):
        low, high = np.nanpercentile(values, [1, 99]) if np.isfinite(values).any() else (0, 1)
        scale = {"vmin": low, "vmax": max(high, low + 1e-9), **kwargs}
        color_bar(axes, scatter(axes, points[:, shown], values, **scale), gene)
        axes.set_title(title)
    write(drawn[0], save)
    return drawn


def _values(adata: AnnData, gene: str, layer: str | None) -> NDArray[np.float64]:
    """Read a gene of all cells, ``(n_cells,)``."""
    column = adata[:, gene]
    matrix = column.X if layer is None else column.layers[layer]
    dense = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
    return dense.ravel().astype(np.float64)
