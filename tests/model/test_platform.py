"""Cells of another platform are recognized, and standardized by themselves."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.neighbors import KNeighborsRegressor

import alphastomics as al

QUIET = {"progress_bar": False}
ANOTHER = "looks like another platform"


def of_another_platform(cells, *, deeper=10):
    """Cells with more counts, by another factor for each gene."""
    rng = np.random.default_rng(0)
    efficiency = deeper * np.exp(rng.normal(0, 1.5, cells.n_vars))
    counts = np.asarray(sparse.csr_matrix(cells.X).todense())
    counts = rng.poisson(counts * efficiency)
    shifted = cells.copy()
    shifted.X = sparse.csr_matrix(counts.astype(np.float32))
    return shifted


def placed(model, cells, **options):
    query = cells.copy()
    model.predict(query, mode="expr_to_pos", **QUIET, **options)
    return query.obsm["spatial_predicted"]


def test_cells_of_another_platform_are_placed_by_their_own_statistics(placer):
    model, cells = placer
    query = of_another_platform(cells)
    with pytest.warns(UserWarning, match=f"{ANOTHER}.*the median depth of its cells is [1-9]"):
        found = placed(model, query)
    np.testing.assert_array_equal(found, placed(model, query, standardize="query"))
    scores = {
        by: al.metrics.distance_spearman(
            cells.obsm["spatial"], placed(model, query, standardize=by)
        )
        for by in ("query", "training")
    }
    assert scores["query"] > scores["training"] + 0.04


@pytest.mark.parametrize("part", ["all", "depth", "type", "few"])
def test_cells_of_the_same_platform_are_not(placer, part):
    model, cells = placer
    if part == "depth":
        cells = cells.copy()
        cells.X = cells.X * 2
    elif part == "type":
        cells = cells[cells.obs["cell_type"] == cells.obs["cell_type"].mode()[0]].copy()
    elif part == "few":
        cells = of_another_platform(cells)[:50].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = placed(model, cells)
    np.testing.assert_array_equal(found, placed(model, cells, standardize="training"))


def test_a_section_of_another_platform_changes_no_other(placer):
    model, cells = placer
    both = al.pp.intersect_genes({"first": cells, "second": of_another_platform(cells)})
    both.obs_names_make_unique()
    with pytest.warns(UserWarning, match=f"section 'second'.*{ANOTHER}"):
        found = placed(model, both)
    np.testing.assert_allclose(found[: cells.n_obs], placed(model, cells), rtol=1e-4, atol=1e-2)


def test_expression_comes_back_in_the_scale_of_training_with_a_warning(trained, half):
    model, cells = trained
    query = of_another_platform(cells)
    query.obsm["spatial"][:] = np.nan
    query.obs["expression_known"] = half
    with pytest.warns(UserWarning, match=f"{ANOTHER}.*read in the scale of training"):
        model.predict(query, **QUIET)
    assert np.isfinite(query.obsm["spatial_predicted"]).all()


@pytest.fixture
def halves(placer, half):
    """Model, a half of the third section as reference, and the other half with its places."""
    model, cells = placer
    query = cells[~half].copy()
    return model, cells[half].copy(), query, np.asarray(query.obsm.pop("spatial"))


def test_cells_of_another_platform_fill_the_reference(halves):
    model, reference, query, true = halves
    query = of_another_platform(query)
    with pytest.warns(UserWarning, match=f"{ANOTHER}.*moved apart"):
        model.predict(query, reference=reference, **QUIET)
    placed = query.obsm["spatial_predicted"]
    assert query.uns["alphastomics"]["spatial_predicted"]["standardized_by_query"]
    size = al.metrics.rms_radius(reference.obsm["spatial"])
    assert 0.8 < al.metrics.rms_radius(placed) / size < 1.2
    assert al.metrics.distance_spearman(true, placed) > 0.25  # 0 if places were lost


def test_cells_among_known_ones_are_placed_better_than_by_their_neighbors(halves):
    model, reference, query, true = halves
    model.predict(query, reference=reference, **QUIET)
    placed = query.obsm["spatial_predicted"]
    known, own = (np.log1p(np.asarray(a.X.todense())) for a in (reference, query))
    baselines = [
        KNeighborsRegressor(k, metric="cosine").fit(known, reference.obsm["spatial"]).predict(own)
        for k in (1, 10)
    ]
    for score in (
        al.metrics.distance_spearman,
        lambda a, b: al.metrics.neighbor_recall(a, b, 20),
    ):
        assert score(true, placed) > max(score(true, b) for b in baselines)
