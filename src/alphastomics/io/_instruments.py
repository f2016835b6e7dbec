"""Output of an instrument: a matrix of counts, a table of where its rows are, one section."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alphastomics.io._delimited import as_text, numbers
from alphastomics.io._files import DataError, reading
from alphastomics.io._section import (
    Array,
    RawKeys,
    RawSection,
    check_genes,
    make_section,
    n_dims_of,
    storable,
)

PIXELS, MICROMETRES = "pixels", "µm"
# Folders that have these names for every sample.
GENERIC = (
    *("outs", "binned_outputs", "filtered_feature_bc_matrix", "raw_feature_bc_matrix"),
    *("cell_feature_matrix", "filtered_gene_bc_matrices"),
)
NUMBERED = re.compile(r"region_\d+|square_\d+um")  # of several samples alike


@dataclass(frozen=True)
class Sample:
    """Matrix of a sample and the folder with the files that belong to it.

    Attributes
    ----------
    folder, prefix
        Folder of the sample, and how the names of its files start.
    matrix
        File of the matrix.
    bin_size
        Size of bins, where one may choose.
    alone
        True if no other sample is in the folder.
    """

    folder: Path
    prefix: str
    matrix: Path
    bin_size: int | None = None
    alone: bool = True

    @property
    def stem(self) -> str:
        """Prefix without what separates it from the rest of a name."""
        return self.prefix.rstrip("_.-")

    @property
    def name(self) -> str:
        """Name of the section: that of the files, else of the folder."""
        if self.stem:
            return self.stem
        folder, ending = self.folder.resolve(), ""
        while folder.name in GENERIC or (NUMBERED.fullmatch(folder.name) and not ending):
            if folder.name not in GENERIC:
                ending = f"_{folder.name.removeprefix('square_')}"
            folder = folder.parent
        return f"{folder.name}{ending}"

    def find(self, *endings: str) -> Path | None:
        """First file of the sample whose name ends in one of some patterns."""
        start = f"{re.escape(self.stem)}[_.-]?" if self.stem else ""
        for ending in endings:
            *folders, pattern = ending.split("/")
            folder = self.folder.joinpath(*folders)
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                name = path.name
                plain = bool(folders) and self.alone and re.fullmatch(pattern, name)
                if plain or re.fullmatch(start + pattern, name):
                    return path
        return None

    def need(self, what: str, *endings: str) -> Path:
        """Find a file without which the sample cannot be read."""
        path = self.find(*endings)
        if path is None:
            plain = [re.sub(r"\(\\.gz\)\?", "[.gz]", e).replace("\\", "") for e in endings]
            raise DataError(
                f"{self.matrix} is the matrix of {what}, but {self.prefix}{' or '.join(plain)} is "
                f"not in {self.folder}: copy it there."
            )
        return path


@dataclass(frozen=True)
class Output:
    """Measurements of an instrument in a sample.

    Attributes
    ----------
    kind, units
        Platform; unit of the positions.
    matrix
        Counts, ``(n_cells, n_genes)``.
    obs, genes
        Cells by their identifiers; genes.
    position
        Shape ``(n_cells, d)``, if there are any.
    files
        Files that were read.
    left_out
        What was in them but is not in the section.
    """

    kind: str
    units: str | None
    matrix: sparse.csr_matrix
    obs: pd.DataFrame
    genes: pd.Index
    position: Array | None
    files: tuple[Path, ...]
    left_out: list[str] = field(default_factory=list)


Reader = Callable[[Sample], Output]


def output_section(
    sample: Sample, kind: str, read: Reader, keys: RawKeys, not_read: Sequence[str] = ()
) -> RawSection:
    """Make a section, named after the sample, of the output of an instrument."""
    if keys.layer is not None:
        raise DataError(f"--layer: {sample.matrix} is {kind} and has no layers.")
    output, name = _read(sample, kind, read), sample.name
    where = "no positions" if output.position is None else f"positions in {output.units}"
    left_out = [*output.left_out, *not_read]
    return RawSection(
        name=name,
        path=sample.folder if not sample.prefix else sample.matrix,
        n_cells=len(output.obs),
        genes=check_genes(output.genes, sample.matrix),
        n_dims=n_dims_of(output.position, sample.matrix),
        columns=tuple(output.obs.columns),
        units=output.units if output.position is not None else None,
        load=partial(_load, sample, kind, read),
        files=output.files,
        note=f"{name}: {output.kind}, {len(output.obs):,} cells, {where}"
        + (f"; left out: {', '.join(left_out)}." if left_out else "."),
    )


def _read(sample: Sample, kind: str, read: Reader) -> Output:
    with reading(sample.matrix, kind):
        output = read(sample)
    if not len(output.obs):
        raise DataError(f"{sample.matrix} holds no cells.")
    unnamed = [column for column in output.obs if not storable(str(column))]
    if unnamed:
        output.left_out.append(f"columns {', '.join(map(repr, unnamed))}")
    return replace(output, obs=output.obs.drop(columns=unnamed))


def _load(sample: Sample, kind: str, read: Reader) -> ad.AnnData:
    output = _read(sample, kind, read)
    return make_section(
        sample.name, sample.matrix, output.matrix, output.obs, output.genes, output.position
    )


def join(
    matrix: sparse.csr_matrix,
    ids: pd.Index,
    genes: pd.Index,
    table: pd.DataFrame,
    files: tuple[Path, Path],
    left_out: list[str],
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Rows of a matrix that are in a table too, and the rows of the table in their order.

    Parameters
    ----------
    matrix, ids, genes
        Counts, ``(n, n_genes)``, names of its rows and columns.
    table
        Table whose index are identifiers.
    files
        Files of the matrix and of the table.
    left_out
        Gets what is in one of them only.
    """
    for names, path in ((ids, files[0]), (table.index, files[1])):
        if names.has_duplicates:
            raise DataError(
                f"{path}: {names[names.duplicated()][0]!r} comes twice: a cell has one row."
            )
    place = table.index.get_indexer(ids)
    found = place >= 0
    if not found.any():
        turned = table.index.isin(genes).any()
        raise DataError(
            f"{files[0]} and {files[1]} have no cell in common, but {list(ids[:2])} and "
            f"{list(table.index[:2])}"
            + (
                ": the matrix is transposed, its rows have to be the cells."
                if turned
                else ": bring their identifiers into one form."
            )
        )
    if not found.all():
        left_out.append(f"{int((~found).sum()):,} cells that are not in {files[1].name}")
    if found.sum() < len(table):
        left_out.append(f"{len(table) - int(found.sum()):,} cells that are not in {files[0].name}")
    return matrix[found], table.iloc[place[found]]


def drop_genes(
    matrix: sparse.csr_matrix, genes: pd.Index, keep: NDArray[np.bool_], what: str, out: list[str]
) -> tuple[sparse.csr_matrix, pd.Index]:
    """Leave out columns that are no genes."""
    if keep.all():
        return matrix, genes
    out.append(f"{int((~keep).sum()):,} {what}")
    return matrix[:, keep], genes[keep]


def require_columns(table: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
    """Raise if a table lacks some columns."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r}, but {', '.join(map(str, table.columns[:10]))}."
        )


def take_positions(
    table: pd.DataFrame, columns: Sequence[str], path: Path, scale: float = 1.0
) -> tuple[pd.DataFrame, Array]:
    """Take the columns of positions out of a table."""
    require_columns(table, columns, path)
    position = numbers(table[list(columns)], path) * scale
    return table.drop(columns=list(columns)), position


def by_id(table: pd.DataFrame, column: str, path: Path) -> pd.DataFrame:
    """Index a table by a column of identifiers."""
    require_columns(table, [column], path)
    names = as_text(table[column])
    if names.isna().any():
        raise DataError(f"{path}: {column!r} is missing in row {int(names.isna().argmax()) + 1}.")
    return table.drop(columns=column).set_axis(pd.Index(names, name=None))
