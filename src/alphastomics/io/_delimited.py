"""Tables in text or Parquet: separator, decimal mark, identifiers as text, numbers checked."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy import sparse

from alphastomics._compat import require
from alphastomics.io._files import DataError

SEPARATORS = (",", ";", "\t")
LINES = 20  # from which the form of a table is taken
COMMENT = re.compile(r"#\w+=")  # lines above the header of GEM files
DECIMAL_COMMA, DECIMAL_POINT = re.compile(r"-?\d+,\d+"), re.compile(r"-?\d+\.\d+")
WHOLE = re.compile(r"-?(0|[1-9]\d*)(\.0+)?")
NEARLY = 0.9  # share of numbers in a column that is taken for one of numbers
ROWS_AT_ONCE, VALUES_AT_ONCE = 1024, 8_000_000


@dataclass(frozen=True)
class Form:
    """Form of a table in text.

    Attributes
    ----------
    separator, decimal
        Separator of columns; decimal mark.
    columns
        Names in the header; that of row names is empty.
    comments, header_row
        Lines above the header, and number of all lines above it.
    row_names
        True if the rows have one more field than the header, a name.
    """

    separator: str
    decimal: str
    columns: list[str]
    comments: list[str]
    header_row: int
    row_names: bool


def is_parquet(path: Path) -> bool:
    """True for the name of a Parquet file."""
    return path.suffix == ".parquet"


def table_form(path: Path) -> Form:
    """Find the form of a table in its first lines."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = list(islice(file, LINES))
    comments = [line.strip() for line in lines if COMMENT.match(line)]
    above = [not line.strip() or bool(COMMENT.match(line)) for line in lines]
    header_row = above.index(False) if False in above else len(lines)
    lines = [line for line in lines[header_row:] if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty.")
    split = {sep: [row for row in csv.reader(lines, delimiter=sep) if row] for sep in SEPARATORS}
    # The separator that gives header and first row the same, largest number of fields.
    separator = max(
        SEPARATORS,
        key=lambda sep: (
            len(split[sep]) < 2 or abs(len(split[sep][0]) - len(split[sep][1])) <= 1,
            len(split[sep][0]),
        ),
    )
    header, *rows = split[separator]
    header = [name.strip() for name in header]
    fields = [field.strip() for row in rows for field in row]
    commas = [bool(DECIMAL_COMMA.fullmatch(field)) for field in fields]
    points = [bool(DECIMAL_POINT.fullmatch(field)) for field in fields]
    row_names = bool(rows) and all(len(r) == len(header) + 1 and r[-1] != "" for r in rows)
    columns = ["", *header] if row_names else header
    for number, row in enumerate(rows):
        if any(field.strip() for field in row[len(columns) :]):
            raise DataError(
                f"{path}: row {number + 1} has {len(row)} fields, but the header has "
                f"{len(columns)}: quote values that hold the separator {separator!r}."
            )
    return Form(
        separator,
        "," if separator != "," and sum(commas) > sum(points) else ".",
        columns,
        comments,
        header_row,
        row_names,
    )


def check_columns(columns: Sequence[object], path: Path) -> None:
    """Raise if a column but the first has no name, or two have the same."""
    names = pd.Index([str(column).strip() for column in columns])
    if "" in names[1:]:
        number = list(names[1:]).index("") + 2
        raise DataError(f"{path}: column {number} has no name: name it.")
    if names.has_duplicates:
        raise DataError(
            f"{path}: two columns are named {names[names.duplicated()][0]!r}: make the names of "
            "genes and other columns unique in the file."
        )


def read_chunks(
    path: Path,
    columns: Sequence[str] | None = None,
    text: Sequence[str] = (),
    *,
    n_rows: int | None = None,
) -> Iterator[pd.DataFrame]:
    """Read some columns of a table in chunks of rows.

    Parameters
    ----------
    path
        Table in text, which may be gzipped, or Parquet.
    columns
        Columns to read, by default all. That of row names is ``""``.
    text
        Columns whose values are identifiers, read as text as they are written.
    n_rows
        Rows of a chunk.
    """
    if is_parquet(path):
        yield from _parquet_chunks(path, columns, text, n_rows or ROWS_AT_ONCE)
        return
    form = table_form(path)
    check_columns(form.columns, path)
    names = {"Unnamed: 0" if name == "" else name: name for name in form.columns}
    read = pd.read_csv(
        path,
        sep=form.separator,
        decimal=form.decimal,
        skiprows=form.header_row + 1,
        header=None,
        names=list(names),
        index_col=False,
        usecols=None if columns is None else [n for n in names if names[n] in columns],
        dtype={name: str for name in names if names[name] in text},
        chunksize=n_rows or max(16, min(ROWS_AT_ONCE, VALUES_AT_ONCE // len(names))),
        low_memory=False,
        float_precision="round_trip",
        encoding="utf-8-sig",
    )
    with read:
        for chunk in read:
            yield chunk.rename(columns=names)


def _parquet_chunks(
    path: Path, columns: Sequence[str] | None, text: Sequence[str], n_rows: int
) -> Iterator[pd.DataFrame]:
    pq = require("pyarrow.parquet", "io", "Reading Parquet")
    with pq.ParquetFile(path) as file:
        check_columns(file.schema_arrow.names, path)
        for batch in file.iter_batches(n_rows, columns=columns):
            frame = batch.to_pandas()
            if not isinstance(frame.index, pd.RangeIndex):
                check_columns(["names of rows", *frame.columns], path)
                frame = frame.rename_axis("").reset_index()
            yield frame.assign(**{name: as_text(frame[name]) for name in text if name in frame})


def read_whole(path: Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table; ``text`` are columns of identifiers."""
    return pd.concat(list(read_chunks(path, text=text)), ignore_index=True)


def column_names(path: Path) -> list[str]:
    """Names of the columns of a table; that of row names is ``""``."""
    if not is_parquet(path):
        return table_form(path).columns
    pq = require("pyarrow.parquet", "io", "Reading Parquet")
    return [re.sub(r"__index_level_\d+__", "", name) for name in pq.read_schema(path).names]


def as_text(column: pd.Series) -> pd.Series:
    """Identifiers as text, missing ones as they are; bytes of older Parquet files decoded."""
    decoded = column.map(lambda v: v.decode() if isinstance(v, bytes) else v, na_action="ignore")
    return decoded.map(str, na_action="ignore").astype(object)


def are_whole(column: pd.Series) -> bool:
    """True if all names are whole numbers, 1 or 1.0 but not 01."""
    return all(WHOLE.fullmatch(name) for name in column.dropna().unique())


def without_decimals(name: str) -> str:
    """1 for 1.0."""
    return name.partition(".")[0]


def is_number(column: pd.Series) -> bool:
    """True for a column of numbers that are no truth values."""
    return is_numeric_dtype(column.dtype) and not is_bool_dtype(column.dtype)


def nearly_numbers(column: pd.Series) -> bool:
    """True for text of which most values are numbers, but not all."""
    if is_number(column) or is_bool_dtype(column.dtype):
        return False
    known = column.dropna().astype(str)
    found = pd.to_numeric(known, errors="coerce").notna()
    return bool(len(known) and NEARLY <= found.mean() < 1)


def numbers(table: pd.DataFrame, path: Path, first_row: int = 0) -> NDArray[np.float64]:
    """Values ``(n, n_columns)``, NaN where missing; ``first_row`` is that of the table."""
    for name, column in table.items():
        if is_number(column):
            continue
        wrong = pd.to_numeric(column, errors="coerce").isna() & column.notna()
        wrong |= is_bool_dtype(column.dtype)
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise DataError(
                f"{path}: column {name!r} holds {str(column.iloc[row])[:40]!r} in row "
                f"{first_row + row + 1}, which is not a number: correct it, or remove the column "
                "if it holds none."
            )
    return table.apply(pd.to_numeric).to_numpy(dtype=np.float64)


def expression(table: pd.DataFrame, path: Path, first_row: int = 0) -> sparse.csr_matrix:
    """Expression ``(n, n_genes)``, which must be known."""
    values = numbers(table, path, first_row)
    missing = np.isnan(values).any(0)
    if missing.any():
        gene = str(table.columns[int(missing.argmax())])
        raise DataError(
            f"{path}: expression of gene {gene!r} is missing for some cells: "
            "fill it in, or drop the gene or these cells."
        )
    return sparse.csr_matrix(values)
