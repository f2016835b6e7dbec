"""Reader of AnnData: matrices, sections, gene panels, missing values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._options import nearest_name
from alphastomics._validate import check_position_rows, require_adata, short

Mask = NDArray[np.bool_]
EXACT = 2**53  # whole numbers beyond this are rounded by double precision


def gene_names(adata: AnnData) -> pd.Index:
    """Names of genes as text, whatever the type of the index."""
    return adata.var_names.astype(str)


def obs_column(
    adata: AnnData, key: str, argument: str, remedy: str = "", where: str = "adata"
) -> pd.Series:
    """Read a column of ``.obs``, which an argument names."""
    if key not in adata.obs:
        raise KeyError(
            f"{argument} {key!r} is not in {where}.obs, which holds {list(adata.obs)}"
            f"{remedy or f': correct {argument}='}."
        )
    return _single(adata.obs[key], f"{where}.obs[{key!r}] ({argument})")


def _single(column: pd.Series | pd.DataFrame, where: str) -> pd.Series:
    """Raise if a name is that of several columns."""
    if isinstance(column, pd.DataFrame):
        raise ValueError(
            f"{where} is there {column.shape[1]} times: drop all but one of these columns."
        )
    return column


def as_numbers(values: object, where: str) -> NDArray[np.number]:
    """Real numbers of a dense array or a DataFrame, of a type that NumPy and SciPy compute with.

    Parameters
    ----------
    values
        Dense; NaN where nothing is known.
    where
        Name of it, for messages.

    Raises
    ------
    ValueError
        If some entries are masked.
    TypeError
        If they are text, complex or otherwise no real numbers.
    """
    array = np.asanyarray(values.to_numpy() if isinstance(values, pd.DataFrame) else values)
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise ValueError(
                f"{where} is a masked array with {int(np.sum(array.mask))} masked values, "
                "and NumPy ignores masks in most places: set them to NaN (positions), or leave "
                "those cells out, and pass an ordinary array."
            )
        array = array.data
    array = np.asarray(array)
    if array.dtype == object:
        array = _numbers_of_objects(array, where)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{where} holds {array.dtype} values, but real numbers are needed: convert them, for "
            "instance by .astype('float32')."
        )
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return array


def _numbers_of_objects(array: NDArray[np.object_], where: str) -> NDArray[np.float64]:
    """Numbers in an array of Python objects; what is not a number is named."""
    values: list[Any] = array.ravel().tolist()
    for i, value in enumerate(values):
        if value is None or value is pd.NA:
            values[i] = np.nan
        elif not isinstance(value, int | float | np.bool_ | np.integer | np.floating):
            raise TypeError(
                f"{where} holds {value!r} ({type(value).__name__}), which is not a real number: "
                "convert or drop it, and pass an array of numbers."
            )
    return np.array(values, dtype=np.float64).reshape(array.shape)


def read_positions(adata: AnnData, spatial_key: str) -> NDArray[np.float64]:
    """Read coordinates ``(n_cells, n_dims)``, rows of NaN where a position is missing."""
    where = f"adata.obsm[{spatial_key!r}]"
    values = adata.obsm[spatial_key]
    numbers = as_numbers(values.toarray() if sparse.issparse(values) else values, where)
    if numbers.dtype.kind in "iu" and numbers.size:
        largest = max(abs(int(numbers.min())), abs(int(numbers.max())))
        if largest > EXACT:
            raise ValueError(
                f"{where} holds whole numbers up to {largest}, beyond {EXACT}, where double "
                "precision rounds them: subtract an offset first."
            )
    position: NDArray[np.float64] = numbers.astype(np.float64)
    check_position_rows(position, spatial_key)
    return position


def as_names(column: pd.Series) -> pd.Series:
    """Categories as text; whole numbers alike, also where a missing value made them floats."""
    plain = pd.Series(np.asarray(column), index=column.index)
    if pd.api.types.is_float_dtype(plain.dtype) and (plain.dropna() % 1 == 0).all():
        plain = plain.astype("Int64")
    return plain.astype(str)


def name_list(argument: str, value: object) -> list[str]:
    """One name or several as a list of text, spelled as :func:`as_names` spells a column."""
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    names = list(value) if several else [value]  # type: ignore[call-overload]
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | Real):
            raise TypeError(
                f"{argument} must be a name or a list of names, found {short(name)} "
                f"({type(name).__name__})."
            )
    return [str(name) for name in as_names(pd.Series(names))] if names else []


def section_names(argument: str, value: object, present: Iterable[str]) -> list[str]:
    """Names of sections that are there, given as one or several, as text or as numbers."""
    names, present = name_list(argument, value), list(present)
    if unknown := [name for name in names if name not in present]:
        raise ValueError(
            f"{argument} names {unknown[0]!r}, but the sections are "
            f"{', '.join(map(repr, present))}.{nearest_name(unknown[0], present)}"
        )
    return names


def sections_of(adata: AnnData, section_key: str | None) -> NDArray[np.str_]:
    """Read the section of each cell ``(n_cells,)``; with no key all cells are one section."""
    require_adata(adata)
    if section_key is None:
        return np.full(adata.n_obs, _keys.ONLY_SECTION, dtype=object)
    remedy = ": correct section_key=, or pass section_key=None when all cells are one section"
    column = obs_column(adata, section_key, "section_key", remedy)
    if column.isna().any():
        raise ValueError(
            f"adata.obs[{section_key!r}] is missing for {int(column.isna().sum())} cells: "
            "name their section or drop them."
        )
    return as_names(column).to_numpy(dtype=object)


def select_genes(matrix: sparse.csr_matrix, column: NDArray[np.int64]) -> sparse.csr_matrix:
    """Columns of a matrix in a new order ``(G,)``, 0 for -1; not copied if the order is theirs."""
    if np.array_equal(column, np.arange(matrix.shape[1])):
        return matrix
    found = np.flatnonzero(column >= 0)
    selector = sparse.csr_matrix(
        (np.ones(len(found), dtype=matrix.dtype), (column[found], found)),
        shape=(matrix.shape[1], len(column)),
    )
    return sparse.csr_matrix(matrix @ selector)


def matrix_name(layer: str | None) -> str:
    """Name of ``.X`` or a layer, for messages."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def read_matrix(adata: AnnData, layer: str | None) -> sparse.csr_matrix:
    """Read ``.X`` or a layer as CSR ``(n_cells, n_genes)``, without changing the AnnData."""
    require_adata(adata)
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"layer {layer!r} is not in adata.layers, which holds {sorted(adata.layers)}: "
            "correct layer=, or use layer=None for adata.X."
        )
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("adata.X is None: name the layer to read by layer=.")
    if adata.isbacked and layer is None:
        matrix = matrix[:]
    return as_csr(matrix, matrix_name(layer))


def as_csr(matrix: object, where: str) -> sparse.csr_matrix:
    """Make a CSR matrix of real numbers; data that are in order are not copied."""
    if hasattr(matrix, "compute"):  # of dask
        matrix = matrix.compute()
    if not sparse.issparse(matrix):
        return sparse.csr_matrix(as_numbers(matrix, where))
    csr = sparse.csr_matrix(matrix)
    data = as_numbers(csr.data, where)
    if data is csr.data:
        return csr
    return sparse.csr_matrix((data, csr.indices, csr.indptr), shape=csr.shape)


def _is_boolean(column: pd.Series) -> bool:
    """True if there are only True and False, as 1 and 0, too."""
    if column.dtype == bool:
        return True
    numbers = bool | int | float | np.bool_ | np.integer | np.floating
    return all(isinstance(value, numbers) and value in (0, 1) for value in np.asarray(column))


def expression_known(obs: pd.DataFrame) -> Mask:
    """Mask of cells with measured expression, ``(n_cells,)``."""
    if _keys.EXPRESSION_KNOWN not in obs:
        return np.ones(len(obs), dtype=bool)
    column = _single(obs[_keys.EXPRESSION_KNOWN], f"adata.obs[{_keys.EXPRESSION_KNOWN!r}]")
    if not _is_boolean(column):
        raise ValueError(
            f"adata.obs[{_keys.EXPRESSION_KNOWN!r}] must hold True or False only, found "
            f"{sorted(map(str, pd.unique(column)))[:5]}: it marks the cells with known expression."
        )
    return column.to_numpy(dtype=bool)


def read_panels(adata: AnnData, section: NDArray[np.str_]) -> tuple[Mask, NDArray[np.int64]]:
    """Gene panels ``(n_panels, n_genes)`` and the number of that of each cell, ``(n_cells,)``.

    A section has the panel of its column of ``adata.varm["measured"]``; without that, all cells
    have all genes.
    """
    if _keys.MEASURED not in adata.varm:
        return np.ones((1, adata.n_vars), dtype=bool), np.zeros(adata.n_obs, dtype=np.int64)
    table = adata.varm[_keys.MEASURED]
    names = pd.unique(section)
    columns = list(map(str, table.columns)) if isinstance(table, pd.DataFrame) else []
    if not set(names) <= set(columns) or len(set(columns)) < len(columns):
        raise ValueError(
            f"adata.varm[{_keys.MEASURED!r}] must be a DataFrame with a boolean column for each "
            f"section ({', '.join(map(repr, names[:5]))}, ...): it marks the genes that the panel "
            "of a section measures."
        )
    table = table.rename(columns=str)
    if not all(_is_boolean(table[name]) for name in names):
        raise ValueError(
            f"adata.varm[{_keys.MEASURED!r}] must hold True or False only: it marks the "
            "genes that the panel of a section measures."
        )
    panels = np.stack([table[name].to_numpy(dtype=bool) for name in names])
    empty = names[~panels.any(1)]
    if len(empty):
        raise ValueError(
            f"adata.varm[{_keys.MEASURED!r}] is empty: section {empty[0]!r} measures no gene."
        )
    return panels, pd.Index(names).get_indexer(pd.Index(section))
