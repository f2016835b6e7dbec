"""Section of raw data that is known but not yet read, and the checks that all formats share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._anndata import as_names
from alphastomics._validate import check_position_rows
from alphastomics.io._files import DataError
from alphastomics.io._store import Cells

Array = NDArray[np.float64]
LONGEST = 200  # bytes of the name of a column, which is that of a folder


@dataclass(frozen=True)
class RawKeys:
    """Names of layer, coordinates and section in raw files."""

    layer: str | None = None
    spatial_key: str = _keys.SPATIAL
    section_key: str = _keys.SECTION


@dataclass(frozen=True)
class RawSection:
    """Section of raw data; everything but its cells is known before ``load()``.

    Attributes
    ----------
    name, path
        Name of the section; file or folder that holds it.
    n_cells, n_dims
        Number of cells; 2 or 3, or None where no cell has coordinates.
    genes, columns
        Names of the genes that the section measures, and names in ``.obs``.
    units
        Unit of the coordinates, if the file names it.
    load
        Reads the section as AnnData: all genes, ``.X`` CSR, ``.obsm["spatial"]`` if there are
        coordinates, ``.obs["section"]``.
    files
        Files that are read, where ``path`` is not all of them.
    note
        Description of what was read from the output of an instrument, and what was excluded.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     al.datasets.simulate_tissue(2, 50).write_h5ad(f"{folder}/raw.h5ad")
    ...     section = al.io.find_sections(f"{folder}/raw.h5ad")[0]
    ...     section.n_dims, len(section.genes), section.load().obsm["spatial"].shape
    (2, 60, (50, 2))
    """

    name: str
    path: Path
    n_cells: int
    genes: pd.Index
    n_dims: int | None
    columns: tuple[str, ...]
    units: str | None
    load: Callable[[], ad.AnnData]
    files: tuple[Path, ...] = ()
    note: str = ""


def list_sections(
    path: Path,
    obs: pd.DataFrame,
    genes: pd.Index,
    position: Array | None,
    load: Callable[[str, Cells], ad.AnnData],
    *,
    name: str,
    section_key: str,
    columns: tuple[str, ...],
    units: str | None = None,
) -> list[RawSection]:
    """List the sections of a file; a file without a column of sections is one, ``name``."""
    _check_columns(columns, path)
    return [
        RawSection(
            name=section,
            path=path,
            n_cells=len(rows),
            genes=genes,
            n_dims=n_dims_of(None if position is None else position[rows], path),
            columns=columns,
            units=units,
            load=partial(load, section, rows),
        )
        for section, rows in _split_rows(obs, path, name, section_key).items()
    ]


def make_section(
    name: str,
    path: Path,
    matrix: sparse.csr_matrix,
    obs: pd.DataFrame,
    genes: pd.Index,
    position: Array | None,
) -> ad.AnnData:
    """Build the AnnData of a section, positions checked."""
    if not obs.index.is_unique:
        raise DataError(
            f"{path}: section {name!r} has duplicated cell names, "
            f"{obs.index[obs.index.duplicated()][0]!r} among them: make them unique in the file."
        )
    obs = _as_text(obs).set_axis(obs.index.astype(str).rename(None))
    obs = obs.assign(**{_keys.SECTION: pd.Categorical([name] * len(obs))})
    section = ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes))
    if position is not None and n_dims_of(position, path) is not None:
        section.obsm[_keys.SPATIAL] = np.asarray(position, dtype=np.float64)
    return section


def _as_text(obs: pd.DataFrame) -> pd.DataFrame:
    """Columns that a store can hold: values of several types as text."""
    mixed = {
        str(name): column.map(str, na_action="ignore")
        for name, column in obs.items()
        if column.dtype == object
        and pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty")
    }
    return obs.assign(**mixed)


def storable(column: str) -> bool:
    """True for a name that a column of a store may have."""
    reserved = column == "_index" or column.startswith(".")
    return bool(column) and not reserved and "/" not in column and len(column.encode()) <= LONGEST


def _check_columns(columns: Sequence[str], path: Path) -> None:
    for column in columns:
        if not storable(column):
            raise DataError(
                f"{path}: the column {column[:40]!r} of obs cannot be stored under this name: "
                f"rename it, without a slash or a dot at its start, to at most {LONGEST} bytes."
            )


def n_dims_of(position: Array | None, path: Path) -> int | None:
    """Check positions ``(n, d)``; give their ``d``, or None where no row is known."""
    if position is None:
        return None
    try:
        check_position_rows(position, _keys.SPATIAL)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return None if np.isnan(position).all() else position.shape[1]


def check_genes(genes: pd.Index, path: Path) -> pd.Index:
    """Raise if genes are missing, have no name or come twice."""
    if genes.empty:
        raise DataError(f"{path} holds no genes.")
    nameless = genes.isna() | (genes.astype(str).str.strip() == "")
    if nameless.any():
        raise DataError(
            f"{path}: gene number {int(nameless.argmax()) + 1} has no name: name it in the file."
        )
    if not genes.is_unique:
        raise DataError(
            f"{path} has duplicated gene names, {genes[genes.duplicated()][0]!r} among them: make "
            "them unique in the file."
        )
    return genes.astype(str)


def _split_rows(obs: pd.DataFrame, path: Path, name: str, section_key: str) -> dict[str, Cells]:
    """Rows of each section in order of appearance; a key other than the default must exist."""
    if not len(obs):
        raise DataError(f"{path} holds no cells.")
    if section_key not in obs:
        if section_key == _keys.SECTION:
            return {name: np.arange(len(obs))}
        raise DataError(
            f"--section_key: {section_key!r} is not in obs of {path}, which holds "
            f"{', '.join(map(str, obs.columns)) or 'no columns'}."
        )
    if obs[section_key].isna().any():
        raise DataError(
            f"--section_key: {section_key!r} of {path} is missing for "
            f"{int(obs[section_key].isna().sum())} cells: name their section or drop them."
        )
    code, names = pd.factorize(as_names(obs[section_key]))
    return {str(section): np.flatnonzero(code == i) for i, section in enumerate(names)}
