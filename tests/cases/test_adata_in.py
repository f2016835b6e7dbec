"""AnnData that comes into `setup_anndata`: read right, or refused with its name and the remedy."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import alphastomics as al
from alphastomics.model._data import SetupArgs, read_training

SETUP = SetupArgs(None, "counts", "spatial", "section", None)


def position(change):
    """Change of the coordinates."""

    def apply(a):
        a.obsm["spatial"] = change(a.obsm["spatial"])

    return apply


def expression(change):
    """Change of dense expression."""

    def apply(a):
        a.X = change(a.X.toarray())

    return apply


def masked(x):
    return np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) < 4)


def text_column(x):
    return pd.DataFrame(x, columns=["x", "y"]).assign(y="a")


def framed(change):
    """Coordinates as a DataFrame with the names of the cells."""

    def apply(a):
        table = change(a.obsm["spatial"]).set_axis(a.obs_names)
        a.obsm["spatial"] = table

    return apply


where = r"adata.obsm\['spatial'\]"
REFUSED = [
    pytest.param(framed(text_column), TypeError, f"{where} holds 'a' .str", id="A015"),
    pytest.param(
        position(lambda x: x.astype(np.int64) + 2**60), ValueError, f"{where}.*offset", id="A020"
    ),
    pytest.param(position(lambda x: x + 1j), TypeError, f"{where} holds complex", id="A022"),
    pytest.param(position(masked), ValueError, f"{where} .*4 masked values", id="A023"),
    pytest.param(position(lambda x: x + 1e16), ValueError, f"{where} spans .*offset", id="A026"),
    pytest.param(position(lambda x: x * 1e-200), ValueError, f"{where}.*another unit", id="A029"),
    pytest.param(position(lambda x: x * 1e200), ValueError, f"{where}.*another unit", id="A031"),
    pytest.param(
        position(lambda x: 5e3 + x * 1e-16), ValueError, f"{where} spans .* rounding", id="A104"
    ),
    pytest.param(expression(masked), ValueError, "adata.X .*4 masked values", id="A066"),
    pytest.param(
        expression(lambda x: x.astype(np.float64) * 1e300), ValueError, "adata.X.*1e.30", id="A076"
    ),
    pytest.param(expression(lambda x: x + 1j), TypeError, "adata.X holds complex", id="A091"),
    pytest.param(
        expression(lambda x: np.where(x > 2, "a", x).astype(object)),
        TypeError,
        "adata.X holds '.*not a real number",
        id="input-9-text",
    ),
    pytest.param(
        expression(lambda x: x * 1.01), ValueError, "the worst is 0.* from a whole", id="input-30"
    ),
]


@pytest.mark.parametrize(("damage", "error", "message"), REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_read_is_named(atlas, unchanged, damage, error, message):
    damage(atlas)
    with unchanged(atlas), pytest.raises(error, match=message):
        al.AlphaSTomics.setup_anndata(atlas)


READ = [
    pytest.param(position(sparse.csr_matrix), id="A016"),
    pytest.param(framed(pd.DataFrame), id="A015-numbers"),
    pytest.param(framed(lambda x: pd.DataFrame(x).astype("Float64")), id="nullable"),
    pytest.param(position(lambda x: x.astype(object)), id="objects"),
    pytest.param(position(lambda x: np.ma.masked_array(x, mask=False)), id="nothing-masked"),
    pytest.param(expression(lambda x: x.astype(np.float16)), id="A059"),
    pytest.param(expression(lambda x: x.astype(object)), id="A090-input-9"),
    pytest.param(expression(lambda x: x.astype(np.longdouble)), id="long"),
    pytest.param(expression(lambda x: sparse.csc_matrix(x.astype(np.uint8))), id="csc"),
    pytest.param(expression(lambda x: sparse.csr_array(x)), id="array"),
    pytest.param(expression(lambda x: x * np.float32(1.000003)), id="input-30"),
]


@pytest.mark.parametrize("change", READ)
@pytest.mark.filterwarnings("error::UserWarning")
def test_what_can_be_read_is_what_it_was(atlas, unchanged, change):
    expected = read_training(atlas.copy(), SETUP)
    change(atlas)
    with unchanged(atlas):
        table = read_training(atlas, SETUP)
    np.testing.assert_array_equal(table.expression.toarray(), expression_of(expected))
    np.testing.assert_allclose(table.position, expected.position, rtol=1e-12)
    al.AlphaSTomics.setup_anndata(atlas)


def expression_of(table):
    return table.expression.toarray()


def test_genes_may_be_called_by_numbers(fit, atlas, cells):  # A101
    atlas.var_names = range(atlas.n_vars)
    cells.var_names = [str(i) for i in range(cells.n_vars)]
    model = fit(atlas, steps=1)
    model.predict(cells, mode="expr_to_pos", progress_bar=False)
    assert list(model.genes[:2]) == ["0", "1"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"spatial_key": None}, TypeError, "spatial_key must be the name"),
        ({"section_key": ["section"]}, TypeError, r"section_key must be the name .*list"),
        ({"layer": 3}, TypeError, "layer must be the name .*found 3"),
    ],
)
def test_keys_are_text(atlas, unchanged, options, error, message):
    with unchanged(atlas), pytest.raises(error, match=message):
        al.AlphaSTomics.setup_anndata(atlas, **options)


def test_a_column_that_is_there_twice_is_named(atlas, unchanged):
    atlas.obs = pd.concat([atlas.obs, atlas.obs[["section"]]], axis=1)
    with unchanged(atlas), pytest.raises(ValueError, match="is there 2 times"):
        al.AlphaSTomics.setup_anndata(atlas)


def lognorm_of_counts(a):
    return {"values": "lognorm"}


def scaled(a):
    x = np.log1p(a.X.toarray())
    a.X = (x - x.mean(0)) / x.std(0)
    return {"values": "lognorm"}


def joined_panels(a):
    first = (a.obs["section"] == "section_0").to_numpy()
    x = a.X.toarray()
    x[first, 30:], x[~first, :10] = 0, 0
    a.X = x
    return {}


def other_units(a):
    a.obsm["spatial"][(a.obs["section"] == "section_1").to_numpy()] /= 0.2125
    return {}


def denser(a):
    few = (a.obs["section"] == "section_0").to_numpy() | (np.arange(a.n_obs) % 8 == 0)
    a._inplace_subset_obs(few)
    a.obsm["spatial"][(a.obs["section"] == "section_1").to_numpy()] *= 1.2
    return {}


def flat(a):
    a.obsm["spatial"] = np.c_[a.obsm["spatial"], np.full(a.n_obs, 7.0)]
    return {}


def silent_cells(a):
    x = a.X.toarray()
    x[:5] = 0
    a.X = x
    return {}


def partly_missing(a):
    a.obsm["spatial"][:7] = np.nan
    return {}


DOUBTS = [
    pytest.param(lognorm_of_counts, r"whole numbers only \(up to \d+\).*'counts'", id="A083"),
    pytest.param(scaled, r"negative values \(least -\d.*\), as scaled", id="input-33"),
    pytest.param(joined_panels, r"genes are 0 .*in 'section_0', .*measured", id="input-20"),
    pytest.param(other_units, r"'section_1' is [45]\.\d times as wide .*units", id="input-51"),
    pytest.param(denser, r"'section_1' is 3\.\d times as far between", id="density"),
    pytest.param(flat, r"coordinate 2 of the 3 .* is constant in every section", id="flat"),
    pytest.param(silent_cells, r"5 of the 400 cells have no expression", id="no-counts"),
    pytest.param(partly_missing, r"7 of the 200 cells of section 'section_0'", id="input-50"),
]


@pytest.mark.parametrize(("change", "message"), DOUBTS)
def test_silent_misuse_gives_one_warning(atlas, change, message):
    options = change(atlas)
    with pytest.warns(UserWarning, match=message) as caught:
        al.AlphaSTomics.setup_anndata(atlas, **options)
    assert [w.filename for w in caught if issubclass(w.category, UserWarning)] == [__file__]


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.filterwarnings("error::UserWarning")
def test_ordinary_tissue_gives_no_warning(n_dims):
    adata = al.datasets.simulate_tissue(n_sections=3, n_cells=150, n_genes=40, n_dims=n_dims)
    adata.obsm["spatial"][(adata.obs["section"] == "section_2").to_numpy()] = np.nan
    al.AlphaSTomics.setup_anndata(adata, labels_key="cell_type")
    al.AlphaSTomics.setup_anndata(adata[:50].copy())


def test_real_sections_give_no_warning(shared_data, recwarn):
    for name in ("merfish_hypothalamus", "starmap_mpfc", "osmfish_cortex"):
        al.AlphaSTomics.setup_anndata(ad.read_h5ad(shared_data / f"{name}.h5ad"))
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
