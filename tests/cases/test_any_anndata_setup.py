"""Any AnnData is set up, or refused by one error of ours that names what is wrong."""

import os
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import alphastomics as al

PACKAGE = Path(al.__file__).parent
FORMATS = ["dense", "csr", "csc", "coo-like", "masked", "frame", "array"]
DTYPES = ["float32", "float64", "float16", "int8", "int64", "uint16", "bool", "complex64"]
DTYPES += ["object", "text", "longdouble", "mixed"]
KINDS = ["counts", "normalized", "negative", "nan", "inf", "huge", "tiny", "zero", "noise"]
SECTIONS = [["a", "b"], ["a"], [1, 2], [1.0, 2.0], [1.5, 2.5], [True, False], ["a", None]]
SECTIONS += [["a", 1], [np.nan, 1.0], [None, None], [pd.Timestamp(0), pd.NaT], [(1,), "a"]]
SECTIONS += [[True, None]]
PANELS = [("s", "a", "b"), ("s",), ("a",), ("s", "True", "1")]
OPTIONS = {
    "layer": [None, "raw", "nothing", 3],
    "values": ["lognorm", "intensity", "tpm", None],
    "spatial_key": ["spatial", "nothing", None],
    "section_key": [None, "labels", "nothing", ("section",)],
    "labels_key": ["section", "nothing", "a/b", 3],
    "batch_key": ["section", "nothing", "a/b", 3],
}
WORDS = ("adata", "section", "values", "layer", "key", "cells")


def numbers(draw, shape):
    """Values of one kind."""
    rng = np.random.default_rng(draw(st.integers(0, 5)))
    kind = draw(st.sampled_from(KINDS))
    x = rng.poisson(2.0, shape).astype(np.float64)
    if kind == "normalized":
        x = np.log1p(x)
    if kind == "negative":
        x -= 1
    if kind in ("nan", "inf"):
        x[rng.random(shape) < 0.2] = np.nan if kind == "nan" else np.inf
    return x * {"huge": 1e300, "tiny": 1e-200, "zero": 0.0, "noise": 1.00001}.get(kind, 1.0)


def typed(draw, x):
    """Values of one type."""
    dtype = draw(st.sampled_from(DTYPES))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dtype == "text":
            return x.astype(str)
        if dtype == "mixed":
            x = x.astype(object)
            x[0, 0] = draw(st.sampled_from([None, "x", pd.NA, 1, {}, np.nan]))
            return x
        return x.astype(dtype)


def stored(draw, x, index, columns):
    """Values in one format; as they are if they cannot be stored in it."""
    form = draw(st.sampled_from(FORMATS))
    if form == "masked":
        return np.ma.masked_array(x, mask=draw(st.booleans()))
    if form == "frame":
        return pd.DataFrame(x, index=index, columns=columns)
    if x.dtype.kind in "OU" or x.dtype == np.float16 or form == "dense":
        return x
    if form == "array":
        return sparse.csr_array(x)
    return sparse.csc_matrix(x) if form == "csc" else sparse.csr_matrix(x)


def names(draw, n):
    """Names of cells or genes."""
    kind = draw(st.sampled_from(["text", "text", "text", "numbers", "twice"]))
    if kind == "numbers":
        return pd.RangeIndex(n)
    return pd.Index(["a"] * n if kind == "twice" else [f"n{i}" for i in range(n)])


def column(draw, n):
    """Column of obs: sections, labels, batches or what is known."""
    values = draw(st.sampled_from([*SECTIONS, [f"s{i}" for i in range(n)]]))
    series = pd.Series([values[i % len(values)] for i in range(n)])
    if draw(st.booleans()) and series.map(type).nunique() == 1:
        return series.astype("category")
    return series


def positions(draw, n):
    """Coordinates with holes."""
    d = draw(st.sampled_from([2, 2, 2, 2, 3, 3, 0, 1, 4]))
    rng = np.random.default_rng(draw(st.integers(0, 5)))
    x = rng.normal(size=(n, d)) * draw(st.sampled_from([1.0, 1e3, 1e-200, 1e200, 0.0]))
    x = np.rint(x) if draw(st.booleans()) else x
    x = x + draw(st.sampled_from([0.0, 0.0, 1e6, 1e16, -1e18]))
    hole = draw(st.sampled_from(["none", "none", "rows", "all", "cell", "inf"]))
    if hole == "rows":
        x[rng.random(n) < 0.3] = np.nan
    if hole == "all":
        x[:] = np.nan
    if hole in ("cell", "inf") and x.size:
        x[0, 0] = np.nan if hole == "cell" else np.inf
    return x


PARTS = ["size", "cells", "genes", "x", "place", "section", "labels", "batch"]
PARTS += ["expression_known", "measured", "layer", "no place", "options"]


def named(values, adata):
    """Values with the names of the cells, which AnnData asks for in a DataFrame."""
    return values.set_axis(adata.obs_names) if isinstance(values, pd.DataFrame) else values


def table(draw, n, odd):
    """Table of cells."""
    obs = pd.DataFrame(index=names(draw, n) if "cells" in odd else [f"c{i}" for i in range(n)])
    obs["section"] = np.array(["s"] * n, dtype=object)
    for name in ("section", "labels", "batch", "expression_known"):
        if name in odd:
            obs[name] = column(draw, n).array
    return obs


@st.composite
def anndata(draw):
    """AnnData with one to three odd parts, and arguments of ``setup_anndata``."""
    odd = draw(st.sets(st.sampled_from(PARTS), min_size=1, max_size=3))
    n, g = 12, 5
    if "size" in odd:
        n, g = draw(st.integers(0, 14)), draw(st.integers(0, 6))
    obs, genes = table(draw, n, odd), [f"g{i}" for i in range(g)]
    rng = np.random.default_rng(0)
    x, place = rng.poisson(2.0, (n, g)).astype(np.float32), rng.normal(size=(n, 2)) * 100
    if "x" in odd and n and g:
        x = stored(draw, typed(draw, numbers(draw, (n, g))), obs.index, genes)
    if "place" in odd and n:
        place = positions(draw, n)
        axes = [f"x{i}" for i in range(place.shape[1])]
        place = stored(draw, typed(draw, place) if place.size else place, obs.index, axes)
    framed = isinstance(x, pd.DataFrame)
    adata = AnnData(X=None if framed else x, obs=obs, var=pd.DataFrame(index=genes))
    options = {}
    if framed or "layer" in odd:
        adata.layers["raw"] = named(x, adata)
        options["layer"] = "raw"
    if "no place" not in odd:
        adata.obsm["spatial"] = named(place, adata)
    if "measured" in odd:
        measured = {name: column(draw, g).to_numpy() for name in draw(st.sampled_from(PANELS))}
        adata.varm["measured"] = pd.DataFrame(measured, index=adata.var_names)
    if "genes" in odd:
        adata.var_names = names(draw, g)
    options |= {f"{name}_key": name for name in ("labels", "batch") if name in odd}
    if "options" in odd:
        name = draw(st.sampled_from(list(OPTIONS)))
        options[name] = draw(st.sampled_from(OPTIONS[name]))
    return adata, options


def assert_ours(error, options):
    """The error was raised in the package, is of an expected kind and names what is wrong."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    assert PACKAGE in Path(frame.filename).parents, f"{frame}: {error!r}"
    assert isinstance(error, ValueError | TypeError | KeyError)
    assert any(word in str(error) for word in (*WORDS, *options)), str(error)


@settings(
    max_examples=int(os.environ.get("EXAMPLES", "100")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(case=anndata())
@pytest.mark.filterwarnings("ignore")
def test_any_anndata_is_set_up_or_refused(same_as_before, case):
    adata, options = case
    check = same_as_before(adata)
    try:
        al.AlphaSTomics.setup_anndata(adata, **options)
    except Exception as error:
        assert_ours(error, options)
        check()
    else:
        for name in ("_scvi_uuid", "_scvi_manager_uuid"):
            del adata.uns[name]
        check()
        al.AlphaSTomics.setup_anndata(adata, **options)
        al.AlphaSTomics(adata, d_model=8, num_layers=0, d_ff=8, num_heads=1)
