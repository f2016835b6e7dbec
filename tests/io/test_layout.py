"""Order of the cells in a store."""

from itertools import pairwise

import numpy as np
import pytest

from alphastomics.io._store import BLOCK_CELLS, deal_blocks, hilbert_index, runs


@pytest.mark.parametrize("n_dims", [2, 3])
def test_neighbours_on_a_hilbert_curve_are_neighbours_in_space(n_dims):
    grid = np.stack(np.meshgrid(*[np.arange(16)] * n_dims), -1).reshape(-1, n_dims)
    place = hilbert_index(grid.astype(float))
    assert len(np.unique(place)) == len(grid)
    steps = np.abs(np.diff(grid[np.argsort(place)], axis=0)).sum(1)
    assert (steps == 1).all()


def test_every_block_is_a_random_sample_of_the_section():
    rng = np.random.default_rng(0)
    position = rng.random((20_000, 2)) * [3000, 1000]
    order, blocks = deal_blocks(position, 20_000, "a", seed=0)
    assert np.array_equal(np.sort(order), np.arange(20_000))
    assert np.diff(blocks).max() <= BLOCK_CELLS
    assert np.ptp(np.diff(blocks)) <= 1
    for start, stop in pairwise(blocks):
        sample = position[order[start:stop]]
        for axis, extent in enumerate((3000, 1000)):
            assert abs(sample[:, axis].mean() - extent / 2) < 4 * extent / np.sqrt(12 * len(sample))


def test_a_spatial_window_is_a_few_runs_of_a_block():
    position = np.random.default_rng(0).random((8000, 2))
    order, _ = deal_blocks(position, 8000, "a", seed=0)
    inside = (np.abs(position[order] - [0.3, 0.6]) < 0.09).all(1)
    assert inside.sum() > 200
    assert len(runs(np.flatnonzero(inside), gap=1, longest=10**6)) < 20


def test_the_deal_depends_on_name_and_seed_only():
    position = np.random.default_rng(0).random((10_000, 2))
    first = deal_blocks(position, 10_000, "a", 0)[0]
    assert np.array_equal(first, deal_blocks(position, 10_000, "a", 0)[0])
    assert not np.array_equal(first, deal_blocks(position, 10_000, "b", 0)[0])
    assert not np.array_equal(first, deal_blocks(position, 10_000, "a", 1)[0])


def test_cells_without_position_come_last_in_a_block():
    position = np.random.default_rng(0).random((9000, 2))
    position[::3] = np.nan
    order, blocks = deal_blocks(position, 9000, "a", 0)
    for start, stop in pairwise(blocks):
        known = ~np.isnan(position[order[start:stop], 0])
        assert (np.diff(known.astype(int)) <= 0).all()
    assert len(deal_blocks(None, 10, "a", 0)[0]) == 10


def test_runs_cover_rows_and_join_over_gaps():
    rows = np.array([0, 1, 2, 10, 11, 30])
    assert runs(rows, 1, 100) == [(0, 3), (10, 12), (30, 31)]
    assert runs(rows, 8, 100) == [(0, 12), (30, 31)]
    assert runs(rows, 8, 5) == [(0, 5), (5, 10), (10, 12), (30, 31)]
    assert runs(rows[:0], 8, 5) == []
