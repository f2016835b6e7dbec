import numpy as np
import pytest

import alphastomics as al


def test_one_row_per_key_and_section(tissue):
    cells = tissue.copy()
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"] @ [[0.0, -1], [1, 0]]
    cells.obsm["noise"] = np.random.default_rng(0).normal(size=(cells.n_obs, 2))
    table = al.tl.score(cells, ["spatial_predicted", "noise"], labels_key="cell_type")
    assert table.index.names == ["key", "section"]
    assert len(table) == 6
    perfect = table.loc["spatial_predicted"]
    np.testing.assert_allclose(perfect["distance_spearman"], 1)
    np.testing.assert_allclose(perfect[["procrustes_rmse", "rssd"]], 0, atol=1e-6)
    noise = table.loc["noise"]
    assert (noise["distance_spearman"].abs() < 0.1).all()
    assert (noise["contact_precision@10%"] < 0.2).all()
    assert "niche_cosine@20" in table


def test_cells_without_truth_are_left_out(tissue):
    cells = tissue.copy()
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"].copy()
    cells.obsm["spatial"][:100] = np.nan
    table = al.tl.score(cells)
    assert table["n_cells"].tolist() == [200, 300, 300]
    np.testing.assert_allclose(table["distance_spearman"], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "x"}, "'x' is not in adata.obsm.*model.predict"),
        ({"key": "spatial", "section_key": "x"}, "'x' is not in adata.obs"),
        ({"key": "spatial", "labels_key": "y"}, "'y' is not in adata.obs"),
    ],
)
def test_missing_keys_are_named(tissue, options, message):
    with pytest.raises(KeyError, match=message):
        al.tl.score(tissue, **options)


def test_nothing_or_too_little_to_score_is_named(tissue):
    cells = tissue.copy()
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"].copy()
    cells.obsm["spatial"][2:300] = np.nan
    with pytest.raises(ValueError, match="section 'section_0' has 2 cells with true coordinates"):
        al.tl.score(cells)
    cells.obsm["spatial"][:] = np.nan
    with pytest.raises(ValueError, match="NaN for every cell: nothing to score"):
        al.tl.score(cells)


def test_placement_baselines(tissue):
    atlas = tissue[tissue.obs["section"] != "section_2"].copy()
    cells = tissue[tissue.obs["section"] == "section_2"].copy()
    before = cells.copy()
    baselines = al.tl.placement_baselines(cells, atlas, labels_key="cell_type")
    expected = {"random", "shuffled within cell type"} | {
        f"{method} ({fit})"
        for method in ("knn1", "knn10", "knn50", "ridge", "mlp")
        for fit in ("pooled", "section_0", "section_1")
    }
    assert set(baselines.index) == expected
    assert abs(baselines.loc["random", "distance_spearman"]) < 0.1
    assert baselines.loc["ridge (section_0)", "distance_spearman"] > 0.2
    assert baselines.loc["shuffled within cell type", "spread"] == pytest.approx(1)
    assert list(cells.obsm) == list(before.obsm)
    assert list(atlas.uns) == ["units"]
    again = al.tl.placement_baselines(cells, atlas, labels_key="cell_type")
    np.testing.assert_array_equal(baselines, again)
    in_frame = al.tl.placement_baselines(cells, atlas, labels_key="cell_type", align=False)
    assert {"rmse", "rmse_units", "median_error_units"} <= set(in_frame) - set(baselines)
    assert (in_frame["rmse"] >= baselines["rigid_rmse"] - 1e-9).all()


@pytest.mark.parametrize("task", ["placement", "expression", "imputation"])
def test_names_of_version_0_1_warn(task):
    with pytest.warns(DeprecationWarning, match=f"now al.tl.{task}_baselines"):
        assert getattr(al.tl, f"{task}_floors") is getattr(al.tl, f"{task}_baselines")
    with pytest.raises(AttributeError, match="no attribute 'other_floors'"):
        al.tl.other_floors  # noqa: B018


def test_scores_in_the_frame_of_a_reference(tissue):
    cells = tissue[tissue.obs["section"] == "section_0"].copy()
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"] + [30.0, 40.0]
    aligned, in_frame = al.tl.score(cells), al.tl.score(cells, align=False)
    assert aligned["rigid_rmse_units"].iloc[0] == pytest.approx(0, abs=1e-6)
    assert in_frame["rmse_units"].iloc[0] == pytest.approx(50)
    assert in_frame["median_error_units"].iloc[0] == pytest.approx(50)
    radius = al.metrics.rms_radius(cells.obsm["spatial"])
    assert in_frame["rmse"].iloc[0] == pytest.approx(50 / radius)
    shared = aligned.columns.intersection(in_frame.columns)
    assert not any("rigid" in name or "procrustes" in name for name in in_frame)
    assert {"distance_spearman", "rssd", "n_cells"} <= set(shared)
    np.testing.assert_array_equal(aligned[shared], in_frame[shared])
