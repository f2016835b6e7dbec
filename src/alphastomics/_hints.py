"""Remedies for inputs that nearly fit: gene names, coordinates and counts in another place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}")
VERSION = r"\.\d+$"
LOOKED_AT = 1000  # cells
# Columns of coordinates of Xenium, MERSCOPE, CosMx, Visium and of what people name them, in small
# letters.
COORDINATES = (
    *(("x_centroid", "y_centroid"), ("center_x", "center_y"), ("x_slide_mm", "y_slide_mm")),
    *(("centerx_global_px", "centery_global_px"), ("x_global_px", "y_global_px")),
    *(("pxl_col_in_fullres", "pxl_row_in_fullres"), ("x", "y"), ("x_coord", "y_coord")),
    *(("xcoord", "ycoord"), ("coord_x", "coord_y"), ("spatial_x", "spatial_y")),
    ("array_col", "array_row"),
)

# How names of genes may be changed, as it is written for others to paste.
RENAMED: tuple[tuple[str, str, Callable[[pd.Index], pd.Index]], ...] = (
    (
        "without version suffix",
        r"str.replace(r'\.\d+$', '', regex=True)",
        lambda names: names.str.replace(VERSION, "", regex=True),
    ),
    ("in capitals", "str.upper()", lambda names: names.str.upper()),
    ("with one capital", "str.capitalize()", lambda names: names.str.capitalize()),
    ("in small letters", "str.lower()", lambda names: names.str.lower()),
    ("without blanks around them", "str.strip()", lambda names: names.str.strip()),
)


def gene_hint(adata: AnnData, genes: pd.Index, name: str = "adata") -> str:
    """Hint how the genes of an AnnData can match others; empty if no remedy is known.

    Parameters
    ----------
    adata
        Cells with few or none of the genes.
    genes
        Names that they should have.
    name
        Name of the argument.
    """
    found, genes = adata.var_names.astype(str), genes.astype(str)
    shared = int(found.isin(genes).sum())

    def matches(names: pd.Index) -> bool:
        return bool(names.isin(genes).sum() > 2 * shared)

    if matches(adata.obs_names.astype(str)):
        return f"its cells are named like genes, so the matrix is transposed: {name} = {name}.T"
    for column in adata.var:
        values = adata.var[column]
        if not pd.api.types.is_numeric_dtype(values) and matches(pd.Index(values.astype(str))):
            return f"{name}.var[{column!r}] matches: {name}.var_names = {name}.var[{column!r}]"
    for how, code, rename in RENAMED:
        if matches(rename(found)):
            return f"{how} its genes match: {name}.var_names = {name}.var_names.{code}"
    for how, _, rename in RENAMED:
        if rename(found).isin(rename(genes)).sum() > 2 * shared:
            return f"both {how}, its genes match: rename them as model.genes are spelled"
    if adata.raw is not None and matches(adata.raw.var_names.astype(str)):
        return f"{name}.raw has them: {name} = {name}.raw.to_adata()"
    ours, theirs = (bool(len(n) and ENSEMBL.match(n[0])) for n in (found, genes))
    if ours != theirs:
        kinds = ("Ensembl ids", "gene symbols") if ours else ("gene symbols", "Ensembl ids")
        return f"its genes are {kinds[0]}, the model's {kinds[1]}: map one to the other"
    return ""


def coordinate_columns(columns: Iterable[object]) -> list[object]:
    """Two of some columns that look like coordinates; empty if none do."""
    by_name = {str(column).lower(): column for column in columns}
    pairs = (pair for pair in COORDINATES if by_name.keys() >= set(pair))
    return [by_name[part] for part in next(pairs, ())]


def coordinate_hint(adata: AnnData, spatial_key: str, name: str = "adata") -> str:
    """Hint where an AnnData seems to have its coordinates; empty if nowhere."""
    if columns := coordinate_columns(adata.obs.select_dtypes("number")):
        return (
            f"coordinates seem to be in {name}.obs: "
            f"{name}.obsm[{spatial_key!r}] = {name}.obs[{columns}].to_numpy()"
        )
    for key, value in adata.obsm.items():
        if "spatial" in str(key).lower() and np.ndim(value) == 2 and value.shape[1] in (2, 3):
            return (
                f"coordinates seem to be in {name}.obsm[{key!r}]: "
                f"{name}.obsm[{spatial_key!r}] = {name}.obsm[{key!r}]"
            )
    return ""


def count_hint(adata: AnnData) -> str:
    """Hint where an AnnData has whole numbers, if its values are not; empty if nowhere."""
    for key, layer in adata.layers.items():
        if _are_counts(layer):
            return f"adata.layers[{key!r}] holds whole numbers: adata.X = adata.layers[{key!r}]"
    if not adata.isbacked and _are_counts(adata.X):
        return "adata.X holds whole numbers"
    if adata.raw is not None and not adata.isbacked and _are_counts(adata.raw.X):
        there = adata.var_names.isin(adata.raw.var_names).all()
        values = "adata.raw[:, adata.var_names].X" if there else "adata.raw.to_adata()"
        target = "adata.X" if there else "adata"
        return f"adata.raw holds whole numbers: {target} = {values}"
    return ""


def _are_counts(matrix: object) -> bool:
    """True if the first cells of a matrix have whole numbers, not below zero."""
    if not (sparse.issparse(matrix) or isinstance(matrix, np.ndarray)):
        return False
    part = matrix[:LOOKED_AT]  # type: ignore[index]
    values = part.data if sparse.issparse(part) else np.asarray(part)
    if not np.issubdtype(values.dtype, np.number) or not values.size:
        return False
    return bool(np.isfinite(values).all() and (values >= 0).all() and (values % 1 == 0).all())
