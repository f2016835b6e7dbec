"""Any AnnData or table either becomes processed data, or is one error that names it."""

import os
import tempfile
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from scipy import sparse
from typer.testing import CliRunner

from alphastomics.io import open_data
from alphastomics.main import app

EXAMPLES = int(os.environ.get("EXAMPLES", "15"))  # EXAMPLES=500 for a long run
TEXTS = ["a", "b", "A", "1", "01", "1.0", "a/b", "é", "a,b", "", "a;b", 'q"q', "NA"]
NAMES = st.sampled_from(TEXTS)
SIZES = st.sampled_from([0, 1, 4, 12, 20, 20, 20])
NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 0.5, -1.0, 3.0, 7.0, np.nan, np.inf, 2.0**40])
COUNTS = st.sampled_from([0.0, 0.0, 1.0, 2.0, 7.0])
PLACES = st.sampled_from(["random"] * 20 + ["none", "nan", "part", "inf", "one", "text", "sparse"])
COLUMNS = st.sampled_from(["text", "int", "float", "missing", "bool", "mixed", "category"])
OPTIONS = {
    "--values": ["counts", "lognorm", "intensity"],
    "--genes": ["union", "nowhere.txt"],
    "--layer": ["raw", "none"],
    "--section_key": ["section", "slide", "none"],
    "--spatial_key": ["spatial", "none"],
    "--labels_key": ["label", "none"],
    "--batch_key": ["batch"],
    "--min_genes": ["1", "3"],
    "--min_cells": ["1", "9"],
    "--num_genes": ["1", "9"],
    "--test_ratio": ["0.5"],
    "--val_sections": ["a", "1"],
}


@st.composite
def options(draw):
    chosen = draw(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=2, unique=True))
    return [part for name in chosen for part in (name, draw(st.sampled_from(OPTIONS[name])))]


@st.composite
def matrices(draw, n_cells, n_genes):
    numbers = draw(st.sampled_from([COUNTS] * 8 + [NUMBERS]))
    values = draw(st.lists(numbers, min_size=1, max_size=20))
    matrix = np.resize(np.array(values, dtype=float), (n_cells, n_genes))
    dtype = draw(st.sampled_from(["f4", "f8", "f8", "i8", "u1", "bool"]))
    if np.isfinite(matrix).all() or dtype.startswith("f"):
        matrix = matrix.astype(dtype)
    form = draw(st.sampled_from(["dense", "csr", "csc"]))
    return {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[form](matrix)


@st.composite
def places(draw, n):
    kind, n_dims = draw(PLACES), draw(st.sampled_from([2] * 12 + [3, 3, 1, 4]))
    position = np.random.default_rng(0).normal(size=(n, n_dims)).round(2)
    if kind == "none":
        return None
    if kind == "nan":
        position[:] = np.nan
    if kind == "part" and n:
        position[0, 0] = np.nan
    if kind == "inf" and n:
        position[0] = np.inf
    if kind == "one":
        position[:] = 1
    if kind == "text":
        return position.astype(str)
    return sparse.csr_matrix(position) if kind == "sparse" else position


@st.composite
def columns(draw, n):
    kind = draw(COLUMNS)
    names = draw(st.lists(NAMES, min_size=1, max_size=3))
    names = [names[i % len(names)] for i in range(n)]
    if kind == "int":
        return np.arange(n) // 8
    if kind == "float":
        return np.arange(n) // 8 + draw(st.sampled_from([0.0, 0.5]))
    if kind == "missing":
        return np.where(np.arange(n) % 3 == 0, np.nan, 1.0)
    if kind == "bool":
        return np.arange(n) % 2 == 0
    if kind == "mixed":
        return np.array([[1, "a", True, np.nan][i % 4] for i in range(n)], dtype=object)
    return pd.Categorical(names) if kind == "category" else np.array(names, dtype=object)


@st.composite
def tables_of_cells(draw, n):
    keys = draw(st.lists(st.sampled_from(["section", "slide", "label", "batch"]), unique=True))
    others = draw(st.lists(NAMES, max_size=1))
    index = [f"c{i}" for i in range(n)]
    if draw(st.integers(0, 9)) == 0:
        index = draw(st.lists(NAMES, min_size=n, max_size=n))
    return pd.DataFrame({key: draw(columns(n)) for key in (*keys, *others)}, index=index)


@st.composite
def genes(draw, n):
    if draw(st.integers(0, 4)):
        return [f"g{i}" for i in range(n)]
    return draw(st.lists(NAMES, min_size=n, max_size=n))


@st.composite
def adatas(draw):
    n_cells, n_genes = draw(SIZES), draw(st.sampled_from([0, 1, 2, 3, 4, 4]))
    obs, var = draw(tables_of_cells(n_cells)), pd.DataFrame(index=draw(genes(n_genes)))
    matrix = draw(matrices(n_cells, n_genes))
    adata = ad.AnnData(matrix, obs=obs, var=var)
    position = draw(places(n_cells))
    if position is not None:
        adata.obsm["spatial"] = position
    if draw(st.booleans()):
        adata.layers["raw"] = draw(matrices(n_cells, n_genes))
    return adata


@st.composite
def tables(draw):
    n_cells, n_genes = draw(SIZES), draw(st.sampled_from([0, 1, 2, 3, 4, 4]))
    matrix = sparse.csr_matrix(draw(matrices(n_cells, n_genes))).toarray()
    table = pd.DataFrame(matrix).set_axis(draw(genes(n_genes)), axis=1)
    obs = draw(tables_of_cells(n_cells))
    obs = obs.rename(columns={"section": "cell_section", "label": "cell_class"})
    position = draw(places(n_cells))
    if position is not None and not sparse.issparse(position):
        obs[["coord_X", "coord_Y", "coord_Z", "w"][: position.shape[1]]] = position
    return pd.concat([table.set_axis(obs.index), obs], axis=1)


def check(write, given_options):
    """Write raw data, run the command; there is a whole result, or one error and nothing."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw, output = Path(folder) / "raw", Path(folder) / "data"
        raw.mkdir()
        try:
            write(raw)
        except Exception:  # anndata or pandas cannot write it
            reject()
        paths = ["--raw_dir", str(raw), "--output_dir", str(output)]
        result = CliRunner().invoke(app, ["preprocess", *paths, *given_options])
        if result.exit_code == 0:
            open_data(output).verify()
            return "works"
        assert result.exit_code == 2, (result.output, result.exception)
        (error,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert str(raw) in error or "--" in error or "section" in error, error
        assert "cannot be read as" not in error, error  # a foreign message
        assert not output.exists(), error
        return error


MANY = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@MANY
@given(adata=adatas(), given_options=options(), suffix=st.sampled_from(["h5ad", "zarr"]))
def test_any_anndata(adata, given_options, suffix):
    check(lambda raw: getattr(adata, f"write_{suffix}")(raw / f"a.{suffix}"), given_options)


@MANY
@given(
    table=tables(),
    given_options=options(),
    suffix=st.sampled_from(["csv", "csv.gz", "parquet"]),
    separator=st.sampled_from([",", ";", "\t"]),
    decimal=st.sampled_from([".", ","]),
)
def test_any_table(table, given_options, suffix, separator, decimal):
    def write(raw):
        if suffix == "parquet":
            table.to_parquet(raw / "a.parquet")
        else:
            decimal_mark = "." if separator == "," else decimal
            table.to_csv(raw / f"a.{suffix}", sep=separator, decimal=decimal_mark)

    check(write, given_options)
