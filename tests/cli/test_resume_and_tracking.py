"""A run that is gone on with several times, and what it says when nobody is logged in to W&B."""

import errno
import json
import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import scvi
import typer
import wandb
from typer.testing import CliRunner

import alphastomics as al
from alphastomics.cli._errors import report_errors
from alphastomics.cli.preprocess import preprocess
from alphastomics.main import app, train_app

SMALL = "--d_model 16 --num_heads 2 --num_layers 1 --d_ff 16 --set_size 32 --sets_per_section 8"
TASK = "--training_mode pos_to_expr --data_dir data --exp_name first --batch_size 4"
LAST = "outputs/first/checkpoints/last.ckpt"


def run(of, command, code=0):
    result = CliRunner().invoke(of, command.split())
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Processed data in an empty folder, and nobody logged in."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    al.datasets.simulate_tissue(n_sections=2, n_cells=60, n_genes=12).write_h5ad("raw.h5ad")
    preprocess("raw.h5ad", "data", progress=False)
    return tmp_path


def test_a_run_stopped_amid_epochs_again_and_again_gets_all_its_steps(work, caplog):
    caplog.set_level(logging.INFO, logger="alphastomics")
    run(train_app, f"{SMALL} {TASK} --logger none --max_steps 1")
    before = 1
    for n in (3, 5, 6, 9):
        output = run(train_app, f"--resume {LAST} --max_steps {n}")
        assert al.AlphaSTomics.load(LAST).training_record.steps == n
        assert f"Training resumed from step {before}: steps {before + 1} to {n}" in caplog.messages
        assert f"({n} steps, resumed from step {before})." in output
        before = n
    output = run(app, f"train --resume {Path(LAST).parents[1]} --max_steps 9")
    assert "has been trained for 9 steps already" in output


def test_a_full_disk_is_told_and_earlier_checkpoints_stay(work, monkeypatch):
    run(train_app, f"{SMALL} {TASK} --logger none --max_steps 1")
    before = Path(LAST).read_bytes()

    def full(trainer, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(scvi.train.Trainer, "save_checkpoint", full)
        output = run(train_app, f"--resume {LAST} --max_steps 3", code=2)
    assert "Error: checkpoint_dir: the disk is full, " in output
    assert "free some space. Resume with --resume" in output
    assert Path(LAST).read_bytes() == before
    assert {path.name for path in Path(LAST).parent.iterdir()} == {"last.ckpt", "best.ckpt"}
    run(train_app, f"--resume {LAST} --max_steps 3")


def test_training_stops_early_when_validation_does_not_improve(work):
    preprocess("raw.h5ad", "held_out", val_sections=["section_1"], progress=False)
    task = f"{SMALL} {TASK} --logger none --data_dir held_out --epochs 30 --learning_rate 1e-12"
    run(train_app, f"{task} --early_stopping 2")
    assert 3 <= al.AlphaSTomics.load(LAST).training_record.epochs < 10
    output = run(train_app, f"{SMALL} {TASK} --logger none --early_stopping 2", code=2)
    assert "early_stopping needs validation sections" in output


def test_a_config_that_differs_from_the_run_is_told_and_not_used(work):
    run(train_app, f"{SMALL} {TASK} --logger none --max_steps 1")
    Path("config.yaml").write_text(
        "training: {batch_size: 3, max_steps: 9, epochs: null, learning_rate: 1e-3}\n"
        "TransformerLayer_setting: {d_model: 128}\n"
    )
    output = run(train_app, f"--config config.yaml --resume {LAST} --max_steps 2")
    assert "config.yaml: training.batch_size is 3 there and 4 in the run." in output
    assert "d_model" not in output  # a default, as in the file of the repository
    assert al.AlphaSTomics.load(LAST).training_record.steps == 2


def test_without_a_login_weights_and_biases_is_offline_and_asks_nothing(work):
    output = run(train_app, f"{SMALL} {TASK} --logger wandb --max_steps 1")
    assert "not logged in, so the run is logged to outputs/first/wandb" in output
    (first,) = Path("outputs/first/wandb").glob("offline-run-*")
    wandb.finish()  # as the end of the process does
    run(train_app, f"--resume {LAST} --max_steps 2")
    wandb.finish()
    names = {path.name for path in Path("outputs/first/wandb").glob("offline-run-*")}
    assert {name.rpartition("-")[2] for name in names} == {first.name.rpartition("-")[2]}


def test_by_default_a_run_is_logged_to_csv_unless_someone_is_logged_in(work, monkeypatch):
    from alphastomics.cli import _loggers

    assert _loggers.choose_logger("auto") == "csv"
    assert _loggers.choose_logger("tensorboard") == "tensorboard"
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        assert _loggers.choose_logger("auto") == "wandb"
    with monkeypatch.context() as patch:
        patch.setattr(_loggers, "_is_logged_in", lambda: True)
        assert _loggers.choose_logger("auto") == "wandb"
        patch.setenv("WANDB_MODE", "disabled")
        assert _loggers.choose_logger("auto") == "csv"


def test_a_resumed_run_keeps_its_csv_table(work):
    output = run(train_app, f"{SMALL} {TASK} --max_steps 2")
    table = Path("outputs/first/csv/metrics.csv")
    assert "Weights & Biases" not in output
    assert not Path("outputs/first/wandb").exists()
    before = table.read_text()
    assert "train_loss" in before
    with warnings.catch_warnings(action="error", category=UserWarning):
        run(train_app, f"--resume {LAST} --max_steps 4")
    assert table.read_text() == before
    assert Path("outputs/first/csv/from_step_2/metrics.csv").is_file()
    assert json.loads(Path("outputs/first/run.json").read_text())["logger"] == "csv"


def test_an_error_of_weights_and_biases_is_one_line(capsys):
    with pytest.raises(typer.Exit), report_errors(""):
        raise wandb.errors.CommError("no\nconnection")
    assert re.fullmatch(r"Error: Weights & Biases: no connection \(.*\)\n", capsys.readouterr().err)


def test_warnings_are_one_line(work):
    """Not with the file and line of the source."""
    command = "-m alphastomics.main preprocess --raw_dir raw.h5ad --output_dir fewer --num_genes 50"
    done = subprocess.run(
        [sys.executable, *command.split()],
        capture_output=True,
        text=True,
    )
    warning = "Warning: num_genes is 50, but there are 12 genes: all of them are used."
    assert warning in done.stderr
    assert "UserWarning" not in done.stderr
    assert ".py" not in done.stderr
    assert len(json.loads(Path("fewer/manifest.json").read_text())["genes"]) == 12
