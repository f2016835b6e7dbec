"""Cells placed among others whose positions are known."""

import anndata as ad
import numpy as np
import pytest

import alphastomics as al

QUIET = {"progress_bar": False}


@pytest.fixture
def halves(trained, half):
    """A model, cells without positions, the other half of their section, the truth."""
    model, cells = trained
    query, reference = cells[half].copy(), cells[~half].copy()
    truth = query.obsm.pop("spatial")
    return model, query, reference, truth


def mapped(model, query, reference, method="predict", **options):
    query = query.copy()
    if method == "sample":
        options = {"n_steps": 3, "n_samples": 2, **options}
    getattr(model, method)(query, reference=reference, key_added="out", **QUIET, **options)
    return query.obsm["out"]


def turned(adata, angle):
    c, s = np.cos(angle), np.sin(angle)
    other = adata.copy()
    other.obsm["spatial"] = adata.obsm["spatial"] @ np.array([[c, s], [-s, c]])
    return other


def partly_placed(query, reference):
    """Query and reference in one AnnData, the query's rows NaN."""
    query = query.copy()
    query.obsm["spatial"] = np.full((query.n_obs, 2), np.nan)
    return ad.concat([query, reference])


def test_cells_are_placed_in_the_frame_of_the_reference_better_than_by_chance(halves):
    """Whatever the frame; a guess of the centre has an error of 1, one of any cell 1.4."""
    model, query, reference, truth = halves
    truth = ad.AnnData(np.zeros((len(truth), 1)), obsm={"spatial": truth})
    for angle in (0.0, 1.5, 3.0, 4.5):
        placed = mapped(model, query, turned(reference, angle))
        where = turned(truth, angle).obsm["spatial"]
        error = np.sqrt(np.square(placed - where).sum(1).mean()) / al.metrics.rms_radius(where)
        assert error < 0.9


def test_the_arrangement_is_better_than_chance(halves):
    model, query, reference, truth = halves
    for angle in (0.0, 2.0):
        placed = mapped(model, query, turned(reference, angle))
        assert al.metrics.distance_spearman(truth, placed) > 0.25


@pytest.mark.parametrize("method", ["predict", "sample"])
def test_a_shift_of_the_reference_shifts_the_cells(halves, method):
    model, query, reference, _ = halves
    before = mapped(model, query, reference, method)
    moved = reference.copy()
    moved.obsm["spatial"] = reference.obsm["spatial"] + [3e4, -1e5]
    np.testing.assert_allclose(
        mapped(model, query, moved, method) - [3e4, -1e5], before, atol=0.1, rtol=0
    )
    inside = reference.obsm["spatial"]
    margin = 0.5 * np.ptp(inside, axis=0)
    assert (before.mean(0) > inside.min(0) - margin).all()
    assert (before.mean(0) < inside.max(0) + margin).all()


def test_the_given_frame_is_kept_by_every_draw(halves):
    """No superposition: one draw of several is the draw alone."""
    model, query, reference, _ = halves
    several = query.copy()
    model.sample(several, reference=reference, n_samples=3, n_steps=3, point=None, **QUIET)
    draws = several.obsm["spatial_sampled_draws"]
    alone = mapped(model, query, reference, "sample", n_samples=1)
    np.testing.assert_array_equal(draws[:, 0], alone)
    assert "mirror" not in several.uns["alphastomics"]["spatial_sampled_draws"]
    medoid = mapped(model, query, reference, "sample", n_samples=3)
    assert any(np.array_equal(medoid, draws[:, i]) for i in range(3))
    mean = mapped(model, query, reference, "sample", n_samples=3, point="consensus")
    np.testing.assert_allclose(mean, draws.mean(1))


@pytest.mark.parametrize("method", ["predict", "sample"])
def test_rows_of_nan_are_a_query_and_the_others_its_reference(halves, method):
    model, query, reference, _ = halves
    both = partly_placed(query, reference)
    placed = mapped(model, both, None, method)
    assert both.obs_names[: query.n_obs].equals(query.obs_names)
    np.testing.assert_allclose(
        placed[: query.n_obs], mapped(model, query, reference, method), rtol=1e-6
    )
    np.testing.assert_array_equal(placed[query.n_obs :], reference.obsm["spatial"])


def test_known_coordinates_come_back_bit_for_bit(halves):
    model, query, reference, _ = halves
    cells = partly_placed(query, reference)
    cells.obsm["spatial"] += 1e6 + 1 / 3
    known = ~np.isnan(cells.obsm["spatial"]).any(1)
    truth = cells.obsm["spatial"].copy()
    model.predict(cells, key_added="predicted", **QUIET)
    for point in ("medoid", "consensus"):
        model.sample(cells, n_samples=2, n_steps=2, point=point, key_added=point, **QUIET)
    model.sample(cells, n_samples=3, n_steps=2, point=None, **QUIET)
    for key in ("predicted", "medoid"):
        np.testing.assert_array_equal(cells.obsm[key][known], truth[known])
        assert np.isfinite(cells.obsm[key]).all()
    np.testing.assert_allclose(cells.obsm["consensus"][known], truth[known], rtol=1e-15)
    draws = cells.obsm["spatial_sampled_draws"]
    assert draws.shape == (300, 3, 2)
    for i in range(3):
        np.testing.assert_array_equal(draws[known, i], truth[known])
    assert not np.isclose(draws[~known, 0], draws[~known, 1]).all()
    np.testing.assert_array_equal(cells.obsm["spatial"], truth)


def test_sections_with_and_without_known_cells_are_filled_in_apart(trained, tissue):
    model, _ = trained
    cells = tissue.copy()
    section = cells.obs["section"].to_numpy()
    hidden = (section == "section_1") | (np.arange(cells.n_obs) % 2 == 0)
    cells.obsm["spatial"][hidden] = np.nan
    model.predict(cells, **QUIET)
    model.sample(cells, n_steps=2, n_samples=2, **QUIET)
    for name in ("section_0", "section_1", "section_2"):
        members = section == name
        alone = cells[members].copy()
        model.predict(alone, **QUIET)
        model.sample(alone, n_steps=2, n_samples=2, **QUIET)
        for key in ("spatial_predicted", "spatial_sampled"):
            np.testing.assert_allclose(cells.obsm[key][members], alone.obsm[key], rtol=1e-5)
    for key in ("spatial_predicted", "spatial_sampled"):
        np.testing.assert_allclose(cells.obsm[key][section == "section_1"].mean(0), 0, atol=1e-6)


def test_the_reference_is_not_touched_and_its_order_does_not_matter(halves):
    model, query, reference, _ = halves
    before = reference.copy()
    placed = mapped(model, query, reference)
    np.testing.assert_array_equal(reference.obsm["spatial"], before.obsm["spatial"])
    assert set(reference.obsm) == {"spatial"}
    assert "alphastomics" not in reference.uns
    order = np.random.default_rng(0).permutation(reference.n_obs)
    np.testing.assert_allclose(mapped(model, query, reference[order].copy()), placed, rtol=1e-9)
    more = ad.concat([reference, query])  # cells without a position say nothing
    more.obsm["spatial"] = np.r_[reference.obsm["spatial"], np.full((query.n_obs, 2), np.nan)]
    more.obs_names = [f"reference {name}" for name in more.obs_names]
    assert np.isfinite(mapped(model, query, more)).all()


@pytest.mark.parametrize("method", ["predict", "sample"])
def test_cell_types_never_influence_placement(halves, method):
    model, query, reference, _ = halves
    cells = partly_placed(query, reference)
    other = cells.copy()
    other.obs["cell_type"] = np.random.default_rng(0).permutation(other.obs["cell_type"])
    placed = [mapped(model, each, None, method) for each in (cells, other)]
    np.testing.assert_array_equal(*placed)
    placed = [mapped(model, each, None, method, mode="expr_to_pos") for each in (cells, other)]
    np.testing.assert_array_equal(*placed)
