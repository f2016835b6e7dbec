"""Stores of sections and rows read from them."""

import gc
import os
import pickle
import tracemalloc

import anndata as ad
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from alphastomics.io import DataError, LazyRows, stack_rows
from alphastomics.io._files import checksum
from alphastomics.io._store import arrange, compact, write_store


def same(read, expected):
    return (
        sparse.isspmatrix_csr(read)
        and read.shape == expected.shape
        and read.dtype == expected.dtype
        and (read != expected).nnz == 0
    )


def test_anndata_reads_a_store(store):
    path, arranged = store
    back = ad.read_zarr(path)
    assert same(back.X, arranged.X)
    assert np.array_equal(back.obsm["spatial"], arranged.obsm["spatial"])
    assert back.obs.equals(arranged.obs)
    assert np.array_equal(
        back.uns["alphastomics"]["blocks"], arranged.uns["alphastomics"]["blocks"]
    )


def test_the_same_section_has_the_same_bytes(store, tmp_path):
    path, arranged = store
    write_store(tmp_path / "again.zarr", arranged.copy())
    assert checksum(tmp_path / "again.zarr") == checksum(path)
    other = arranged.copy()
    other.X.data[0] += 1
    write_store(tmp_path / "again.zarr", other)
    assert checksum(tmp_path / "again.zarr") != checksum(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cells=st.lists(st.integers(0, 19_999), max_size=60))
def test_rows_are_those_of_the_matrix(store, cells):
    path, arranged = store
    rows = LazyRows.open(path)
    assert same(rows[np.array(cells, dtype=int)], arranged.X[cells])


@settings(max_examples=20, deadline=None)
@given(cells=st.lists(st.integers(0, 39_999), max_size=30))
def test_stacked_rows_are_those_of_both(store, cells):
    path, arranged = store
    rows = stack_rows([LazyRows.open(path), LazyRows.open(path)])
    assert rows.shape == (40_000, 12)
    assert same(rows[np.array(cells, dtype=int)], arranged.X[np.array(cells, dtype=int) % 20_000])


def test_slices_and_masks(store):
    path, arranged = store
    rows = LazyRows.open(path)
    assert same(rows[8000:8500], arranged.X[8000:8500])
    mask = np.arange(20_000) % 1999 == 0
    assert same(rows[mask], arranged.X[mask])
    for wrong in ([-1], [20_000], [0.5], [[1]], np.ones(3, dtype=bool)):
        with pytest.raises(IndexError):
            rows[np.array(wrong)]


def test_a_random_set_of_a_block_is_one_read_of_it(store, reads):
    path, arranged = store
    rows = LazyRows.open(path)
    reads.clear()
    start, stop = arranged.uns["alphastomics"]["blocks"][1:3]
    cells = np.random.default_rng(0).integers(start, stop, 256)
    rows[cells]
    assert len(reads) == 2, "values and indices, once each"
    assert max(reads) <= arranged.X[start:stop].nnz


def test_a_window_reads_little_of_its_block(store, reads):
    path, arranged = store
    rows = LazyRows.open(path)
    reads.clear()
    stop = arranged.uns["alphastomics"]["blocks"][1]
    position = arranged.obsm["spatial"][:stop]
    near = np.argsort(np.linalg.norm(position - position[3000], axis=1))[:256]
    rows[near]
    assert sum(reads) / 2 < 0.6 * arranged.X[:stop].nnz


def test_rows_work_in_forked_and_spawned_processes(store):
    path, arranged = store
    rows = stack_rows([LazyRows.open(path)])
    rows[:10]
    assert same(pickle.loads(pickle.dumps(rows))[5:9], arranged.X[5:9])
    assert len(pickle.dumps(rows)) < 2000
    child = os.fork()
    if child == 0:
        os._exit(0 if same(rows[100:200], arranged.X[100:200]) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_does_not_grow_with_use(store):
    path, _ = store
    rows, rng = LazyRows.open(path), np.random.default_rng(0)
    used = []
    tracemalloc.start()
    for i in range(41):
        rows[rng.integers(0, 20_000, 1000)]
        if i in (10, 40):
            gc.collect()
            used.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert used[1] < used[0] + 100_000, "less than one read holds"


def test_values_are_kept_exactly():
    dense = np.array([[0.1, 0, 3], [2**24 + 1, 1, 0]])
    for matrix, dtype in (
        (sparse.csr_matrix(dense), np.float64),
        (sparse.csr_matrix(dense[:, 1:]), np.float32),
        (sparse.csr_matrix(dense[:, 1:].astype(np.int64)), np.float32),
        (sparse.csr_matrix(dense.astype(np.float32)), np.float32),
    ):
        assert compact(matrix).dtype == dtype
        assert np.array_equal(compact(matrix).toarray(), matrix.toarray())


def test_a_store_without_values_can_be_read(tmp_path, tissue):
    empty = tissue[:20].copy()
    empty.X = sparse.csr_matrix(empty.shape, dtype=np.float32)
    write_store(tmp_path / "a.zarr", arrange(empty, "a", 0))
    assert same(LazyRows.open(tmp_path / "a.zarr")[3:5], empty.X[:2])


def test_columns_that_cannot_be_stored_are_named(tmp_path, tissue):
    cells = tissue[:20].copy()
    cells.obs["mixed"] = [1, "a"] * 10
    with pytest.raises(
        DataError, match=r"section 'section_0': column 'mixed' of obs mixes int, str"
    ):
        write_store(tmp_path / "a.zarr", arrange(cells, "a", 0))
    assert not list(tmp_path.iterdir())
