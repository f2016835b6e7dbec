"""90 % intervals of estimated expression, and the reliability of genes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import alphastomics as al
from alphastomics.model._calibration import Calibrator
from alphastomics.model._checkpoint import plain
from alphastomics.model._intervals import N_BINS, Intervals, Scored, quantile_of_next
from alphastomics.model._saved import DamagedError, read_payload

QUIET = {"progress_bar": False}
IMPUTED = "expression_imputed"
PREDICTED = "expression_predicted"


def fitted(estimate, truth, lowest=0.0):
    scored = Scored(np.asarray(estimate, np.float32), np.asarray(truth, np.float32))
    n_genes = scored.truth.shape[1]
    return Intervals.fit([scored], np.zeros(n_genes), np.ones(n_genes), lowest)


def counts_like(rng, n):
    """Estimates, and truth whose variance follows them; a dense and a sparse gene."""
    estimate = np.stack([rng.uniform(1, 4, n), rng.uniform(0.0, 0.3, n)], axis=1)
    truth = np.stack(
        [
            np.maximum(estimate[:, 0] + rng.normal(size=n) * estimate[:, 0] / 4, 0),
            np.where(rng.random(n) < estimate[:, 1], rng.uniform(0.5, 1, n), 0),
        ],
        axis=1,
    )
    return estimate.astype(np.float32), truth.astype(np.float32)


def test_the_quantile_is_that_of_the_next_value():
    assert quantile_of_next(np.arange(1.0, 10.0), 0.9) == 9.0  # ceil(0.9 * 10)-th of nine
    assert quantile_of_next(np.arange(1.0, 100.0), 0.9) == 90.0
    assert quantile_of_next(np.arange(3.0), 0.9) == 2.0


def test_bounds_of_known_errors():
    error = np.linspace(-1, 1, 99)
    found = fitted(np.full((99, 1), 5.0), 5 + error[:, None])
    lower, upper = found.bounds(np.array([[5.0], [7.0]], np.float32), 0.0)
    np.testing.assert_allclose(upper[:, 0], [5 + error[94], 7 + error[94]], atol=1e-4)
    np.testing.assert_allclose(lower[:, 0], [5 + error[4], 7 + error[4]], atol=1e-4)


def test_nine_of_ten_cells_with_an_estimate_of_any_size_are_within():
    rng = np.random.default_rng(0)
    found = fitted(*counts_like(rng, 3000))
    estimate, truth = counts_like(rng, 20_000)
    lower, upper = found.bounds(estimate, 0.0)
    assert (lower >= 0).all()
    assert (lower <= estimate).all()
    assert (estimate <= upper).all()
    within = (lower <= truth) & (truth <= upper)
    dense = estimate[:, 0]
    for low in (1, 2, 3):  # one width for all has .99 and .80
        assert 0.87 < within[(low < dense) & (dense < low + 1), 0].mean() < 0.93
    sparse = estimate[:, 1]
    # More than 90 % are zero where the estimate is low: no interval with 0 covers fewer.
    assert within[sparse < 0.05, 1].mean() == pytest.approx((truth[sparse < 0.05, 1] == 0).mean())
    assert 0.87 < within[sparse > 0.2, 1].mean() < 0.93


def test_a_gene_that_few_cells_measured_has_the_bounds_of_all_in_its_units():
    rng = np.random.default_rng(0)
    estimate = rng.normal(size=(1000, 3)) + 10
    truth = estimate + rng.normal(size=(1000, 3))
    truth[:, 2] = np.nan
    scored = Scored(estimate.astype(np.float32), truth.astype(np.float32))
    found = Intervals.fit([scored], np.full(3, 10.0), np.array([1.0, 1.0, 3.0]), -np.inf)
    assert found.upper[2] == pytest.approx(3 * found.upper[:2].mean(0), rel=0.15)
    assert found.reliability[:2] == pytest.approx(np.full(2, 0.5**0.5), abs=0.05)
    assert np.isnan(found.reliability[2])
    again = Intervals.from_json(found.to_json())
    for name, array in vars(found).items():
        np.testing.assert_array_equal(array, getattr(again, name))


def test_too_few_cells_give_no_intervals():
    assert fitted(np.ones((20, 2)), np.ones((20, 2))) is None


@pytest.fixture(scope="module")
def calibrated(trained):
    """A model that half of a new section calibrated, and the other half."""
    model, section = trained
    model = copy.copy(model)
    first = np.random.default_rng(1).permutation(section.n_obs) < section.n_obs // 2
    calibrator = Calibrator.of(model.module, model.config)
    calibrator.radius = False
    calibrator.add(model.module, model._reader.query(section[first].copy()))
    intervals = calibrator.intervals()
    model.training_record = replace(model.training_record, intervals=intervals)
    return model, section[~first].copy()


def imputed_in_folds(model, cells):
    """Truth, lower and upper bounds of all genes, and what reliability is expected."""
    truth, lower, upper, expected = [], [], [], []
    counts = torch.from_numpy(cells.X.toarray()).float()
    for fold in np.array_split(np.arange(cells.n_vars), 4):
        genes = list(cells.var_names[fold])
        model.impute(cells, genes=genes, **QUIET)
        visible = torch.from_numpy(~np.isin(np.arange(cells.n_vars), fold)).expand_as(counts)
        truth.append(model.module.expression_transform.log(counts, visible)[:, fold].numpy())
        lower.append(cells.obsm[f"{IMPUTED}_lower"][genes].to_numpy())
        upper.append(cells.obsm[f"{IMPUTED}_upper"][genes].to_numpy())
        expected.append(cells.uns["alphastomics"][IMPUTED]["reliability"])
        estimate = cells.obsm[IMPUTED].to_numpy()
        assert (lower[-1] <= estimate).all()
        assert (estimate <= upper[-1]).all()
    return *(np.concatenate(v, axis=1) for v in (truth, lower, upper)), np.concatenate(expected)


@pytest.mark.parametrize("placed", [True, False])
def test_imputed_genes_of_new_cells_are_within(calibrated, placed):
    model, cells = calibrated
    cells = cells.copy()
    if not placed:
        del cells.obsm["spatial"]
    truth, lower, upper, _ = imputed_in_folds(model, cells)
    within = (lower - 1e-4 <= truth) & (truth <= upper + 1e-4)
    assert 0.87 < within.mean() < 0.94
    assert within.mean(0).min() > 0.75
    assert np.median(upper - lower) < 0.9 * np.median(np.ptp(truth, axis=0))


def test_expression_at_positions_is_within_and_known_values_have_no_width(calibrated, trained):
    model, cells = calibrated
    section = trained[1].copy()
    hidden = section.obs_names.isin(cells.obs_names)
    section.obs["expression_known"] = ~hidden
    model.predict(section, **QUIET)
    counts = torch.from_numpy(section.X.toarray()).float()
    everything = torch.ones_like(counts, dtype=torch.bool)
    truth = model.module.expression_transform.log(counts, everything).numpy()
    lower, upper = (section.layers[f"{PREDICTED}_{side}"] for side in ("lower", "upper"))
    within = (lower - 1e-4 <= truth) & (truth <= upper + 1e-4)
    assert 0.85 < within[hidden].mean() < 0.95
    for bound in (lower, upper):
        np.testing.assert_array_equal(bound[~hidden], section.layers[PREDICTED][~hidden])
    reliability = section.var[f"{PREDICTED}_reliability"].to_numpy()
    realized = al.metrics.pcc(truth[hidden], section.layers[PREDICTED][hidden])
    assert np.corrcoef(reliability, realized)[0, 1] > 0.5


def test_bounds_of_counts_are_whole_and_hold_the_same_cells(calibrated):
    model, cells = calibrated
    logged, counts = cells.copy(), cells.copy()
    genes = list(cells.var_names[:8])
    model.impute(logged, genes=genes, **QUIET)
    model.impute(counts, genes=genes, output="counts", **QUIET)
    lower, upper = (counts.obsm[f"{IMPUTED}_{side}"].to_numpy() for side in ("lower", "upper"))
    assert (upper == np.rint(upper)).all()
    true = cells[:, genes].X.toarray()
    within = (lower <= true) & (true <= upper)
    assert 0.85 < within.mean() < 0.95
    assert (lower <= upper).all()
    assert ((logged.obsm[f"{IMPUTED}_upper"].to_numpy() == 0) <= (upper == 0)).all()


def test_the_order_of_cells_changes_nothing(calibrated, trained):
    model, cells = calibrated
    order = np.random.default_rng(0).permutation(cells.n_obs)
    found = []
    for one in (cells.copy(), cells[order].copy()):
        model.impute(one, genes=["gene_3", "gene_1"], **QUIET)
        found.append(one.obsm[f"{IMPUTED}_upper"].loc[cells.obs_names].to_numpy())
    np.testing.assert_allclose(*found, atol=1e-4)
    intervals = []
    for one in (cells, cells[order].copy()):
        calibrator = Calibrator.of(trained[0].module, trained[0].config)
        calibrator.radius = False
        calibrator.add(calibrator.module, trained[0]._reader.query(one))
        intervals.append(calibrator.intervals()["positions"]["reliability"])
    np.testing.assert_allclose(*intervals, atol=1e-3)


def test_intervals_are_saved(calibrated, tmp_path):
    model, cells = calibrated
    model.save(tmp_path / "model")
    bounds = []
    for one in (model, al.AlphaSTomics.load(tmp_path / "model")):
        query = cells.copy()
        one.impute(query, genes=["gene_0"], **QUIET)
        bounds.append(query.obsm[f"{IMPUTED}_lower"].to_numpy())
    np.testing.assert_array_equal(*bounds)


def test_saved_intervals_are_checked_and_earlier_models_have_none(calibrated):
    model = calibrated[0]
    payload = plain(model._payload(model.training_record, {}))
    intervals = read_payload(payload).training.intervals
    assert all(len(row) == N_BINS for row in intervals["genes"].upper)
    short = copy.deepcopy(payload)
    short["training"]["intervals"]["genes"]["upper"].pop()
    with pytest.raises(DamagedError, match="intervals of 'genes' have upper of 39 genes, not 40"):
        read_payload(short)
    falling = copy.deepcopy(payload)
    falling["training"]["intervals"]["positions"]["edges"][0] = [4.0, 3.0, 2.0, 1.0]
    with pytest.raises(DamagedError, match=r"positions.edges: edges of bins that do not rise"):
        read_payload(falling)
    del payload["training"]["intervals"]
    assert read_payload(payload).training.intervals == {}


def test_without_calibration_nothing_more_is_written_and_old_bounds_go(calibrated, trained):
    cells = calibrated[1].copy()
    cells.obs["expression_known"] = np.arange(cells.n_obs) % 2 == 0
    calibrated[0].impute(cells, genes=["gene_0"], **QUIET)
    calibrated[0].predict(cells, **QUIET)
    for model, options in ((trained[0], {}), (calibrated[0], {"draw": True})):
        again = cells.copy()
        model.impute(again, genes=["gene_0"], **options, **QUIET)
        assert set(again.obsm) == {"spatial", IMPUTED}
        assert "interval" not in again.uns["alphastomics"][IMPUTED]
    trained[0].predict(cells, **QUIET)
    assert set(cells.layers) == {PREDICTED}
    assert f"{PREDICTED}_reliability" not in cells.var


def test_what_the_user_has_there_stays(calibrated):
    model, cells = calibrated
    cells = cells.copy()
    cells.obsm[f"{IMPUTED}_lower"] = np.ones((cells.n_obs, 1))
    cells.var[f"{PREDICTED}_reliability"] = 1.0
    cells.obs["expression_known"] = np.arange(cells.n_obs) % 2 == 0
    with pytest.raises(ValueError, match=r"_lower'\] is there already.*key_added="):
        model.impute(cells, genes=["gene_0"], **QUIET)
    with pytest.raises(ValueError, match=r"var\['.*_reliability'\] is there already.*layer_added="):
        model.predict(cells, **QUIET)
    assert IMPUTED not in cells.obsm
    assert not cells.layers
    assert (cells.var[f"{PREDICTED}_reliability"] == 1).all()


def test_expression_at_new_positions_has_bounds_among_measured_cells_only(calibrated, trained):
    model, cells = calibrated
    positions = cells.obsm["spatial"][:20]
    found = model.predict_expression(positions, reference=cells[20:].copy(), **QUIET)
    assert set(found.layers) == {f"{PREDICTED}_lower", f"{PREDICTED}_upper"}
    assert (found.layers[f"{PREDICTED}_lower"] <= found.X).all()
    assert found.var[f"{PREDICTED}_reliability"].notna().all()
    assert not model.predict_expression(positions, **QUIET).layers
    drawn = model.predict_expression(positions, reference=cells[20:].copy(), draw=True, **QUIET)
    assert not drawn.layers


@pytest.mark.filterwarnings("ignore:.*have no expression:UserWarning")
def test_a_single_gene_and_few_cells_are_calibrated_or_left_out(tissue):
    atlas = tissue[:, :1].copy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, training_mode="pos_to_expr", d_model=16, num_layers=1, d_ff=16)
    model.train(max_steps=1, set_size=32, **QUIET)
    model.calibrate(max_steps=1, set_size=32, **QUIET)
    assert set(model.training_record.intervals) == {"genes_at_positions", "positions"}
