"""Figure of the reliability of estimated expression, gene by gene."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import spearmanr

from alphastomics import _keys
from alphastomics._validate import check_integer, require_adata
from alphastomics.metrics import pcc
from alphastomics.pl._canvas import Figure, check_points, color_bar, finish, new_axes
from alphastomics.pl._colors import Palette, colormap_of, line_colors

LEVEL = 0.9
ROUNDING = 1e-4


class _Estimated(NamedTuple):
    """Estimates of an AnnData with their bounds ``(n, G)`` and reliability ``(G,)``."""

    genes: pd.Index
    estimate: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    reliability: NDArray[np.float64]


def reliability(
    adata: AnnData,
    key: str = _keys.EXPRESSION_PREDICTED,
    truth: str | None = None,
    *,
    n_genes: int = 20,
    palette: Palette = None,
    size: float | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Axes | Figure:
    """Plot the expected correlation of genes, against the realized one where truth is known.

    Parameters
    ----------
    adata
        Cells with expression that a calibrated model estimated.
    key
        Name in ``.layers`` (of ``predict``) or ``.obsm`` (of ``impute``) of the estimates.
    truth
        Name in ``.layers`` of the true values, ``"X"`` for ``.X``, in the units of the estimates:
        counts, where these were made with ``output="counts"``. Without it there are bars. The
        reliability is that of log-normalized values; counts correlate more, by their depth.
    n_genes
        Number of bars; of more genes than that, one half are the most and one half the least
        reliable ones.
    palette
        Colormap, or its name; of bars, whose first color is taken, also a list of colors.
    size
        Area of a marker, in points squared.
    ax, show, return_fig, save
        As in :func:`displacement`.
    **kwargs
        More options of :meth:`matplotlib.axes.Axes.scatter`, or
        :meth:`~matplotlib.axes.Axes.barh`.

    Returns
    -------
    Axes or Figure
        A bar for each gene, or a point with its realized correlation over cells, colored by the
        share of true values in the 90 % interval.

    Examples
    --------
    >>> import numpy as np
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> for suffix, shift in (("", 0), ("_lower", -1), ("_upper", 1)):
    ...     cells.layers["expression_predicted" + suffix] = cells.X.toarray() + shift
    >>> cells.var["expression_predicted_reliability"] = np.linspace(0, 1, cells.n_vars)
    >>> al.pl.reliability(cells, n_genes=4).get_title()
    'Reliability of 4 of 60 genes'
    """
    require_adata(adata)
    check_integer("n_genes", n_genes, 2)
    found = _estimated(adata, key)
    if truth is None:
        ax = new_axes(ax, height=max(3.0, 0.22 * min(n_genes, len(found.genes))))
        (color,) = line_colors(palette, ["reliability"])
        _draw_bars(ax, found, n_genes, {"color": color, **kwargs})
    else:
        check_points(size, kwargs)
        true = _true_values(adata, truth, found.genes)
        colormap = colormap_of("RdBu" if palette is None else palette)
        options = {"cmap": colormap, "s": 25 if size is None else size, **kwargs}
        ax = new_axes(ax)
        _draw_points(ax, found, true, options)
    return finish(ax, show=show, return_fig=return_fig, save=save)


def _estimated(adata: AnnData, key: str) -> _Estimated:
    """Read what a calibrated model wrote."""
    suffixes = ("", _keys.LOWER_SUFFIX, _keys.UPPER_SUFFIX)
    is_layer = key in adata.layers
    where = adata.layers if is_layer else adata.obsm
    if any(key + suffix not in where for suffix in suffixes):
        raise KeyError(
            f"{key!r} with {suffixes[1]!r} and {suffixes[2]!r} is neither in adata.layers nor in "
            "adata.obsm: model.predict and model.impute write them if the model is calibrated "
            "(model.calibrate(), or train(val_sections=))."
        )
    estimate, lower, upper = (np.asarray(where[key + s], dtype=np.float64) for s in suffixes)
    if is_layer:
        genes, by_gene = adata.var_names, adata.var.get(key + _keys.RELIABILITY_SUFFIX)
    else:
        genes = pd.Index(adata.obsm[key].columns)
        by_gene = adata.uns.get(_keys.UNS, {}).get(key, {}).get(_keys.RELIABILITY)
    if by_gene is None or len(by_gene) != len(genes):
        raise KeyError(
            f"the reliability of {key!r} is not in adata.var or adata.uns[{_keys.UNS!r}], or is of "
            "other genes: let the model estimate them again."
        )
    return _Estimated(genes, estimate, lower, upper, np.asarray(by_gene, dtype=np.float64))


def _true_values(adata: AnnData, truth: str, genes: pd.Index) -> NDArray[np.float64]:
    """Read true values ``(n, G)`` of genes, NaN for those that are not there."""
    if truth != "X" and truth not in adata.layers:
        raise KeyError(
            f"truth={truth!r} is not in adata.layers, which holds {list(adata.layers)}; 'X' is "
            "adata.X."
        )
    column = adata.var_names.get_indexer(genes)
    matrix = (adata.X if truth == "X" else adata.layers[truth])[:, column[column >= 0]]
    values = np.full((adata.n_obs, len(genes)), np.nan)
    values[:, column >= 0] = matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)
    return values


def _draw_bars(ax: Axes, found: _Estimated, n_genes: int, options: dict[str, Any]) -> None:
    """Draw the most and the least reliable genes, the best on top."""
    order = np.argsort(found.reliability, kind="stable")
    order = order[np.isfinite(found.reliability[order])]
    if not len(order):
        raise ValueError("no gene has a reliability: calibration had no cells that measured them.")
    if len(order) > n_genes:
        order = np.concatenate([order[: n_genes // 2], order[-(n_genes - n_genes // 2) :]])
    ax.barh(np.arange(len(order)), found.reliability[order], **options)
    ax.set_yticks(np.arange(len(order)), found.genes[order])
    ax.set_xlabel("expected correlation over cells")
    ax.set_title(f"Reliability of {len(order)} of {len(found.genes)} genes", fontsize="medium")


def _draw_points(
    ax: Axes, found: _Estimated, true: NDArray[np.float64], options: dict[str, Any]
) -> None:
    """Draw genes by expected and realized correlation, colored by coverage."""
    scored = np.isfinite(true) & np.isfinite(found.estimate) & np.isfinite(found.lower)
    genes = np.flatnonzero((scored.sum(0) > 1) & np.isfinite(found.reliability))
    if not len(genes):
        raise ValueError("no gene has a reliability, an interval and true values.")
    within = (true >= found.lower - ROUNDING) & (true <= found.upper + ROUNDING)
    coverage = np.array([within[scored[:, g], g].mean() for g in genes])
    realized = np.array(
        [pcc(true[scored[:, g], g, None], found.estimate[scored[:, g], g, None])[0] for g in genes]
    )
    expected = found.reliability[genes]
    ends = [min(0.0, *expected, *realized), max(*expected, *realized)]
    ax.plot(ends, ends, color="0.6", linestyle="--", zorder=0)
    options = {"c": coverage, "vmin": 2 * LEVEL - 1, "vmax": 1.0, **options}
    drawn = ax.scatter(expected, realized, **{"edgecolors": "0.3", **options})
    color_bar(ax, drawn, "share of values in the 90 % interval")
    ax.set(xlabel="expected correlation over cells", ylabel="realized correlation")
    share = f"{within[:, genes][scored[:, genes]].mean():.0%}".replace("%", " %")
    title = f"{share} of the values within their interval"
    rank = spearmanr(expected, realized).statistic if len(genes) > 2 else np.nan
    if np.isfinite(rank):
        title += f"; Spearman {rank:.2f}"
    ax.set_title(title, fontsize="medium")
