"""What is written into a query: under keys that can be stored, nothing of the user, at the end."""

import anndata as ad
import numpy as np
import pytest

QUIET = {"progress_bar": False}
METHODS = {
    "predict": {"mode": "expr_to_pos", **QUIET},
    "sample": {"mode": "expr_to_pos", "n_steps": 2, **QUIET},
    "impute": {"genes": ["gene_1"], **QUIET},
    "register": {},
}


@pytest.fixture(scope="module")
def calibrated(fit, small_tissue):
    """A model with a radius."""
    model = fit(small_tissue[small_tissue.obs["section"] != "section_2"].copy())
    model.calibrate(max_steps=1, set_size=32, batch_size=2, progress_bar=False)
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        pytest.param("my/key", ValueError, "cannot be stored", id="input-60"),
        pytest.param("", ValueError, "is empty", id="A147"),
        pytest.param("  ", ValueError, "is empty", id="blanks"),
        pytest.param("..", ValueError, "cannot be stored", id="parent"),
        pytest.param("a\0b", ValueError, "cannot be stored", id="null"),
        pytest.param("\udc80", ValueError, "cannot be stored", id="surrogate"),
        pytest.param(3, TypeError, r"must be a text.*found 3 \(int\)", id="number"),
        pytest.param(None, TypeError, "must be a text", id="none"),
        pytest.param("spatial", ValueError, "where the true coordinates are", id="reserved"),
        pytest.param("alphastomics", ValueError, "provenance of results", id="provenance"),
    ],
)
def test_a_key_that_cannot_be_stored_or_is_read_is_refused(
    small_model, cells, unchanged, method, key, error, message
):
    with unchanged(cells), pytest.raises(error, match=f"(?s)key_added.*{message}"):
        getattr(small_model, method)(cells, key_added=key, **METHODS[method])


@pytest.mark.parametrize("key", ["a/b", "", 3])
@pytest.mark.parametrize("method", ["predict", "sample"])
def test_a_layer_that_cannot_be_stored_is_refused(small_model, cells, unchanged, method, key):
    with unchanged(cells), pytest.raises((ValueError, TypeError), match="layer_added"):
        getattr(small_model, method)(cells, mode="pos_to_expr", layer_added=key, **QUIET)


def test_one_name_for_positions_and_expression_is_refused(small_model, cells, unchanged):
    names = {"key_added": "same", "layer_added": "same"}
    with unchanged(cells), pytest.raises(ValueError, match="key_added and layer_added are both"):
        small_model.sample(cells, mode="joint", n_steps=2, **names, **QUIET)


@pytest.mark.parametrize("method", METHODS)
def test_a_key_of_the_user_is_not_replaced(small_model, cells, unchanged, method):
    """A146."""
    cells.obsm["X_pca"] = np.ones((cells.n_obs, 2))
    with unchanged(cells), pytest.raises(ValueError, match=r"obsm\['X_pca'\] is there.*key_added="):
        getattr(small_model, method)(cells, key_added="X_pca", **METHODS[method])


def test_a_layer_of_the_user_is_not_replaced(small_model, cells, unchanged):
    cells.layers["counts"] = cells.X.copy()
    with unchanged(cells), pytest.raises(ValueError, match=r"layers\['counts'\].*layer_added="):
        small_model.predict(cells, mode="pos_to_expr", layer_added="counts", **QUIET)


@pytest.mark.parametrize("method", METHODS)
def test_an_earlier_result_is_replaced(small_model, cells, tmp_path, method):
    """Also after a file, in which everything of the record must be storable."""
    getattr(small_model, method)(cells, **METHODS[method])
    cells.write_h5ad(tmp_path / "c.h5ad")
    again = ad.read_h5ad(tmp_path / "c.h5ad")
    getattr(small_model, method)(again, **METHODS[method])
    assert sorted(again.obsm) == sorted(cells.obsm)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "held", [pytest.param("my notes", id="A142"), pytest.param(3, id="number"), ["list"]]
)
def test_provenance_of_somebody_else_stays(small_model, cells, unchanged, method, held):
    cells.uns["alphastomics"] = held
    with unchanged(cells), pytest.raises(ValueError, match=r"adata.uns\['alphastomics'\] is"):
        getattr(small_model, method)(cells, **METHODS[method])


def test_a_record_of_somebody_else_stays(small_model, cells, unchanged):
    cells.uns["alphastomics"] = {"spatial_predicted": "mine"}
    with unchanged(cells), pytest.raises(ValueError, match="is not a record of alphastomics"):
        small_model.predict(cells, mode="expr_to_pos", **QUIET)


class TestRadius:
    def test_a_column_of_the_user_stays(self, small_model, cells):
        """A144."""
        cells.obs["spatial_predicted_radius"] = 7.0
        small_model.predict(cells, mode="expr_to_pos", **QUIET)
        assert (cells.obs["spatial_predicted_radius"] == 7.0).all()

    def test_a_column_of_the_user_is_not_replaced(self, calibrated, cells, unchanged):
        cells.obs["spatial_predicted_radius"] = 7.0
        with unchanged(cells), pytest.raises(ValueError, match=r"radius'\] is there.*key_added="):
            calibrated.predict(cells, mode="expr_to_pos", **QUIET)

    def test_that_of_an_earlier_call_goes(self, calibrated, small_model, cells):
        calibrated.predict(cells, mode="expr_to_pos", **QUIET)
        assert (cells.obs["spatial_predicted_radius"] > 0).all()
        calibrated.predict(cells, mode="expr_to_pos", **QUIET)
        small_model.predict(cells, mode="expr_to_pos", **QUIET)
        assert "spatial_predicted_radius" not in cells.obs


def test_images_are_copied(small_model, cells):
    """F009."""
    images = {"section_2": {"images": {"hires": np.zeros((3, 3, 3))}, "scalefactors": {"a": 1.0}}}
    cells.uns["spatial"] = images
    cells.obsm["spatial"][:20] = np.nan
    small_model.predict(cells, **QUIET)
    assert cells.uns["alphastomics"]["spatial_predicted"]["images"]
    linked = cells.uns["spatial_predicted"]["section_2"]
    linked["scalefactors"]["a"] = 2.0
    linked["images"]["hires"][:] = 1
    assert cells.uns["spatial"]["section_2"]["scalefactors"] == {"a": 1.0}
    assert not cells.uns["spatial"]["section_2"]["images"]["hires"].any()


class TestKnownValues:
    @pytest.fixture
    def partly_unmeasured(self, cells):
        cells.obs["expression_known"] = np.arange(cells.n_obs) >= 5
        return cells

    def known(self, cells):
        return cells.layers["expression_predicted"][5:]

    @pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32, np.uint32])
    def test_counts(self, small_model, partly_unmeasured, dtype):
        """B042."""
        cells = partly_unmeasured
        cells.X = cells.X.toarray().astype(dtype)
        cells.X[6:8, 0] = 2**24 + 1, 1_000_000_007
        small_model.predict(cells, output="counts", **QUIET)
        np.testing.assert_array_equal(self.known(cells), cells.X[5:])
        assert cells.layers["expression_predicted"].dtype == np.float64

    def test_small_counts_are_in_single_precision(self, small_model, partly_unmeasured):
        cells = partly_unmeasured
        small_model.predict(cells, output="counts", **QUIET)
        assert cells.layers["expression_predicted"].dtype == np.float32
        np.testing.assert_array_equal(self.known(cells), cells.X.toarray()[5:])

    @pytest.mark.parametrize("output", ["lognorm", "counts"])
    def test_lognorm(self, lognorm_model, partly_unmeasured, output):
        """B043."""
        cells = partly_unmeasured
        cells.X = np.log1p(cells.X.toarray().astype(np.float64)) / 3
        lognorm_model.predict(cells, output=output, **QUIET)
        np.testing.assert_array_equal(self.known(cells), cells.X[5:])


@pytest.fixture(scope="module")
def lognorm_model(fit, small_tissue):
    """A model of log-normalized values."""
    atlas = small_tissue[small_tissue.obs["section"] != "section_2"].copy()
    atlas.X = np.log1p(atlas.X.toarray())
    return fit(atlas, values="lognorm")


class TestNoNegativeValues:
    def test_generated(self, lognorm_model):
        """A283."""
        assert lognorm_model.generate(50, n_steps=2, **QUIET).X.min() >= 0

    @pytest.mark.parametrize("method", ["predict", "sample"])
    def test_estimated(self, lognorm_model, cells, method):
        cells.X = np.log1p(cells.X.toarray())
        getattr(lognorm_model, method)(cells, mode="pos_to_expr", layer_added="e", **QUIET)
        assert cells.layers["e"].min() >= 0

    def test_but_for_values_that_were_centered(self, fit, small_tissue):
        atlas = small_tissue.copy()
        values = np.log1p(atlas.X.toarray())
        atlas.X = values - values.mean(0)
        model = fit(atlas, values="lognorm")
        model.predict(atlas, mode="pos_to_expr", **QUIET)
        assert atlas.layers["expression_predicted"].min() < 0
