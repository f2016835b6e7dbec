"""Colors of cells: a palette that is safe for the color-blind, colormaps and legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, is_color_like
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from alphastomics._anndata import (
    as_names,
    as_numbers,
    gene_names,
    name_list,
    obs_column,
    read_matrix,
)
from alphastomics._validate import short
from alphastomics.pl._words import in_words

Palette = str | Sequence[str] | Mapping[str, str] | Colormap | None

COLORMAP = "viridis"  # monotonic in lightness, and distinct to the color-blind
# The first eight are those of Okabe & Ito 2008. The others maximize the least distance in OKLab
# between any two of them, and from white and light gray, in normal vision and in deuteranopia and
# protanopia as simulated by Machado et al. 2009.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"),
    *("#78000F", "#3C00A5", "#0F5AFF", "#690069", "#B4D2FF", "#C30000", "#00D287", "#7887FF"),
    *("#0000E1", "#96F0A5", "#00694B", "#B42D87"),
)
MISSING = "#D3D3D3"  # as in scanpy
LEGEND_SIZE = 8  # points


class Paint(NamedTuple):
    """Colors of the cells of one or several AnnData.

    Attributes
    ----------
    label
        What the colors are of.
    values
        For each AnnData the numbers, or the codes of the categories, ``(n_cells,)``; NaN where
        they are missing.
    colors
        Color of each category by name, in the order of the codes; None for numbers.
    """

    label: str
    values: list[NDArray[np.float64]]
    colors: dict[str, str] | None

    def of(self, which: int, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values of cells ``(n,)``, or their colors ``(n, 4)``; missing without the column."""
        values = self.values[which]
        values = values[cells] if len(values) else np.full(len(cells), np.nan)
        if self.colors is None:
            return values
        colors = mpl.colors.to_rgba_array([*self.colors.values(), MISSING])
        return colors[np.where(np.isnan(values), -1, values).astype(int)]

    @property
    def limits(self) -> tuple[float, float]:
        """Color limits for all numbers, their 1st and 99th percentile."""
        return color_limits(np.concatenate(self.values))


def color_limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """1st and 99th percentile of finite values; a range that is not empty in any case."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1, 99]) if len(finite) else (0.0, 1.0)
    if high <= low and len(finite):  # a gene of few cells
        low, high = finite.min(), finite.max()
    return float(low), float(high if high > low else low + 1)


def paint_of(
    adata: AnnData, color: str, palette: Palette = None, reference: AnnData | None = None
) -> Paint:
    """Read a column of ``.obs`` or a gene, with the same colors in cells and reference.

    The reference has no values where it lacks the column or gene.
    """
    both = [adata] if reference is None else [adata, reference]
    columns = [_column(cells, color) for cells in both]
    if columns[0] is None:
        raise KeyError(
            f"color {color!r} is not in adata.obs, which holds {list(adata.obs)}, and is no gene "
            "in adata.var_names: correct color=."
        )
    label = in_words(color) if color in adata.obs else color
    if pd.api.types.is_numeric_dtype(columns[0]) and not pd.api.types.is_bool_dtype(columns[0]):
        return Paint(label, [_as_floats(column, color) for column in columns], None)
    texts = [_categories(column) for column in columns]
    # The reference first: it has all types, and the query perhaps some of them.
    names = list(dict.fromkeys(name for text in texts[::-1] for name in text.categories))
    colors = dict(zip(names, _category_colors(palette, len(names), names), strict=True))
    if palette is None:
        for cells, text in list(zip(both, texts, strict=True))[::-1]:
            given = list(cells.uns.get(f"{color}_colors", ()))
            if len(given) >= len(text.categories):
                colors |= dict(zip(text.categories, given, strict=False))
    codes = [pd.Categorical(text, categories=names).codes.astype(float) for text in texts]
    return Paint(label, [np.where(code < 0, np.nan, code) for code in codes], colors)


def _column(adata: AnnData, color: str) -> pd.Series | None:
    """Column of ``.obs`` or gene of ``.X``; None if there is neither."""
    if color in adata.obs:
        return obs_column(adata, color, "color")
    found = np.flatnonzero(gene_names(adata) == color)
    if not len(found):
        return None
    values = read_matrix(adata[:, found[0]], None).toarray().ravel()
    return pd.Series(values, index=adata.obs_names)


def _as_floats(column: pd.Series | None, color: str) -> NDArray[np.float64]:
    """Numbers of a column ``(n_cells,)``; none where it is absent."""
    if column is None:
        return np.empty(0)
    return as_numbers(column.to_frame(), f"adata.obs[{color!r}]").astype(np.float64).ravel()


def _categories(column: pd.Series | None) -> pd.Categorical:
    """Categories as text, in their order; none where the column is absent."""
    if column is None:
        return pd.Categorical([], categories=[])
    column = column.astype("category")
    names = [str(name) for name in as_names(pd.Series(column.cat.categories))]
    text = np.array([*names, np.nan], dtype=object)[column.cat.codes]
    return pd.Categorical(text, categories=list(dict.fromkeys(names)))


def _category_colors(palette: Palette, n: int, names: Sequence[str] = ()) -> list[str]:
    """One color for each of ``n`` categories."""
    if palette is None:
        if n <= len(PALETTE):
            return list(PALETTE[:n])
        from scanpy.plotting.palettes import default_102  # not all are safe for the color-blind

        many = [*PALETTE, *default_102]
        return [many[i % len(many)] for i in range(n)]
    if isinstance(palette, Mapping):
        unnamed = [name for name in names if name not in palette]
        if unnamed:
            raise ValueError(f"palette has no color of {unnamed[0]!r}: add it.")
        given = [palette[name] for name in names]
    elif isinstance(palette, str | Colormap):
        colormap = colormap_of(palette)
        listed = getattr(colormap, "colors", None)
        if listed is not None and n <= len(listed) < 256:  # of separate colors
            return [mpl.colors.to_hex(color) for color in listed[:n]]
        return [mpl.colors.to_hex(color) for color in colormap(np.linspace(0, 1, max(n, 2)))][:n]
    else:
        given = list(palette)
        if len(given) < n:
            raise ValueError(f"palette has {len(given)} colors for {n} categories: add colors.")
    wrong = [color for color in given if not is_color_like(color)]
    if wrong:
        raise ValueError(f"palette holds {short(wrong[0])}, which is no color of matplotlib.")
    return given[:n]


def line_colors(palette: Palette, names: Sequence[str]) -> list[str]:
    """Colors of lines, points or bars."""
    return _category_colors(palette, len(names), names)


def colormap_of(palette: Palette) -> Colormap:
    """Colormap of numbers: one of matplotlib, its name, or colors in their order."""
    if palette is None or isinstance(palette, str):
        name = palette or COLORMAP
        if name not in mpl.colormaps:
            raise ValueError(f"palette {name!r} is no colormap of matplotlib: name one, or colors.")
        return mpl.colormaps[name].with_extremes(bad=MISSING)
    if isinstance(palette, Colormap):
        return palette.with_extremes(bad=MISSING)
    if isinstance(palette, Mapping) or len(palette) < 2:
        raise ValueError("palette must be a colormap, its name, or two or more colors of numbers.")
    return LinearSegmentedColormap.from_list("palette", list(palette)).with_extremes(bad=MISSING)


def legend(ax: Axes, paint: Paint, n_columns: int, loc: str = "right margin") -> None:
    """Name the categories and their colors, next to axes or inside of them."""
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=5, color=color, label=name)
        for name, color in (paint.colors or {}).items()
    ]
    where: dict[str, Any] = {"loc": loc}
    if loc == "right margin":  # the name of scanpy
        where = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    ax.legend(
        handles=handles,
        title=paint.label,
        ncols=n_columns,
        frameon=False,
        fontsize=LEGEND_SIZE,
        handletextpad=0.2,
        columnspacing=1.0,
        **where,
    )


def names_of_colors(color: str | Sequence[str] | None) -> list[str | None]:
    """One color or several, as a list."""
    names = [None] if color is None else name_list("color", color)
    if not names:
        raise ValueError("color is empty: name a column of adata.obs or a gene, or leave it out.")
    return list(names)
