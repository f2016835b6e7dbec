"""Files of users are never moved or replaced unasked; commands refuse before they do anything."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import anndata as ad
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

import alphastomics as al
from alphastomics._files import TEMPORARY
from alphastomics.cli._errors import report_errors
from alphastomics.cli.preprocess import preprocess
from alphastomics.main import app

SIZE = "--d_model 16 --num_heads 2 --num_layers 1 --d_ff 16 --set_size 16 --batch_size 2"
TRAIN = f"train {SIZE} --training_mode pos_to_expr --logger none --max_steps 2"
BEST, LAST = "outputs/e1/checkpoints/best.ckpt", "outputs/e1/checkpoints/last.ckpt"
SCORES = {"task": "expression", "kind": "model", "method": "predict", "pcc": 0.5, "ssim": 0.5}
SAMPLE = f"sample --checkpoint {BEST} --input raw.h5ad --mode pos_to_expr"


def files(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def command(text, code=0):
    """Run a command; one that fails says so in a line of its own, without a traceback."""
    result = CliRunner().invoke(app, text.split())
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    assert "Traceback" not in result.output
    assert "[Errno" not in result.output
    return result.output


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Raw and processed data of three tissues, and a run; nothing in it may change."""
    folder = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(folder)
    al.datasets.simulate_tissue(2, 40, 12, seed=1).write_h5ad("raw.h5ad")
    preprocess("raw.h5ad", "data", test_sections=["section_1"], progress=False)
    preprocess("raw.h5ad", "labeled", labels_key="cell_type", progress=False)
    al.datasets.simulate_tissue(2, 40, 12, seed=2).write_h5ad("other.h5ad")
    preprocess("other.h5ad", "other", progress=False)
    command(f"{TRAIN} --data_dir data --exp_name e1")
    yield folder
    os.chdir(before)


@pytest.fixture(autouse=True)
def _untouched(work):
    """What is there before a test is there after it."""
    before = files(".")
    yield
    after = files(".")
    assert {path: after.get(path) for path in before} == before
    for path in set(after) - set(before):
        path.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param("--output raw.h5ad", "is read by this command", id="F024-input"),
        pytest.param(f"--output {BEST} --overwrite", "is read by this command", id="F025"),
        pytest.param("--output other.h5ad", "exists already.*--overwrite", id="F024"),
        pytest.param("--output other.h5ad", "exists already.*--overwrite", id="D077"),
        pytest.param("--output data", "is a folder: name a file in it", id="D073"),
        pytest.param("--output other.h5ad/x.h5ad", "Not a directory. Choose", id="D074"),
        pytest.param("--output o.tsv", "must end in .h5ad, .zarr or .csv", id="D075"),
        pytest.param("--output o", "must end in .h5ad, .zarr or .csv", id="D075-none"),
        pytest.param(f"--output {'n' * 300}.h5ad", "File name too long. Choose", id="C136-sample"),
        pytest.param("--output /proc/x.h5ad", "/proc/x.h5ad cannot be written", id="E027"),
        pytest.param("--seed -1", "seed", id="D072"),
        pytest.param("--method predict --n_samples 5", "--n_samples has no effect", id="D078"),
        pytest.param("--method predict --point none", "--point has no effect", id="D078-point"),
        pytest.param("--method predict --seed 3", "--seed has no effect", id="D078-seed"),
    ],
)
def test_sample_refuses(work, options, message):
    output = command(f"{SAMPLE} {options}", code=2)
    assert message.split(".*")[0] in " ".join(output.split()), output
    assert all(part in output.replace("\n", " ") for part in message.split(".*"))


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(option, id=f"D079-{option.split()[0][2:]}")
        for option in (
            "--mode pos_to_expr",
            "--reference nowhere.h5ad",
            "--n_samples 3",
            "--point medoid",
            "--method sample",
        )
    ],
)
def test_options_without_effect_are_refused(work, option):
    output = command(f"sample --checkpoint {BEST} --num_samples 5 {option}", code=2)
    assert f"{option.split()[0]} has no effect with --n_cells: leave it out" in output


@pytest.mark.parametrize("name", [pytest.param("o.zarr", id="D076"), pytest.param("o.h5ad")])
def test_the_suffix_is_the_format(work, tmp_path, name):
    output = tmp_path / name
    sample = f"{SAMPLE} --n_steps 1 --output {output}"
    command(sample)
    read = ad.read_zarr if output.suffix == ".zarr" else ad.read_h5ad
    first = read(output).layers["expression_sampled"]
    assert "exists already" in command(sample, code=2)
    command(f"{sample} --seed 3 --overwrite")
    assert (read(output).layers["expression_sampled"] != first).any()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_of_the_user_named_zarr_is_no_store(work, tmp_path):
    """D076."""
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "notes.txt").write_text("mine")
    output = command(f"{SAMPLE} --overwrite --output {tmp_path / 'mine.zarr'}", code=2)
    assert "is a folder" in output
    assert (tmp_path / "mine.zarr" / "notes.txt").read_text() == "mine"


def test_a_folder_of_a_run_is_its_best_checkpoint(work):
    """D056 and D081."""
    assert f"Using {BEST}" in command("info outputs/e1")
    output = command("sample --checkpoint outputs/e1 --output other.h5ad --num_samples 5", code=2)
    assert f"Using {BEST}" in output
    Path("empty_run").mkdir()
    Path("empty_run/run.json").write_text("{}")
    assert "path: the run in empty_run has no" in command("info empty_run", code=2)


def test_info_names_its_own_argument(work):
    """D051 and D053."""
    assert "Error: path: there is no 'nope'" in command("info nope", code=2)
    Path("e.bin").write_bytes(b"")
    output = command("info e.bin", code=2)
    assert "e.bin is not a checkpoint" in output
    assert "EOFError:\n" not in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param("--exp_name ../../escaped", "name of one folder", id="C130"),
        pytest.param("--exp_name /absolute", "name of one folder", id="C131"),
        pytest.param("--exp_name .", "name of one folder", id="C138"),
        pytest.param("--exp_name ..", "name of one folder", id="C138-parent"),
        pytest.param(f"--exp_name {'n' * 300}", "exp_name: must be the name of", id="C136"),
        pytest.param(f"--output_dir {'n' * 300}", "--output_dir:", id="C136-output_dir"),
        pytest.param("--output_dir userdir", "which no earlier run has written", id="C132"),
        pytest.param("--output_dir .", "overlap: choose another folder", id="C133"),
        pytest.param("--output_dir data/run", "overlap: choose another folder", id="C134"),
        pytest.param("--output_dir other.h5ad", "is a file: name a folder", id="C139"),
        pytest.param("--output_dir /proc/run", "/proc/run cannot be written", id="E028"),
        pytest.param("--exp_name e1 --accelerator gpu", "accelerator='gpu'", id="F040"),
        pytest.param("--exp_name e1 --lr inf", "must be a finite number", id="D034"),
        pytest.param(
            "--exp_name e1 --early_stopping 1",
            "needs validation sections",
            id="F040-early_stopping",
        ),
        pytest.param("--exp_name e1 --allow_other_data", "without --resume", id="F052-new"),
    ],
)
def test_train_refuses(work, options, message):
    if "gpu" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    Path("userdir").mkdir(exist_ok=True)
    Path("userdir/config.yaml").write_text("mine: 1\n")
    Path("userdir/notes.txt").write_text("mine")
    before = set(Path.cwd().rglob("*"))
    output = command(f"{TRAIN} --data_dir data {options}", code=2)
    assert "Error: " in output
    assert message in " ".join(output.split())
    assert "The earlier run in" not in output
    assert set(Path.cwd().rglob("*")) == before


def test_yaml_infinity_is_refused(work):
    """D034."""
    for value in (".inf", ".nan", "1e999"):
        Path("t.yaml").write_text(f"training: {{learning_rate: {value}}}\n")
        output = command("train --config t.yaml --data_dir data --exp_name e1", code=2)
        assert "training.learning_rate: must be a finite number" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param("--data_dir other", "differs from the data of the run", id="F052"),
        pytest.param("--data_dir labeled", "differs from the data of the run", id="F031"),
        pytest.param(
            "--data_dir labeled --allow_other_data",
            "labels_key is None in the checkpoint",
            id="F053",
        ),
        pytest.param("--d_model 32", "d_model is 16 in the checkpoint and 32 now", id="F053-size"),
        pytest.param("--output_dir other.h5ad", "is a file", id="F031-output"),
        pytest.param("--accelerator tpu", "", id="F031-accelerator"),
        pytest.param("--output_dir userdir", "which no earlier run has written", id="C132-resume"),
    ],
)
def test_a_resume_that_fails_changes_nothing(work, options, message):
    Path("userdir").mkdir(exist_ok=True)
    Path("userdir/config.yaml").write_text("mine: 1\n")
    before = files(".")
    output = command(f"train --resume {LAST} --max_steps 4 {options}", code=2)
    assert message in " ".join(output.split())
    assert files(".") == before


def test_a_resume_that_fails_in_training_changes_nothing(work, monkeypatch):
    """F031: Lightning restores the checkpoint after all checks."""
    import scvi

    def broken(*args, **kwargs):
        raise ValueError("Error(s) in loading")

    monkeypatch.setattr(scvi.train.Trainer, "fit", broken)
    before = files(".")
    command(f"train --resume {LAST} --max_steps 4", code=2)
    assert files(".") == before


def test_test_reads_the_data_of_the_run_after_a_refused_resume(work):
    """F055."""
    command(f"train --resume {LAST} --max_steps 4 --data_dir other", code=2)
    assert yaml.safe_load(Path("outputs/e1/config.yaml").read_text())["data"][
        "processed_data_dir"
    ] == ("data")
    assert Path(json.loads(Path("outputs/e1/run.json").read_text())["data"]).name == "data"


def test_a_resume_goes_on_and_may_take_other_data(work, tmp_path):
    """F032 and F052."""
    run = tmp_path / "run"
    shutil.copytree("outputs/e1", run)
    best, last = run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"
    assert "has been trained for 2 steps already" in command(f"train --resume {best} --max_steps 2")
    again = f"train --resume {best} --max_steps 2 --output_dir {tmp_path / 'new'}"
    assert "Error: --resume: " in command(again, code=2)
    command(f"train --resume {last} --max_steps 3 --data_dir other --allow_other_data")
    assert al.AlphaSTomics.load(last).training_record.steps == 3
    assert Path(json.loads((run / "run.json").read_text())["data"]).name == "other"


def test_a_resume_from_within_the_run_goes_on_in_it(work, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree("outputs/e1", run)
    data = Path("data").resolve()
    monkeypatch.chdir(run / "checkpoints")
    command(f"train --resume last.ckpt --max_steps 3 --data_dir {data}")
    assert al.AlphaSTomics.load("last.ckpt").training_record.steps == 3
    assert not list((run / "checkpoints").glob("checkpoints"))


def test_a_checkpoint_out_of_its_run_names_the_cause(work):
    """F034."""
    Path("moved").mkdir()
    moved = Path("moved/moved.ckpt")
    moved.write_bytes(Path(LAST).read_bytes())
    output = command(f"train --resume {moved} --data_dir data --max_steps 6", code=2)
    assert "moved is not the folder of a run, it has no run.json: put the checkpoint" in output
    output = command(f"train --resume {moved} --data_dir data --output_dir new", code=2)
    assert "config.yaml is missing: pass --config" in output


@pytest.mark.parametrize("overwrite", [False, True])
def test_test_replaces_nothing_unasked(work, tmp_path, overwrite, monkeypatch):
    """F026."""
    import pandas as pd

    from alphastomics.cli import evaluate

    monkeypatch.setattr(evaluate, "score_expression", lambda *a, **k: [SCORES])
    (tmp_path / "metrics.csv").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    task = f"test --checkpoint {BEST} --output_dir {tmp_path}"
    if not overwrite:
        assert "is not empty" in command(task, code=2)
        assert (tmp_path / "metrics.csv").read_text() == "mine"
    else:
        command(f"{task} --overwrite")
        assert len(pd.read_csv(tmp_path / "metrics.csv")) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        pytest.param(
            "outputs/e1", "the input outputs/e1/checkpoints/best.ckpt overlap", id="F026-run"
        ),
        pytest.param("data", "the input data overlap", id="F026-data"),
        pytest.param("other.h5ad", "is a file", id="F026-file"),
        pytest.param("/proc/x", "cannot be written", id="E027-test"),
    ],
)
def test_test_never_replaces_what_it_reads(work, folder, message):
    output = command(f"test --checkpoint {BEST} --output_dir {folder} --overwrite", code=2)
    assert message in output


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["130", "143"]
)
@pytest.mark.parametrize(
    ("text", "patched"),
    [
        (f"{SAMPLE} --output new.h5ad", "alphastomics.cli.sample.read_cells"),
        (f"test --checkpoint {BEST} --output_dir new", "alphastomics.cli._processed.read_section"),
        ("info data", "alphastomics.io._manifest.read_manifest"),
        (
            "preprocess --raw_dir raw.h5ad --output_dir new",
            "alphastomics.cli.preprocess.preprocess",
        ),
        ("compare-configs", "alphastomics.cli.compare.compare"),
        (f"{TRAIN} --data_dir data --output_dir new", "alphastomics.io.open_data"),
    ],
    ids=["sample", "test", "info", "preprocess", "compare", "train"],
)
def test_every_command_ends_at_a_signal_with_its_code(
    work, text, patched, number, code, monkeypatch
):
    """E017: also before training begins."""
    monkeypatch.setattr(patched, lambda *args, **kwargs: signal.raise_signal(number))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        output = command(text, code=code)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ("Interrupted." if code == 130 else "Stopped by SIGTERM.") in output
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not list(Path.cwd().rglob(f"{TEMPORARY}*"))


def test_a_signal_in_a_destructor_is_not_lost(capsys):
    class Interrupted:
        def __del__(self):  # Python ignores what is raised here
            signal.raise_signal(signal.SIGTERM)

    def work():
        with report_errors("Start again."):
            Interrupted()
            time.sleep(5)

    with pytest.raises(typer.Exit) as error:
        work()
    assert error.value.exit_code == 143
    assert capsys.readouterr().err == "Stopped by SIGTERM. Start again.\n"
