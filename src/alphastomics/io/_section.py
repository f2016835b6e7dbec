"""A raw section that is known but not yet read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._validate import check_position_rows
from alphastomics.io._errors import DataError
from alphastomics.io._layout import Cells

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RawKeys:
    """Where raw files hold what, as the options of ``preprocess`` say."""

    layer: str | None = None
    spatial_key: str = _keys.SPATIAL
    section_key: str = _keys.SECTION


@dataclass(frozen=True)
class RawSection:
    """One section of raw data. Its cells are read by ``load()``, everything else is known.

    Attributes
    ----------
    name
        Name of the section.
    path
        File or folder that holds it.
    n_cells
        Number of its cells.
    genes
        Names of the genes that it measures.
    n_dims
        2 or 3, or None where no cell has coordinates.
    columns
        Names in ``.obs``.
    units
        Unit of the coordinates, if the file says.
    load
        Reads the section as AnnData: all genes, ``.X`` CSR, ``.obsm["spatial"]`` if there are
        coordinates, ``.obs["section"]``.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> folder = tempfile.TemporaryDirectory()
    >>> raw = f"{folder.name}/raw.h5ad"
    >>> al.datasets.simulate_tissue(n_sections=2, n_cells=50).write_h5ad(raw)
    >>> section = al.io.find_sections(raw)[0]
    >>> section.n_dims, len(section.genes), section.load().obsm["spatial"].shape
    (2, 60, (50, 2))
    >>> folder.cleanup()
    """

    name: str
    path: Path
    n_cells: int
    genes: pd.Index
    n_dims: int | None
    columns: tuple[str, ...]
    units: str | None
    load: Callable[[], ad.AnnData]


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
    obs = obs.copy()
    obs.index = obs.index.astype(str)
    obs[_keys.SECTION] = pd.Categorical([name] * len(obs))
    section = ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes))
    if position is not None and n_dims_of(position, path) is not None:
        section.obsm[_keys.SPATIAL] = np.asarray(position, dtype=np.float64)
    return section


def n_dims_of(position: Array | None, path: Path) -> int | None:
    """2 or 3, or None where no row is known; positions are checked."""
    if position is None:
        return None
    try:
        check_position_rows(position, _keys.SPATIAL)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return None if np.isnan(position).all() else position.shape[1]


def check_genes(genes: pd.Index, path: Path) -> pd.Index:
    """Raise if genes are missing or come twice."""
    if genes.empty:
        raise DataError(f"{path} holds no genes.")
    if not genes.is_unique:
        raise DataError(
            f"{path} has duplicated gene names, {genes[genes.duplicated()][0]!r} among them: make "
            "them unique in the file."
        )
    return genes.astype(str)


def split_rows(obs: pd.DataFrame, path: Path, name: str, section_key: str) -> dict[str, Cells]:
    """Rows of each section of a file, in order of appearance; all of them are ``name`` without key.

    A key other than the default has to be there.
    """
    if obs.empty:
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
    code, names = pd.factorize(obs[section_key].astype(str))
    return {str(name): np.flatnonzero(code == i) for i, name in enumerate(names)}
