"""Spacing of cells: drawn positions keep the distances of cells in tissue."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from alphastomics.priors.spacing import SpacingPrior

D = 0.1  # between the cells of the tissue


def tissue(seed, n=20):
    """A jittered grid: no cell is nearer than about 0.6 D to another."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[D * np.arange(n)] * 2), axis=-1).reshape(-1, 2)
    return grid + rng.uniform(-0.2, 0.2, grid.shape) * D


def independent(seed, n=400):
    """Cells without any interaction, as many to an area as in the tissue."""
    return np.random.default_rng(seed).uniform(0, 20 * D, (n, 2))


def nearest(points):
    return KDTree(points).query(points, 2)[0][:, 1]


@pytest.fixture(scope="module")
def spacing():
    prior = SpacingPrior()
    prior.fit([tissue(0), tissue(1)])
    return prior


def test_pairs_that_are_nearer_than_any_in_the_tissue_have_least_weight(spacing):
    assert float(spacing.distance) == pytest.approx(np.median(nearest(tissue(2))), rel=0.05)
    edges = 2 * float(spacing.distance) * np.arange(1, 17) / 16
    weight = spacing.weight.numpy()
    assert (weight[edges < 0.5 * D] < 0.01).all()
    assert (weight[edges > 1.2 * D] > 0.5).all()


def test_cells_without_interaction_are_not_moved_apart():
    prior = SpacingPrior()
    prior.fit([independent(seed, 4000) for seed in range(3)])
    assert prior.weight.mean() > 0.9


def test_drawn_cells_that_overlap_move_apart_by_about_a_cell(spacing):
    drawn = independent(2)
    relaxed = spacing.relax(drawn, np.ones(len(drawn), dtype=bool), np.random.default_rng(0))
    before, after = (np.quantile(nearest(x), 0.1) for x in (drawn, relaxed))
    assert before < 0.25 * D
    assert after > 2 * before
    moved = np.linalg.norm(relaxed - drawn, axis=1)
    assert np.median(moved) < 2 * D
    assert moved.max() < 6 * D


def test_cells_without_neighbors_move_by_about_a_cell(spacing):
    alone = 30 * tissue(0)
    relaxed = spacing.relax(alone, np.ones(len(alone), dtype=bool), np.random.default_rng(0))
    moved = (relaxed - alone) / float(spacing.distance)
    assert 0.5 < moved.std() < 1.1
    assert abs(moved.mean()) < 0.1


def test_a_tissue_with_the_right_distances_keeps_them(spacing):
    true = tissue(5)
    relaxed = spacing.relax(true, np.ones(len(true), dtype=bool), np.random.default_rng(0))
    assert np.median(nearest(relaxed)) == pytest.approx(np.median(nearest(true)), rel=0.15)


def test_known_cells_stay_and_drawn_ones_keep_their_distance_from_them(spacing):
    points = independent(3)
    movable = np.arange(len(points)) % 2 == 0
    before = points.copy()
    relaxed = spacing.relax(points, movable, np.random.default_rng(0))
    np.testing.assert_array_equal(points, before)
    np.testing.assert_array_equal(relaxed[~movable], points[~movable])
    assert not (relaxed[movable] == points[movable]).all()
    known = KDTree(points[~movable])
    first, last = (known.query(x[movable])[0] for x in (points, relaxed))
    assert np.quantile(last, 0.1) > 1.5 * np.quantile(first, 0.1)


def test_without_a_fit_or_drawn_cells_nothing_moves(spacing):
    points, rng = independent(4, 50), np.random.default_rng(0)
    everything = np.ones(50, dtype=bool)
    np.testing.assert_array_equal(SpacingPrior().relax(points, everything, rng), points)
    np.testing.assert_array_equal(spacing.relax(points, ~everything, rng), points)
    np.testing.assert_array_equal(spacing.relax(points[:1], everything[:1], rng), points[:1])
    empty = SpacingPrior()
    empty.fit([np.zeros((30, 2))])
    np.testing.assert_array_equal(empty.relax(points, everything, rng), points)


def test_the_same_seed_gives_the_same_positions(spacing):
    points, movable = independent(4, 100), np.ones(100, dtype=bool)
    first, again, other = (
        spacing.relax(points, movable, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
