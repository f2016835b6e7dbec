"""One section as a zarr AnnData store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import zarr
from scipy import sparse

from alphastomics import _keys
from alphastomics._files import temporary
from alphastomics.io._errors import DataError
from alphastomics.io._files import remove, writing
from alphastomics.io._layout import CHUNK_CELLS, deal_blocks


def arrange(section: ad.AnnData, name: str, seed: int) -> ad.AnnData:
    """Order the cells of a section as they are stored, and say where its blocks are."""
    position = section.obsm.get(_keys.SPATIAL)
    order, blocks = deal_blocks(position, section.n_obs, name, seed)
    arranged = section[order].copy()
    arranged.uns[_keys.UNS] = {_keys.BLOCKS: blocks}
    for column in arranged.obs.select_dtypes("category"):
        arranged.obs[column] = arranged.obs[column].cat.remove_unused_categories()
    return arranged


def compact(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Sorted, without zeros or duplicates, and as float32 where that holds the values exactly."""
    matrix = sparse.csr_matrix(matrix, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    single = matrix.data.astype(np.float32)
    exact = np.array_equal(single, matrix.data)
    data = single if exact else matrix.data.astype(np.float64)
    return sparse.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def write_store(path: Path, section: ad.AnnData) -> None:
    """Write a section to ``path`` whole or not at all, in place of what is there.

    Chunks of the expression hold the values of about ``CHUNK_CELLS`` cells. The bytes depend on
    the section only.
    """
    section.strings_to_categoricals()
    _check_columns(section)
    matrix = section.X
    chunk = max(1, round(matrix.nnz / section.n_obs * CHUNK_CELLS))
    part = temporary(path)
    with writing(path, _size(section)):
        try:
            remove(part)
            _write(part, section, chunk)
            remove(path)
            os.replace(part, path)
        except BaseException:
            remove(part)
            raise


def _check_columns(section: ad.AnnData) -> None:
    for column, values in section.obs.items():
        if values.dtype == object:
            raise DataError(
                f"section {section.obs[_keys.SECTION].iloc[0]!r}: column {column!r} of obs mixes "
                f"{', '.join(sorted({type(v).__name__ for v in values}))} and cannot be stored: "
                "make it text or drop it."
            )


def _write(path: Path, section: ad.AnnData, chunk: int) -> None:
    def write(
        func: Any, group: Any, key: str, elem: Any, *, dataset_kwargs: Any, iospec: Any
    ) -> None:
        chunks = {"chunks": (chunk,)} if iospec.encoding_type == "csr_matrix" else {}
        func(group, key, elem, dataset_kwargs={**dataset_kwargs, **chunks})

    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    ad.experimental.write_dispatched(group, "/", section, write)


def _size(section: ad.AnnData) -> int:
    """Bytes of a section, uncompressed."""
    matrix = section.X
    expression = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    return int(expression + section.obs.memory_usage().sum())
