"""Sections of tables in LUNA's layout, CSV or Parquet: a row is a cell, a column is a gene.

``coord_X``, ``coord_Y`` and, in volumes, ``coord_Z`` are positions, ``cell_section`` is the section
and ``cell_class`` the type. A column without a name, or called ``cell_id``, names the cells.
Further columns of text stay in ``.obs``; all other numeric ones are genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from alphastomics import _keys
from alphastomics.io._delimited import (
    are_whole,
    column_names,
    expression,
    is_number,
    is_parquet,
    nearly_numbers,
    numbers,
    read_chunks,
    without_decimals,
)
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
CELL_NAMES = ("", "Unnamed: 0", "cell_id", "index")


@dataclass(frozen=True)
class _Layout:
    """Columns of a table and what they hold; ``whole`` are names written as 1.0 that mean 1."""

    path: Path
    kind: str
    genes: list[str]
    coordinates: list[str]
    names: list[str]
    text: list[str]
    whole: list[str]

    def tidy(self, table: pd.DataFrame) -> pd.DataFrame:
        """Write whole numbers among names alike."""
        return table.assign(**{c: table[c].map(without_decimals, "ignore") for c in self.whole})

    def load(self, name: str, rows: Cells) -> ad.AnnData:
        """Read the rows of one section, going through the file in chunks."""
        matrices, tables, start = [], [], 0
        with reading(self.path, self.kind):
            for chunk in read_chunks(self.path, text=self.text):
                inside = rows[slice(*np.searchsorted(rows, [start, start + len(chunk)]))] - start
                if len(inside):
                    # All rows, so that an error names the row of the file.
                    matrix = expression(chunk[self.genes], self.path, start)
                    found = chunk.iloc[inside]
                    matrices.append(matrix[inside])
                    names = self.cell_names(found, start + inside, name)
                    tables.append(found.drop(columns=self.genes).set_axis(names))
                start += len(chunk)
            obs = self.tidy(pd.concat(tables))
            position = _positions(obs, self.coordinates, self.path)
        obs = obs.drop(columns=[*self.names, *self.coordinates])
        matrix = sparse.vstack(matrices, format="csr")
        return make_section(name, self.path, matrix, obs, pd.Index(self.genes), position)

    def cell_names(self, table: pd.DataFrame, number: Cells, section: str) -> pd.Index:
        """Names of the cells, or their section and row where the file has none."""
        if not self.names:
            return pd.Index([f"{section}_{i}" for i in number])
        names = table[self.names[0]]
        if names.isna().any():
            row = int(number[names.isna().to_numpy().argmax()]) + 1
            raise DataError(f"{self.path}: the cell of row {row} has no name: name it in the file.")
        return pd.Index(names)


def table_sections(path: Path, keys: RawKeys, also_obs: Sequence[str] = ()) -> list[RawSection]:
    """Find the sections of a table; ``also_obs`` are numeric columns that are not genes."""
    kind = "Parquet" if is_parquet(path) else "CSV"
    with reading(path, kind):
        columns = column_names(path)
        section_key = _section_column(columns, path, keys.section_key)
        coordinates = [column for column in COORDINATES if column in columns]
        if section_key is None and not coordinates:
            raise DataError(
                f"{path} is not in LUNA's layout: it has neither {SECTION} nor {COORDINATES[0]}, "
                f"but {columns[:4]}. Move it out of the folder if it holds no expression."
            )
        if keys.layer is not None:
            raise DataError(f"--layer: {path} is a table and has no layers.")
        texts = {*CELL_NAMES, section_key or SECTION, CELL_TYPE, *also_obs}
        first = next(read_chunks(path, text=[c for c in columns if c in texts]), pd.DataFrame())
        if first.empty:
            raise DataError(f"{path} holds no cells.")
        text = [str(column) for column in first if column in texts]
        genes = _gene_columns(first.drop(columns=[*text, *coordinates]), path)
        names = [column for column in CELL_NAMES if column in text]
        parts = read_chunks(path, [str(c) for c in first if c not in (*genes, *names)], text)
        table = pd.concat(list(parts), ignore_index=True)
        whole = [c for c in text if c not in names and are_whole(table[c])]
        layout = _Layout(path, kind, genes, coordinates, names, text, whole)
        table, position = layout.tidy(table), _positions(table, coordinates, path)
    return list_sections(
        path,
        table,
        check_genes(pd.Index(genes), path),
        position,
        layout.load,
        name=path.name.removesuffix(".gz").rpartition(".")[0],
        section_key=section_key or _keys.SECTION,
        columns=tuple(str(c) for c in table if c not in coordinates),
    )


def _gene_columns(table: pd.DataFrame, path: Path) -> list[str]:
    """Columns of numbers; a column of numbers with a few other values is an error."""
    for _, column in table.items():
        if nearly_numbers(column):
            numbers(column.to_frame(), path)
    return [str(name) for name, column in table.items() if is_number(column)]


def _section_column(columns: Sequence[str], path: Path, section_key: str) -> str | None:
    if section_key in columns:
        return section_key
    if section_key != _keys.SECTION:
        raise DataError(
            f"--section_key: {section_key!r} is not a column of {path}, which holds "
            f"{', '.join(columns[:8])}, ..."
        )
    return SECTION if SECTION in columns else None


def _positions(table: pd.DataFrame, coordinates: list[str], path: Path) -> Array | None:
    return numbers(table[coordinates], path) if coordinates else None
