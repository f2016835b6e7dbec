import anndata as ad
import numpy as np
import pandas as pd
import pytest

import alphastomics as al

SCORES = [
    "energy_distance",
    "energy_distance_by_type",
    "density",
    "coverage",
    "nn_ratio",
    "nn_ks",
    "pair_correlation",
    "two_sample_auc",
    "distance_spearman",
    "procrustes_rmse",
    "niche_cosine@20",
    "n_cells",
]
OF_A_PLACE = ["distance_spearman", "procrustes_rmse", "niche_cosine@20"]
TURN = np.array([[0.0, 1], [-1, 0]])


def split(tissue, held_out):
    test = (tissue.obs["section"] == held_out).to_numpy()
    return tissue[~test].copy(), tissue[test].copy()


@pytest.fixture(scope="module")
def sections():
    """Two sections to learn from, and one to place."""
    tissue = al.datasets.simulate_tissue(n_sections=3, n_cells=160, n_genes=40)
    return split(tissue, "section_2")


@pytest.fixture(scope="module")
def small_sections():
    """The same with too few cells for a classifier, which takes most of the time."""
    tissue = al.datasets.simulate_tissue(n_sections=3, n_cells=40, n_genes=40)
    return split(tissue, "section_2")


@pytest.fixture(scope="module")
def baselines(sections):
    atlas, cells = sections
    return al.tl.draw_baselines(cells, atlas, labels_key="cell_type", n_similar=5)


def test_the_truth_scores_better_than_shuffled_places():
    tissue = al.datasets.simulate_tissue(n_sections=2, n_cells=150, n_genes=40)
    tissue.obsm["copy"] = tissue.obsm["spatial"] @ TURN * [1, -1] + 5
    tissue.obsm["shuffled"] = tissue.obsm["spatial"].copy()
    rng = np.random.default_rng(0)
    for cells in (slice(0, 150), slice(150, 300)):
        tissue.obsm["shuffled"][cells] = rng.permutation(tissue.obsm["spatial"][cells])
    before = list(tissue.obsm)
    table = al.tl.score_draws(tissue, ["copy", "shuffled"], labels_key="cell_type")
    assert list(table.columns) == SCORES
    assert table.index.names == ["key", "section"]
    assert len(table) == 4
    assert list(tissue.obsm) == before
    copy, shuffled = table.loc["copy"], table.loc["shuffled"]
    best = {"density": 1, "coverage": 1, "nn_ratio": 1, "two_sample_auc": 0.5}
    best |= {"distance_spearman": 1, "niche_cosine@20": 1, "n_cells": 150}
    for name in SCORES:
        np.testing.assert_allclose(copy[name], best.get(name, 0), atol=0.03)
    for name in ("energy_distance_by_type", "two_sample_auc", "procrustes_rmse"):
        assert (copy[name] < shuffled[name]).all()
    assert (shuffled["two_sample_auc"] > 0.6).all()
    assert (shuffled["nn_ks"] < 0.05).all()  # the places are kept


def test_scattered_cells_have_another_spacing_and_extent(small_sections):
    _, cells = small_sections
    cells = cells.copy()
    noise = np.random.default_rng(0).normal(size=(40, 2)) * 500
    cells.obsm["spatial_sampled"] = cells.obsm["spatial"] + noise
    row = al.tl.score_draws(cells).iloc[0]
    assert row["nn_ks"] > 0.1
    assert row["energy_distance"] > 0.01
    assert row["density"] < 1


def test_a_mirror_image_is_right_by_option_only(small_sections):
    _, cells = small_sections
    cells = cells.copy()
    cells.obsm["spatial_sampled"] = cells.obsm["spatial"] * [-1, 1]
    taken, kept = (
        al.tl.score_draws(cells, allow_reflection=option)["energy_distance"].item()
        for option in (True, False)
    )
    assert taken == pytest.approx(0, abs=1e-9)
    assert kept > 1e-3


def test_cells_without_truth_are_left_out_and_few_cells_have_no_area(sections):
    _, cells = sections
    cells = cells.copy()
    cells.obsm["spatial_sampled"] = cells.obsm["spatial"].copy()
    cells.obsm["spatial"][:120] = np.nan
    row = al.tl.score_draws(cells, section_key=None).iloc[0]
    assert row["n_cells"] == 40
    assert np.isnan(row["two_sample_auc"])
    assert row["coverage"] == 1


def test_log_normalized_values_score_as_the_counts_they_came_from(sections):
    _, cells = sections
    cells = cells.copy()
    cells.obsm["spatial_sampled"] = np.random.default_rng(0).permutation(cells.obsm["spatial"])
    counts = cells.X.toarray()
    total = counts.sum(1, keepdims=True)
    cells.layers["log"] = np.log1p(counts / total * np.median(total))
    by_counts = al.tl.score_draws(cells)
    by_log = al.tl.score_draws(cells, layer="log", values="lognorm")
    np.testing.assert_allclose(by_log, by_counts, atol=0.02)


def test_baselines_have_the_rows_and_columns_that_draws_are_read_against(baselines):
    names = ["section_0", "section_1"]
    similar = [f"similar cells ({name})" for name in names]
    real = [f"real section ({name})" for name in names]
    rows = [*similar, "shuffled within type", "halves of the truth", *real]
    assert baselines.index.tolist() == [(row, "section_2") for row in rows]
    assert list(baselines.columns) == SCORES
    of_other_cells = ["halves of the truth", *real]
    assert baselines.loc[of_other_cells, OF_A_PLACE].isna().all(axis=None)
    assert baselines.loc[[*similar, "shuffled within type"], OF_A_PLACE].notna().all(axis=None)
    kept = baselines.droplevel("section").drop(columns=OF_A_PLACE)
    assert kept.drop("halves of the truth").notna().all(axis=None)


def test_baselines_are_ordered_as_they_should_be(baselines):
    table = baselines.droplevel("section")
    assert (table.filter(like="similar", axis=0)["distance_spearman"] > 0.05).all()
    assert (table.filter(like="similar", axis=0)["nn_ratio"] < 0.5).all()  # stacked
    shuffled, halves = table.loc["shuffled within type"], table.loc["halves of the truth"]
    assert shuffled["energy_distance"] == pytest.approx(0, abs=1e-3)
    assert shuffled["energy_distance"] < halves["energy_distance"]
    assert shuffled["nn_ks"] == pytest.approx(0, abs=0.03)
    assert halves["nn_ratio"] == pytest.approx(1, abs=0.3)
    assert halves["n_cells"] == 80


def test_baselines_leave_their_input_and_follow_their_seed(small_sections):
    atlas, cells = small_sections
    before = [data.copy() for data in small_sections]
    first, again, other = (al.tl.draw_baselines(cells, atlas, seed=s) for s in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)
    for data, copy in zip(small_sections, before, strict=True):
        assert list(data.obsm) == list(copy.obsm)
        np.testing.assert_array_equal(data.obsm["spatial"], copy.obsm["spatial"])


def test_a_real_section_in_another_frame_is_turned_onto_the_truth(small_sections):
    _, cells = small_sections
    angle = np.deg2rad(100)  # a multiple of 5 degrees
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    atlas = cells.copy()
    atlas.obsm["spatial"] = cells.obsm["spatial"] @ turn * [1, -1] + 99
    for labels_key in ("cell_type", None):
        table = al.tl.draw_baselines(cells, atlas, labels_key=labels_key)
        row = table.loc[("real section (section_2)", "section_2")]
        assert row["energy_distance"] == pytest.approx(0, abs=1e-6)
        assert row["coverage"] == 1


def test_baselines_in_three_dimensions_have_no_frame_for_another_section():
    tissue = al.datasets.simulate_tissue(n_sections=2, n_cells=100, n_genes=20, n_dims=3)
    atlas, cells = split(tissue, "section_1")
    row = al.tl.draw_baselines(cells, atlas).loc[("real section (section_0)", "section_1")]
    assert row[["energy_distance", "density", "coverage"]].isna().all()
    assert row[["nn_ratio", "nn_ks", "pair_correlation", "two_sample_auc"]].notna().all()


def test_genes_are_matched_by_name(small_sections):
    atlas, cells = small_sections
    extra = ad.AnnData(np.ones((cells.n_obs, 1), np.float32), obs=cells.obs[[]])
    extra.var_names = ["gene_of_another_panel"]
    more = ad.concat([cells[:, ::-1].copy(), extra], axis=1, merge="first")
    more.obs, more.obsm["spatial"] = cells.obs, cells.obsm["spatial"]
    plain, table = (al.tl.draw_baselines(data, atlas) for data in (cells, more))
    pd.testing.assert_frame_equal(table, plain)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "x"}, KeyError, "'x' is not in adata.obsm.*model.sample"),
        ({"key": "spatial", "section_key": "x"}, KeyError, "'x' is not in adata.obs"),
        ({"key": "spatial", "labels_key": "y"}, KeyError, "'y' is not in adata.obs"),
        ({"key": "spatial", "layer": "z"}, KeyError, "'z' is not in adata.layers"),
        ({"key": "spatial", "values": "rpkm"}, ValueError, "values must be one of 'counts'"),
    ],
)
def test_bad_arguments_of_scores_are_named(sections, options, error, message):
    with pytest.raises(error, match=message):
        al.tl.score_draws(sections[1], **options)


def test_bad_arguments_of_baselines_are_named(sections):
    atlas, cells = sections
    with pytest.raises(ValueError, match="n_similar must be at least 1, found 0"):
        al.tl.draw_baselines(cells, atlas, n_similar=0)
    unlabeled = atlas.copy()
    del unlabeled.obs["cell_type"]
    with pytest.raises(KeyError, match="'cell_type' is not in atlas"):
        al.tl.draw_baselines(cells, unlabeled, labels_key="cell_type")
