"""Preprocessing in memory."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import alphastomics as al


def sections_of(tissue):
    return {
        name: tissue[tissue.obs["section"] == name].copy()
        for name in tissue.obs["section"].cat.categories
    }


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        (al.pp.filter_cells, {"min_genes": 20}),
        (al.pp.intersect_genes, {"genes": ["gene_3", "gene_1"]}),
        (al.pp.highly_variable_genes, {"n_top_genes": 5}),
        (al.pp.normalize_positions, {"factor": 2.0}),
        (al.pp.split_sections, {"test_sections": ["section_1"]}),
    ],
)
def test_verbs_change_in_place_or_return_a_copy(tissue, verb, options):
    given = tissue[:600].copy()
    changed = given.copy()
    assert verb(changed, **options) is None
    copied = verb(given, **options, copy=True)
    assert given.obs.equals(tissue[:600].obs)
    assert list(given.var) == []
    assert np.array_equal(given.obsm["spatial"], tissue[:600].obsm["spatial"])
    assert copied.obs.equals(changed.obs)
    assert copied.var.equals(changed.var)
    assert np.array_equal(copied.obsm["spatial"], changed.obsm["spatial"])
    own = tissue[changed.obs_names, changed.var_names].X
    assert (own != changed.X).nnz == 0, "values are never normalised"


def test_filter_cells_keeps_what_scanpy_keeps_and_unmeasured_cells(tissue):
    kept = al.pp.filter_cells(tissue, min_genes=22, min_counts=90, copy=True)
    other = tissue.copy()
    sc.pp.filter_cells(other, min_genes=22)
    sc.pp.filter_cells(other, min_counts=90)
    assert 0 < kept.n_obs < tissue.n_obs
    assert list(kept.obs_names) == list(other.obs_names)
    unmeasured = tissue.copy()
    unmeasured.obs["expression_known"] = np.arange(tissue.n_obs) % 2 == 0
    kept = al.pp.filter_cells(unmeasured, min_genes=22, copy=True)
    assert (~kept.obs["expression_known"]).sum() == tissue.n_obs // 2


def test_a_section_that_would_lose_all_cells_is_named(tissue):
    with pytest.raises(
        ValueError, match=r"section 'section_0' keeps none of its 300 cells.*min_genes"
    ):
        al.pp.filter_cells(tissue, min_genes=41, copy=True)


def test_panels_are_joined_by_name(tissue):
    one, two, three = sections_of(tissue).values()
    panels = {"a": one[:, 5:], "b": two[:, ::-1], "c": three[:, :30]}
    common = al.pp.intersect_genes(panels)
    assert list(common.var_names) == [f"gene_{i}" for i in range(5, 30)]
    assert "measured" not in common.varm
    union = al.pp.intersect_genes(panels, how="union")
    assert union.n_vars == 40
    assert union.varm["measured"].sum().to_dict() == {"a": 35, "b": 40, "c": 30}
    for atlas in (common, union):
        shared = atlas.var_names[5:10]
        assert (atlas[:, shared].X != tissue[atlas.obs_names, shared].X).nnz == 0
    assert union[union.obs["section"] == "a", "gene_0"].X.nnz == 0
    listed = al.pp.intersect_genes(panels, genes=["gene_39", "gene_7"])
    assert list(listed.var_names) == ["gene_39", "gene_7"]
    assert listed.varm["measured"].loc["gene_39"].to_dict() == {"a": True, "b": True, "c": False}
    al.pp.intersect_genes(union)
    assert set(union.var_names) == set(common.var_names)
    assert "measured" not in union.varm


def test_sections_without_a_common_gene_are_an_error(tissue):
    one, two, _ = sections_of(tissue).values()
    with pytest.raises(ValueError, match="no gene in common"):
        al.pp.intersect_genes([one[:, :5], two[:, 5:]])
    with pytest.raises(ValueError, match=r"names 1 that no section measures, 'Gad1'"):
        al.pp.intersect_genes([one, two], genes=["gene_1", "Gad1"])
    with pytest.raises(ValueError, match="'section_0' comes twice"):
        al.pp.intersect_genes([one, one.copy()])


def test_sections_without_coordinates_get_none(tissue):
    one, two, _ = sections_of(tissue).values()
    del two.obsm["spatial"]
    one.layers["raw"] = one.X.toarray()
    two.layers["raw"] = two.X.toarray()
    joined = al.pp.intersect_genes([one[:, 3:].copy(), two], how="union")
    assert np.array_equal(joined.obsm["spatial"][:300], one.obsm["spatial"])
    assert np.isnan(joined.obsm["spatial"][300:]).all()
    assert (joined.layers["raw"] != joined.X).nnz == 0
    del one.layers["raw"]
    with pytest.raises(ValueError, match="section 'section_0' has no layer 'raw'"):
        al.pp.intersect_genes([one, two])


def test_highly_variable_genes_are_those_of_scanpy_with_a_batch_key(tissue):
    atlas = al.pp.highly_variable_genes(tissue, n_top_genes=12, copy=True)
    other = sc.experimental.pp.highly_variable_genes(
        tissue.copy(), n_top_genes=12, batch_key="section", inplace=False
    )
    assert atlas.var["highly_variable"].equals(other["highly_variable"])
    assert np.array_equal(atlas.var["highly_variable_nbatches"], other["highly_variable_nbatches"])
    assert np.allclose(
        atlas.var["highly_variable_rank"], other["highly_variable_rank"], equal_nan=True
    )


def test_held_out_sections_have_no_say_in_the_genes(tissue):
    atlas = tissue.copy()
    al.pp.split_sections(atlas, test_sections=["section_2"])
    al.pp.highly_variable_genes(atlas, n_top_genes=12, key_added="chosen")
    altered = atlas.copy()
    altered.X[600:] = 0
    altered.X.eliminate_zeros()
    al.pp.highly_variable_genes(altered, n_top_genes=12, key_added="chosen")
    assert altered.var["chosen"].equals(atlas.var["chosen"])
    al.pp.highly_variable_genes(
        altered, n_top_genes=12, key_added="named", sections=["section_0", "section_1"]
    )
    assert altered.var["named"].equals(atlas.var["chosen"])


def test_a_gene_that_a_section_lacks_is_ranked_by_the_others(tissue):
    best = al.pp.highly_variable_genes(tissue, n_top_genes=40, copy=True)
    first = best.var["highly_variable_rank"].idxmin()
    atlas = tissue.copy()
    atlas.varm["measured"] = pd.DataFrame(
        {f"section_{i}": atlas.var_names != (first if i == 0 else "") for i in range(3)},
        index=atlas.var_names,
    )
    al.pp.highly_variable_genes(atlas, n_top_genes=5)
    assert atlas.var.loc[first, "highly_variable_nbatches"] == 2
    assert atlas.var.loc[first, "highly_variable"]


def test_counts_are_asked_for(tissue):
    logged = tissue.copy()
    sc.pp.log1p(logged)
    with pytest.raises(ValueError, match="values='counts' expects whole numbers"):
        al.pp.highly_variable_genes(logged, n_top_genes=5)
    al.pp.highly_variable_genes(logged, n_top_genes=5, values="lognorm")
    al.pp.highly_variable_genes(tissue.copy(), n_top_genes=5)
    expected = al.pp.highly_variable_genes(tissue, n_top_genes=5, copy=True)
    assert logged.var["highly_variable"].equals(expected.var["highly_variable"])


def test_positions_keep_their_aspect(tissue):
    cells = tissue.copy()
    cells.obsm["spatial"][::7] = np.nan
    al.pp.normalize_positions(cells, factor=0.5, units="mm", center=True, key_added="placed")
    known = np.arange(900) % 7 > 0
    placed, given = cells.obsm["placed"], tissue.obsm["spatial"]
    assert np.isnan(placed[~known]).all()
    for start in (0, 300, 600):
        section = np.flatnonzero(known[start : start + 300]) + start
        assert np.allclose(placed[section].mean(0), 0)
        assert np.allclose(np.diff(placed[section], axis=0), np.diff(given[section], axis=0) / 2)
    assert cells.uns["units"] == "mm"
    with pytest.raises(ValueError, match="factor must be a number above 0 or 'visium', found 0"):
        al.pp.normalize_positions(cells, factor=0)


def test_splits_are_of_whole_sections_and_seeded():
    atlas = al.datasets.simulate_tissue(n_sections=10, n_cells=4)
    splits = {}
    for seed in range(4):
        al.pp.split_sections(atlas, test_ratio=0.2, val_ratio=0.1, seed=seed)
        table = atlas.obs.groupby("section", observed=True)["split"].unique()
        assert (table.str.len() == 1).all()
        counts = table.str[0].value_counts()
        assert counts.to_dict() == {"train": 7, "test": 2, "val": 1}
        splits[seed] = tuple(atlas.obs["split"])
    assert len(set(splits.values())) > 1
    al.pp.split_sections(atlas, test_ratio=0.2, val_ratio=0.1, seed=3)
    assert tuple(atlas.obs["split"]) == splits[3]


def test_splits_that_cannot_be_are_errors(tissue):
    for options, message in (
        ({"test_sections": ["section_9"]}, "test_sections names 'section_9'"),
        ({"val_sections": ["section_1"], "val_ratio": 0.5}, "both given"),
        ({"val_sections": ["section_1"], "test_sections": ["section_1"]}, "in both"),
        ({"test_sections": [f"section_{i}" for i in range(3)]}, "no section with coordinates"),
        ({"test_ratio": 1.5}, "test_ratio must be at least 0 and below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            al.pp.split_sections(tissue, **options, copy=True)


def test_cells_without_coordinates_are_trained_on(tissue):
    atlas = tissue.copy()
    atlas.obsm["spatial"][:300] = np.nan
    for seed in range(3):
        al.pp.split_sections(atlas, test_ratio=0.4, seed=seed)
        assert (atlas.obs["split"][:300] == "train").all()
    with pytest.raises(ValueError, match="no section with coordinates is left"):
        al.pp.split_sections(atlas, test_sections=["section_1", "section_2"])


def test_layers_and_keys_are_named_in_errors(tissue):
    with pytest.raises(KeyError, match="layer 'raw' is not in"):
        al.pp.filter_cells(tissue, min_genes=1, layer="raw", copy=True)
    with pytest.raises(KeyError, match="section_key 'slide' is not in"):
        al.pp.split_sections(tissue, section_key="slide", copy=True)
    with pytest.raises(KeyError, match="spatial_key 'xy' is not in"):
        al.pp.normalize_positions(tissue, spatial_key="xy", copy=True)
    counted = ad.AnnData(tissue.X * 0, obs=tissue.obs, layers={"raw": tissue.X})
    al.pp.filter_cells(counted, min_genes=1, layer="raw")
    assert counted.n_obs == tissue.n_obs
