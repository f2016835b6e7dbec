"""Readers of raw data: each gives the same sections."""

import gzip
import json
import shutil
import warnings

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from scipy.io import mmwrite

import alphastomics as al
from alphastomics.io import DataError, find_sections, read_sections


@pytest.fixture(scope="module")
def cells():
    return al.datasets.simulate_tissue(2, 50, 12)


@pytest.fixture(scope="module")
def mixed(cells):
    """The same cells with the sections among each other."""
    return cells[np.random.default_rng(0).permutation(100)].copy()


def luna(cells):
    table = pd.DataFrame(cells.X.toarray(), index=cells.obs_names, columns=cells.var_names)
    table["coord_X"], table["coord_Y"] = cells.obsm["spatial"].T
    return table.assign(
        cell_section=cells.obs["section"].astype(str), cell_class=cells.obs["cell_type"].astype(str)
    )


def check(raw, cells, **keys):
    found = find_sections(raw, **keys)
    assert sorted(section.name for section in found) == ["section_0", "section_1"]
    for known, section in zip(found, read_sections(raw, **keys), strict=True):
        expected = cells[cells.obs["section"] == known.name]
        assert (known.n_cells, known.n_dims) == (50, 2)
        assert sparse.isspmatrix_csr(section.X)
        assert set(section.obs["section"]) == {known.name}
        expected = expected[section.obs_names, section.var_names]
        assert (section.X != expected.X).nnz == 0
        assert np.array_equal(section.obsm["spatial"], expected.obsm["spatial"])
    return found


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_anndata_in_every_form(mixed, tmp_path, form, suffix):
    written = mixed.copy()
    written.X = {"csr": mixed.X, "csc": mixed.X.tocsc(), "dense": mixed.X.toarray()}[form]
    getattr(written, f"write_{suffix}")(tmp_path / f"raw.{suffix}")
    found = check(tmp_path, mixed)
    assert found[0].units == "µm"
    assert found[0].columns == ("section", "cell_type")


def test_a_layer_and_other_keys(mixed, tmp_path):
    written = ad.AnnData(
        mixed.X * 0,
        mixed.obs.rename(columns={"section": "slice"}),
        mixed.var,
        layers={"raw": mixed.X},
    )
    written.obsm["xy"] = mixed.obsm["spatial"]
    written.write_h5ad(tmp_path / "raw.h5ad")
    check(tmp_path, mixed, layer="raw", section_key="slice", spatial_key="xy")
    with pytest.raises(DataError, match=r"--layer: 'rwa' is not in the layers of .*\['raw'\]"):
        find_sections(tmp_path, layer="rwa")
    with pytest.raises(
        DataError, match=r"--section_key: 'slide' is not in obs of .* slice, cell_type"
    ):
        find_sections(tmp_path, section_key="slide")


def test_a_file_without_sections_is_one_and_folders_are_searched(cells, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("section_1", "more/section_0"):
        part = cells[cells.obs["section"] == name[-9:]].copy()
        del part.obs["section"]
        part.write_h5ad(tmp_path / f"{name}.h5ad")
    (tmp_path / "notes.txt").write_text("not data")
    check(tmp_path, cells)


def test_a_file_whose_obs_has_no_columns_is_one_section(cells, tmp_path):
    part = ad.AnnData(cells.X[:50], obsm={"spatial": cells.obsm["spatial"][:50]})
    part.write_h5ad(tmp_path / "a.h5ad")
    (section,) = find_sections(tmp_path)
    assert (section.name, section.n_cells, section.columns) == ("a", 50, ())


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_tables_in_the_layout_of_luna(mixed, tmp_path, suffix):
    table = luna(mixed)
    if suffix == "parquet":
        table.to_parquet(tmp_path / "raw.parquet")
    else:
        table.to_csv(tmp_path / f"raw.{suffix}")
    found = check(tmp_path, mixed)
    assert found[0].columns == ("cell_section", "cell_class")
    assert list(found[0].genes) == list(mixed.var_names)
    section = found[0].load()
    assert list(section.obs["cell_class"]) == list(mixed.obs.loc[section.obs_names, "cell_type"])


def test_tables_may_have_volumes_and_numeric_columns_that_are_no_genes(mixed, tmp_path):
    luna(mixed).assign(coord_Z=1.0, donor=3).to_csv(tmp_path / "raw.csv")
    found = find_sections(tmp_path, also_obs=["donor"])
    assert found[0].n_dims == 3
    assert "donor" in found[0].columns
    assert "donor" not in found[0].genes


def test_a_table_of_something_else_is_an_error(tmp_path):
    pd.DataFrame({"barcode": ["a"], "quality": [1.0]}).to_csv(tmp_path / "qc.csv", index=False)
    with pytest.raises(
        DataError, match=r"qc.csv is not in LUNA's layout: it has neither cell_section"
    ):
        find_sections(tmp_path)


def write_10x(folder, cells):
    folder.mkdir(parents=True)
    mmwrite(folder / "matrix.mtx", cells.X.T.astype(int))
    names = cells.var_names
    features = pd.DataFrame({0: "ENS" + names, 1: names, 2: "Gene Expression"})
    features.to_csv(folder / "features.tsv", sep="\t", header=False, index=False)
    pd.Series(cells.obs_names).to_csv(folder / "barcodes.tsv", header=False, index=False)
    for name in ("matrix.mtx", "features.tsv", "barcodes.tsv"):
        content = (folder / name).read_bytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        (folder / name).unlink()


def test_10x_matrices(cells, tmp_path):
    part = cells[:50]
    write_10x(tmp_path / "sample" / "outs" / "filtered_feature_bc_matrix", part)
    (section,) = find_sections(tmp_path)
    assert (section.name, section.n_cells, section.n_dims) == ("sample", 50, None)
    read = section.load()
    assert (read.X != part[read.obs_names, read.var_names].X).nnz == 0


def write_10x_h5(path, cells):
    counts = cells.X.astype(np.int32)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"], group["indptr"] = (
            counts.data,
            counts.indices,
            counts.indptr,
        )
        group["shape"] = np.array(counts.shape[::-1])
        group["barcodes"] = cells.obs_names.to_numpy().astype("S")
        features = group.create_group("features")
        for key, values in (
            ("id", "ENS" + cells.var_names),
            ("name", cells.var_names),
            ("feature_type", ["Gene Expression"] * cells.n_vars),
            ("genome", ["x"] * cells.n_vars),
        ):
            features[key] = np.asarray(values).astype("S")


def test_visium(cells, tmp_path):
    part = cells[:50].copy()
    part.obsm["spatial"] = part.obsm["spatial"].round()  # pixels
    folder = tmp_path / "slide_a"
    (folder / "spatial").mkdir(parents=True)
    write_10x_h5(folder / "filtered_feature_bc_matrix.h5", part)
    table = pd.DataFrame(
        {"in_tissue": 1, "row": 0, "col": 0, "y": part.obsm["spatial"][:, 1]}, index=part.obs_names
    ).assign(x=part.obsm["spatial"][:, 0])
    table.to_csv(folder / "spatial" / "tissue_positions_list.csv", header=False)
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps({"spot": 1}))
    import matplotlib.pyplot as plt

    for size in ("hires", "lowres"):
        plt.imsave(folder / "spatial" / f"tissue_{size}_image.png", np.zeros((2, 2)))
    (section,) = find_sections(tmp_path)
    assert (section.name, section.n_dims, section.units) == ("slide_a", 2, "pixels")
    read = section.load()
    assert (read.X != part[read.obs_names, read.var_names].X).nnz == 0
    assert np.array_equal(read.obsm["spatial"], part[read.obs_names].obsm["spatial"])


def test_xenium_without_its_counts_names_the_file(tmp_path):
    (tmp_path / "experiment.xenium").write_text("{}")
    with pytest.raises(DataError, match=r"Xenium output without cell_feature_matrix.h5"):
        find_sections(tmp_path)


def test_spatialdata_with_coordinates_in_its_shapes(cells, tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    part = cells[:50].copy()
    position = part.obsm["spatial"]
    del part.obsm["spatial"], part.obs["section"]
    part.obs["region"] = pd.Categorical(["spots"] * 50)
    part.obs["instance"] = np.arange(50)[::-1]
    shapes = spatialdata.models.ShapesModel.parse(position[::-1], geometry=0, radius=1.0)
    table = spatialdata.models.TableModel.parse(
        part, region="spots", region_key="region", instance_key="instance"
    )
    spatialdata.SpatialData(shapes={"spots": shapes}, tables={"table": table}).write(
        tmp_path / "slide.zarr"
    )
    (section,) = find_sections(tmp_path)
    assert (section.name, section.n_cells, section.n_dims) == ("slide", 50, 2)
    read = section.load()
    assert np.allclose(read.obsm["spatial"], position)
    assert (read.X != part.X).nnz == 0


def test_regions_of_a_spatialdata_table_are_sections(cells, tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    table = cells.copy()
    table.obs = table.obs.rename(columns={"section": "region"})
    table.obs["instance"] = np.arange(100)
    table = spatialdata.models.TableModel.parse(
        table, region=["section_0", "section_1"], region_key="region", instance_key="instance"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the regions have no shapes
        spatialdata.SpatialData(tables={"table": table}).write(tmp_path / "raw.zarr")
    check(tmp_path, cells)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_damaged_files_are_named(mixed, tmp_path):
    mixed.write_h5ad(tmp_path / "raw.h5ad")
    truncate(tmp_path / "raw.h5ad")
    with pytest.raises(DataError, match=r"raw.h5ad cannot be read as h5ad: .* copy it again"):
        find_sections(tmp_path)
    (tmp_path / "raw.h5ad").unlink()
    luna(mixed).to_parquet(tmp_path / "raw.parquet")
    truncate(tmp_path / "raw.parquet")
    with pytest.raises(DataError, match=r"raw.parquet cannot be read as Parquet"):
        find_sections(tmp_path)
    (tmp_path / "raw.parquet").unlink()
    mixed.write_zarr(tmp_path / "raw.zarr")
    (found, *_) = find_sections(tmp_path)
    for chunk in (tmp_path / "raw.zarr" / "X" / "data").glob("[0-9c]*"):
        if chunk.is_file():
            truncate(chunk)
        else:
            shutil.rmtree(chunk)
            chunk.write_bytes(b"x")
    with pytest.raises(DataError, match=r"raw.zarr cannot be read as zarr"):
        found.load()


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(DataError, match="--raw_dir: there is no file or folder"):
        find_sections(tmp_path / "absent")
    with pytest.raises(DataError, match=r"found no data in .*it is empty. Expected .h5ad"):
        find_sections(tmp_path)
    (tmp_path / "image.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"found no data in .*it holds image.tif"):
        find_sections(tmp_path)


def test_names_that_come_twice_are_errors(mixed, tmp_path):
    mixed.write_h5ad(tmp_path / "a.h5ad")
    mixed.write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(
        DataError, match=r"section '\w+' is in .*a.h5ad and again in .*b.h5ad: rename"
    ):
        find_sections(tmp_path)
    (tmp_path / "b.h5ad").unlink()
    twice = mixed.copy()
    twice.var_names = [*mixed.var_names[:-1], "gene_0"]
    twice.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match=r"a.h5ad has duplicated gene names, 'gene_0'"):
        find_sections(tmp_path)
    twice = mixed.copy()
    twice.obs_names = ["cell"] * 100
    twice.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match=r"section 'section_\d' has duplicated cell names, 'cell'"):
        next(read_sections(tmp_path))


def test_10x_reader_is_the_one_of_scanpy(cells, tmp_path):
    write_10x_h5(tmp_path / "filtered_feature_bc_matrix.h5", cells[:50])
    (section,) = find_sections(tmp_path / "filtered_feature_bc_matrix.h5")
    assert section.name == tmp_path.name
    expected = sc.read_10x_h5(tmp_path / "filtered_feature_bc_matrix.h5")
    assert (section.load().X != expected.X).nnz == 0


def test_whole_numbers_name_sections_alike_with_and_without_decimals(cells, tmp_path):
    """A column that once had a missing value holds floats."""
    for kind in (int, float):
        cells.obs["slide"] = np.arange(cells.n_obs).astype(kind) % 2
        path = tmp_path / f"{kind.__name__}.h5ad"
        cells.write_h5ad(path)
        sections = al.io.find_sections(path, section_key="slide")
        assert [section.name for section in sections] == ["0", "1"]
