"""Stacking of estimates of hidden genes: known values, invariances, what weights are learned."""

import numpy as np
import pytest

from alphastomics.priors.stacking import (
    GeneTransfer,
    StackingFit,
    features,
    log_normalized,
    stacked,
    surrounding_reference,
    surroundings,
    z_scores,
)


def test_cells_are_divided_by_their_depth_and_deep_platforms_are_as_shallow_ones():
    counts = np.array([[1.0, 3.0], [4.0, 4.0], [8.0, 0.0]])
    logged = log_normalized(counts, counts.sum(1), "counts")
    np.testing.assert_allclose(logged, np.log1p([[2, 6], [4, 4], [8, 0]]), rtol=1e-6)
    deep = log_normalized(100 * counts, 100 * counts.sum(1), "counts")
    np.testing.assert_allclose(deep, np.log1p(100 * np.expm1(logged)), rtol=1e-5)
    np.testing.assert_array_equal(log_normalized(-counts, counts.sum(1), "lognorm"), -counts)


def test_standardized_genes_have_mean_0_and_deviation_1_and_constant_ones_are_0():
    z = z_scores(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(z, [[-1, 0], [1, 0]])


@pytest.mark.parametrize("n_visible", [6, 60])  # fewer genes than cells, and more
def test_transfer_is_ridge_similar_cells_and_the_mean_of_the_visible_genes(n_visible):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, n_visible)).astype(np.float32)
    Y, query = X[:, :2] + 1, rng.normal(size=(30, n_visible)).astype(np.float32)
    estimates = GeneTransfer.fit(X, Y)(query)
    assert estimates.shape == (5, 30, 2)
    z, zx, zy = z_scores(query), z_scores(X), z_scores(Y)
    slope = np.linalg.solve(zx.T @ zx + 0.3 * 50 * np.eye(n_visible), zx.T @ zy)
    np.testing.assert_allclose(estimates[0], z @ slope, atol=1e-4)
    np.testing.assert_allclose(estimates[2], 0, atol=1e-5)  # the mean of all 50 cells
    similarity = query @ X.T / np.outer(np.linalg.norm(query, axis=1), np.linalg.norm(X, axis=1))
    nearest = np.argsort(-similarity, axis=1)[:, :20]
    np.testing.assert_allclose(estimates[3], zy[nearest].mean(1), atol=1e-5)
    np.testing.assert_allclose(estimates[4, :, 1], z.mean(1), atol=1e-6)


def test_another_scale_and_offset_of_each_gene_of_a_platform_changes_little():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 8)).astype(np.float32)
    transfer = GeneTransfer.fit(X, X[:, :2] + X[:, 2:4])
    query = rng.normal(size=(40, 8)).astype(np.float32)
    moved = transfer(query * np.arange(1, 9) + 5)
    np.testing.assert_allclose(moved[[0, 1, 2, 4]], transfer(query)[[0, 1, 2, 4]], atol=1e-4)


def test_surroundings_are_the_nearest_cells_and_a_cell_of_unknown_position_is_alone():
    position = np.array([[0.0], [1.0], [2.5], [np.nan], [50.0]])
    averages = surroundings(position)
    for average in averages:
        np.testing.assert_allclose(average.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(average.toarray()[3], [0, 0, 0, 1, 0])
        np.testing.assert_allclose(average.toarray()[0], [0.25, 0.25, 0.25, 0, 0.25])
    assert surroundings(np.full((4, 2), np.nan)) == []
    far = surroundings(np.arange(40.0)[:, None])[0]
    assert set(far[[20]].indices) <= set(range(16, 25))


def test_weights_are_those_of_the_estimators_that_tell_the_truth():
    rng = np.random.default_rng(0)
    truth = z_scores(rng.normal(size=(500, 6)))
    noisy = truth + rng.normal(size=truth.shape)
    estimates = np.stack([noisy, -truth, rng.normal(size=truth.shape)]).astype(np.float32)
    fit = StackingFit()
    for genes in (slice(0, 2), slice(2, 6)):
        fit.add(features(estimates[:, :, genes], []), truth[:, genes])
    weights = fit.weights()
    assert weights[0] > 0.3
    assert weights[1] == 0
    assert abs(weights[2]) < 0.05


def test_averages_in_space_are_used_where_neighbors_share_the_truth():
    rng = np.random.default_rng(0)
    position = rng.uniform(size=(900, 2))
    truth = z_scores(np.sin(6 * position @ rng.normal(size=(2, 4))))
    noisy = (truth + 2 * rng.normal(size=truth.shape)).astype(np.float32)[None]
    around = surroundings(position)
    fit = StackingFit()
    fit.add(features(noisy, around), truth)
    estimate = stacked(noisy, around, fit.weights())
    apart = stacked(noisy, [], np.ones(1))

    def correlation(values):
        return (z_scores(values) * truth).mean()

    assert correlation(estimate) > 1.5 * correlation(apart)
    np.testing.assert_allclose(estimate.mean(0), 0, atol=1e-5)
    whole = np.tensordot(fit.weights(), features(noisy, around).astype(float), 1)
    np.testing.assert_allclose(estimate, whole, atol=1e-4)


def test_surrounding_reference_is_the_mean_of_the_nearest_reference_cells():
    reference = np.arange(30.0)[:, None]
    position = np.array([[0.0], [np.nan], [29.0]])
    near, wide = surrounding_reference(position, reference)
    values = reference.astype(np.float32)
    np.testing.assert_allclose((near @ values)[:, 0], [2.5, 0, 26.5])
    np.testing.assert_allclose((wide @ values)[:, 0], [11.5, 0, 17.5])
    few = surrounding_reference(position, reference[:3])
    np.testing.assert_allclose(few[0].toarray()[0], np.full(3, 1 / 3), rtol=1e-6)
