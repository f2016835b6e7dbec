import numpy as np
import pytest
import squidpy as sq
from anndata import AnnData
from scipy.stats import ortho_group, wasserstein_distance
from sklearn.neighbors import NearestNeighbors

from alphastomics import metrics


def section(n=150, d=2, seed=0):
    """Positions, expression that follows them, and labels that follow them."""
    rng = np.random.default_rng(seed)
    positions = rng.normal(size=(n, d))
    values = np.exp(positions @ rng.normal(size=(d, 5))) + rng.gamma(1.0, size=(n, 5))
    labels = np.where(positions[:, 0] > 0, "a", np.where(positions[:, 1] > 0, "b", "c"))
    return positions, values, labels


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("k", [4, 15])
def test_morans_i_is_squidpys(d, k):
    positions, values, _ = section(d=d)
    adata = AnnData(values, obsm={"spatial": positions})
    sq.gr.spatial_neighbors(adata, n_neighs=k, coord_type="generic")
    table = sq.gr.spatial_autocorr(adata, mode="moran", n_perms=None, copy=True)
    expected = table["I"].loc[adata.var_names]
    np.testing.assert_allclose(metrics.morans_i(values, positions, k), expected, rtol=1e-6)


def test_morans_i_by_hand():
    line = [[0.0], [1], [2.1], [3.3]]  # nearest other cells: 1, 0, 1, 2
    values = [[3.0], [1], [-1], [-3]]
    expected = (3 * 1 + 1 * 3 + -1 * 1 + -3 * -1) / 20
    assert metrics.morans_i(values, line, k=1) == pytest.approx([expected])


def test_morans_i_ignores_frame_scale_and_shift_and_spares_constant_genes():
    positions, values, _ = section()
    moved = 3 * positions @ ortho_group.rvs(2, random_state=0) + 10
    before = metrics.morans_i(values, positions)
    np.testing.assert_allclose(metrics.morans_i(2 * values - 7, moved), before)
    np.testing.assert_array_equal(metrics.morans_i(np.full((150, 2), 0.1), positions), 0)


def test_morans_i_of_shuffled_cells_is_chance():
    positions, _, _ = section(n=400)
    noise = np.random.default_rng(1).normal(size=(400, 200))
    assert metrics.morans_i(noise, positions).mean() == pytest.approx(-1 / 399, abs=0.005)


def test_lins_concordance_by_hand():
    x, y = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    assert metrics.lins_concordance(x, x) == 1.0
    assert metrics.lins_concordance(x, y) == pytest.approx((4 / 3) / (4 / 3 + 1))
    assert metrics.lins_concordance(x, -x + 2) == pytest.approx(-1)
    assert metrics.lins_concordance(y, x) == metrics.lins_concordance(x, y)


def test_lins_concordance_notices_uniform_inflation_and_constants():
    x = np.random.default_rng(0).normal(size=30)
    assert np.corrcoef(x, 3 * x)[0, 1] == pytest.approx(1)
    assert metrics.lins_concordance(x, 3 * x) < 0.7
    assert metrics.lins_concordance([1, 1], [1, 1]) == 1.0
    assert metrics.lins_concordance([1, 1], [2, 2]) == 0.0


@pytest.mark.parametrize("d", [2, 3])
def test_neighborhood_composition_counts_the_neighbors_scikit_learn_finds(d):
    positions, _, labels = section(d=d)
    found = NearestNeighbors(n_neighbors=9).fit(positions).kneighbors(return_distance=False)
    expected = np.stack([(labels[found] == name).mean(1) for name in ("a", "b", "c")], axis=1)
    shares = metrics.neighborhood_composition(positions, labels, 9)
    np.testing.assert_allclose(shares, expected)
    wide = metrics.neighborhood_composition(positions, labels, 9, types=["x", "c", "b", "a"])
    np.testing.assert_allclose(wide[:, 1:], expected[:, ::-1])
    np.testing.assert_array_equal(wide[:, 0], 0)


def test_composition_distance_is_the_mean_wasserstein_distance_over_types():
    positions, _, labels = section()
    other, _, other_labels = section(n=90, seed=1)
    shares = metrics.neighborhood_composition(positions, labels)
    other_shares = metrics.neighborhood_composition(other, other_labels)
    expected = np.mean([wasserstein_distance(shares[:, c], other_shares[:, c]) for c in range(3)])
    distance = metrics.composition_distance(positions, labels, other, other_labels)
    assert distance == pytest.approx(expected)
    back = metrics.composition_distance(other, other_labels, positions, labels)
    assert back == pytest.approx(distance)


def test_composition_distance_needs_no_frame_and_tells_tissue_from_shuffled_cells():
    positions, _, labels = section()
    moved = positions @ ortho_group.rvs(2, random_state=0) + 10
    order = np.random.default_rng(0).permutation(len(labels))
    same = metrics.composition_distance(positions, labels, moved[order], labels[order])
    assert same == pytest.approx(0, abs=1e-12)
    shuffled = metrics.composition_distance(positions, labels, positions, labels[order])
    assert shuffled > 0.1
    assert metrics.composition_distance(positions, ["a"] * 150, positions, ["b"] * 150) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, v, n: metrics.morans_i(v, p, 150), "k must be between 1 and n_cells - 1 = 149"),
        (lambda p, v, n: metrics.morans_i(v[:9], p), "values and positions must hold the same"),
        (lambda p, v, n: metrics.morans_i(v, p[:, 0]), "positions must have shape"),
        (lambda p, v, n: metrics.lins_concordance([1, 2], [1]), "x and y must have one shape"),
        (lambda p, v, n: metrics.lins_concordance([1, np.nan], [1, 2]), "not finite"),
        (lambda p, v, n: metrics.neighborhood_composition(p, n[:3]), "labels must have one entry"),
        (
            lambda p, v, n: metrics.neighborhood_composition(p, n, types=["a"]),
            r"types lacks \['b', 'c'\]",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*section())
