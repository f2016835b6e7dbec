"""Maps of measured and predicted expression."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import KDTree

from alphastomics import _keys
from alphastomics._anndata import gene_names, name_list, read_matrix
from alphastomics._coordinates import is_known, point_set
from alphastomics._validate import check_integer, require_adata
from alphastomics.pl._canvas import (
    Figure,
    check_points,
    color_bar,
    finish,
    finish_map,
    frame_of,
    panel_axes,
    scatter,
    unit_of,
)
from alphastomics.pl._cells import cells_of, check_dims
from alphastomics.pl._colors import Palette, color_limits
from alphastomics.pl._words import capitalized, in_words

SIDE, COLOR_BAR = 3.8, 1.0  # inches
LOOKED_AT = 1000  # cells, to tell counts from other values


class _Panel(NamedTuple):
    """Values of genes ``(n_cells, n_genes)`` in a panel."""

    title: str
    values: NDArray[np.float64]


def expression(
    adata: AnnData,
    gene: str | Sequence[str],
    layers: Sequence[str | None] | str | None = (None, _keys.EXPRESSION_PREDICTED),
    *,
    smoothed: int = 0,
    spatial_key: str = _keys.SPATIAL,
    section: str | float | None = None,
    section_key: str | None = _keys.SECTION,
    dims: tuple[int, int] = (0, 1),
    palette: Palette = None,
    size: float | None = None,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> NDArray[np.object_] | Figure:
    """Plot genes in several layers, such as the measured and the predicted one.

    Layers of a gene share their color limits, from the 1st to the 99th percentile of all of them.
    Where some layers hold counts and others do not, as by default, the counts are log-normalized:
    divided by the total of the cell relative to the median total, then :func:`numpy.log1p`.

    Parameters
    ----------
    adata
        Cells with coordinates.
    gene
        Name of a gene, or several names, each with its own row.
    layers
        Layers to draw, one or several, ``None`` for ``.X``.
    smoothed
        Draw also the mean of the first layer over each cell and this number of its nearest ones.
    spatial_key
        Name in ``.obsm`` of the coordinates; may be predicted ones.
    section, section_key, dims, palette, size, show, return_fig, save, **kwargs
        As in :func:`displacement`.
    ax
        As many axes as there are panels, row by row; new ones by default.

    Returns
    -------
    ndarray of Axes or Figure
        One for each layer, and one for the smoothed first one; shape ``(n_panels,)`` for one name,
        ``(n_genes, n_panels)`` for a list. y points down, as in squidpy.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> axes = al.pl.expression(cells, "gene_0", [None], smoothed=10)
    >>> [ax.get_title() for ax in axes]
    ['Measured', 'Measured, mean of 11 cells']
    """
    require_adata(adata)
    check_integer("smoothed", smoothed, 0)
    check_points(size, kwargs)
    genes, numbers = _genes(adata, gene)
    names = _layer_names(adata, layers)
    chosen = cells_of(adata, section, section_key)
    points = point_set(adata, spatial_key, "spatial_key")
    shown = check_dims(dims, points)
    cells = np.flatnonzero(chosen & is_known(points))
    if not len(cells):
        raise ValueError(f"adata.obsm[{spatial_key!r}] has no position of these cells.")
    panels, label = _read(adata, names, numbers, cells)
    if smoothed:
        _, near = KDTree(points[cells]).query(points[cells], min(smoothed + 1, len(cells)))
        first = panels[0]
        title = f"{first.title}, mean of {smoothed + 1} cells"
        panels.append(_Panel(title, first.values[near].mean(1)))
    where, unit = points[cells][:, shown], unit_of(adata)
    frame = frame_of([where])
    drawn = panel_axes(ax, (len(genes), len(panels)), SIDE, frame.ratio, COLOR_BAR)
    for row, name in enumerate(genes):
        every = np.concatenate([panel.values[:, row] for panel in panels])
        low, high = color_limits(every)
        options = {"vmin": low, "vmax": high, **kwargs}
        for axes, panel in zip(drawn[row], panels, strict=True):
            mapped = scatter(axes, where, panel.values[:, row], size, options, palette)
            finish_map(axes, frame, panel.title, unit)
        color_bar(list(drawn[row]), mapped, f"{name} ({label})", every)
    result = drawn[0] if isinstance(gene, str) else drawn
    return finish(result, show=show, return_fig=return_fig, save=save)


def _genes(adata: AnnData, gene: str | Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of genes, and their columns."""
    names, known = name_list("gene", gene), gene_names(adata)
    if not names:
        raise ValueError("gene is empty: name one or several of adata.var_names.")
    if not known.is_unique:
        raise ValueError("adata.var_names are not unique: call adata.var_names_make_unique().")
    column = known.get_indexer(pd.Index(names))
    for name, found in zip(names, column, strict=True):
        if found < 0:
            raise KeyError(f"gene {name!r} is not in adata.var_names, such as {known[0]!r}.")
    return names, column


def _layer_names(adata: AnnData, layers: Sequence[str | None] | str | None) -> list[str | None]:
    """Layers as a list, None for ``.X``; all are there."""
    names = [layers] if layers is None or isinstance(layers, str) else list(layers)
    absent = [name for name in names if name is not None and name not in adata.layers]
    if absent or not names:
        raise KeyError(
            f"layers {absent} are not in adata.layers, which holds {list(adata.layers)}."
        )
    return names


def _read(
    adata: AnnData,
    layers: Sequence[str | None],
    genes: NDArray[np.int64],
    cells: NDArray[np.int64],
) -> tuple[list[_Panel], str]:
    """Values of genes in layers, counts log-normalized unless all are counts; what they are."""
    are_counts = {name: _is_counts(read_matrix(adata[:LOOKED_AT], name)) for name in layers}
    panels = []
    for name in layers:
        values = read_matrix(adata[:, genes], name)[cells].toarray().astype(np.float64)
        if are_counts[name] and not all(are_counts.values()):
            matrix = read_matrix(adata, name)
            total = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
            depth = total / np.median(total[total > 0])
            values = np.log1p(values / np.where(depth > 0, depth, 1.0)[cells, None])
        panels.append(_Panel(capitalized(in_words(name)), values))
    if all(are_counts.values()):
        return panels, "counts"
    return panels, "log-normalized" if any(are_counts.values()) else "expression"


def _is_counts(matrix: sparse.csr_matrix) -> bool:
    """True of whole numbers that are not negative, and not all zero."""
    values = matrix.data
    return bool(values.any() and (values >= 0).all() and (values % 1 == 0).all())
