"""The radius within which 90 % of the cells lie."""

import copy

import numpy as np
import pytest

import alphastomics as al
from alphastomics.model._calibration import conformal_quantile

QUIET = {"progress_bar": False}


def test_the_quantile_holds_its_share_and_sections_count_the_same():
    rng = np.random.default_rng(0)
    ratios = [rng.exponential(size=5000), rng.exponential(size=500)]
    assert conformal_quantile(ratios) == pytest.approx(np.log(10), rel=0.1)
    small, large = np.full(10, 1.0), np.full(1000, 2.0)
    assert conformal_quantile([small, large], 0.4) == 1.0
    assert conformal_quantile([np.arange(1.0, 10.0)], 0.9) == 9.0  # ceil(0.9 * 10)-th of nine


@pytest.fixture(scope="module")
def calibrated(placer):
    model, cells = placer
    model = copy.copy(model)
    model.calibrate(max_steps=40, lr=4e-3, batch_size=4, set_size=128, **QUIET)
    return model, cells


def test_the_radius_holds_most_cells_of_a_new_section(calibrated):
    model, cells = calibrated
    cells = cells.copy()
    for method in (model.predict, model.sample):
        method(cells, mode="expr_to_pos", key_added="out", **QUIET)
        true, placed = cells.obsm["spatial"], cells.obsm["out"]
        assert 0.75 < al.metrics.coverage(true, placed, cells.obs["out_radius"]) < 1


def test_known_cells_have_no_radius_and_units_follow(calibrated):
    model, cells = calibrated
    cells = cells.copy()
    cells.obsm["spatial"][:150] = np.nan
    model.predict(cells, **QUIET)
    radius = cells.obs["spatial_predicted_radius"].to_numpy()
    assert (radius[150:] == 0).all()
    assert (radius[:150] > 0).all()
    assert 0.2 < np.median(radius[:150]) / al.metrics.rms_radius(cells.obsm["spatial"][150:]) < 4


def test_calibration_leaves_the_model_as_it_was(calibrated, placer):
    for name, tensor in placer[0].module.state_dict().items():
        np.testing.assert_array_equal(tensor, calibrated[0].module.state_dict()[name])
    assert calibrated[0].training_record.steps == placer[0].training_record.steps
    assert calibrated[0].history is placer[0].history


def test_without_calibration_there_is_no_radius_and_an_old_one_goes(calibrated, placer):
    cells = calibrated[1].copy()
    calibrated[0].predict(cells, mode="expr_to_pos", **QUIET)
    assert "spatial_predicted_radius" in cells.obs
    placer[0].predict(cells, mode="expr_to_pos", **QUIET)
    assert "spatial_predicted_radius" not in cells.obs


def test_calibration_is_saved(calibrated, tmp_path):
    model, cells = calibrated
    model.save(tmp_path / "model")
    loaded = al.AlphaSTomics.load(tmp_path / "model")
    radii = []
    for one in (model, loaded):
        query = cells.copy()
        one.predict(query, mode="expr_to_pos", **QUIET)
        radii.append(query.obs["spatial_predicted_radius"].to_numpy())
    np.testing.assert_array_equal(*radii)


def test_validation_sections_calibrate(tissue):
    atlas = tissue.copy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    options = {"max_steps": 3, "set_size": 32, **QUIET}
    model.train(val_sections="section_1", **options)
    assert set(model.training_record.calibration) == {"framed", "unframed"}
    assert set(model.training_record.intervals) == {"genes", "genes_at_positions", "positions"}
    model.train(**options)  # now trained on that section: the old radius would be too small
    assert model.training_record.calibration == model.training_record.intervals == {}


def test_a_single_section_calibrates_placing_among_known_cells_only(tissue):
    atlas = tissue[tissue.obs["section"] == "section_0"].copy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    model.train(max_steps=3, set_size=32, **QUIET)
    model.calibrate(max_steps=3, set_size=32, **QUIET)
    assert set(model.training_record.calibration) == {"framed"}


def test_a_model_that_places_nothing_has_intervals_and_no_radius(tissue):
    atlas = tissue.copy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, training_mode="pos_to_expr", d_model=16, num_layers=1, d_ff=16)
    model.train(max_steps=1, set_size=32, **QUIET)
    model.calibrate(max_steps=1, set_size=32, **QUIET)
    assert model.training_record.calibration == {}
    assert set(model.training_record.intervals) == {"genes", "genes_at_positions", "positions"}


def test_the_mean_has_less_squared_error_than_the_arrangement_it_frames(placer):
    model, cells = placer
    cells = cells.copy()
    for estimate in ("mean", "arrangement"):
        model.predict(cells, mode="expr_to_pos", estimate=estimate, key_added=estimate, **QUIET)
    true = cells.obsm["spatial"]
    errors = [
        al.metrics.procrustes_rmse(true, cells.obsm[key], allow_scale=False)
        for key in ("mean", "arrangement")
    ]
    assert errors[0] < errors[1] + 0.02
    assert al.metrics.procrustes_rmse(cells.obsm["mean"], cells.obsm["arrangement"]) < 0.7
    with pytest.raises(ValueError, match="estimate must be one of 'arrangement', 'mean'"):
        model.predict(cells, mode="expr_to_pos", estimate="median")
