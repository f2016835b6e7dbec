"""Cells of a query: of other labels and batches, without counts, in the reference, embedded."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

QUIET = {"progress_bar": False}
PLACE = {"mode": "expr_to_pos", **QUIET}


@pytest.fixture(scope="module")
def labeled(fit, small_tissue):
    """A model of cells with types and batches."""
    atlas = small_tissue[small_tissue.obs["section"] != "section_2"].copy()
    atlas.obs["batch"] = atlas.obs["section"].astype(str)
    return fit(atlas, labels_key="cell_type", batch_key="batch")


def placed(model, cells, **options):
    model.predict(cells, **{**PLACE, **options})
    return cells.obsm["spatial_predicted"]


class TestLabels:
    """input-14: never an input to placement."""

    @pytest.mark.parametrize("method", ["predict", "sample"])
    @pytest.mark.parametrize(
        "labels",
        [None, "name of another atlas", 3.5, np.nan],
        ids=["none", "another-vocabulary", "number", "missing"],
    )
    def test_placement_is_the_same(self, labeled, cells, recwarn, method, labels):
        query = cells.copy()
        if labels is None:
            del query.obs["cell_type"]
        else:
            query.obs["cell_type"] = labels
        for each in (cells, query):
            getattr(labeled, method)(each, key_added="there", **PLACE)
        np.testing.assert_array_equal(query.obsm["there"], cells.obsm["there"])
        assert not [str(w.message) for w in recwarn if "cell_type" in str(w.message)]

    def test_also_among_cells_that_were_not_measured(self, labeled, cells):
        cells.obs["expression_known"] = np.arange(cells.n_obs) >= 5
        query = cells.copy()
        query.obs["cell_type"] = "L1"
        np.testing.assert_array_equal(placed(labeled, query), placed(labeled, cells))

    def test_genes_are_imputed_with_other_labels(self, labeled, cells):
        cells.obs["cell_type"] = "name of another atlas"
        labeled.impute(cells, genes=["gene_1"], **QUIET)

    def test_a_reference_may_have_other_labels(self, labeled, cells):
        query, reference = cells[:100].copy(), cells[100:].copy()
        reference.obs["cell_type"] = "name of another atlas"
        placed(labeled, query, reference=reference)

    def test_where_they_are_an_input_an_unknown_one_is_named(self, labeled, cells, unchanged):
        cells.obs["cell_type"] = "Neuroblast"
        with (
            unchanged(cells),
            pytest.raises(ValueError, match="'Neuroblast', which was not in the training data"),
        ):
            labeled.predict(cells, mode="pos_to_expr", **QUIET)
        with pytest.raises(ValueError, match="'Neuroblast', which was not in the training data"):
            labeled.generate(2, labels=["L1", "Neuroblast"], **QUIET)

    def test_a_type_without_donors_is_named(self, fit, small_tissue):
        """A287."""
        atlas = small_tissue.copy()
        types = atlas.obs["cell_type"].astype(str)
        types.iloc[0] = "Rare"
        atlas.obs["cell_type"] = types
        atlas.obs["expression_known"] = np.arange(atlas.n_obs) > 0
        model = fit(atlas, labels_key="cell_type")
        with pytest.raises(ValueError, match=r"labels contains \['Rare'\]"):
            model.generate(3, labels=["L1", "Rare", "L1"], **QUIET)


def test_an_unseen_batch_is_said(labeled, cells):
    """F006."""
    cells.obs["batch"] = np.where(np.arange(cells.n_obs) < 7, "elsewhere", "section_0")
    message = (
        "holds 'elsewhere' in 7 of 200 cells.*not in the training data; these had 'section_0', "
        "'section_1'"
    )
    with pytest.warns(UserWarning, match=message) as said:
        placed(labeled, cells)
    assert sum("elsewhere" in str(w.message) for w in said) == 1


class TestWithoutCounts:
    """input-12: nothing is known of them, so nothing is estimated."""

    @pytest.fixture
    def blank(self, cells):
        matrix = cells.X.toarray()
        matrix[:5] = 0
        cells.X = sparse.csr_matrix(matrix)
        return cells

    @pytest.mark.parametrize("mode", ["expr_to_pos", "auto"])
    @pytest.mark.parametrize(
        ("method", "n_samples"), [("predict", 1), ("sample", 1), ("sample", 3)]
    )
    def test_not_placed_and_without_effect(self, small_model, blank, method, mode, n_samples):
        options = {"mode": mode, "key_added": "there", **QUIET}
        if method == "sample":
            options |= {"n_samples": n_samples, "n_steps": 2, "point": "consensus"}
        del blank.obsm["spatial"]
        others = blank[5:].copy()
        with pytest.warns(UserWarning, match="5 of 200 cells.*no counts.*NaN") as said:
            getattr(small_model, method)(blank, **options)
        assert len([w for w in said if "no counts" in str(w.message)]) == 1
        getattr(small_model, method)(others, **options)
        assert np.isnan(blank.obsm["there"][:5]).all()
        np.testing.assert_array_equal(blank.obsm["there"][5:], others.obsm["there"])

    def test_among_known_cells(self, small_model, blank):
        query, reference = blank[:100].copy(), blank[100:].copy()
        for method in ("predict", "sample"):
            with pytest.warns(UserWarning, match="5 of 100 cells"):
                getattr(small_model, method)(query, reference=reference, **PLACE)
        for key in ("spatial_predicted", "spatial_sampled"):
            assert np.array_equal(np.isnan(query.obsm[key]).any(1), np.arange(100) < 5)

    def test_standardized_by_themselves(self, small_model, blank):
        others = blank[5:].copy()
        with pytest.warns(UserWarning, match="5 of 200 cells"):
            place = placed(small_model, blank, standardize="query")
        np.testing.assert_array_equal(place[5:], placed(small_model, others, standardize="query"))

    def test_embedded(self, small_model, blank):
        with pytest.warns(UserWarning, match="5 of 200 cells"):
            tokens = small_model.get_latent_representation(blank)
        assert np.array_equal(np.isnan(tokens).any(1), np.arange(200) < 5)

    @pytest.mark.parametrize("draw", [True, False])
    def test_imputed_only_from_a_position(self, small_model, blank, draw):
        blank.obsm["spatial"][:3] = np.nan
        with pytest.warns(UserWarning, match="3 of 200 cells.*no known position"):
            small_model.impute(blank, genes=["gene_1"], draw=draw, **QUIET)
        lacking = blank.obsm["expression_imputed"].isna().to_numpy()[:, 0]
        assert np.array_equal(lacking, np.arange(200) < 3)

    def test_a_whole_section_of_them(self, small_model, cells):
        matrix = cells.X.toarray()
        matrix[:50] = 0
        cells.X = matrix
        cells.obs["section"] = ["a"] * 50 + ["b"] * 150
        for method in ("predict", "sample"):
            with pytest.warns(UserWarning, match="50 of 200 cells"):
                getattr(small_model, method)(cells, key_added=method, **PLACE)
            assert np.isfinite(cells.obsm[method][50:]).all()

    def test_the_last_cells_without_a_position(self, small_model, blank):
        blank.obsm["spatial"][:5] = np.nan
        for method in ("predict", "sample"):
            with pytest.warns(UserWarning, match="5 of 200 cells"):
                getattr(small_model, method)(blank, key_added=method, **QUIET)
            np.testing.assert_array_equal(blank.obsm[method][5:], blank.obsm["spatial"][5:])

    @pytest.mark.parametrize("method", ["predict", "sample"])
    def test_said_where_the_method_was_called(self, small_model, blank, method):
        with pytest.warns(UserWarning, match="no counts") as said:
            getattr(small_model, method)(blank, **PLACE)
        assert said[0].filename == __file__

    def test_generated_ones_have_a_place(self, fit, atlas):
        """They are measured cells."""
        matrix = atlas.X.toarray()
        matrix[::2] = 0
        atlas.X = matrix
        new = fit(atlas).generate(40, n_steps=2, **QUIET)
        assert (new.X.sum(1) == 0).any()
        assert np.isfinite(new.obsm["spatial"]).all()

    def test_none_with_counts_is_an_error(self, small_model, cells, unchanged):
        cells.X = np.zeros(cells.shape, dtype=np.float32)
        with unchanged(cells), pytest.raises(ValueError, match="no counts of the model's genes in"):
            small_model.predict(cells, **PLACE)


class TestReference:
    def test_cells_that_are_in_it_are_counted(self, small_model, cells):
        """A162 and A163."""
        for n, query in ((200, cells), (50, cells[:100].copy())):
            reference = cells if n == 200 else cells[50:].copy()
            with pytest.warns(UserWarning, match=f"{n} of {query.n_obs} cells.* also in reference"):
                placed(small_model, query, reference=reference)

    def test_cells_of_the_same_name_only_are_not(self, small_model, atlas, cells, recwarn):
        atlas = atlas[:200].copy()
        atlas.obs_names = cells.obs_names
        placed(small_model, cells, reference=atlas)
        assert not [w for w in recwarn if "in reference" in str(w.message)]

    @pytest.mark.parametrize("n_cells", [200, 1])
    def test_without_extent_it_is_refused(self, small_model, atlas, cells, unchanged, n_cells):
        """A168."""
        reference = atlas[:n_cells].copy()
        reference.obsm["spatial"][:] = 5.0
        with unchanged(cells), pytest.raises(ValueError, match="reference has no extent"):
            small_model.predict(cells, reference=reference, **PLACE)

    def test_of_another_frame_is_said(self, small_model, cells):
        """F010."""
        query, reference = cells[:100].copy(), cells[100:].copy()
        query.obsm["spatial"][:20] = np.nan
        reference.obsm["spatial"] += 1e6
        with pytest.warns(UserWarning, match=r"known positions of adata.*apart, further than"):
            small_model.predict(query, reference=reference, **QUIET)

    def test_of_the_same_frame_is_not(self, small_model, cells, recwarn):
        query, reference = cells[:100].copy(), cells[100:].copy()
        query.obsm["spatial"][:20] = np.nan
        small_model.predict(query, reference=reference, **QUIET)
        assert not [w for w in recwarn if "known positions" in str(w.message)]


def test_sections_are_standardized_apart(small_model, small_tissue):
    """B016."""
    cells = small_tissue[small_tissue.obs["section"] == "section_2"].copy()
    more = small_tissue[small_tissue.obs["section"] != "section_1"].copy()
    alone = placed(small_model, cells, standardize="query")
    among = placed(small_model, more, standardize="query")
    among = among[(more.obs["section"] == "section_2").to_numpy()]
    np.testing.assert_allclose(among, alone, rtol=1e-5, atol=1e-4 * np.abs(alone).max())


class TestEmbedding:
    def test_of_everything_that_is_known(self, small_model, cells):
        """A294."""
        tokens = small_model.get_latent_representation(cells, mode="auto")
        assert np.isfinite(tokens).all()
        hidden = small_model.get_latent_representation(cells, mode="expr_to_pos")
        assert np.abs(tokens - hidden).max() > 1e-3

    def test_of_complete_cells_beside_others(self, small_model, cells):
        cells.obsm["spatial"][:30] = np.nan
        assert np.isfinite(small_model.get_latent_representation(cells, mode="auto")).all()


def renamed(change):
    def rename(cells):
        cells.var_names = change(cells.var_names)

    return rename


def symbols_in_var(cells):
    cells.var["symbol"] = list(cells.var_names)
    cells.var_names = [f"ENSMUSG{i:011d}" for i in range(cells.n_vars)]


def ensembl(cells):
    cells.var_names = [f"ENSMUSG{i:011d}" for i in range(cells.n_vars)]


def in_raw(cells):
    cells.raw = cells.copy()
    cells.var_names = [f"other_{i}" for i in range(cells.n_vars)]


class TestHints:
    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            pytest.param(renamed(lambda n: n + ".1"), r"version suffix.*str\.replace", id="A125"),
            pytest.param(renamed(lambda n: n.str.upper()), r"str\.lower", id="capitals"),
            pytest.param(renamed(lambda n: n.str.title()), "small letters", id="title"),
            pytest.param(renamed(lambda n: " " + n), r"blanks.*str\.strip", id="blanks"),
            pytest.param(symbols_in_var, r"adata.var_names = adata.var\['symbol'\]", id="var"),
            pytest.param(ensembl, "genes are Ensembl ids, the model's gene symbols", id="ensembl"),
            pytest.param(in_raw, r"adata = adata.raw.to_adata\(\)", id="raw"),
        ],
    )
    def test_genes(self, small_model, cells, unchanged, damage, message):
        damage(cells)
        with (
            unchanged(cells),
            pytest.raises(ValueError, match=f"shares no gene.*Hint: .*{message}"),
        ):
            small_model.predict(cells, **PLACE)

    def test_transposed(self, small_model, cells):
        turned = cells.T.copy()
        with pytest.raises(ValueError, match=r"transposed: adata = adata\.T"):
            small_model.predict(turned, **PLACE)

    def test_most_genes_in_other_capitals(self, small_model, cells):
        cells.var_names = [n if i < 3 else n.upper() for i, n in enumerate(cells.var_names)]
        with pytest.warns(
            UserWarning, match="37 of the model's 40 genes are missing.*small letters"
        ):
            placed(small_model, cells)

    def test_coordinates_in_obs(self, small_model, cells, unchanged):
        cells.obs[["X_centroid", "Y_centroid"]] = cells.obsm.pop("spatial")
        remedy = r"adata.obsm\['spatial'\] = adata.obs\[\['X_centroid', 'Y_centroid'\]\]"
        with unchanged(cells), pytest.raises(ValueError, match=remedy):
            small_model.predict(cells, mode="pos_to_expr", **QUIET)
        reference = cells.copy()
        with pytest.raises(ValueError, match=remedy.replace("adata", "reference")):
            small_model.predict(cells, reference=reference, **PLACE)

    def test_coordinates_in_obs_of_training(self, fit, atlas, unchanged):
        atlas.obs[["x", "y"]] = atlas.obsm.pop("spatial")
        with unchanged(atlas), pytest.raises(KeyError, match=r"adata.obs\[\['x', 'y'\]\].to_numpy"):
            fit(atlas)

    def test_coordinates_under_another_key(self, fit, atlas):
        atlas.obsm["X_spatial"] = atlas.obsm.pop("spatial")
        with pytest.raises(KeyError, match=r"seem to be in adata.obsm\['X_spatial'\]"):
            fit(atlas)

    @pytest.mark.parametrize("where", ["layer", "raw"])
    def test_counts_elsewhere(self, small_model, fit, cells, unchanged, where):
        if where == "raw":
            cells.raw = cells.copy()
            remedy = r"adata.raw holds whole numbers: adata.X = adata.raw\[:, adata.var_names\].X"
        else:
            cells.layers["counts"] = cells.X.copy()
            remedy = r"adata.layers\['counts'\] holds whole numbers"
        cells.X = np.log1p(cells.X.toarray())
        with unchanged(cells), pytest.raises(ValueError, match=f"fractional values.*{remedy}"):
            small_model.predict(cells, **PLACE)
        with unchanged(cells), pytest.raises(ValueError, match=f"fractional values.*{remedy}"):
            fit(cells)


def test_names_of_hints_are_those_of_the_argument(small_model, cells):
    reference = cells.copy()
    reference.var_names = reference.var_names.str.upper()
    with pytest.raises(ValueError, match=r"reference\.var_names = "):
        small_model.predict(cells, reference=reference, **PLACE)


def test_labels_of_new_cells_may_be_categories(labeled):
    labels = pd.Series(["L1", "L6", None], dtype="category")
    assert labeled.generate(3, labels=labels, n_steps=1, **QUIET).n_obs == 3
