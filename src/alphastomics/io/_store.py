"""Store of one section: order of its cells, writing, and reading of single rows.

The cells of a section are dealt at random into blocks, so that the cells of a block are a random
sample of the section, and sorted in each block along a Hilbert curve, so that the cells of a
spatial window are a few contiguous runs of the block.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import zarr
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._coordinates import is_known
from alphastomics._files import whole_folder
from alphastomics._validate import row_numbers
from alphastomics.io._files import DataError, reading, writing
from alphastomics.io._verify import REMEDY, check_files

Cells = NDArray[np.int64]

BLOCK_CELLS = 8192  # largest number of cells in a block
CHUNK_CELLS = 1024  # cells in a compressed chunk of the expression
HILBERT_BITS = 16  # of each coordinate
COLUMNS_AT_ONCE = 256  # of a matrix that is stored by columns
KIND = "a store of processed data"


def hilbert_index(position: NDArray[np.float64]) -> Cells:
    """Index of each position ``(n, d)`` on a Hilbert curve through their bounding cube."""
    # J. Skilling, "Programming the Hilbert curve", AIP Conf. Proc. 707 (2004), for all at once.
    corner = position.min(0)
    extent = float((position.max(0) - corner).max()) or 1.0
    largest = (1 << HILBERT_BITS) - 1
    x = ((position - corner) / extent * largest).round().astype(np.int64).T.copy()  # (d, n)
    bits = [1 << b for b in range(HILBERT_BITS - 1, 0, -1)]
    for bit in bits:  # undo excess work
        for i in range(len(x)):
            high = (x[i] & bit) > 0
            swapped = np.where(high, 0, (x[0] ^ x[i]) & (bit - 1))
            x[0] ^= np.where(high, bit - 1, swapped)
            x[i] ^= swapped
    for i in range(1, len(x)):  # Gray encode
        x[i] ^= x[i - 1]
    flip = np.zeros_like(x[0])
    for bit in bits:
        flip ^= np.where((x[-1] & bit) > 0, bit - 1, 0)
    x ^= flip
    index = np.zeros_like(x[0])
    for b in range(HILBERT_BITS - 1, -1, -1):  # interleave the bits of all coordinates
        for coordinate in x:
            index = (index << 1) | ((coordinate >> b) & 1)
    return index


def deal_blocks(
    position: NDArray[np.float64] | None, n_cells: int, name: str, seed: int
) -> tuple[Cells, Cells]:
    """Cell at each row of the store ``(n_cells,)``; first row of each block, and ``n_cells``.

    The deal depends on ``name`` and ``seed`` only; cells without position come last in a block.
    """
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    n_blocks = -(-n_cells // BLOCK_CELLS)
    index = np.full(n_cells, np.iinfo(np.int64).max)
    if position is not None:
        known = is_known(position)
        index[known] = hilbert_index(position[known]) if known.any() else 0
    dealt = [np.sort(block) for block in np.array_split(rng.permutation(n_cells), n_blocks)]
    order = np.concatenate([block[np.argsort(index[block], kind="stable")] for block in dealt])
    return order, np.cumsum([0, *map(len, dealt)], dtype=np.int64)


def arrange(section: ad.AnnData, name: str, seed: int) -> ad.AnnData:
    """Order the cells of a section as they are stored, with the blocks in ``uns``."""
    position = section.obsm.get(_keys.SPATIAL)
    order, blocks = deal_blocks(position, section.n_obs, name, seed)
    arranged = section[order].copy()
    arranged.uns[_keys.UNS] = {_keys.BLOCKS: blocks}
    for column in arranged.obs.select_dtypes("category"):
        arranged.obs[column] = arranged.obs[column].cat.remove_unused_categories()
    return arranged


def compact(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Sorted CSR without zeros or duplicates, float32 where that holds the values exactly."""
    matrix = sparse.csr_matrix(matrix, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    single = matrix.astype(np.float32)
    exact = np.array_equal(single.data, matrix.data)
    return single if exact else matrix.astype(np.float64)


def write_store(path: Path, section: ad.AnnData) -> None:
    """Write a section to ``path`` whole or not at all; the bytes depend on the section only."""
    section.strings_to_categoricals()
    _check_columns(section)
    matrix = section.X
    n_bytes = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    chunk = max(1, round(matrix.nnz / section.n_obs * CHUNK_CELLS))
    size = int(n_bytes + section.obs.memory_usage().sum())
    with writing(path, size), whole_folder(path) as part:
        _write(part, section, chunk)


def _check_columns(section: ad.AnnData) -> None:
    for column, values in section.obs.items():
        if values.dtype == object:
            raise DataError(
                f"section {section.obs[_keys.SECTION].iloc[0]!r}: column {column!r} of obs mixes "
                f"{', '.join(sorted({type(v).__name__ for v in values}))} and cannot be stored: "
                "make it text or drop it."
            )


def _write(path: Path, section: ad.AnnData, chunk: int) -> None:
    """Write a zarr AnnData whose expression comes in chunks of ``chunk`` values."""

    def write(
        func: Any, group: Any, key: str, elem: Any, *, dataset_kwargs: Any, iospec: Any
    ) -> None:
        chunks = {"chunks": (chunk,)} if iospec.encoding_type == "csr_matrix" else {}
        func(group, key, elem, dataset_kwargs={**dataset_kwargs, **chunks})

    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    ad.experimental.write_dispatched(group, "/", section, write)


def runs(rows: Cells, gap: int, longest: int) -> list[tuple[int, int]]:
    """Half-open runs that cover sorted rows, joined over gaps up to ``gap``, cut at ``longest``."""
    return [
        (start, min(start + longest, int(part[-1]) + 1))
        for part in np.split(rows, np.flatnonzero(np.diff(rows) > gap) + 1)
        if len(part)
        for start in range(int(part[0]), int(part[-1]) + 1, longest)
    ]


def read_rows(matrix: Any, rows: Cells) -> sparse.csr_matrix:
    """Read sorted, unique rows of a stored matrix (CSR, CSC or dense) by a few contiguous reads."""
    if getattr(matrix, "format", None) == "csc":
        columns = range(0, matrix.shape[1], COLUMNS_AT_ONCE)
        parts = [sparse.csc_matrix(matrix[:, i : i + COLUMNS_AT_ONCE])[rows] for i in columns]
        return sparse.hstack(parts, format="csr")
    parts = []
    for start, stop in runs(rows, CHUNK_CELLS, BLOCK_CELLS):
        wanted = rows[slice(*np.searchsorted(rows, [start, stop]))] - start
        run = sparse.csr_matrix(matrix[start:stop])
        parts.append(run if len(wanted) == stop - start else run[wanted])
    return _stack(parts, matrix)


def _stack(parts: list[sparse.csr_matrix], matrix: Any) -> sparse.csr_matrix:
    """Join rows of a matrix, without a copy where there is one part."""
    if not parts:
        return sparse.csr_matrix((0, matrix.shape[1]), dtype=matrix.dtype)
    return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")


def open_store(path: Path) -> Any:
    """Open a store for reading, as it was written and without consolidated metadata."""
    return zarr.open_group(str(path), mode="r", zarr_format=2, use_consolidated=False)


class _StoredMatrix:
    """CSR matrix of a store, opened again in every process: zarr does not survive a fork."""

    # ``anndata.io.sparse_dataset`` reads the same, but takes 5 ms more for each read.

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._process: int | None = None
        with reading(self.path, KIND):
            check_files(self.path)
        self._open()

    def _open(self) -> None:
        with reading(self.path, KIND):
            group: Any = open_store(self.path)["X"]
            n_rows, n_columns = group.attrs["shape"]
            self.shape = (int(n_rows), int(n_columns))
            self._data, self._indices = group["data"], group["indices"]
            self.dtype = np.dtype(self._data.dtype)
            kinds = self.dtype.kind, np.dtype(self._indices.dtype).kind
            if kinds != ("f", "i") or group["indptr"].shape != (self.shape[0] + 1,):
                raise self._damaged("its shapes or types do not fit each other")
            self._indptr = group["indptr"][:].astype(np.int64)  # (n_rows + 1,)
            ends = (0,), self._data.shape, self._indices.shape
            if ends != ((self._indptr[0],), (self._indptr[-1],), (self._indptr[-1],)):
                raise self._damaged("rows begin or end outside of its values")
            if (np.diff(self._indptr) < 0).any():
                raise self._damaged("rows end before they begin")
        self._process = os.getpid()

    def _damaged(self, why: str) -> DataError:
        return DataError(f"{self.path}/X is damaged or was altered: {why}: {REMEDY}")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "shape": self.shape, "dtype": self.dtype, "_process": None}

    def __getitem__(self, rows: slice) -> sparse.csr_matrix:
        indptr = self._indptr[rows.start : rows.stop + 1]
        values = slice(int(indptr[0]), int(indptr[-1]))
        indices = self._indices[values]
        # SciPy would write beyond the end of an array.
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.shape[1]:
            raise self._damaged(f"it names genes beyond the {self.shape[1]} that there are")
        return sparse.csr_matrix(
            (self._data[values], indices, indptr - indptr[0]),
            shape=(len(indptr) - 1, self.shape[1]),
        )

    def read(self, rows: Cells) -> sparse.csr_matrix:
        """Read sorted rows without duplicates."""
        if self._process != os.getpid():
            self._open()
        with reading(self.path, KIND):
            return read_rows(self, rows)


class LazyRows:
    """Expression of the cells of one or more stores, read when indexed.

    ``rows[cells]`` is a CSR matrix of the given cells in the given order, duplicates allowed. Only
    row pointers are in memory, 8 bytes per cell. Pickled or forked, every process opens the stores
    for itself.

    Attributes
    ----------
    shape, dtype
        Number of cells and of genes; type of the values, one that holds those of all stores.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     al.datasets.simulate_tissue(2, 50).write_h5ad(f"{folder}/raw.h5ad")
    ...     _ = preprocess(f"{folder}/raw.h5ad", f"{folder}/data", progress=False)
    ...     al.io.LazyRows.open(Path(folder) / "data/sections/section_0.zarr")[[5, 3, 3]].shape
    (3, 60)
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
        unique, place = np.unique(row_numbers(cells, len(self)), return_inverse=True)
        store = np.searchsorted(self._offsets, unique, side="right") - 1
        parts = [
            self._matrices[i].read(unique[store == i] - self._offsets[i]) for i in np.unique(store)
        ]
        read = _stack(parts, self).astype(self.dtype, copy=False)
        return read if np.array_equal(place, np.arange(len(unique))) else read[place]


def stack_rows(parts: Sequence[LazyRows]) -> LazyRows:
    """Put the cells of several sections one after the other, without reading them.

    Parameters
    ----------
    parts
        Rows of sections, all of the same genes.

    Returns
    -------
    LazyRows
        All rows of all parts.

    Raises
    ------
    ValueError
        If there are no parts, or their numbers of genes differ.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     al.datasets.simulate_tissue(2, 50).write_h5ad(f"{folder}/raw.h5ad")
    ...     _ = preprocess(f"{folder}/raw.h5ad", f"{folder}/data", progress=False)
    ...     sections = al.io.open_data(f"{folder}/data").sections()
    ...     al.io.stack_rows([section.expression for section in sections]).shape
    (100, 60)
    """
    return LazyRows([matrix for rows in parts for matrix in rows._matrices])
