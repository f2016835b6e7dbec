"""Any query works, or gives one error of ours that names what is wrong and leaves it as it was.

``EXAMPLES=500`` tries more than the suite does.
"""

import os
import re
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import alphastomics as al

SOURCE = Path(al.__file__).parent
OURS = (ValueError, TypeError, KeyError)
NAMED = re.compile(  # an argument, or a part of the AnnData
    r"adata|reference|mode|estimate|output|key_added|layer_added|standardize|max_cells_per_set|"
    r"n_samples|n_rounds|n_steps|point|seed|genes|draw|section_key|section '"
)
EXAMPLES = int(os.environ.get("EXAMPLES", "40"))
ANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 100,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
DTYPES = [
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "longdouble", "bool", "object", "complex64", "U3"),
]
FORMATS = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "array": sparse.csr_array,
    "dense": np.asarray,
    "Fortran": np.asfortranarray,
    "masked": np.ma.asarray,
    "DataFrame": pd.DataFrame,
}
STRANGE = [None, True, 0, -1, 2, 2.5, "3", "a/b", "", "spatial", float("nan"), 10**13, ["x"], "x"]


def matrix(draw, cells):
    """Expression of some type and format, with values that may be impossible."""
    values = cells.X.toarray().astype(np.float64)
    damage = draw(st.sampled_from([*["none"] * 6, "zero rows", "zero rows", "all zero", *"abcdef"]))
    if damage == "zero rows":
        values[: draw(st.integers(1, len(values)))] = 0
    elif damage == "all zero":
        values[:] = 0
    elif damage != "none":
        values[0, 0] = {"a": np.nan, "b": np.inf, "c": -1, "d": 0.5, "e": 1e38, "f": 2**24 + 1}[
            damage
        ]
    with np.errstate(all="ignore"):
        values = values.astype(draw(st.sampled_from(DTYPES)))
        try:
            cells.X = FORMATS[draw(st.sampled_from(sorted(FORMATS)))](values)
        except (TypeError, ValueError):  # AnnData or SciPy does not hold it
            cells.X = values
    return cells


def gene_names(draw, cells):
    names = np.array(cells.var_names, dtype=object)
    kind = draw(st.sampled_from(["permuted", "some", "none", "twice", "upper", "numbers"]))
    if kind == "permuted":
        return cells[:, ::-1].copy()
    if kind == "some":
        n = draw(st.integers(1, len(names)))
        names = [name if i < n else f"other_{i}" for i, name in enumerate(names)]
    elif kind == "none":
        names = [f"other_{i}" for i in range(len(names))]
    elif kind == "twice":
        names[1] = names[0]
    elif kind == "upper":
        names = [name.upper() for name in names]
    cells.var_names = range(len(names)) if kind == "numbers" else list(names)
    return cells


def positions(draw, cells):
    place, n = np.array(cells.obsm["spatial"]), cells.n_obs
    some = slice(0, draw(st.integers(1, n)))
    kind = draw(st.sampled_from([*"abcdefghijklmno"]))
    if kind == "a":
        del cells.obsm["spatial"]
        return cells
    if kind in "bcdef":
        place[some] = {"b": np.nan, "c": np.inf, "d": 1e200, "e": 5, "f": 1e7}[kind]
    changed = {
        "g": lambda: np.c_[place[:, :1], np.full(n, np.nan)],
        "h": lambda: np.c_[place, place[:, 0]],
        "i": lambda: np.nan_to_num(place).astype("int32"),
        "j": lambda: place.astype("U9"),
        "k": lambda: pd.DataFrame(place, index=cells.obs_names, columns=["x", "y"]),
        "l": lambda: sparse.csr_matrix(place),
        "m": lambda: np.ma.masked_greater(place, np.median(place)),
        "n": lambda: np.where(np.isnan(place), None, place.astype(object)),
        "o": lambda: place[:, :1],
    }
    cells.obsm["spatial"] = changed.get(kind, lambda: place)()
    return cells


def obs_columns(draw, cells):
    n, column = cells.n_obs, draw(st.sampled_from(["section", "cell_type", "expression_known"]))
    first = np.arange(n) < draw(st.integers(0, n))
    values = draw(
        st.sampled_from(
            [
                None,
                ["a"] * n,
                list(range(n)),
                first,
                np.where(first, 1.0, np.nan),
                np.where(first, "a", "b"),
                pd.Categorical(np.where(first, "a", "b")),
                pd.array(first, dtype="boolean"),
                first.astype(object),
                first.astype(int),
                np.where(first, None, "a"),
                pd.date_range("2026", periods=n),
            ]
        )
    )
    if values is None:
        cells.obs = cells.obs.drop(columns=column, errors="ignore")
    else:
        cells.obs[column] = values
    return cells


def other_parts(draw, cells):
    kind = draw(st.sampled_from([*"abcdefgh"]))
    if kind == "a":
        cells.obs_names = ["same"] * cells.n_obs
    elif kind == "b":
        cells.uns["alphastomics"] = draw(st.sampled_from(["mine", 3, {}, {"there": "mine"}]))
    elif kind == "c":
        cells.obsm["there"] = np.ones((cells.n_obs, 2))
        cells.layers["layer"] = np.ones(cells.shape)
    elif kind == "d":
        cells.varm["measured"] = draw(
            st.sampled_from(
                [
                    np.ones((cells.n_vars, 1), dtype=bool),
                    pd.DataFrame({"section_2": np.arange(cells.n_vars) > 4}, cells.var_names),
                    pd.DataFrame({"section_2": ["x"] * cells.n_vars}, cells.var_names),
                    pd.DataFrame({"section_2": [False] * cells.n_vars}, cells.var_names),
                ]
            )
        )
    elif kind == "e":
        cells.obs_names = [str(i) for i in range(cells.n_obs)]
    elif kind == "f":
        cells.uns["spatial"] = draw(st.sampled_from([{"section_2": {"images": {}}}, "x", None]))
    elif kind == "g":
        cells.raw = cells.copy()
    else:
        cells.obs["there_radius"] = 7.0
    return cells


CHANGES = (gene_names, other_parts, obs_columns, positions, matrix)  # each but once, in this order


@st.composite
def queries(draw, source):
    """Some cells with up to three changes."""
    n = draw(st.sampled_from([1, 2, 3, 12, 30]))
    cells = source[:n].copy()
    cells.obsm["spatial"][: n // 3] = np.nan  # placed by mode="auto"
    chosen = draw(st.lists(st.sampled_from(CHANGES), max_size=3, unique=True))
    for change in sorted(chosen, key=CHANGES.index):
        cells = change(draw, cells)
    return cells


@st.composite
def references(draw, source):
    """Nothing, the same cells, others, changed ones, or no cells at all."""
    kind = draw(st.sampled_from([*"aaaaaabccccdddeee"]))
    if kind == "a":
        return None
    if kind == "b":
        return draw(st.sampled_from(["text", 3, pd.DataFrame()]))
    reference = source[: 10 if kind == "c" else None].copy()
    return draw(st.sampled_from(CHANGES))(draw, reference) if kind == "e" else reference


def sometimes(draw, usual, strange=STRANGE):
    """A usual value, now and then a strange one."""
    return draw(st.sampled_from(strange if draw(st.integers(0, 29)) == 17 else usual))


def call(model, method, adata, options):
    """Call a method: its error, or None, and the warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            getattr(model, method)(adata, progress_bar=False, **options)
        except Exception as error:
            return error, said
    return None, said


def check_error(error):
    """Assert that an error is ours and names something."""
    text = "".join(traceback.format_exception(error))
    assert type(error) in OURS, text
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert Path(last.filename).is_relative_to(SOURCE), text
    assert NAMED.search(str(error)), text


def check_foreign(said):
    """Assert that no warning is one of NumPy's or of another package."""
    for warning in said:
        assert issubclass(warning.category, UserWarning | FutureWarning), str(warning.message)


def n_blank(said):
    """Number of cells that a warning says to be without an estimate."""
    found = [re.match(r"(\d+) of .* have no counts", str(warning.message)) for warning in said]
    (number,) = [int(match[1]) for match in found if match] or [0]
    return number


def take(held, key):
    """Take a result out of an AnnData; it must be there."""
    value = held[key]
    del held[key]
    return value


def take_record(adata, key, had):
    """Take the provenance of a result, and all of it if there was none before."""
    records = dict(adata.uns["alphastomics"])
    assert "method" in records.pop(key)
    if records or had:
        adata.uns["alphastomics"] = records
    else:
        del adata.uns["alphastomics"]


@pytest.fixture(scope="module")
def source(small_tissue):
    return small_tissue[small_tissue.obs["section"] == "section_2"].copy()


@pytest.fixture(scope="module")
def model(fit, small_tissue):
    atlas = small_tissue[small_tissue.obs["section"] != "section_2"].copy()
    return fit(atlas, labels_key="cell_type")


@ANY
@given(data=st.data())
def test_predict_and_sample(model, source, unchanged, data):
    adata = data.draw(queries(source))
    method = data.draw(st.sampled_from(["predict", "predict", "sample"]))
    options = {
        "mode": sometimes(
            data.draw, ["auto", "expr_to_pos", "expr_to_pos", "pos_to_expr", "joint"]
        ),
        "reference": data.draw(references(source[30:60])),
        "output": sometimes(data.draw, ["lognorm", "counts"]),
        "key_added": sometimes(data.draw, ["there"]),
        "layer_added": sometimes(data.draw, ["layer"]),
        "standardize": sometimes(data.draw, ["training"] * 9 + ["query"]),
        "max_cells_per_set": sometimes(data.draw, [None, 2, 8]),
    }
    if method == "sample":
        options["n_samples"] = sometimes(data.draw, [1, 2], STRANGE[1:])
        options["n_steps"] = sometimes(data.draw, [1, np.int64(2)])
        options["n_rounds"] = sometimes(data.draw, [None, 1, 3])
        options["seed"] = sometimes(data.draw, [0, 5])
        options["point"] = sometimes(data.draw, ["medoid", "consensus"], STRANGE[1:])
    had = "alphastomics" in adata.uns
    position = adata.obsm.get("spatial")
    with unchanged(adata):
        error, said = call(model, method, adata, options)
        check_foreign(said)
        if error is not None:
            check_error(error)
            return
        key, layer = options["key_added"], options["layer_added"]
        if isinstance(key, str) and key in adata.obsm and key in adata.uns["alphastomics"]:
            place = take(adata.obsm, key)
            take_record(adata, key, had or layer in adata.uns["alphastomics"])
            assert place.shape == (adata.n_obs, 2)
            assert np.isnan(place).any(1).sum() == n_blank(said)
            if options["mode"] == "auto" and isinstance(position, np.ndarray):
                known = np.isfinite(position.astype(float)).all(1)
                np.testing.assert_array_equal(place[known], position[known].astype(float))
        if layer in adata.uns.get("alphastomics", {}):
            values = take(adata.layers, layer)
            take_record(adata, layer, had)
            assert values.shape == adata.shape
            mine = adata.var_names.astype(str).isin(model.genes)
            assert np.isnan(values[:, ~mine]).all()
            assert np.isnan(values[:, mine]).any(1).sum() <= n_blank(said)
        if adata.uns.get(key) is not None and key != "spatial":
            del adata.uns[key]


@ANY
@given(data=st.data())
def test_impute(model, source, unchanged, data):
    adata = data.draw(queries(source))
    named = [["gene_3", "gene_1"], ["gene_1"], "gene_2", np.array(["gene_7"]), pd.Index(["gene_0"])]
    strange = [[], ["x"], 3, ["gene_1", "gene_1"], [None], [["gene_1"]], {"gene_1": 1}, [1.5], b"x"]
    options = {
        "genes": sometimes(data.draw, [None, *named], strange),
        "reference": data.draw(references(source[30:60])),
        "draw": data.draw(st.booleans()),
        "output": sometimes(data.draw, ["lognorm", "counts"]),
        "key_added": sometimes(data.draw, ["there"]),
        "n_steps": sometimes(data.draw, [1, 2]),
        "seed": sometimes(data.draw, [0, 5]),
        "max_cells_per_set": sometimes(data.draw, [None, 2, 8]),
    }
    had = "alphastomics" in adata.uns
    with unchanged(adata):
        error, said = call(model, "impute", adata, options)
        check_foreign(said)
        if error is not None:
            check_error(error)
            return
        table = take(adata.obsm, options["key_added"])
        take_record(adata, options["key_added"], had)
        genes = options["genes"]
        if genes is None:
            genes = model.genes[~model.genes.isin(adata.var_names.astype(str))]
        assert list(table.columns) == ([genes] if isinstance(genes, str) else list(genes))
        assert list(table.index) == list(adata.obs_names)
        assert table.isna().any(axis=1).sum() == n_blank(said)
