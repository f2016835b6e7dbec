"""Tables and folders that people bring to ``preprocess``: read as meant, or one clear error."""

import os
import shutil
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse
from scipy.io import mmwrite
from typer.testing import CliRunner

import alphastomics as al
from alphastomics.io import open_data
from alphastomics.main import app


@pytest.fixture(scope="module")
def tissue():
    return al.datasets.simulate_tissue(2, 20, 5)


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.fixture
def preprocess(tmp_path, raw):
    """Run the command: its text where it works, or the error, with nothing written."""

    def run(*options, error=False):
        output = tmp_path / "data"
        arguments = ["preprocess", "--raw_dir", str(raw), "--output_dir", str(output)]
        result = CliRunner().invoke(app, [*arguments, *options])
        assert result.exit_code == (2 if error else 0), result.output
        assert not error or not output.exists()
        assert not error or result.output.splitlines()[-1].startswith("Error: ")
        return result.output

    run.output = tmp_path / "data"
    return run


def luna(tissue):
    table = pd.DataFrame(tissue.X.toarray(), columns=tissue.var_names)
    table["coord_X"], table["coord_Y"] = tissue.obsm["spatial"].T
    return table.assign(
        cell_section=tissue.obs["section"].astype(str).to_numpy(),
        cell_class=tissue.obs["cell_type"].astype(str).to_numpy(),
    ).set_axis([f"{i:04d}" for i in range(len(table))])


@pytest.mark.parametrize(
    ("separator", "decimal"),
    [
        pytest.param(";", ".", id="D103"),
        pytest.param(";", ",", id="D104"),
        pytest.param("\t", ".", id="D105"),
        pytest.param("\t", ",", id="tabs and decimal commas"),
    ],
)
def test_separators_and_decimal_commas(raw, tissue, preprocess, separator, decimal):
    luna(tissue).to_csv(raw / "a.csv", sep=separator, decimal=decimal)
    preprocess()
    sections = open_data(preprocess.output).sections()
    assert [section.name for section in sections] == ["section_0", "section_1"]
    for section in sections:
        own = tissue[section.obs.index.astype(int)]
        assert np.array_equal(section.position, own.obsm["spatial"])
        assert np.array_equal(section.expression[:].toarray(), own.X.toarray())


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["", "cell_id"], ids=["D129", "cell_id"])
def test_identifiers_stay_text(raw, tissue, preprocess, suffix, column):
    table = luna(tissue).assign(cell_section=["01"] * 20 + ["02"] * 20)
    if suffix == "csv":
        table.to_csv(raw / "a.csv", index_label=column)
    else:
        table.rename_axis(column).reset_index().to_parquet(raw / "a.parquet")
    preprocess("--labels_key", "cell_class")
    first, second = open_data(preprocess.output).sections()
    assert (first.name, second.name) == ("01", "02")
    assert set(first.obs.index) | set(second.obs.index) == {f"{i:04d}" for i in range(40)}


@pytest.mark.parametrize("form", ["int", "float", "h5ad int", "h5ad float", "h5ad text"])
def test_numbers_as_names_are_spelled_alike(raw, tissue, preprocess, form):
    """The case D153: in tables and AnnData, for whole numbers that a missing value made floats."""
    *_, kind = form.split()
    slide = np.repeat([0, 1], 20).astype({"int": int, "float": float, "text": str}[kind])
    if form.startswith("h5ad"):
        cells = tissue.copy()
        cells.obs["section"] = slide
        cells.write_h5ad(raw / "a.h5ad")
        al.AlphaSTomics.setup_anndata(cells)
    else:
        luna(tissue).assign(cell_section=slide).to_csv(raw / "a.csv")
    preprocess("--test_sections", "1")
    assert [section.name for section in open_data(preprocess.output).sections()] == ["0", "1"]


def broken_table(raw, tissue, kind):
    """Write a table with something wrong; what the error says."""
    table, path = luna(tissue), raw / "a.csv"
    if kind == "gene twice":
        path.write_text(table.to_csv().replace("gene_1", "gene_0", 1))
        return "a.csv: two columns are named 'gene_0'"
    if kind == "no name":
        path.write_text(table.to_csv().replace("gene_1", "", 1))
        return "a.csv: column 3 has no name"
    if kind == "text":
        table["gene_1"] = table["gene_1"].astype(object)
        table.iloc[7, 1] = "n.d."
        table.to_csv(path)
        return "a.csv: column 'gene_1' holds 'n.d.' in row 8, which is not a number"
    if kind == "late text":
        table = pd.concat([table] * 60, ignore_index=True)
        table["gene_1"] = table["gene_1"].astype(object)
        table.iloc[2000, 1] = "1 000"
        table.to_csv(path)
        return "a.csv: column 'gene_1' holds '1 000' in row 2001, which is not a number"
    if kind == "position":
        table["coord_X"] = table["coord_X"].astype(object)
        table.loc["0003", "coord_X"] = "left"
        table.to_csv(path)
        return "a.csv: column 'coord_X' holds 'left' in row 4, which is not a number"
    if kind == "missing":
        table.iloc[7, 1] = np.nan
        table.to_csv(path)
        return "a.csv: expression of gene 'gene_1' is missing for some cells"
    if kind == "fields":
        lines = table.to_csv().splitlines()
        path.write_text("\n".join([*lines[:5], f"{lines[5]},1", *lines[6:]]))
        return "a.csv: row 5 has 11 fields, but the header has 10"
    if kind == "encoding":
        path.write_bytes(table.to_csv().replace("gene_1", "gène").encode("latin-1"))
        return "a.csv cannot be read as CSV: its text is not UTF-8"
    if kind == "nameless cell":
        path.write_text(table.to_csv().replace("0003,", ",", 1))
        return "the cell of row 4 has no name"
    if kind == "slash":
        table.assign(**{"a/b": "x"}).to_csv(path)
        return "the column 'a/b' of obs cannot be stored under this name"
    if kind == "empty":
        path.write_text("")
        return "a.csv is empty"
    if kind == "no rows":
        table.iloc[:0].to_csv(path)
        return "a.csv holds no cells"
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        *("gene twice", "no name", "text", "late text", "position", "missing", "fields"),
        *("encoding", "nameless cell", "slash", "empty", "no rows"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(raw, tissue, preprocess, kind):
    message = broken_table(raw, tissue, kind)
    assert message in preprocess(error=True)


def test_labels_of_numbers_and_text_are_columns_of_obs(raw, tissue, preprocess):
    table = luna(tissue).assign(donor=["1", "2", "3b", "x"] * 10, flag=[True, np.nan] * 20)
    table.to_csv(raw / "a.csv")
    preprocess()
    section = open_data(preprocess.output).sections()[0]
    assert set(section.obs["donor"]) == {"1", "2", "3b", "x"}
    assert set(section.obs["flag"].dropna().astype(str)) == {"True"}


def test_sparse_coordinates_are_read(raw, tissue, preprocess):
    """The case D157."""
    cells = tissue.copy()
    cells.obsm["spatial"] = sparse.csr_matrix(cells.obsm["spatial"])
    cells.write_h5ad(raw / "a.h5ad")
    preprocess()
    for section in open_data(preprocess.output).sections():
        own = tissue[section.obs.index]
        assert np.array_equal(section.position, own.obsm["spatial"])


def test_a_link_to_a_parent_is_not_followed(raw, tissue, preprocess, tmp_path):
    """The case D171."""
    tissue.write_h5ad(raw / "a.h5ad")
    (tmp_path / "other.csv").write_text("not data of this folder")
    (raw / "more").mkdir()
    (raw / "more" / "up").symlink_to(raw, target_is_directory=True)
    (raw / "loop").symlink_to(tmp_path, target_is_directory=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert "2 sections" in preprocess()
    text = [str(w.message) for w in caught if "not followed" in str(w.message)]
    assert len(text) == 2
    assert f"{raw}/loop is a link to {tmp_path}, a folder that holds it" in text[0]


def test_links_to_data_elsewhere_are_followed(raw, tissue, preprocess, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    tissue.write_h5ad(tmp_path / "elsewhere" / "a.h5ad")
    (raw / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert "2 sections" in preprocess()


@pytest.mark.parametrize("case", ["D172", "D174", "D175", "D177", "D192", "D195", "D198", "C144"])
def test_one_error_before_anything_is_written(raw, tissue, preprocess, monkeypatch, case):
    options, message = (), ""
    tissue.write_h5ad(raw / "a.h5ad")
    if case == "D172":
        (raw / "b.h5ad").symlink_to(raw / "gone.h5ad")
        message = f"{raw}/b.h5ad is a link to {raw}/gone.h5ad, which does not exist"
    if case == "D174":
        shutil.copy(raw / "a.h5ad", os.fsdecode(os.fsencode(raw) + b"/b\xff.h5ad"))
        message = "/b\\xff.h5ad' is not UTF-8: rename it"
    if case == "D175":
        cells = tissue.copy()
        cells.var_names = ["a,b", "a\nb", "a/b", "c", ""]
        cells.write_h5ad(raw / "a.h5ad")
        message = f"{raw}/a.h5ad: gene number 5 has no name"
    if case == "D177":
        options = ("--test_sections", "sectoin_1")
        message = "but the sections are 'section_0', 'section_1'. Did you mean section_1?"
    if case == "D192":
        folder = raw / "s"
        folder.mkdir()
        mmwrite(folder / "matrix.mtx", tissue.X.T.astype(int))
        text = (folder / "matrix.mtx").read_text()
        (folder / "matrix.mtx").write_text(text[: len(text) // 2])
        (folder / "barcodes.tsv").write_text("\n".join(tissue.obs_names))
        (folder / "genes.tsv").write_text("\n".join(f"E{g}\t{g}" for g in tissue.var_names))
        message = f"{folder}/matrix.mtx cannot be read as 10x mtx: "
    if case == "D195":
        zarr.create_group(raw / "x.zarr").create_group("notes")
        message = f"{raw}/x.zarr is not AnnData: it has no obs and no var, but notes"
    if case == "D198":
        spatialdata = pytest.importorskip("spatialdata")
        shapes = spatialdata.models.ShapesModel.parse(np.zeros((3, 2)), geometry=0, radius=1.0)
        spatialdata.SpatialData(shapes={"cells": shapes}).write(raw / "s.zarr")
        message = f"{raw}/s.zarr is SpatialData without a table of expression; it has shapes"
    if case == "C144":

        def refuse(path, mode):
            raise PermissionError(13, "Unable to open file", str(path))

        monkeypatch.setattr("h5py.File", refuse)
        message = f"{raw}/a.h5ad may not be read (permission denied)"
    text = preprocess(*options, error=True)
    assert message in text
    assert "damaged" not in text or case == "D192"


def test_names_of_genes_may_hold_commas_and_slashes(raw, tissue, preprocess):
    cells = tissue.copy()
    cells.var_names = ["a,b", "a\nb", "a/b", "c", "d"]
    cells.write_h5ad(raw / "a.h5ad")
    preprocess()
    assert open_data(preprocess.output).genes.tolist() == cells.var_names.tolist()


def test_coordinates_in_obs_are_pointed_out(raw, tissue, preprocess):
    cells = tissue.copy()
    cells.obs["x_centroid"], cells.obs["y_centroid"] = cells.obsm.pop("spatial").T
    cells.write_h5ad(raw / "a.h5ad")
    text = preprocess(error=True)
    assert "Columns x_centroid and y_centroid of obs look like them" in text


def test_a_folder_that_may_not_be_read_is_named(raw, tissue, preprocess, monkeypatch):
    tissue.write_h5ad(raw / "a.h5ad")
    (raw / "private").mkdir()
    listed = os.listdir

    def refuse(path="."):
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("os.listdir", refuse)
    monkeypatch.setattr("os.scandir", refuse)
    assert "private may not be read (permission denied)" in preprocess(error=True)


def test_h5ad_files_that_are_not_anndata_say_what_they_hold(raw, preprocess):
    import h5py

    with h5py.File(raw / "a.h5ad", "w") as file:
        file["matrix"] = np.ones(3)
    assert "a.h5ad is not AnnData: it has no obs and no var, but matrix" in preprocess(error=True)


def test_columns_without_a_name_are_errors(raw, tissue, preprocess):
    """Found by the property test: anndata writes such a file, and cannot read it."""
    cells = tissue.copy()
    cells.obs[""] = 1.0
    cells.write_h5ad(raw / "a.h5ad")
    assert "a.h5ad: obs is no table" in preprocess(error=True)
    (raw / "a.h5ad").unlink()
    luna(tissue).rename(columns={"gene_0": ""}).to_parquet(raw / "a.parquet")
    assert "a.parquet: column 2 has no name" in preprocess(error=True)


def test_the_genes_of_a_table_with_row_names_of_r(raw, tissue, preprocess):
    """``write.table`` gives the names of rows no header."""
    lines = luna(tissue).to_csv().splitlines()
    (raw / "a.csv").write_text("\n".join([lines[0][1:], *lines[1:]]))
    preprocess()
    data = open_data(preprocess.output)
    assert sorted(data.genes) == sorted(tissue.var_names)
    assert set(ad.read_zarr(data.sections()[0].path).obs_names) <= {f"{i:04d}" for i in range(40)}
