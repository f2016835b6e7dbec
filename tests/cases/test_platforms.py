"""Look-alikes of what instruments write: read, and brought to placed cells by commands."""

import gzip
import json

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmwrite
from typer.testing import CliRunner

import alphastomics as al
from alphastomics.io import DataError, find_sections
from alphastomics.main import app

SIZE = ["--d_model", "16", "--num_heads", "2", "--num_layers", "1", "--d_ff", "16"]
SIZE += ["--set_size", "16", "--batch_size", "2", "--sets_per_section", "2", "--max_steps", "2"]
SPOTS = [*("barcode", "in_tissue", "array_row", "array_col")]
SPOTS += ["pxl_row_in_fullres", "pxl_col_in_fullres"]


@pytest.fixture(scope="module")
def measured():
    """Forty cells, twelve genes, positions of whole numbers."""
    cells = al.datasets.simulate_tissue(1, 40, 12)
    cells.obs_names = [f"{i:08d}ACGT-1" for i in range(40)]
    cells.obsm["spatial"] = cells.obsm["spatial"].round()
    cells.X = sparse.csr_matrix(cells.X.astype(np.int32))
    return cells


def write_h5(path, cells, extra=0):
    """A 10x matrix; the last ``extra`` features are no genes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = ["Gene Expression"] * (cells.n_vars - extra) + ["Negative Control Probe"] * extra
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        for key in ("data", "indices", "indptr"):
            matrix[key] = getattr(cells.X, key)
        matrix["shape"] = np.array(cells.shape[::-1])
        matrix["barcodes"] = cells.obs_names.to_numpy().astype("S")
        features = matrix.create_group("features")
        names = [f"ENS{i}" for i in range(cells.n_vars)]
        for key, values in zip(
            ("id", "name", "feature_type", "genome"),
            (names, cells.var_names, kinds, ["mm"] * cells.n_vars),
            strict=True,
        ):
            features[key] = np.asarray(values).astype("S")


def write_gz(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def write_mtx(folder, prefix, cells, features="features"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{prefix}matrix.mtx"
    mmwrite(path, cells.X.T)
    write_gz(path.with_name(f"{path.name}.gz"), path.read_text())
    path.unlink()
    write_gz(folder / f"{prefix}barcodes.tsv.gz", "\n".join(cells.obs_names))
    lines = [f"ENS{i}\t{name}\tGene Expression" for i, name in enumerate(cells.var_names)]
    write_gz(folder / f"{prefix}{features}.tsv.gz", "\n".join(lines))


def spots(cells):
    x, y = cells.obsm["spatial"].T
    columns = [cells.obs_names, 1, np.arange(cells.n_obs), 0, y.astype(int), x.astype(int)]
    return pd.DataFrame(dict(zip(SPOTS, columns, strict=True)))


def counts(cells):
    return pd.DataFrame(cells.X.toarray(), columns=cells.var_names)


def xenium(folder, cells):
    write_h5(folder / "outs" / "cell_feature_matrix.h5", cells)
    x, y = cells.obsm["spatial"].T
    table = pd.DataFrame({"cell_id": cells.obs_names, "x_centroid": x, "y_centroid": y})
    table.iloc[::-1].to_parquet(folder / "outs" / "cells.parquet")
    (folder / "outs" / "experiment.xenium").write_text('{"analysis_sw_version": "R&D"}')


def merscope(folder, cells):
    folder.mkdir(parents=True)
    ids = [str(110883424764611924400221639916 + i) for i in range(cells.n_obs)]
    table = counts(cells).assign(**{"Blank-1": 1, "Blank-2": 0}).set_axis(ids)
    table.to_csv(folder / "cell_by_gene.csv", index_label="cell")
    x, y = cells.obsm["spatial"].T
    places = pd.DataFrame({"fov": 0, "volume": 100.0, "center_x": x, "center_y": y}, index=ids)
    places.iloc[::-1].to_csv(folder / "cell_metadata.csv")


def cosmx(folder, cells):
    folder.mkdir(parents=True)
    names = {"fov": np.arange(cells.n_obs) % 2 + 1, "cell_ID": np.arange(cells.n_obs) // 2 + 1}
    table = pd.DataFrame(names).join(counts(cells)).assign(NegPrb01=1)
    outside = table.iloc[:2].assign(cell_ID=0)
    table = pd.concat([outside, table])
    table.to_csv(folder / "Lung5_Rep1_exprMat_file.csv", index=False)
    x, y = cells.obsm["spatial"].T
    places = pd.DataFrame(names).assign(
        CenterX_local_px=0, CenterY_local_px=0, CenterX_global_px=x, CenterY_global_px=y
    )
    places.iloc[::-1].to_csv(folder / "Lung5_Rep1_metadata_file.csv", index=False)
    (folder / "Lung5_Rep1_fov_positions_file.csv").write_text("fov,x_global_px,y_global_px\n1,0,0")


def visium(folder, cells, *, header=True):
    write_h5(folder / "outs" / "filtered_feature_bc_matrix.h5", cells)
    (folder / "outs" / "spatial").mkdir()
    name = "tissue_positions.csv" if header else "tissue_positions_list.csv"
    spots(cells).to_csv(folder / "outs" / "spatial" / name, index=False, header=header)


def visium_hd(folder, cells, factors=None):
    for size in ("002", "008", "016"):
        bins = folder / "outs" / "binned_outputs" / f"square_{size}um"
        write_h5(bins / "filtered_feature_bc_matrix.h5", cells)
        (bins / "spatial").mkdir()
        spots(cells).to_parquet(bins / "spatial" / "tissue_positions.parquet")
        if factors is not None:
            (bins / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))


def slideseq(folder, cells):
    folder.mkdir(parents=True)
    table = counts(cells).set_axis(cells.obs_names).T
    table.to_csv(folder / "Puck_200115_08.digital_expression.txt.gz", sep="\t", index_label="GENE")
    places = pd.DataFrame(cells.obsm["spatial"], cells.obs_names, ["xcoord", "ycoord"])
    places.iloc[::-1].to_csv(folder / "Puck_200115_08_bead_locations.csv", index_label="barcodes")


def molecules(cells):
    """Molecules at twice the positions in µm, DNBs."""
    entries = cells.X.tocoo()
    x, y = (2 * cells.obsm["spatial"][entries.row]).astype(int).T
    genes = cells.var_names[entries.col]
    return pd.DataFrame({"geneID": genes, "x": x, "y": y, "MIDCount": entries.data}), entries.row


def stereoseq(folder, cells):
    folder.mkdir(parents=True)
    table, cell = molecules(cells)
    table = pd.concat([table.assign(CellID=cell + 1), table.iloc[:3].assign(CellID=0)])
    text = "#FileFormat=GEMv0.1\n#BinSize=1\n" + table.to_csv(sep="\t", index=False)
    write_gz(folder / "SS200000135TL.cellbin.gem.gz", text)


def geo(folder, cells):
    write_mtx(folder, "GSM123_liver_", cells)
    text = spots(cells).to_csv(index=False, header=False)
    write_gz(folder / "GSM123_liver_tissue_positions_list.csv.gz", text)


# Maker, name of the section, unit, what the line says.
PLATFORMS = {
    "xenium": (xenium, "sample", "µm", "Xenium, 40 cells"),
    "merscope": (merscope, "sample", "µm", "left out: 2 blanks"),
    "cosmx": (cosmx, "Lung5_Rep1", "pixels", "outside cells (cell_ID 0) of 2 FOVs"),
    "visium": (visium, "sample", "pixels", "Visium, 40 cells, positions in pixels"),
    "visium-hd": (visium_hd, "sample_008um", "pixels", "left out: bins of 2 and 16 µm"),
    "slide-seq": (slideseq, "Puck_200115_08", "pixels", "Slide-seq, 40 cells"),
    "stereo-seq": (stereoseq, "SS200000135TL.cellbin", "µm", "counts outside cells"),
    "geo-10x": (geo, "GSM123_liver", "pixels", "Visium, 40 cells"),
}


@pytest.fixture(scope="module")
def raw(measured, tmp_path_factory):
    """Folder with the look-alike of every platform."""
    folder = tmp_path_factory.mktemp("raw")
    for name, (make, *_) in PLATFORMS.items():
        make(folder / name / "sample", measured)
    return folder


@pytest.mark.parametrize("platform", PLATFORMS)
def test_cells_are_those_measured(raw, measured, platform):
    _, name, units, line = PLATFORMS[platform]
    (found,) = find_sections(raw / platform)
    assert (found.name, found.n_cells, found.n_dims, found.units) == (name, 40, 2, units)
    assert line in found.note
    read = found.load()
    assert set(read.var_names) == set(measured.var_names)
    # Cells by their places: instruments name them in ways of their own.
    place = {tuple(p): i for i, p in enumerate(measured.obsm["spatial"])}
    read = read[:, measured.var_names]
    order = [
        place[tuple(np.round(p - 0.25 * (platform == "stereo-seq"), 6))]
        for p in read.obsm["spatial"]
    ]
    assert sorted(order) == list(range(40))
    assert np.array_equal(read.X.toarray(), measured.X[order].toarray())


@pytest.mark.parametrize("platform", PLATFORMS)
def test_from_raw_to_placed_cells_by_commands(raw, tmp_path, platform):
    def run(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    _, name, _, line = PLATFORMS[platform]
    data = tmp_path / "data"
    assert line in run("preprocess", "--raw_dir", raw / platform, "--output_dir", data)
    run("train", "--data_dir", data, *SIZE, "--output_dir", tmp_path / "run", "--logger", "none")
    store = next((data / "sections").iterdir())
    run(
        *("sample", "--checkpoint", tmp_path / "run" / "checkpoints" / "best.ckpt"),
        *("--input", store, "--mode", "expr_to_pos"),
        *("--n_rounds", 1, "--n_steps", 2, "--output", tmp_path / "cells.h5ad"),
    )
    placed = ad.read_h5ad(tmp_path / "cells.h5ad")
    assert set(placed.obs["section"]) == {name}
    assert np.isfinite(placed.obsm["spatial_sampled"]).all()


def test_all_samples_of_a_folder_are_sections(raw, tmp_path, measured):
    for name in ("a", "b"):
        geo(tmp_path, measured)
        visium(tmp_path / name, measured, header=name == "a")
    found = find_sections(tmp_path)
    assert [section.name for section in found] == ["GSM123_liver", "a", "b"]
    first, second = (section.load() for section in found[1:])
    assert np.array_equal(first.obsm["spatial"], second.obsm["spatial"])
    stamped = {path.name for path in found[0].files}
    assert "GSM123_liver_tissue_positions_list.csv.gz" in stamped
    assert len(stamped) == 4


def test_downloads_of_10x_share_one_folder_of_positions(tmp_path, measured):
    """A prefix before the matrix, none before ``spatial``: clear for one sample only."""
    visium(tmp_path, measured)
    matrix = tmp_path / "outs" / "filtered_feature_bc_matrix.h5"
    matrix = matrix.rename(matrix.with_name(f"V1_Brain_{matrix.name}"))
    (found,) = find_sections(tmp_path)
    assert (found.name, found.n_dims) == ("V1_Brain", 2)
    write_h5(matrix.with_name("V2_Brain_filtered_feature_bc_matrix.h5"), measured)
    with pytest.raises(DataError, match="has a folder 'spatial', but several matrices"):
        find_sections(tmp_path)


@pytest.mark.parametrize("features", ["features", "genes"])
def test_matrices_without_positions(tmp_path, measured, features):
    for sample in ("GSM1_a_", "GSM2_b_"):
        write_mtx(tmp_path, sample, measured, features)
    found = find_sections(tmp_path)
    assert [(s.name, s.n_dims) for s in found] == [("GSM1_a", None), ("GSM2_b", None)]
    assert found[0].note == "GSM1_a: 10x counts, 40 cells, no positions."


def test_bins_of_visium_hd(tmp_path, measured):
    """The case input-39, and µm where the scale factors have them."""
    visium_hd(tmp_path / "mouse1", measured, factors={"microns_per_pixel": 0.5})
    (found,) = find_sections(tmp_path)
    assert (found.name, found.units) == ("mouse1_008um", "µm")
    position = found.load().obsm["spatial"]
    assert np.array_equal(position, measured.obsm["spatial"] / 2)
    (found,) = find_sections(tmp_path, bin_size=16)
    assert found.name == "mouse1_016um"
    (found,) = find_sections(tmp_path / "mouse1/outs/binned_outputs/square_002um")
    assert found.name == "mouse1_002um"
    with pytest.raises(DataError, match=r"--bin_size: .* has no bins of 5 µm, but of 2, 8, 16"):
        find_sections(tmp_path, bin_size=5)


def test_bins_of_stereoseq(tmp_path, measured):
    table, _ = molecules(measured)
    path = tmp_path / "chip.gem"
    table.to_csv(path, sep="\t", index=False)
    (found,) = find_sections(tmp_path)
    assert (found.name, found.units) == ("chip", "µm")
    assert "bins of 50 DNBs (25 µm)" in found.note
    read = found.load()
    assert read.X.sum() == measured.X.sum()
    places = np.unique(table[["x", "y"]] // 50, axis=0)
    expected = {tuple(p) for p in (places * 50 + 25) / 2}
    assert {tuple(p) for p in read.obsm["spatial"]} == expected
    path.write_text("#BinSize=20\n" + path.read_text())
    assert "bins of 20 DNBs" in find_sections(tmp_path)[0].note
    with pytest.raises(DataError, match=r"--bin_size: .*chip.gem has bins of 20 DNBs"):
        find_sections(tmp_path, bin_size=30)


@pytest.mark.parametrize("image", ["hires", "none"])
def test_visium_needs_no_image(tmp_path, measured, image):
    """The case input-42."""
    visium(tmp_path / "s1", measured)
    if image != "none":
        (tmp_path / f"s1/outs/spatial/tissue_{image}_image.png").write_bytes(b"not an image")
    (found,) = find_sections(tmp_path)
    assert (found.name, found.n_cells, found.n_dims, found.units) == ("s1", 40, 2, "pixels")


@pytest.mark.parametrize("form", ["bytes", "csv.gz", "mtx"])
def test_forms_of_xenium(tmp_path, measured, form):
    """The case input-44, identifiers as bytes, text, and a folder for the matrix."""
    xenium(tmp_path / "x1", measured)
    outs = tmp_path / "x1" / "outs"
    table = pd.read_parquet(outs / "cells.parquet")
    (outs / "cells.parquet").unlink()
    if form == "bytes":
        table["cell_id"] = table["cell_id"].str.encode("utf-8")
        table.to_parquet(outs / "cells.parquet")
    else:
        table.to_csv(outs / "cells.csv.gz", index=False)
    if form == "mtx":
        (outs / "cell_feature_matrix.h5").unlink()
        write_mtx(outs / "cell_feature_matrix", "", measured)
    (found,) = find_sections(tmp_path)
    assert (found.name, found.n_cells, found.n_dims, found.units) == ("x1", 40, 2, "µm")
    assert set(found.load().obs_names) == set(measured.obs_names)


def test_features_that_are_no_genes_are_left_out(tmp_path, measured):
    xenium(tmp_path / "x1", measured)
    write_h5(tmp_path / "x1" / "outs" / "cell_feature_matrix.h5", measured, extra=2)
    (found,) = find_sections(tmp_path)
    assert len(found.genes) == 10
    assert "left out: 2 features that are no genes" in found.note


def test_cosmx_in_millimetres_is_in_micrometres(tmp_path, measured):
    cosmx(tmp_path / "a", measured)
    path = tmp_path / "a" / "Lung5_Rep1_metadata_file.csv"
    table = pd.read_csv(path).assign(x_slide_mm=1.5, y_slide_mm=np.arange(40) / 1000)
    table.to_csv(path, index=False)
    (found,) = find_sections(tmp_path)
    assert found.units == "µm"
    assert set(found.load().obsm["spatial"][:, 0]) == {1500.0}


def test_cells_of_one_file_only_are_counted(tmp_path, measured):
    merscope(tmp_path / "region_0", measured)
    path = tmp_path / "region_0" / "cell_metadata.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-3], "7,0,1,1,1"]))
    (found,) = find_sections(tmp_path)
    assert (found.name, found.n_cells) == (f"{tmp_path.name}_region_0", 37)
    assert "3 cells that are not in cell_metadata.csv" in found.note
    assert "1 cells that are not in cell_by_gene.csv" in found.note


def test_other_data_beside_an_instruments_output_are_named(tmp_path, measured):
    visium(tmp_path / "s1", measured)
    write_h5(tmp_path / "s1" / "outs" / "raw_feature_bc_matrix.h5", measured)
    (tmp_path / "s1" / "outs" / "converted.h5ad").write_bytes(b"")
    (found,) = find_sections(tmp_path)
    assert "converted.h5ad (not read)" in found.note
    assert "raw_feature_bc_matrix.h5 (not read)" in found.note


def spoil(folder, cells, kind):
    """An output with something wrong, and what the error says."""
    if kind == "no cells":
        xenium(folder, cells)
        (folder / "outs" / "cells.parquet").unlink()
        return r"matrix of Xenium, but cells.parquet or cells.csv\[.gz\] is not in"
    if kind == "no metadata":
        merscope(folder, cells)
        (folder / "cell_metadata.csv").unlink()
        return r"matrix of MERSCOPE, but cell_metadata.csv\[.gz\] is not in"
    if kind == "no barcodes":
        geo(folder, cells)
        (folder / "GSM123_liver_barcodes.tsv.gz").unlink()
        return r"matrix of 10x mtx, but GSM123_liver_barcodes.tsv\[.gz\] is not in"
    if kind == "other cells":
        visium(folder, cells)
        path = folder / "outs" / "spatial" / "tissue_positions.csv"
        path.write_text(path.read_text().replace("-1,", "-2,"))
        return r"have no cell in common, but \['00000000ACGT-1'.* and \['00000000ACGT-2'"
    if kind == "transposed mtx":
        geo(folder, cells)
        turned = cells.T.copy()
        write_mtx(folder / "other", "", turned)
        path = "GSM123_liver_matrix.mtx.gz"
        (folder / "other" / "matrix.mtx.gz").rename(folder / path)
        return "it is transposed, rows of a 10x matrix are features"
    if kind == "transposed csv":
        slideseq(folder, cells)
        path = folder / "Puck_200115_08.digital_expression.txt.gz"
        pd.read_csv(path, sep="\t", index_col=0).T.to_csv(path, sep="\t", index_label="b")
        return "the matrix is transposed"
    if kind == "not a number":
        merscope(folder, cells)
        path = folder / "cell_by_gene.csv"
        table = pd.read_csv(path, dtype=str)
        table.loc[3, "gene_5"] = "many"
        table.to_csv(path, index=False)
        return r"cell_by_gene.csv: column 'gene_5' holds 'many' in row 4, which is not a number"
    if kind == "gene twice":
        merscope(folder, cells)
        path = folder / "cell_by_gene.csv"
        path.write_text(path.read_text().replace("gene_5,", "gene_4,", 1))
        return "two columns are named 'gene_4'"
    if kind == "cell twice":
        merscope(folder, cells)
        path = folder / "cell_by_gene.csv"
        path.write_text(path.read_text() + path.read_text().splitlines()[-1])
        return r"cell_by_gene.csv: '\d+' comes twice"
    if kind == "no counts":
        stereoseq(folder, cells)
        path = folder / "SS200000135TL.cellbin.gem.gz"
        write_gz(path, gzip.decompress(path.read_bytes()).decode().replace("MIDCount", "count"))
        return "is no GEM table: it has no column 'MIDCount'"
    if kind == "truncated h5":
        visium(folder, cells)
        path = folder / "outs" / "filtered_feature_bc_matrix.h5"
        path.write_bytes(path.read_bytes()[:1000])
        return r"filtered_feature_bc_matrix.h5 cannot be read as 10x h5: .* copy it again"
    raise AssertionError(kind)


SPOILED = [
    *("no cells", "no metadata", "no barcodes", "other cells", "transposed mtx"),
    *("transposed csv", "not a number", "gene twice", "cell twice", "no counts", "truncated h5"),
]


@pytest.mark.parametrize("kind", SPOILED)
def test_what_is_wrong_is_named_before_anything_is_written(tmp_path, measured, kind):
    message = spoil(tmp_path / "raw" / "s", measured, kind)
    arguments = ["--raw_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "data")]
    with pytest.raises(DataError, match=message):
        find_sections(tmp_path / "raw")
    result = CliRunner().invoke(app, ["preprocess", *arguments])
    assert result.exit_code == 2
    assert not (tmp_path / "data").exists()
