"""What cells express, given where they are and what their neighbours do."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial import KDTree

import alphastomics as al

QUIET = {"progress_bar": False}
TINY = {"d_model": 16, "num_heads": 2, "num_layers": 1, "d_ff": 16}


def logged(model, cells):
    x = torch.from_numpy(cells.X.toarray())
    return model.module.expression_transform.log(x, torch.ones_like(x, dtype=torch.bool)).numpy()


def median_correlation(a, b):
    return np.median([al.metrics.pcc(a[:, [g]], b[:, [g]]).item() for g in range(a.shape[1])])


def partly_measured(cells, hidden):
    cells = cells.copy()
    cells.obs["expression_known"] = ~hidden
    return cells


def filled_layer(model, cells, method="predict", **options):
    cells = cells.copy()
    if method == "sample":
        options = {"n_steps": 3, **options}
    getattr(model, method)(cells, layer_added="out", **QUIET, **options)
    return cells.layers["out"]


def test_learns_what_cells_express_where_their_neighbours_are_known(trained, half):
    model, cells = trained
    query = partly_measured(cells, half)
    del query.obs["cell_type"]
    truth = logged(model, cells)
    predicted = filled_layer(model, query)[half]
    position = cells.obsm["spatial"]
    near = KDTree(position[~half]).query(position[half], k=50)[1]
    smooth = truth[~half][near].mean(1)
    correlation = median_correlation(predicted, truth[half])
    assert correlation > median_correlation(smooth, truth[half])
    error, floor = (np.square(x - truth[half]).mean() for x in (predicted, truth[~half].mean(0)))
    assert error < floor


def test_what_is_known_is_kept(trained, half):
    model, cells = trained
    query = partly_measured(cells, half)
    for method in ("predict", "sample"):
        counts = filled_layer(model, query, method, output="counts")
        np.testing.assert_array_equal(counts[~half], cells.X[~half].toarray())
        assert (counts[half] == np.rint(counts[half])).all()
        assert (counts >= 0).all()
        lognorm = filled_layer(model, query, method)
        np.testing.assert_allclose(lognorm[~half], logged(model, cells)[~half], rtol=1e-5)
        assert (lognorm >= 0).all()
        assert np.isfinite(lognorm).all()


def test_genes_the_model_does_not_know_stay_open(trained, half):
    model, cells = trained
    extra = ad.concat([cells, cells[:, :2].copy()], axis=1, merge="first")
    extra.var_names = [*cells.var_names, "new_1", "new_2"]
    order = np.random.default_rng(0).permutation(extra.n_vars)
    out = filled_layer(model, partly_measured(extra, half)[:, order].copy())
    new = order >= cells.n_vars
    assert np.isnan(out[:, new]).all()
    expected = filled_layer(model, partly_measured(cells, half))
    np.testing.assert_allclose(out[:, ~new], expected[:, order[~new]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["predict", "sample"])
def test_values_of_unmeasured_cells_do_not_leak(trained, half, method):
    model, cells = trained
    query = partly_measured(cells, half)
    expected = filled_layer(model, query, method)
    garbage = query.copy()
    garbage.X = query.X.toarray()
    garbage.X[half] = np.nan
    np.testing.assert_array_equal(filled_layer(model, garbage, method), expected)
    hidden = cells.copy()
    expected = filled_layer(model, hidden, method, mode="pos_to_expr")
    hidden.X = np.random.default_rng(0).poisson(5.0, hidden.shape).astype(np.float32)
    np.testing.assert_array_equal(filled_layer(model, hidden, method, mode="pos_to_expr"), expected)


def test_a_reference_is_what_known_cells_of_the_section_are(trained, half):
    model, cells = trained
    both = filled_layer(model, partly_measured(cells, half))[half]
    query = partly_measured(cells, half)[half].copy()
    apart = filled_layer(model, query, reference=cells[~half].copy())
    np.testing.assert_allclose(apart, both, rtol=1e-4, atol=5e-5)  # single precision
    assert not np.allclose(filled_layer(model, query), both, atol=1e-3)


def test_cell_types_tell_what_unmeasured_cells_express(trained):
    model, cells = trained
    other = cells.copy()
    other.obs["cell_type"] = np.random.default_rng(0).permutation(other.obs["cell_type"])
    out = [filled_layer(model, each, mode="pos_to_expr") for each in (cells, other)]
    assert not np.allclose(*out, atol=1e-3)


def test_draws_spread_and_points_summarise_them(trained, half):
    model, cells = trained
    query = partly_measured(cells, half)
    options = {"n_samples": 3, "n_steps": 4, **QUIET}
    model.sample(query, point=None, **options)
    draws = np.stack([query.layers[f"expression_sampled_{i}"] for i in range(3)])
    assert "expression_sampled" not in query.layers
    assert not np.isclose(draws[0][half], draws[1][half]).mean() > 0.5
    for draw in draws:
        np.testing.assert_array_equal(draw[~half], draws[0][~half])
    model.sample(query, point="medoid", **options)
    medoid = query.layers["expression_sampled"]
    assert any(np.array_equal(medoid, draw) for draw in draws)
    how = query.uns["alphastomics"]["expression_sampled"]
    assert how["method"] == "sample"
    assert how["output"] == "lognorm"
    assert query.X is not None
    assert "spatial_sampled" not in query.obsm


def test_the_layer_that_is_read_is_never_overwritten(tissue):
    atlas = tissue.copy()
    atlas.layers["counts"] = atlas.X.copy()
    al.AlphaSTomics.setup_anndata(atlas, layer="counts")
    model = al.AlphaSTomics(atlas, **TINY)
    model.train(max_steps=1, set_size=16, **QUIET)
    with pytest.raises(ValueError, match="layer_added='counts' is where the model reads"):
        model.predict(atlas, mode="pos_to_expr", layer_added="counts")


class TestPanels:
    """``.varm["measured"]``: sections whose panels differ."""

    @pytest.fixture
    def atlas(self, tissue):
        """The second section lacks ten genes, the third has other ten."""
        atlas = tissue.copy()
        gene = np.arange(atlas.n_vars)
        atlas.varm["measured"] = pd.DataFrame(
            {"section_0": gene >= 0, "section_1": gene >= 10, "section_2": gene < 30},
            index=atlas.var_names,
        )
        return atlas

    def loud(self, atlas, value=999.0):
        """Other values where nothing was measured."""
        other = atlas.copy()
        x = other.X.toarray()
        for name in ("section_0", "section_1", "section_2"):
            members = (other.obs["section"] == name).to_numpy()
            x[np.ix_(members, ~other.varm["measured"][name].to_numpy())] = value
        other.X = x
        return other

    def learned(self, atlas):
        al.AlphaSTomics.setup_anndata(atlas)
        model = al.AlphaSTomics(atlas, **TINY)
        model.train(max_steps=3, set_size=32, **QUIET)
        return model

    def test_values_of_unmeasured_genes_change_nothing(self, atlas):
        cells, loud = atlas.copy(), self.loud(atlas)
        for each in (cells, loud):
            model = self.learned(each)
            model.predict(each, **QUIET)
            model.predict(each, mode="expr_to_pos", **QUIET)
        np.testing.assert_array_equal(
            loud.obsm["spatial_predicted"], cells.obsm["spatial_predicted"]
        )
        np.testing.assert_array_equal(
            loud.layers["expression_predicted"], cells.layers["expression_predicted"]
        )

    def test_unmeasured_genes_may_be_nan(self, atlas):
        self.learned(self.loud(atlas, np.nan))

    def test_what_a_panel_lacks_is_filled_in_and_what_it_has_is_kept(self, atlas):
        model = self.learned(atlas)
        model.predict(atlas, output="counts", **QUIET)
        assert "spatial_predicted" not in atlas.obsm
        out, x = atlas.layers["expression_predicted"], atlas.X.toarray()
        assert np.isfinite(out).all()
        for name in ("section_0", "section_1", "section_2"):
            members = (atlas.obs["section"] == name).to_numpy()
            measured = atlas.varm["measured"][name].to_numpy()
            np.testing.assert_array_equal(
                out[np.ix_(members, measured)], x[np.ix_(members, measured)]
            )

    def test_a_panel_is_as_good_as_absent_genes(self, trained):
        model, cells = trained
        panel = cells.copy()
        measured = np.arange(cells.n_vars) >= 5
        panel.varm["measured"] = pd.DataFrame({"section_2": measured}, index=cells.var_names)
        fewer = cells[:, 5:].copy()
        with pytest.warns(UserWarning, match="5 of the model's 40 genes"):
            model.predict(fewer, mode="expr_to_pos", **QUIET)
        model.predict(panel, mode="expr_to_pos", **QUIET)
        np.testing.assert_array_equal(
            panel.obsm["spatial_predicted"], fewer.obsm["spatial_predicted"]
        )


class TestWhatElseIsLearnedFrom:
    def trained_on(self, atlas, **setup):
        al.AlphaSTomics.setup_anndata(atlas, **setup)
        model = al.AlphaSTomics(atlas, **TINY)
        model.train(max_steps=10, set_size=32, **QUIET)
        return model

    def test_cells_without_coordinates(self, tissue, half):
        """They say nothing of positions, but of what genes do together."""
        cells = tissue[600:].copy()
        atlas = tissue[:600].copy()
        atlas.obsm["spatial"][300:] = np.nan
        with_them = self.trained_on(atlas)
        without = self.trained_on(tissue[:300].copy())
        assert with_them.training_record.n_cells == 600
        torch.testing.assert_close(
            with_them.module.position_transform.scale, without.module.position_transform.scale
        )
        query = partly_measured(cells, half)
        out = [filled_layer(model, query)[half] for model in (with_them, without)]
        assert np.isfinite(out).all()
        assert not np.allclose(*out, atol=1e-3)

    def test_cells_without_expression(self, tissue, half):
        atlas = tissue.copy()
        atlas.obs["expression_known"] = np.tile(~half, 3)
        garbage = atlas.copy()
        garbage.X = garbage.X.toarray()
        garbage.X[np.tile(half, 3)] = np.nan
        models = [self.trained_on(each) for each in (atlas, garbage)]
        states = [model.module.state_dict() for model in models]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_batches_are_a_condition_and_unseen_ones_are_accepted(self, tissue):
        atlas = tissue.copy()
        atlas.obs["donor"] = atlas.obs["section"].map(lambda name: f"donor of {name}").astype(str)
        model = self.trained_on(atlas, batch_key="donor")
        torch.nn.init.normal_(model.module.batch.weight[1:])
        placed = {}
        for donor in ("donor of section_0", "donor of section_1", "nobody", None, np.nan):
            cells = tissue[600:].copy()
            if donor is not None:
                cells.obs["donor"] = donor
            model.predict(cells, mode="expr_to_pos", **QUIET)
            placed[str(donor)] = cells.obsm["spatial_predicted"]
        np.testing.assert_array_equal(placed["nobody"], placed["None"])
        np.testing.assert_array_equal(placed["nobody"], placed["nan"])
        assert not np.allclose(placed["donor of section_0"], placed["donor of section_1"])


def test_numbered_types_are_the_same_with_and_without_a_missing_one(tissue):
    """A missing number turns a column of whole numbers into floats."""
    cells = tissue.copy()
    cells.obs["cluster"] = cells.obs["cell_type"].cat.codes.astype(int)
    al.AlphaSTomics.setup_anndata(cells, labels_key="cluster")
    model = al.AlphaSTomics(cells, d_model=16, num_heads=2, num_layers=1)
    some = cells.copy()
    some.obs["cluster"] = some.obs["cluster"].astype(float)
    some.obs.loc[some.obs_names[0], "cluster"] = np.nan
    label = model._reader.query(some).label
    assert label[0] == 0
    np.testing.assert_array_equal(label[1:], model._reader.query(cells).label[1:])
