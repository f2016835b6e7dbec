"""Genes that decide where the model places cells."""

from __future__ import annotations

import os

import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from alphastomics import _keys
from alphastomics._validate import check_integer, require_adata, short
from alphastomics.pl._canvas import Figure, finish, new_axes
from alphastomics.pl._colors import Palette, line_colors

HEIGHT = 0.22  # of a bar, in inches


def gene_importance(
    adata: AnnData,
    n_genes: int = 20,
    *,
    key: str = _keys.POSITION_IMPORTANCE,
    gene_symbols: str | None = None,
    palette: Palette = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Axes | Figure:
    """Plot the genes that matter most to the placement of cells.

    Parameters
    ----------
    adata
        Cells after :func:`alphastomics.tl.gene_importance`.
    n_genes
        Number of genes to draw; all of them if there are fewer.
    key
        Name in ``.var`` of the importance.
    gene_symbols
        Name in ``.var`` of the names to show; by default those of the genes.
    palette
        Colors; the first one is taken.
    ax, show, return_fig, save
        As in :func:`displacement`.

    Returns
    -------
    Axes or Figure
        One bar per gene, the most important gene at the top.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50, n_genes=20)
    >>> cells.var["position_importance"] = range(20)
    >>> ax = al.pl.gene_importance(cells, 3)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['gene_19', 'gene_18', 'gene_17']
    """
    require_adata(adata)
    n_genes = check_integer("n_genes", n_genes, 1)
    for name, column in (("key", key), ("gene_symbols", gene_symbols)):
        if column is not None and column not in adata.var:
            raise KeyError(
                f"{name} {short(column)} is not in adata.var, which holds {list(adata.var)}"
                f"{': run al.tl.gene_importance first, or correct it.' if name == 'key' else '.'}"
            )
    if not pd.api.types.is_numeric_dtype(adata.var[key]):
        raise TypeError(f"adata.var[{key!r}] must hold numbers, found {adata.var[key].dtype}.")
    importance = adata.var[key].astype(float).dropna()
    if importance.empty:
        raise ValueError(f"adata.var[{key!r}] has no value: none of these genes is in the model.")
    shown = importance.nlargest(n_genes)
    names = shown.index if gene_symbols is None else adata.var.loc[shown.index, gene_symbols]
    (color,) = line_colors(palette, ["importance"])
    ax = new_axes(ax, 1 + HEIGHT * len(shown))
    ax.barh(range(len(shown)), shown, color=color)
    ax.set_yticks(range(len(shown)), [str(name) for name in names])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlabel("placement error that the gene saves (RMS radii)")
    ax.set_title("Genes that decide the position", fontsize="medium")
    return finish(ax, show=show, return_fig=return_fig, save=save)
