"""Colours of cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.colors import to_rgba_array
from numpy.typing import NDArray

# Told apart by the colour-blind (Okabe & Ito 2008), the palest last.
FEW = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MISSING = "#BBBBBB"


class Colors(NamedTuple):
    """What to colour cells by.

    Attributes
    ----------
    values
        Numbers ``(n,)``, or colours ``(n, 4)`` of categories.
    legend
        Colour of each category; empty for numbers.
    """

    values: NDArray[np.float64]
    legend: dict[str, str]


def palette(adata: AnnData, color: str) -> list[str] | None:
    """Colours of the categories of a column: those in ``uns``, or the default; None of numbers."""
    column = adata.obs[color]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return None
    n = len(column.astype("category").cat.categories)
    kept = list(adata.uns.get(f"{color}_colors", ()))
    if len(kept) >= n:
        return kept[:n]
    if n <= len(FEW):
        return list(FEW[:n])
    from scanpy.plotting import palettes

    choices = (palettes.default_20, palettes.default_28, palettes.default_102)
    many = next((colors for colors in choices if n <= len(colors)), choices[-1])
    return [many[i % len(many)] for i in range(n)]


def colors_of(adata: AnnData, color: str) -> Colors:
    """Colour every cell by a column of ``.obs``."""
    if color not in adata.obs:
        raise KeyError(f"color {color!r} is not in adata.obs, which holds {list(adata.obs)}.")
    column, named = adata.obs[color], palette(adata, color)
    if named is None:
        return Colors(column.to_numpy(dtype=float), {})
    categories = column.astype("category").cat
    of_code = to_rgba_array([*named, MISSING])  # code -1 is the last
    legend = dict(zip(map(str, categories.categories), named, strict=True))
    return Colors(of_code[categories.codes.to_numpy()], legend)
