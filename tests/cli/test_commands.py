"""Predict, impute and calibrate by commands; help and info, which import nothing heavy."""

import shutil
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import alphastomics as al
from alphastomics.cli._errors import _in_options
from alphastomics.cli._run_folder import check_folder
from alphastomics.io import open_data
from alphastomics.main import app, train_app

COLUMNS = 80
COMMANDS = sorted(name for name, c in get_command(app).commands.items() if not c.hidden)


def run(*arguments, code=0, of=app):
    result = CliRunner().invoke(of, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


@pytest.fixture(scope="module")
def model(work):
    return work / "run" / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def cells(work, tissue):
    """The held-out section without its positions, in a file."""
    held_out = tissue[tissue.obs["section"] == "section_2"].copy()
    del held_out.obsm["spatial"]
    held_out.write_h5ad(work / "cells.h5ad")
    return work / "cells.h5ad"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_and_names_every_option_in_full(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    text = run(name, "--help")
    assert text == run(name, "-h")
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert "…" not in text
    words = set(text.replace(",", " ").split())
    for parameter in get_command(app).commands[name].params:
        shown = [name for name in (*parameter.opts, *parameter.secondary_opts) if "--" in name]
        assert set(shown) <= words
        assert parameter.help, parameter.name


def test_help_groups_options_and_summarizes_commands(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    text = run("train", "-h")
    assert text.index("(TransformerLayer_setting):") < text.index("--d_model") < text.index("--lr")
    summaries = run("-h").partition("Commands:")[2]
    assert all(line.endswith(".") and "..." not in line for line in summaries.split("\n") if line)
    assert "--exp_name" in run("-h", of=train_app)


def test_the_version():
    assert run("--version") == f"alphastomics {al.__version__}\n"


def test_help_and_info_import_neither_torch_nor_anndata(work, model):
    al.AlphaSTomics.load(model).save(work / "saved", overwrite=True)
    paths = [work / "data", work / "run", model, work / "saved"]
    commands = [*([name, "-h"] for name in COMMANDS), *(["info", str(path)] for path in paths)]
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from alphastomics.main import app\n"
        f"for words in {commands!r}:\n"
        "    result = CliRunner().invoke(app, words)\n"
        "    assert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'scvi', 'lightning', 'anndata', 'scanpy', 'matplotlib', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_info_describes_what_it_reads(work, model):
    text = run("info", model)
    assert text.startswith("AlphaSTomics (joint), trained for 3 steps\n")
    assert "trained on: 300 cells of 1 section (section_0)\n" in text
    assert "validated on: section_1\n" in text
    assert "40 genes (counts), 2D" in text
    assert "d_model=16" in text
    assert "calibrated: positions and expression" in text
    assert "4,000" not in run("info", work / "data")


def test_info_of_another_folder_names_all_kinds(work):
    output = run("info", work / "raw", code=2)
    for kind in ("processed data", "saved model", "run", "checkpoint"):
        assert kind in output


def test_info_describes_cells_and_names_the_next_command(work, cells, tissue, tmp_path):
    text = run("info", work / "raw" / "tissue.h5ad")
    assert text.startswith("AnnData: 900 cells, 40 genes, 3 sections\n")
    assert "  section_0: 300 cells, 2D in µm\n" in text
    assert "  obs: section, cell_type\n" in text
    assert "  obsm: spatial\n" in text
    command = text.partition("Next: alphastomics ")[2].split()
    assert command[:3] == ["preprocess", "--raw_dir", str(work / "raw" / "tissue.h5ad")]
    run(*command[:4], tmp_path / "data", *command[5:])
    assert open_data(tmp_path / "data").manifest.labels_key == "cell_type"
    tissue.write_zarr(tmp_path / "t.zarr")
    stored = run("info", tmp_path / "t.zarr")
    assert stored.partition("Next")[0] == text.partition("Next")[0]
    text = run("info", cells)
    assert "  section_2: 300 cells, no coordinates\n" in text
    assert text.endswith(f"Next: alphastomics predict --checkpoint outputs/NAME --input {cells}\n")


def test_a_column_that_looks_like_cell_types_is_named(work, tissue, tmp_path):
    hint = "Column 'Cell type' of obs looks like cell types: name it by --labels_key"
    other = tissue.copy()
    other.obs = other.obs.rename(columns={"cell_type": "Cell type"})
    other.write_h5ad(tmp_path / "raw.h5ad")
    words = ("preprocess", "--raw_dir", tmp_path / "raw.h5ad", "--output_dir")
    assert run(*words, tmp_path / "a").count(hint) == 1
    assert run("info", tmp_path / "a").count(hint) == 1
    assert "Column" not in run(*words, tmp_path / "b", "--labels_key", "Cell type")
    assert "Column" not in run("info", tmp_path / "b")
    del other.obs["Cell type"]
    other.write_h5ad(tmp_path / "raw.h5ad")
    assert "Column" not in run(*words, tmp_path / "c")
    assert "Column" not in run("info", tmp_path / "c")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("info",), "path"),
        (("predict", "--input", "cells", "--checkpoint"), "--checkpoint"),
        (("predict", "--checkpoint", "model", "--output", "o.csv", "--input"), "--input"),
        (("sample", "--checkpoint", "model", "--input", "cells", "--reference"), "--reference"),
        (("impute", "--checkpoint", "model", "--input"), "--input"),
        (("train", "--data_dir"), "--data_dir"),
        (("test", "--checkpoint", "model", "--output_dir", "t", "--data_dir"), "--data_dir"),
        (("preprocess", "--output_dir", "o", "--raw_dir"), "--raw_dir"),
    ],
)
def test_a_folder_of_another_kind_is_one_clear_error(
    model, cells, tmp_path, monkeypatch, words, option
):
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("x")
    names = {"cells": cells, "model": model}
    output = run(*(names.get(word, word) for word in words), "other", code=2)
    (line,) = [line for line in output.splitlines() if not line.startswith("Using")]
    assert line.startswith(f"Error: {option}: ")
    assert "other" in line
    assert "notes.txt" in line or "no manifest.json" in line
    assert "GroupNotFound" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_info_leaves_damaged_models_to_the_reader(work, model):
    """Its error is that of ``AlphaSTomics.load``."""
    saved = work / "damaged"
    al.AlphaSTomics.load(model).save(saved)
    path = saved / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "is damaged or was altered" in run("info", saved, code=2)
    path = saved / "model.json"
    path.write_text(path.read_text().replace('"format_version": 3', '"format_version": 99'))
    assert "has model format 99" in run("info", saved, code=2)


def test_predict_writes_what_the_method_does(model, cells, tmp_path):
    run("predict", "--model", model, "--input", cells, "--output", tmp_path / "p.h5ad")
    expected = ad.read_h5ad(cells)
    al.AlphaSTomics.load(model).predict(expected, progress_bar=False)
    placed = ad.read_h5ad(tmp_path / "p.h5ad")
    np.testing.assert_array_equal(
        placed.obsm["spatial_predicted"], expected.obsm["spatial_predicted"]
    )
    output = run("predict", "--model", model, "--input", cells, "--output", tmp_path / "p.csv")
    assert f"{tmp_path / 'p.csv'}: 300 cells.\n" in output
    table = pd.read_csv(tmp_path / "p.csv", index_col="cell")
    assert table.columns.tolist() == ["section", "x", "y", "radius"]
    assert table.index.equals(expected.obs_names)
    np.testing.assert_allclose(table[["x", "y"]], expected.obsm["spatial_predicted"], rtol=1e-6)
    np.testing.assert_allclose(table["radius"], expected.obs["spatial_predicted_radius"], rtol=1e-6)


def test_estimates_and_standardization_are_options(model, cells, tmp_path):
    def placed(*options):
        output = tmp_path / "o.csv"
        words = ("--checkpoint", model, "--input", cells, "--output", output, "--overwrite")
        run("predict", *words, *options)
        return pd.read_csv(output)[["x", "y"]].to_numpy()

    default = placed()
    assert not np.allclose(placed("--estimate", "mean"), default)
    assert not np.allclose(placed("--standardize", "query"), default)
    assert np.array_equal(placed("--standardize", "training"), default)  # the same platform
    words = ("--checkpoint", model, "--input", cells, "--standardize", "both")
    assert "--standardize" in run("predict", *words, code=2)
    assert "--standardize" in run("sample", *words, code=2)


def test_cells_are_placed_in_the_frame_of_a_reference(model, cells, tissue, tmp_path):
    reference = tissue[tissue.obs["section"] == "section_0"].copy()
    reference.write_h5ad(tmp_path / "r.h5ad")
    words = ("--checkpoint", model, "--input", cells, "--reference", tmp_path / "r.h5ad")
    for command in ("predict", "sample"):
        run(command, *words, "--output", tmp_path / f"{command}.csv")
        center = pd.read_csv(tmp_path / f"{command}.csv")[["x", "y"]].mean().to_numpy()
        assert (center > reference.obsm["spatial"].min(0)).all()
        assert (center < reference.obsm["spatial"].max(0)).all()


def test_processed_data_are_a_query(work, model, tissue, tmp_path):
    words = ("--checkpoint", model, "--input", work / "data", "--mode", "expr_to_pos")
    run("predict", *words, "--output", tmp_path / "p.h5ad")
    placed = ad.read_h5ad(tmp_path / "p.h5ad")
    assert placed.n_obs == tissue.n_obs
    assert placed.uns["units"] == tissue.uns["units"]
    assert set(placed.obs["section"]) == set(tissue.obs["section"])
    original = tissue[placed.obs_names]
    np.testing.assert_allclose(placed.obsm["spatial"], original.obsm["spatial"])
    assert (placed.X != original.X).nnz == 0


def test_a_table_is_refused_where_it_cannot_hold_the_results(work, model, cells, tmp_path):
    """By one message, which ends in what else can be written."""
    start = "a .csv file holds one estimated position per cell, and "
    end = ": name an .h5ad or .zarr file."
    raw, output = ("--input", work / "raw" / "tissue.h5ad"), ("--output", tmp_path / "p.csv")
    for command, options, why in (
        ("predict", raw, "none are estimated here"),
        ("predict", (*raw, "--mode", "pos_to_expr"), "none are estimated here"),
        ("sample", ("--n_cells", 5), "new cells have expression, too"),
        ("sample", ("--input", cells, "--point", "none"), "--point none writes several"),
    ):
        printed = run(command, "--checkpoint", model, *options, *output, code=2)
        assert f"Error: --output: {start}{why}{end}" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".csv", ".h5ad", ".zarr"])
def test_a_written_file_is_named_once(model, cells, tmp_path, suffix):
    output = tmp_path / f"o{suffix}"
    printed = run("predict", "--checkpoint", model, "--input", cells, "--output", output)
    assert printed.count(str(output)) == 1
    assert printed.endswith(f"{output}: 300 cells.\n")


def test_new_cells_are_counted_by_n_cells(model, tmp_path):
    for i, option in enumerate(("--n_cells", "--num_samples")):
        run("sample", "--checkpoint", model, option, 7, "--output", tmp_path / f"{i}.h5ad")
    first, second = (ad.read_h5ad(tmp_path / f"{i}.h5ad") for i in range(2))
    assert first.n_obs == 7
    np.testing.assert_array_equal(first.obsm["spatial"], second.obsm["spatial"])


def test_impute_writes_what_the_method_does(model, cells, tmp_path):
    (tmp_path / "genes.txt").write_text("gene_3\n\ngene_5\n")
    words = ("--checkpoint", model, "--input", cells, "--genes", "gene_1")
    words += ("--genes", tmp_path / "genes.txt", "--output")
    run("impute", *words, tmp_path / "i.h5ad")
    expected = ad.read_h5ad(cells)
    al.AlphaSTomics.load(model).impute(
        expected, genes=["gene_1", "gene_3", "gene_5"], progress_bar=False
    )
    imputed = ad.read_h5ad(tmp_path / "i.h5ad").obsm["expression_imputed"]
    pd.testing.assert_frame_equal(imputed, expected.obsm["expression_imputed"])
    run("impute", *words, tmp_path / "i.csv")
    table = pd.read_csv(tmp_path / "i.csv", index_col="cell")
    np.testing.assert_allclose(table, imputed, rtol=1e-5)
    assert table.columns.tolist() == ["gene_1", "gene_3", "gene_5"]
    assert "nonsense" in run("impute", *words, tmp_path / "j.csv", "--genes", "nonsense", code=2)
    assert not (tmp_path / "j.csv").exists()


def test_calibrate_changes_the_calibration_alone(work, model, tmp_path):
    saved, path = tmp_path / "saved", tmp_path / "run" / "checkpoints" / "best.ckpt"
    shutil.copytree(work / "run", tmp_path / "run")
    al.AlphaSTomics.load(path).save(saved)
    assert "is calibrated already" in run("calibrate", "--checkpoint", path, code=2)
    before = al.AlphaSTomics.load(path)
    options = ("--data_dir", work / "data", "--max_steps", 1, "--overwrite")
    for where in (path, saved):
        assert run("calibrate", "--checkpoint", where, *options).endswith("calibrated.\n")
        after = al.AlphaSTomics.load(where)
        assert after.training_record.calibration != before.training_record.calibration
        assert after.training_record.steps == before.training_record.steps
        state = after.module.state_dict()
        assert all((state[name] == t).all() for name, t in before.module.state_dict().items())
    assert list(tmp_path.glob(".alphastomics-*")) == []


def test_calibrate_needs_the_data_of_training(model, tmp_path):
    other = al.datasets.simulate_tissue(2, 30, 40)
    other.obs["section"] = other.obs["section"].cat.rename_categories(["a", "b"])
    other.write_h5ad(tmp_path / "other.h5ad")
    run("preprocess", "--raw_dir", tmp_path / "other.h5ad", "--output_dir", tmp_path / "data")
    words = ("calibrate", "--checkpoint", model, "--data_dir", tmp_path / "data", "--overwrite")
    assert "lacks section 'section_0', which the model was trained on" in run(*words, code=2)


@pytest.mark.parametrize("name", ["a_predicted.h5ad", "a_imputed.h5ad", "a_filled.h5ad"])
def test_a_folder_with_results_of_commands_can_have_a_new_run(tmp_path, name):
    for file in ("run.json", name):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / file).touch()
    check_folder(tmp_path / "run", tmp_path / "data", resumes=False)


def test_messages_name_options():
    text = _in_options("pass reference=, or mode='expr_to_pos'; adata.obsm['x'], f(values='a')")
    assert text == "pass --reference, or --mode expr_to_pos; adata.obsm['x'], f(values='a')"
