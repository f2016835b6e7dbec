"""New values and new cells: imputed genes, expression at positions, whole sections."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

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
    with pytest.raises(ValueError, match=r"genes names \['Actb'\], which the training data"):
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
    assert not list(new.obs)  # a generated cell has no true position, so no radius
    again = model.generate(200, n_steps=6, **QUIET)
    np.testing.assert_array_equal(new.X, again.X)
    other = model.generate(200, n_steps=6, seed=1, **QUIET)
    assert not np.allclose(new.obsm["spatial"], other.obsm["spatial"])


def test_generated_cells_are_like_those_of_training(trained, tissue):
    model, _ = trained
    atlas = tissue[tissue.obs["section"] != "section_2"]
    types = atlas.obs["cell_type"].astype(str)
    wanted = ["L1"] * 150 + ["L6"] * 150
    new = model.generate(300, labels=wanted, output="counts", n_steps=2, **QUIET)
    assert (np.rint(new.X) == new.X).all()
    for kind in ("L1", "L6"):
        mine = new.X[np.asarray(wanted) == kind].mean(0)
        true = {t: atlas.X[(types == t).to_numpy()].mean(0) for t in ("L1", "L6")}
        error = {t: np.abs(mine - np.ravel(mean)).mean() for t, mean in true.items()}
        assert min(error, key=error.get) == kind
        assert error[kind] < 0.3 * true[kind].mean()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate(0), "n_cells must be at least 1, found 0"),
        (
            lambda m: m.generate(3, labels=["L1"]),
            "labels must have one entry a cell",
        ),
        (lambda m: m.generate(2, labels=["L1", "Neuron"]), "'Neuron', which the model never saw"),
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
