"""Sections of tables in LUNA's layout, CSV or Parquet: a row is a cell, a column is a gene.

``coord_X``, ``coord_Y`` and, in volumes, ``coord_Z`` are positions, ``cell_section`` is the section
and ``cell_class`` the type. A column without a name, or called ``cell_id``, names the cells.
Further columns of text stay in ``.obs``; all other numeric ones are genes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy import sparse

from alphastomics import _keys
from alphastomics._compat import require
from alphastomics.io._files import DataError, reading
from alphastomics.io._section import (
    Array,
    RawKeys,
    RawSection,
    check_genes,
    list_sections,
    make_section,
)
from alphastomics.io._store import Cells

COORDINATES = ("coord_X", "coord_Y", "coord_Z")
SECTION = "cell_section"
CELL_TYPE = "cell_class"
NAMES = "cell_id"
CELL_NAMES = ("", "Unnamed: 0", NAMES, "index")
ROWS_AT_ONCE = 1024


def table_sections(path: Path, keys: RawKeys, also_obs: Sequence[str] = ()) -> list[RawSection]:
    """Find the sections of a table; ``also_obs`` are numeric columns that are not genes."""
    kind = "Parquet" if path.suffix == ".parquet" else "CSV"
    with reading(path, kind):
        first = next(_chunks(path), pd.DataFrame())
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
        not_genes = {*coordinates, section_key, CELL_TYPE, *also_obs}
        genes = [
            str(column)
            for column, dtype in first.dtypes.items()
            if column not in (*not_genes, *CELL_NAMES)
            and is_numeric_dtype(dtype)
            and not is_bool_dtype(dtype)
        ]
        index = check_genes(pd.Index(genes), path)
        if keys.layer is not None:
            raise DataError(f"--layer: {path} is a table and has no layers.")
        table = pd.concat(list(_chunks(path, [str(c) for c in first if c in not_genes])))
    return list_sections(
        path,
        table,
        index,
        _positions(table, coordinates),
        partial(_load, path, kind, genes, coordinates),
        name=path.stem,
        section_key=section_key or _keys.SECTION,
        columns=tuple(str(c) for c in first if c not in (*genes, *coordinates, *CELL_NAMES)),
    )


def _chunks(path: Path, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
    """Read a table in chunks of rows."""
    if path.suffix != ".parquet":
        yield from pd.read_csv(
            path,
            usecols=columns,
            chunksize=ROWS_AT_ONCE,
            low_memory=False,
            float_precision="round_trip",
        )
        return
    pq = require("pyarrow.parquet", "io", "Reading Parquet")
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
            frame = batch.to_pandas()
            unnamed = isinstance(frame.index, pd.RangeIndex)
            yield frame if unnamed else frame.rename_axis(NAMES).reset_index()


def _section_column(first: pd.DataFrame, path: Path, section_key: str) -> str | None:
    if section_key in first:
        return section_key
    if section_key != _keys.SECTION:
        raise DataError(
            f"--section_key: {section_key!r} is not a column of {path}, which holds "
            f"{', '.join(map(str, first.columns[:8]))}, ..."
        )
    return SECTION if SECTION in first else None


def _positions(table: pd.DataFrame, coordinates: list[str]) -> Array | None:
    return table[coordinates].to_numpy(dtype=np.float64) if coordinates else None


def _load(
    path: Path, kind: str, genes: list[str], coordinates: list[str], name: str, rows: Cells
) -> ad.AnnData:
    """Read the rows of one section, going through the file in chunks."""
    matrices, tables, start = [], [], 0
    with reading(path, kind):
        for chunk in _chunks(path):
            inside = rows[slice(*np.searchsorted(rows, [start, start + len(chunk)]))] - start
            if len(inside):
                found = chunk.iloc[inside]
                names = _cell_names(found, start + inside, name)
                matrices.append(sparse.csr_matrix(_expression(found[genes], path)))
                tables.append(found.drop(columns=genes).set_axis(names))
            start += len(chunk)
        obs = pd.concat(tables)
    position = _positions(obs, coordinates)
    obs = obs.drop(columns=[c for c in obs if c in (*CELL_NAMES, *coordinates)])
    matrix = sparse.vstack(matrices, format="csr")
    return make_section(name, path, matrix, obs, pd.Index(genes), position)


def _expression(table: pd.DataFrame, path: Path) -> Array:
    """Expression ``(n, n_genes)``, without missing values."""
    values = table.to_numpy(dtype=np.float64)
    missing = np.isnan(values).any(0)
    if missing.any():
        raise DataError(
            f"{path}: expression of gene {table.columns[missing][0]!r} is missing for some cells: "
            "fill it in, or drop the gene or these cells."
        )
    return values


def _cell_names(table: pd.DataFrame, number: Cells, section: str) -> pd.Index:
    """Names of the cells, or their section and row where the file has none."""
    for column in CELL_NAMES:
        if column in table:
            return pd.Index(table[column].astype(str))
    return pd.Index([f"{section}_{i}" for i in number])
