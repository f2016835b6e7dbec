"""Rows of expression, read from disk when asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy import sparse

from alphastomics.io._errors import reading
from alphastomics.io._layout import BLOCK_CELLS, CHUNK_CELLS, Cells, runs


class _StoredMatrix:
    """The CSR matrix of one store; opened again in every process that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._process: int | None = None
        self._open()

    def _open(self) -> None:
        if self._process == os.getpid():
            return
        with reading(self.path, "a store of processed data"):
            matrix: Any = zarr.open_group(str(self.path), mode="r")["X"]
            n_rows, n_columns = matrix.attrs["shape"]
            self.shape = (int(n_rows), int(n_columns))
            self._data, self._indices = matrix["data"], matrix["indices"]
            self._indptr = matrix["indptr"][:].astype(np.int64)  # (n_rows + 1,)
            self.dtype = np.dtype(self._data.dtype)
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "shape": self.shape, "dtype": self.dtype, "_process": None}

    def read(self, rows: Cells) -> sparse.csr_matrix:
        """Read sorted rows without duplicates: few contiguous reads of data and indices."""
        self._open()
        pieces = []
        with reading(self.path, "a store of processed data"):
            for start, stop in runs(rows, CHUNK_CELLS, BLOCK_CELLS):
                inside = rows[slice(*np.searchsorted(rows, [start, stop]))] - start
                low, high = int(self._indptr[start]), int(self._indptr[stop])
                run = sparse.csr_matrix(
                    (
                        self._data[low:high],
                        self._indices[low:high],
                        self._indptr[start : stop + 1] - low,
                    ),
                    shape=(stop - start, self.shape[1]),
                )
                pieces.append(run if len(inside) == stop - start else run[inside])
        if not pieces:
            return sparse.csr_matrix((0, self.shape[1]), dtype=self.dtype)
        return pieces[0] if len(pieces) == 1 else sparse.vstack(pieces, format="csr")


class LazyRows:
    """Expression of the cells of one or more stores, read when indexed.

    ``rows[cells]`` gives a CSR matrix of the asked rows in the asked order, duplicates allowed.
    Only row pointers are kept in memory, 8 bytes a cell. It may be pickled or forked: every
    process opens the stores for itself.

    Attributes
    ----------
    shape
        Number of cells and of genes.
    dtype
        Of the values; of several stores, one that holds the values of all.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> folder = tempfile.TemporaryDirectory()
    >>> al.datasets.simulate_tissue(n_sections=2, n_cells=50).write_h5ad(f"{folder.name}/raw.h5ad")
    >>> _ = preprocess(f"{folder.name}/raw.h5ad", f"{folder.name}/data", progress=False)
    >>> rows = al.io.LazyRows.open(Path(folder.name) / "data/sections/section_0.zarr")
    >>> rows[[5, 3, 3]].shape
    (3, 60)
    >>> folder.cleanup()
    """

    def __init__(self, matrices: Sequence[_StoredMatrix]) -> None:
        if len({matrix.shape[1] for matrix in matrices}) != 1:
            raise ValueError("stack_rows needs at least one part, and all of the same genes.")
        self._matrices = tuple(matrices)
        self._offsets = np.cumsum([0, *(matrix.shape[0] for matrix in matrices)])
        self.shape = (int(self._offsets[-1]), matrices[0].shape[1])
        self.dtype = np.result_type(*(matrix.dtype for matrix in matrices))

    @classmethod
    def open(cls, path: Path) -> LazyRows:
        """Open the expression of one store."""
        return cls([_StoredMatrix(path)])

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyRows of {self.shape[0]} cells and {self.shape[1]} genes, {self.dtype}"

    def __getitem__(
        self, cells: NDArray[np.integer[Any]] | NDArray[np.bool_] | Sequence[int] | slice
    ) -> sparse.csr_matrix:
        """Read rows by number, in any order, by a slice or by a mask."""
        wanted = self._numbers(cells)
        unique, place = np.unique(wanted, return_inverse=True)
        part = np.searchsorted(self._offsets, unique, side="right") - 1
        pieces = [
            self._matrices[i].read(unique[part == i] - self._offsets[i]) for i in np.unique(part)
        ]
        if not pieces:
            return sparse.csr_matrix((0, self.shape[1]), dtype=self.dtype)
        read = pieces[0] if len(pieces) == 1 else sparse.vstack(pieces, format="csr")
        in_order = np.array_equal(place, np.arange(len(unique)))
        return (read if in_order else read[place]).astype(self.dtype, copy=False)

    def _numbers(self, cells: Any) -> Cells:
        """Numbers of the asked rows, checked."""
        if isinstance(cells, slice):
            return np.arange(*cells.indices(self.shape[0]), dtype=np.int64)
        asked = np.asarray(cells)
        if asked.dtype == bool:
            if asked.shape != (self.shape[0],):
                raise IndexError(
                    f"the mask has shape {asked.shape}, but there are {self.shape[0]} cells."
                )
            return np.flatnonzero(asked)
        if asked.ndim != 1 or (asked.size and not np.issubdtype(asked.dtype, np.integer)):
            raise IndexError("ask for cells by a one-dimensional array of whole numbers.")
        if asked.size and not 0 <= asked.min() <= asked.max() < self.shape[0]:
            raise IndexError(
                f"cells {asked.min()} to {asked.max()} were asked for, but they are numbered from "
                f"0 to {self.shape[0] - 1}."
            )
        return asked.astype(np.int64)


def stack_rows(parts: Sequence[LazyRows]) -> LazyRows:
    """Put the cells of several sections one after the other, without reading them.

    Parameters
    ----------
    parts
        Rows of sections, all of the same genes.

    Returns
    -------
    LazyRows
        As many rows as all parts have.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> folder = tempfile.TemporaryDirectory()
    >>> al.datasets.simulate_tissue(n_sections=2, n_cells=50).write_h5ad(f"{folder.name}/raw.h5ad")
    >>> _ = preprocess(f"{folder.name}/raw.h5ad", f"{folder.name}/data", progress=False)
    >>> sections = al.io.open_data(f"{folder.name}/data").sections()
    >>> al.io.stack_rows([section.expression for section in sections]).shape
    (100, 60)
    >>> folder.cleanup()
    """
    return LazyRows([matrix for rows in parts for matrix in rows._matrices])
