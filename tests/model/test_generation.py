"""New values and new cells: imputed genes, expression at positions, whole sections."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import alphastomics as al

QUIET = {"progress_bar": False}


def test_imputed_genes_follow_the_measured_ones(trained):
    model, cells = trained
    wanted = list(cells.var_names[:5])
    few = cells[:, 5:].copy()
    with pytest.warns(UserWarning, match="5 of the model's 40 genes are missing"):
        model.impute(few, **QUIET)
    imputed = few.obsm["expression_imputed"]
    assert list(imputed.columns) == wanted
    assert list(imputed.index) == list(few.obs_names)
    total = np.asarray(cells.X.sum(1))
    true = np.log1p(cells[:, wanted].X.toarray() / total * np.median(total))
    assert np.median(al.metrics.pcc(true, imputed.to_numpy())) > 0.15


def test_a_gene_that_is_there_is_hidden_before_it_is_imputed(trained):
    model, cells = trained
    cells, other = cells.copy(), cells.copy()
    counts = other.X.toarray()
    counts[:, 3] = 1000
    other.X = counts
    for each in (cells, other):
        model.impute(each, genes=["gene_3"], **QUIET)
    pd.testing.assert_frame_equal(
        cells.obsm["expression_imputed"], other.obsm["expression_imputed"]
    )


def test_imputed_draws_are_seeded_and_counts_are_whole(trained):
    model, cells = trained
    cells = cells.copy()
    options = {"genes": ["gene_1", "gene_7"], "draw": True, "n_steps": 3, **QUIET}
    for key, seed in (("a", 0), ("b", 0), ("c", 1)):
        model.impute(cells, key_added=key, seed=seed, output="counts", **options)
    drawn = {key: cells.obsm[key].to_numpy() for key in "abc"}
    np.testing.assert_array_equal(drawn["a"], drawn["b"])
    assert (drawn["a"] != drawn["c"]).any()
    assert (drawn["a"] == np.rint(drawn["a"])).all()
    assert (drawn["a"] >= 0).all()


def test_impute_names_a_strange_gene_and_a_full_panel(trained):
    model, cells = trained
    with pytest.raises(ValueError, match="genes names 'Actb', which is not among the"):
        model.impute(cells, genes=["Actb"])
    with pytest.raises(ValueError, match="has all genes of the model, so there is nothing"):
        model.impute(cells)
    with pytest.raises(ValueError, match="genes is empty"):
        model.impute(cells, genes=[])


def test_expression_at_positions_is_that_of_predict(trained):
    model, cells = trained
    asked, reference = cells[:50].copy(), cells[50:].copy()
    del asked.obs["cell_type"]  # it would be a condition
    new = model.predict_expression(asked.obsm["spatial"], reference=reference, **QUIET)
    assert new.shape == (50, 40)
    assert list(new.var_names) == list(cells.var_names)
    np.testing.assert_array_equal(new.obsm["spatial"], asked.obsm["spatial"])
    assert (new.X >= 0).all()
    model.predict(asked, mode="pos_to_expr", reference=reference, **QUIET)
    np.testing.assert_allclose(new.X, asked.layers["expression_predicted"], atol=1e-4)


def test_labels_change_predicted_expression(trained):
    model, cells = trained
    positions = cells.obsm["spatial"]
    layers = [
        model.predict_expression(positions, labels=["L1" if a else "L6"] * 300, **QUIET).X
        for a in (True, False)
    ]
    assert not np.allclose(*layers)


def test_generated_sections_have_the_size_of_the_tissue(trained, tissue):
    model, cells = trained
    new = model.generate(200, n_steps=6, **QUIET)
    assert isinstance(new, ad.AnnData)
    assert new.shape == (200, 40)
    assert np.isfinite(new.X).all()
    np.testing.assert_allclose(new.obsm["spatial"].mean(0), 0, atol=1e-6)
    assert (
        0.6
        < al.metrics.rms_radius(new.obsm["spatial"]) / al.metrics.rms_radius(cells.obsm["spatial"])
        < 1.6
    )
    assert list(new.obs) == ["section", "cell_type"]  # no radius: there is no true position
    assert set(new.obs["section"]) == {"generated"}
    assert set(new.obs["cell_type"]) <= set(cells.obs["cell_type"])
    assert new.uns["units"] == tissue.uns["units"] == "µm"
    again = model.generate(200, n_steps=6, **QUIET)
    np.testing.assert_array_equal(new.X, again.X)
    other = model.generate(200, n_steps=6, seed=1, **QUIET)
    assert not np.allclose(new.obsm["spatial"], other.obsm["spatial"])


def training_sections(tissue):
    return tissue[tissue.obs["section"] != "section_2"]


def test_generated_cells_are_training_cells_of_the_wanted_types(trained, tissue):
    model, _ = trained
    atlas = training_sections(tissue)
    types = atlas.obs["cell_type"].astype(str).to_numpy()
    wanted = ["L1"] * 30 + ["L6"] * 30
    new = model.generate(60, labels=wanted, output="counts", n_steps=2, **QUIET)
    assert list(new.obs["cell_type"]) == wanted
    of_type = {kind: set(map(bytes, atlas.X.toarray()[types == kind])) for kind in ("L1", "L6")}
    for kind, counts in zip(wanted, new.X, strict=True):
        assert bytes(counts) in of_type[kind]


def test_any_training_cell_may_be_generated(trained, tissue):
    model, _ = trained
    atlas = training_sections(tissue).X.toarray()
    new = model.generate(300, output="counts", n_steps=2, **QUIET)
    rows = set(map(bytes, new.X))
    assert rows <= set(map(bytes, atlas))
    assert len(rows) > 200  # drawn with replacement from 600
    lognorm = model.generate(300, n_steps=2, **QUIET)
    depth = new.X.sum(1, keepdims=True) / np.median(atlas.sum(1))
    np.testing.assert_allclose(lognorm.X, np.log1p(new.X / depth), rtol=1e-4, atol=1e-5)


def autocorrelation(model, lognorm, positions):
    """Moran's I of the factors of expression."""
    values = model.module.expression_transform.standardize(torch.as_tensor(lognorm))
    factors = model.module.factors.of_genes(values, torch.ones_like(values, dtype=torch.bool))
    return al.metrics.morans_i(factors.numpy(), positions, k=8)


@pytest.mark.parametrize("method", ["generate", "sample"])
def test_neighbors_are_as_much_alike_as_in_training(trained, tissue, method):
    model, cells = trained
    if method == "generate":
        new = model.generate(300, n_steps=6, **QUIET)
        lognorm, positions = new.X, new.obsm["spatial"]
    else:
        new = cells.copy()
        model.sample(new, mode="joint", n_steps=6, **QUIET)
        lognorm, positions = new.layers["expression_sampled"], new.obsm["spatial_sampled"]
    expected = []
    for section in ("section_0", "section_1"):
        true = tissue[tissue.obs["section"] == section]
        counts = torch.from_numpy(true.X.toarray())
        logged = model.module.expression_transform.log(counts, torch.ones_like(counts).bool())
        expected.append(autocorrelation(model, logged, true.obsm["spatial"]))
    expected = np.mean(expected, axis=0)
    np.testing.assert_allclose(autocorrelation(model, lognorm, positions), expected, atol=0.02)
    shuffled = np.random.default_rng(0).permutation(positions)
    assert autocorrelation(model, lognorm, shuffled).mean() < 0.2 * expected.mean()


def test_cells_of_panels_none_of_which_has_all_genes_are_generated(tissue):
    atlas, gene = tissue.copy(), np.arange(tissue.n_vars)
    panels = {"section_0": gene >= 5, "section_1": gene < 35, "section_2": abs(gene - 20) > 2}
    atlas.varm["measured"] = pd.DataFrame(panels, index=atlas.var_names)
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    model.train(max_steps=1, set_size=16, **QUIET)
    new = model.generate(100, output="counts", n_steps=2, **QUIET)
    assert (np.rint(new.X) == new.X).all()
    measured = np.zeros(100, dtype=bool)
    for name, panel in panels.items():
        rows = atlas.X.toarray()[(atlas.obs["section"] == name).to_numpy()][:, panel]
        measured |= np.isin([bytes(row) for row in new.X[:, panel]], [bytes(row) for row in rows])
    assert measured.all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate(0), "n_cells must be at least 1, found 0"),
        (
            lambda m: m.generate(3, labels=["L1"]),
            "labels must have one entry per cell",
        ),
        (
            lambda m: m.generate(2, labels=["L1", "Neuron"]),
            "'Neuron', which was not in the training data",
        ),
        (
            lambda m: m.predict_expression(np.zeros((3, 3))),
            "positions must have shape",
        ),
        (lambda m: m.predict_expression(np.full((3, 2), np.nan)), "not finite"),
    ],
)
def test_bad_arguments_are_named(trained, call, message):
    with pytest.raises(ValueError, match=message):
        call(trained[0])


def test_only_a_joint_model_generates(placer):
    with pytest.raises(ValueError, match="training_mode='expr_to_pos' and cannot predict express"):
        placer[0].generate(10)
