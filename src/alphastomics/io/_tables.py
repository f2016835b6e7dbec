"""Sections of tables in LUNA's layout: a row a cell, a column a gene, and some of other meaning.

``coord_X``, ``coord_Y`` and, in volumes, ``coord_Z`` are positions, ``cell_section`` is the section
and ``cell_class`` the type. A column without a name, or called ``cell_id``, names the cells.
Further columns of text are kept in ``.obs``; all other numeric ones are genes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy import sparse

from alphastomics import _keys
from alphastomics._optional import require
from alphastomics.io._errors import DataError, reading
from alphastomics.io._layout import Cells
from alphastomics.io._section import (
    RawKeys,
    RawSection,
    check_genes,
    make_section,
    n_dims_of,
    split_rows,
)

COORDINATES = ("coord_X", "coord_Y", "coord_Z")
SECTION = "cell_section"
CELL_TYPE = "cell_class"
NAMES = "cell_id"
CELL_NAMES = ("", "Unnamed: 0", NAMES, "index")
ROWS_AT_ONCE = 1024

Chunks = Callable[[list[str] | None], Iterator[pd.DataFrame]]


def csv_sections(path: Path, keys: RawKeys, also_obs: Sequence[str] = ()) -> list[RawSection]:
    """Find the sections of a CSV file; ``also_obs`` are numeric columns that are no genes."""
    return _sections(path, "CSV", partial(_csv_chunks, path), keys, also_obs)


def parquet_sections(path: Path, keys: RawKeys, also_obs: Sequence[str] = ()) -> list[RawSection]:
    """Find the sections of a Parquet file; ``also_obs`` are numeric columns that are no genes."""
    return _sections(path, "Parquet", partial(_parquet_chunks, path), keys, also_obs)


def _csv_chunks(path: Path, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
    yield from pd.read_csv(
        path,
        usecols=columns,
        chunksize=ROWS_AT_ONCE,
        low_memory=False,
        float_precision="round_trip",
    )


def _parquet_chunks(path: Path, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
    pq = require("pyarrow.parquet", "io", "Reading Parquet")
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
            frame = batch.to_pandas()
            named = isinstance(frame.index, pd.RangeIndex)
            yield frame if named else frame.rename_axis(NAMES).reset_index()


def _sections(
    path: Path, kind: str, chunks: Chunks, keys: RawKeys, also_obs: Sequence[str]
) -> list[RawSection]:
    with reading(path, kind):
        first = next(chunks(None), pd.DataFrame())
        if first.empty:
            raise DataError(f"{path} holds no cells.")
        section_key = _section_column(first, path, keys.section_key)
        coordinates = [column for column in COORDINATES if column in first]
        if section_key is None and not coordinates:
            raise DataError(
                f"{path} is not in LUNA's layout: it has neither {SECTION} nor {COORDINATES[0]}, "
                f"but {list(map(str, first.columns[:4]))}. Move it out of the folder if it holds "
                "no expression."
            )
        others = [*coordinates, *([section_key] if section_key else []), CELL_TYPE, *also_obs]
        genes = [
            str(column)
            for column, dtype in first.dtypes.items()
            if column not in (*others, *CELL_NAMES)
            and is_numeric_dtype(dtype)
            and not is_bool_dtype(dtype)
        ]
        index = check_genes(pd.Index(genes), path)
        if keys.layer is not None:
            raise DataError(f"--layer: {path} is a table and has no layers.")
        light = [str(column) for column in first if column in others]
        table = pd.concat(list(chunks(light))) if light else first
    position = _positions(table, coordinates)
    columns = tuple(str(c) for c in first if c not in (*genes, *coordinates, *CELL_NAMES))
    rows = split_rows(table, path, path.stem, section_key or _keys.SECTION)
    return [
        RawSection(
            name=name,
            path=path,
            n_cells=len(of),
            genes=index,
            n_dims=n_dims_of(None if position is None else position[of], path),
            columns=columns,
            units=None,
            load=partial(_load, path, kind, name, chunks, genes, coordinates, of),
        )
        for name, of in rows.items()
    ]


def _section_column(first: pd.DataFrame, path: Path, section_key: str) -> str | None:
    if section_key in first:
        return section_key
    if section_key != _keys.SECTION:
        raise DataError(
            f"--section_key: {section_key!r} is not a column of {path}, which holds "
            f"{', '.join(map(str, first.columns[:8]))}, ..."
        )
    return SECTION if SECTION in first else None


def _positions(table: pd.DataFrame, coordinates: list[str]) -> NDArray[np.float64] | None:
    return table[coordinates].to_numpy(dtype=np.float64) if coordinates else None


def _load(
    path: Path,
    kind: str,
    name: str,
    chunks: Chunks,
    genes: list[str],
    coordinates: list[str],
    rows: Cells,
) -> ad.AnnData:
    """Read the rows of one section, going through the file in chunks."""
    matrices, tables = [], []
    with reading(path, kind):
        start = 0
        for chunk in chunks(None):
            inside = rows[slice(*np.searchsorted(rows, [start, start + len(chunk)]))] - start
            if len(inside):
                found = chunk.iloc[inside]
                matrices.append(sparse.csr_matrix(_values(found, genes, path)))
                table = found.drop(columns=genes)
                table.index = pd.Index(_names(found, start + inside, name))
                tables.append(table)
            start += len(chunk)
        obs = pd.concat(tables)
    position = _positions(obs, coordinates)
    unnamed = [c for c in obs if c in (*CELL_NAMES, *coordinates)]
    matrix = sparse.vstack(matrices, format="csr")
    return make_section(
        name, path, matrix, obs.drop(columns=unnamed), pd.Index(genes).astype(str), position
    )


def _values(table: pd.DataFrame, genes: list[str], path: Path) -> NDArray[np.float64]:
    values = table[genes].to_numpy(dtype=np.float64)
    if np.isnan(values).any():
        gene = genes[int(np.isnan(values).any(0).argmax())]
        raise DataError(
            f"{path}: expression of gene {gene!r} is missing for some cells: fill it in, or drop "
            "the gene or these cells."
        )
    return values


def _names(table: pd.DataFrame, number: NDArray[np.int64], section: str) -> list[str]:
    """Names of the cells, or their section and row where the file has none."""
    for column in CELL_NAMES:
        if column in table:
            return table[column].astype(str).tolist()
    return [f"{section}_{i}" for i in number]
