"""Scores, neighbors, preprocessing and figures of odd input: one error of ours, or a result."""

import tomllib
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import alphastomics as al

mpl.use("Agg")
ROOT = Path(__file__).parents[2]
# What readers of a message look for: an argument, or where the values are.
NAMED = ("adata", "key", "n_neighbors", "section", "spatial_key", "labels", "seed", "cells", "dims")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def placed(small_tissue):
    """Three sections of 60 cells, placed with some error."""
    cells = small_tissue[np.arange(600) % 200 < 60].copy()
    noise = np.random.default_rng(0).normal(size=(180, 2)) * 20
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"] + noise
    return cells


@pytest.fixture
def parts(small_tissue):
    """Two sections of 30 cells, to be joined."""
    return {
        name: small_tissue[small_tissue.obs["section"] == f"section_{i}"][:30].copy()
        for i, name in enumerate("ab")
    }


@pytest.fixture
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def with_missing(column, cells):
    values = column.astype(object).copy()
    values.iloc[cells] = np.nan
    return values


# --- sections: text, integers, floats and categories everywhere

SPELLED = {
    "text": lambda s: s.astype(str).astype(object),
    "string": lambda s: s.astype(str).astype("string"),
    "categories": lambda s: s.astype("category"),
    "integers": lambda s: s.cat.codes.astype(int),
    "floats": lambda s: s.cat.codes.astype(float),
    "categories of integers": lambda s: s.cat.codes.astype("category"),
}
SECTION_CALLS = {
    "A350-A352 neighbors": lambda a, n: al.tl.neighbors(a),
    "superpose": lambda a, n: al.tl.superpose(a),
    "score": lambda a, n: al.tl.score(a),
    "filter_cells": lambda a, n: al.pp.filter_cells(a, min_genes=1),
    "normalize_positions": lambda a, n: al.pp.normalize_positions(a, center=True),
    "A382 hvg": lambda a, n: al.pp.highly_variable_genes(a, n_top_genes=5, sections=n),
    "A382 hvg list": lambda a, n: al.pp.highly_variable_genes(a, n_top_genes=5, sections=[n]),
    "A395 A399 split": lambda a, n: al.pp.split_sections(a, test_sections=n),
    "A395 A399 split list": lambda a, n: al.pp.split_sections(a, test_sections=[n]),
    "displacement": lambda a, n: al.pl.displacement(a, section=n),
    "expression": lambda a, n: al.pl.expression(a, "gene_0", None, section=n),
    "positions": lambda a, n: al.pl.positions(a),
}


@pytest.mark.parametrize("spelled", SPELLED)
@pytest.mark.parametrize("call", SECTION_CALLS)
def test_sections_are_text_or_numbers(placed, call, spelled):
    placed.obs["section"] = SPELLED[spelled](placed.obs["section"])
    name = placed.obs["section"].iloc[-1]
    for given_name in (name, str(name).removesuffix(".0")):
        SECTION_CALLS[call](placed.copy(), given_name)


def test_numbers_of_sections_make_the_same_split(placed):
    text = al.pp.split_sections(placed, test_sections="section_2", copy=True)
    for kind in (int, float, "category"):
        placed.obs["number"] = placed.obs["section"].cat.codes.astype(kind)
        number = al.pp.split_sections(placed, test_sections=2, section_key="number", copy=True)
        assert (number.obs["split"] == text.obs["split"]).all()


@pytest.mark.parametrize(
    "call",
    [pytest.param(f, id=f"A326 {n}" if n == "score" else n) for n, f in SECTION_CALLS.items()],
)
def test_cells_without_a_section_are_refused_by_all(placed, unchanged, call):
    placed.obs["section"] = with_missing(placed.obs["section"], [3, 4])
    with unchanged(placed), pytest.raises(ValueError, match="missing for 2 cells: name their sec"):
        call(placed, "section_2")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda a: al.pp.highly_variable_genes(a, n_top_genes=3, sections="s"),
            "sections names 's', but the sections are 'section_0'",
            id="A382",
        ),
        pytest.param(
            lambda a: al.pp.split_sections(a, test_sections="s"),
            "test_sections names 's', but the sections are 'section_0'",
            id="A395",
        ),
        pytest.param(
            lambda a: al.pp.split_sections(a, val_sections=[1]),
            "val_sections names '1', but the sections are",
            id="A399",
        ),
        (lambda a: al.pl.displacement(a, section=9), "section names '9', but the sections"),
        (lambda a: al.pl.displacement(a, section=["section_0", "section_1"]), "one at a time"),
        (lambda a: al.pp.highly_variable_genes(a, sections=[]), "sections is empty"),
    ],
)
def test_unknown_sections_are_named_whole(placed, unchanged, call, message):
    with unchanged(placed), pytest.raises(ValueError, match=message):
        call(placed)


@pytest.mark.parametrize("names", [[None], True, {"section_0": 1}, [["section_0"]], b"section_0"])
def test_what_is_no_name_is_refused(placed, names):
    with pytest.raises(TypeError, match="test_sections must be a name or a list of names"):
        al.pp.split_sections(placed, test_sections=names)


@pytest.mark.parametrize("call", [al.tl.neighbors, al.tl.superpose, al.pl.positions])
def test_a_misspelled_section_key_is_not_one_section(placed, call):
    with pytest.raises(KeyError, match=r"section_key 'sectoin' is not in adata.obs"):
        call(placed, section_key="sectoin")
    del placed.obs["section"]
    call(placed)


def test_a386_all_sections_held_out(placed, unchanged):
    placed.obs["split"] = "test"
    with unchanged(placed), pytest.raises(ValueError, match=r"holds out all 3 sect.*sections="):
        al.pp.highly_variable_genes(placed, n_top_genes=5)


# --- neighbors


@pytest.mark.usefixtures("silent")
def test_a351_neighbors_says_nothing(placed):
    al.tl.neighbors(placed)
    assert placed.uns["spatial_predicted_neighbors"]["params"]["n_neighbors"] == 6


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"set_diag": True},
        {"percentile": 50.0},
        {"transform": "cosine"},
        {"radius": 60.0},
        {"radius": (20.0, 60.0)},
        {"delaunay": True},
    ],
)
def test_neighbors_are_those_of_squidpy(placed, options):
    import squidpy as sq

    al.tl.neighbors(placed, "spatial", key_added="ours", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sq.gr.spatial_neighbors(
            placed, library_key="section", coord_type="generic", key_added="theirs", **options
        )
    for kind in ("connectivities", "distances"):
        ours, theirs = (placed.obsp[f"{name}_{kind}"] for name in ("ours", "theirs"))
        assert abs(ours - theirs).max() < 1e-6
        assert ours.nnz == theirs.nnz


def test_a348_a_tiny_section_does_not_break_the_others(placed):
    full = al.tl.neighbors(placed, copy=True).obsp["spatial_predicted_connectivities"]
    section = placed.obs["section"].astype(str).to_numpy(dtype=object)
    section[[0, 1]], section[60] = "pair", "alone"
    placed.obs["section"] = section
    with pytest.warns(UserWarning, match=r"2 sections have .*'pair' of 2 cells, 'alone' of 1"):
        al.tl.neighbors(placed)
    graph = placed.obsp["spatial_predicted_connectivities"]
    assert graph[0].indices.tolist() == [1]
    assert graph[60].nnz == 0
    assert (graph[120:] != full[120:]).nnz == 0
    assert (np.diff(graph[2:60].indptr) == 6).all()


def test_a347_more_neighbors_than_cells(placed):
    with pytest.warns(UserWarning, match="3 sections have no more cells .* n_neighbors=500"):
        al.tl.neighbors(placed, n_neighbors=500)
    assert (np.diff(placed.obsp["spatial_predicted_connectivities"].indptr) == 59).all()


def test_a349_cells_without_a_position_have_no_neighbors(placed, unchanged):
    placed.obsm["spatial_predicted"][[0, 70]] = np.nan
    with pytest.warns(UserWarning, match=r"2 cells have no position in adata.obsm\['spatial_pred"):
        al.tl.neighbors(placed)
    graph = placed.obsp["spatial_predicted_connectivities"]
    assert graph[[0, 70]].nnz == 0
    assert graph[:, [0, 70]].nnz == 0
    placed.obsm["x"] = np.full((180, 2), np.nan)
    with unchanged(placed), pytest.raises(ValueError, match=r"adata.obsm\['x'\] is NaN for every"):
        al.tl.neighbors(placed, "x")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"n_neighbors": 0}, ValueError, "n_neighbors must be at least 1", id="A346"),
        ({"n_neighbors": 2.5}, TypeError, "n_neighbors must be a whole number, found 2.5"),
        ({"n_neighbors": "6"}, TypeError, "n_neighbors must be a whole number"),
        ({"n_neighs": 5}, TypeError, "no option 'n_neighs': options are n_neighbors and"),
        ({"transform": "x"}, ValueError, "squidpy makes no graph of section 'section_0'"),
        ({"key_added": "a/b"}, ValueError, "key_added='a/b'"),
        ({"key": ["spatial"]}, TypeError, "key must be a name in adata.obsm"),
    ],
)
def test_options_of_neighbors_are_named(placed, unchanged, options, error, message):
    with unchanged(placed), pytest.raises(error, match=message):
        al.tl.neighbors(placed, **options)


# --- scores and baselines


def test_a327_cells_without_a_label_are_left_out(placed):
    whole = al.tl.score(placed, labels_key="cell_type")
    placed.obs["half"] = with_missing(placed.obs["cell_type"], np.arange(0, 180, 2))
    half = al.tl.score(placed, labels_key="half")
    assert half.drop(columns="niche_cosine@20").equals(whole.drop(columns="niche_cosine@20"))
    expected = al.tl.score(placed[1::2].copy(), labels_key="cell_type")["niche_cosine@20"]
    np.testing.assert_allclose(half["niche_cosine@20"], expected)
    placed.obs["none"] = np.nan
    assert al.tl.score(placed, labels_key="none")["niche_cosine@20"].isna().all()
    by_type = ["energy_distance_by_type", "niche_cosine@20"]
    few = placed[:120].copy()
    draws = al.tl.score_draws(few, "spatial_predicted", labels_key="half")
    assert draws[by_type[1]].notna().all()
    assert al.tl.score_draws(few, "spatial_predicted", labels_key="none")[by_type].isna().all(None)


def test_cells_that_were_not_placed_are_left_out_of_scores(placed, unchanged):
    expected = al.tl.score(placed[5:].copy())
    placed.obsm["spatial_predicted"][:5] = np.nan
    with pytest.warns(UserWarning, match=r"5 of 60 cells of section 'section_0' have no position"):
        found = al.tl.score(placed)
    assert found.equals(expected)
    placed.obsm["spatial_predicted"][:58] = np.nan
    with unchanged(placed), pytest.raises(ValueError, match="a position of 2 of 60 cells"):
        al.tl.score(placed)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(lambda a: al.tl.score(a, []), ValueError, "key is empty", id="A328"),
        (lambda a: al.tl.score_draws(a, []), ValueError, "key is empty"),
        (lambda a: al.tl.score(a, seed=-1), ValueError, "seed must be at least 0, found -1"),
        (lambda a: al.tl.score(a, seed=0.5), TypeError, "seed must be a whole number"),
        (lambda a: al.tl.draw_baselines(a, a, n_similar=2.5), TypeError, "n_similar must be a wh"),
        (
            lambda a: al.tl.score(a, "flat"),
            ValueError,
            r"'flat'\] has shape \(180, 2, 2\)",
        ),
        (lambda a: al.tl.score(a, "text"), ValueError, r"obsm\['text'\] must be an array of numb"),
        (lambda a: al.tl.score(a, "part"), ValueError, r"obsm\['part'\] holds rows with some"),
        (lambda a: al.tl.score(a, "inf"), ValueError, r"obsm\['inf'\] holds infinite"),
        (lambda a: al.tl.score(a, "wide"), ValueError, "must be of the same dimension"),
        (lambda a: al.tl.superpose(a, "wide"), ValueError, "must be of the same dimension"),
        (lambda a: al.pl.positions(a, "wide"), ValueError, "must be of the same dimension"),
        (lambda a: al.tl.score(a, spatial_key="point"), ValueError, "'point'.* is the same for"),
    ],
)
def test_what_cannot_be_scored_is_named(placed, unchanged, call, error, message):
    placed.uns = {}
    placed.obsm["text"] = np.full((180, 2), "x")
    placed.obsm["part"] = np.where(np.arange(2) == 0, np.nan, placed.obsm["spatial"])
    placed.obsm["inf"] = placed.obsm["spatial"] * np.inf
    placed.obsm["wide"] = np.ones((180, 3))
    placed.obsm["point"] = np.ones((180, 2))
    placed.obsm["flat"] = np.ones((180, 2, 2))
    with unchanged(placed), pytest.raises(error, match=message):
        call(placed)


NOT_ANNDATA = {
    "A331": lambda x: al.tl.score(x),
    "score_draws": lambda x: al.tl.score_draws(x),
    "superpose": lambda x: al.tl.superpose(x),
    "neighbors": lambda x: al.tl.neighbors(x),
    "uncertainty": lambda x: al.tl.uncertainty(x),
    "filter_cells": lambda x: al.pp.filter_cells(x),
    "highly_variable_genes": lambda x: al.pp.highly_variable_genes(x),
    "normalize_positions": lambda x: al.pp.normalize_positions(x),
    "split_sections": lambda x: al.pp.split_sections(x),
    "pl.positions": lambda x: al.pl.positions(x),
    "pl.displacement": lambda x: al.pl.displacement(x),
    "pl.uncertainty": lambda x: al.pl.uncertainty(x),
    "pl.calibration": lambda x: al.pl.calibration(x),
    "pl.expression": lambda x: al.pl.expression(x, "gene_0"),
    "pl.reliability": lambda x: al.pl.reliability(x),
}


@pytest.mark.parametrize("name", NOT_ANNDATA)
def test_what_is_no_anndata_is_named(name):
    for value in ("cells.h5ad", None, np.ones((3, 2))):
        with pytest.raises(TypeError, match="adata must be an AnnData, found"):
            NOT_ANNDATA[name](value)


def test_baselines_name_their_arguments(atlas, cells):
    for call in (al.tl.placement_baselines, al.tl.draw_baselines):
        with pytest.raises(TypeError, match="must be an AnnData, found str"):
            call("cells.h5ad", atlas)
        with pytest.raises(TypeError, match="must be an AnnData, found str"):
            call(cells, "atlas.h5ad")


@pytest.fixture(scope="module")
def few(small_tissue):
    """A small atlas and a small query, of 40 cells each section."""
    tissue = small_tissue[np.arange(600) % 200 < 40].copy()
    test = tissue.obs["section"] == "section_2"
    return tissue[~test].copy(), tissue[test].copy()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(
            lambda c, a: c.obsm.pop("spatial"), KeyError, "'spatial' is not in cells", id="A356"
        ),
        pytest.param(
            lambda c, a: c.obsm.update(spatial=np.full((40, 2), np.nan)),
            ValueError,
            r"cells.obsm\['spatial'\] is NaN for every cell",
            id="A358",
        ),
    ],
)
def test_placement_baselines_name_what_is_wrong(few, change, error, message):
    atlas, cells = (part.copy() for part in few)
    cells.obs["section"] = cells.obs["section"].astype(object)
    change(cells, atlas)
    with pytest.raises(error, match=message):
        al.tl.placement_baselines(cells, atlas)


def test_a357_baselines_of_several_sections_are_refused(few, unchanged):
    atlas, _ = few
    with unchanged(atlas), pytest.raises(ValueError, match=r"cells.obs\['section'\] == 'section_0"):
        al.tl.placement_baselines(atlas, atlas)


@pytest.mark.usefixtures("silent")
def test_a358_a359_baselines_leave_out_what_is_missing_without_noise(few):
    atlas, cells = (part.copy() for part in few)
    cells.obs["type"] = with_missing(cells.obs["cell_type"], [0, 1, 2])
    scores = al.tl.placement_baselines(cells, atlas, labels_key="type")
    assert "shuffled within cell type" in scores.index
    assert scores["n_cells"].eq(40).all()
    cells.obsm["spatial"][:4] = np.nan
    fewer = al.tl.placement_baselines(cells, atlas, labels_key="type")
    assert fewer["n_cells"].eq(36).all()
    assert np.isfinite(fewer).all(axis=None)


# --- superposition


def test_a342_superpose_leaves_cells_that_were_not_placed(placed):
    full = al.tl.superpose(placed, copy=True).obsm["spatial_predicted_superposed"]
    placed.obsm["spatial_predicted"][:3] = np.nan
    placed.obsm["spatial_predicted"][60:120] = np.nan
    al.tl.superpose(placed)
    moved = placed.obsm["spatial_predicted_superposed"]
    assert np.isnan(moved[:3]).all()
    assert np.isnan(moved[60:120]).all()
    assert np.isfinite(moved[3:60]).all()
    np.testing.assert_array_equal(moved[120:], full[120:])


def test_superpose_never_replaces_the_truth(placed, unchanged):
    with unchanged(placed), pytest.raises(ValueError, match="is where the true coordinates are"):
        al.tl.superpose(placed, key_added="spatial")


# --- preprocessing


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(
            lambda a: al.pp.filter_cells(a, min_genes="3"),
            TypeError,
            "min_genes must be a number, found '3'",
            id="A371",
        ),
        (lambda a: al.pp.filter_cells(a, min_counts=None), TypeError, "min_counts must be a numb"),
        (lambda a: al.pp.filter_cells(a, min_counts=np.nan), ValueError, "min_counts must be at l"),
        pytest.param(
            lambda a: al.pp.highly_variable_genes(a, n_top_genes=2.5),
            TypeError,
            "n_top_genes must be a whole number, found 2.5",
            id="A378",
        ),
        (lambda a: al.pp.highly_variable_genes(a, key_added="a/b"), ValueError, "key_added='a/b'"),
        pytest.param(
            lambda a: al.pp.normalize_positions(a, factor=np.ones(180)),
            ValueError,
            r"factor must be a number above 0 or 'visium', found array",
            id="A389",
        ),
        (lambda a: al.pp.normalize_positions(a, factor=np.nan), ValueError, "factor must be"),
        (lambda a: al.pp.normalize_positions(a, factor=True + 0j), ValueError, "factor must be"),
        (lambda a: al.pp.split_sections(a, test_ratio="0.5"), TypeError, "test_ratio must be a nu"),
        (lambda a: al.pp.split_sections(a, test_ratio=0.4, seed="0"), TypeError, "seed must be"),
        (lambda a: al.pp.split_sections(a, key_added="section"), ValueError, "names of the sect"),
    ],
)
def test_arguments_of_preprocessing_are_named(placed, unchanged, call, error, message):
    with unchanged(placed), pytest.raises(error, match=message):
        call(placed)


@pytest.mark.parametrize("case", ["A406", "F004"])
def test_flat_and_thick_sections_are_not_joined(parts, case):
    given = parts if case == "A406" else list(parts.values())
    parts["b"].obsm["spatial"] = np.c_[parts["b"].obsm["spatial"], np.ones(30)]
    with pytest.raises(ValueError, match=r"'spatial'.* \(n_cells, 2\) in .* \(n_cells, 3\).*z = 0"):
        al.pp.intersect_genes(given)


@pytest.mark.parametrize("which", ["a", "ab"])
def test_a408_coordinates_in_a_dataframe_are_joined(parts, which):
    expected = al.pp.intersect_genes(parts).obsm["spatial"]
    for name in which:
        cells = parts[name]
        cells.obsm["spatial"] = pd.DataFrame(
            cells.obsm["spatial"], index=cells.obs_names, columns=["x", "y"]
        )
    joined = al.pp.intersect_genes(parts)
    np.testing.assert_array_equal(np.asarray(joined.obsm["spatial"]), expected)


def test_a409_sections_without_x(parts, unchanged):
    a, b = parts.values()
    a.layers["counts"], b.layers["counts"] = a.X, b.X
    a.X = None
    with unchanged(a), pytest.raises(ValueError, match="section 'a' has no X, but others have"):
        al.pp.intersect_genes(parts)
    b.X = None
    joined = al.pp.intersect_genes(parts)
    assert joined.X is None
    assert joined.layers["counts"].shape == (60, 40)


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        pytest.param({"a": "a.h5ad"}, TypeError, r"sections\['a'\] must be an AnnD", id="A407"),
        (["a.h5ad"], TypeError, r"sections\[0\] must be an AnnData, found str"),
        ("a.h5ad", TypeError, "sections must be an AnnData, a list of AnnData, or a dict"),
        (3, TypeError, "sections must be an AnnData, a list"),
        ({}, ValueError, "sections is empty"),
        ([], ValueError, "sections is empty"),
    ],
)
def test_what_is_no_section_is_named(sections, error, message):
    with pytest.raises(error, match=message):
        al.pp.intersect_genes(sections)


def test_numbers_name_sections_and_one_gene_is_one_name(parts):
    joined = al.pp.intersect_genes({1: parts["a"], 2: parts["b"]}, genes="gene_3")
    assert list(joined.obs["section"].cat.categories) == ["1", "2"]
    assert list(joined.var_names) == ["gene_3"]
    with pytest.raises(ValueError, match="genes is empty"):
        al.pp.intersect_genes(parts, genes=[])


# --- figures


@pytest.mark.parametrize("color", [None, "cell_type", "number", "part"])
@pytest.mark.usefixtures("silent")
def test_a420_positions_are_drawn_without_foreign_warnings(placed, color):
    placed.obs["number"] = np.arange(180.0)
    placed.obs["part"] = with_missing(placed.obs["cell_type"], [0, 1])
    al.pl.positions(placed, color=color)


def test_a435_nothing_was_placed(placed, unchanged):
    placed.obsm["spatial_predicted"][:70] = np.nan
    axes = al.pl.positions(placed)
    assert not axes[0, 1].axison
    assert not axes[0, 1].collections
    assert len(axes[1, 1].collections[0].get_offsets()) == 50
    placed.obsm["spatial_predicted"][:] = np.nan
    placed.obs["spatial_predicted_radius"] = 1.0
    for call in (
        al.pl.positions,
        lambda a: al.pl.displacement(a, section="section_0"),
        lambda a: al.pl.uncertainty(a, section="section_0"),
        lambda a: al.pl.calibration(a, section="section_0"),
    ):
        with unchanged(placed), pytest.raises(ValueError, match=r"adata.obsm\['spatial_predicted'"):
            call(placed)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: al.pl.positions(a, dims=(0, 2)), ValueError, r"dims must be two of .*\[0, 1\]"),
        (lambda a: al.pl.displacement(a, section="section_0", dims=1), ValueError, "dims must be"),
        (lambda a: al.pl.displacement(a, n_arrows=-1), ValueError, "n_arrows must be at least 0"),
        (lambda a: al.pl.calibration(a, n_groups=0), ValueError, "n_groups must be at least 1"),
        (
            lambda a: al.pl.expression(a, ["gene_0", "x"]),
            KeyError,
            "gene 'x' is not in adata.var_na",
        ),
        (lambda a: al.pl.expression(a, "gene_0", "x"), KeyError, r"layers \['x'\] are not in"),
        (lambda a: al.pl.expression(a, "gene_0", smoothed=-1), ValueError, "smoothed must be at"),
        (lambda a: al.pl.history(a), TypeError, "model must be an AlphaSTomics, found AnnData"),
    ],
)
def test_arguments_of_figures_are_named(placed, unchanged, call, error, message):
    with unchanged(placed), pytest.raises(error, match=message):
        call(placed)


def test_a432_there_is_no_figure_of_experts():
    assert not hasattr(al.pl, "experts")


# --- metrics on arrays


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: al.metrics.rssd("text", p), ValueError, "true must be an array of numbers"),
        (lambda p: al.metrics.rssd([[1], [1, 2]], p), ValueError, "true must be an array of numb"),
        (lambda p: al.metrics.rssd(None, p), ValueError, "true must have shape"),
        (lambda p: al.metrics.rssd(p * 1j, p), ValueError, "true must be an array of numbers"),
        (lambda p: al.metrics.rssd(sparse.csr_matrix(p), p), ValueError, "sparse: pass true"),
        (lambda p: al.metrics.pcc("text", p), ValueError, "true must be an array of numbers"),
        (lambda p: al.metrics.rssd(np.ma.masked_equal(p, p[0, 0]), p), ValueError, "not finite"),
        (lambda p: al.metrics.neighbor_recall(p, p, 2.5), TypeError, "k must be a whole number"),
        (
            lambda p: al.metrics.niche_cosine(p, p, ["a", np.nan] * 10, 3),
            ValueError,
            "labels is missing for 10 cells: drop those",
        ),
        (
            lambda p: al.metrics.neighborhood_composition(p, [None] * 20, 3),
            ValueError,
            "labels is missing for 20 cells",
        ),
        (
            lambda p: al.metrics.superpose_by(p * np.nan, p, np.ones(20, bool)),
            ValueError,
            "moving and fixed must hold finite coordinates",
        ),
        (
            lambda p: al.metrics.superpose_by(p, p, np.zeros(20, bool)),
            ValueError,
            "of one at least",
        ),
    ],
)
def test_metrics_name_what_is_no_input(call, error, message):
    points = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(error, match=message):
        call(points)


# --- any AnnData


ODD = {
    "few": lambda x: x[:, :1] * 0 + [1.0],
    "missing": lambda x: np.where(np.arange(len(x))[:, None] % 3 == 0, np.nan, x),
    "none": lambda x: x * np.nan,
    "part": lambda x: np.where(np.eye(*x.shape, dtype=bool), np.nan, x),
    "infinite": lambda x: np.where(np.eye(*x.shape, dtype=bool), np.inf, x),
    "point": lambda x: x * 0,
    "line": lambda x: x * (np.arange(x.shape[1]) == 0),
    "huge": lambda x: x * 1e200,
    "tiny": lambda x: x * 1e-200,
    "ties": lambda x: np.rint(x),
}
KINDS = {
    "array": lambda x, names: x,
    "float32": lambda x, names: np.clip(x, -1e30, 1e30).astype(np.float32),
    "frame": lambda x, names: pd.DataFrame(x, index=names).add_prefix("x"),
    "text": lambda x, names: x.astype(str),
    "sparse": lambda x, names: sparse.csr_matrix(x),
    "draws": lambda x, names: np.stack([x, x], axis=1),
}
COLUMNS = {
    "text": ["a", "b"],
    "numbers": [1, 2, 3],
    "floats": [1.0, 2.0],
    "fractions": [1.5, 2.0],
    "mixed": ["a", 1, 2.0, True],
    "missing": ["a", "b", None],
    "unknown": ["a", "", np.nan],
}


@st.composite
def any_placed(draw):
    """Cells with coordinates, sections and labels, each ordinary or of any kind."""
    n, d = draw(st.integers(1, 40)), draw(st.sampled_from([2, 2, 3, 1]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    obs = pd.DataFrame(index=[f"cell_{i}" for i in range(n)])
    for column in ("section", "cell_type"):
        kind = draw(st.sampled_from(["text", *COLUMNS, "absent"]))
        if kind != "absent":
            values = rng.choice(np.array(COLUMNS[kind], dtype=object), n)
            obs[column] = pd.Series(values, index=obs.index).infer_objects()
            if draw(st.booleans()) and kind != "mixed":
                obs[column] = obs[column].astype("category")
    adata = AnnData(np.ones((n, 2), np.float32), obs=obs)
    for key in ("spatial", "spatial_predicted"):
        points = rng.normal(size=(n, d)) * 100
        odd = draw(st.sampled_from([None] * 8 + list(ODD)))
        points = points if odd is None else ODD[odd](points)
        kind = draw(st.sampled_from(["array"] * 6 + list(KINDS)))
        adata.obsm[key] = KINDS[kind](points, obs.index)
    return adata


def assert_works_or_names(call, adata, unchanged):
    failure = None
    with warnings.catch_warnings(), unchanged(adata):
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UserWarning)
        try:
            call(adata)
        except (ValueError, TypeError, KeyError) as error:
            failure = error
    if failure is not None:
        assert any(name in str(failure) for name in NAMED), failure
        assert failure.__cause__ is None, failure


ANY = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@ANY
@given(any_placed(), st.sampled_from([None, "section"]), st.sampled_from([None, "cell_type"]))
def test_score_of_any_cells_works_or_names_what_is_wrong(unchanged, adata, section, labels):
    assert_works_or_names(
        lambda a: al.tl.score(a, section_key=section, labels_key=labels), adata, unchanged
    )


@ANY
@given(any_placed(), st.sampled_from([1, 6, 500, 0, 2.5]))
def test_neighbors_of_any_cells_work_or_name_what_is_wrong(unchanged, adata, n_neighbors):
    assert_works_or_names(
        lambda a: al.tl.neighbors(a, n_neighbors=n_neighbors, copy=True), adata, unchanged
    )


FIGURES = {
    "positions": lambda a, color: al.pl.positions(a, color=color, return_fig=True),
    "displacement": lambda a, color: al.pl.displacement(a, return_fig=True),
    "expression": lambda a, color: al.pl.expression(a, "0", None, return_fig=True),
}


@settings(ANY, max_examples=40)
@given(any_placed(), st.sampled_from([None, "cell_type"]), st.sampled_from(sorted(FIGURES)))
def test_figures_of_any_cells_are_drawn_or_name_what_is_wrong(unchanged, adata, color, figure):
    assert_works_or_names(lambda a: FIGURES[figure](a, color).canvas.draw(), adata, unchanged)
    plt.close("all")


# --- lower bounds


def test_input_67_lower_bounds_are_of_versions_that_work_together():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [*project["dependencies"], *project["optional-dependencies"]["io"]]
    for name in ("zarr>=3.1", "spatialdata>=0.7", "squidpy>=1.8", "anndata>=0.12", "pandas>=2.2"):
        assert any(bound.startswith(name) for bound in bounds), name
