"""Killed at any moment, training goes on to the same weights, bit for bit."""

import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from alphastomics.cli.preprocess import preprocess
from alphastomics.model._checkpoint import read_checkpoint

# A checkpoint after every step, so that a test need not wait a minute for one.
EVERY_STEP = """
import sys
from alphastomics.model._checkpoint_writer import Checkpoints
Checkpoints.__init__.__defaults__ = (0.0,)
from alphastomics.main import app
app(sys.argv[1:])
"""
TRAIN = ["train", "--logger", "none", "--max_steps", "40", "--d_model", "16", "--num_heads", "2"]
TRAIN += ["--num_layers", "1", "--d_ff", "16", "--set_size", "32", "--batch_size", "4"]
KILLS = 2


@pytest.fixture(scope="module")
def data(tissue, tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    tissue.write_h5ad(folder / "raw.h5ad")
    preprocess(folder / "raw.h5ad", folder / "data", val_sections=["section_2"], progress=False)
    return folder / "data"


def start(data, run, *more):
    command = [sys.executable, "-c", EVERY_STEP, *TRAIN, *more]
    return subprocess.Popen(
        [*command, "--data_dir", str(data), "--output_dir", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # not in the background
    )


def test_killed_training_goes_on(data, tmp_path):
    whole = start(data, tmp_path / "whole")
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output.decode()
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    moments = random.Random(0)
    for _ in range(KILLS):
        going = start(data, tmp_path / "killed", *resume(last))
        before = last.stat().st_mtime if last.exists() else 0
        while going.poll() is None and not (last.exists() and last.stat().st_mtime > before):
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 1))
        going.send_signal(signal.SIGKILL)
        going.communicate()
    final = start(data, tmp_path / "killed", *resume(last))
    output, _ = final.communicate(timeout=300)
    assert final.returncode == 0, output.decode()
    expected, _ = read_checkpoint(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    weights, payload = read_checkpoint(last)
    assert payload["training"]["steps"] == 40
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def resume(last):
    return ["--resume", str(last)] if last.exists() else []


def test_ctrl_c_keeps_the_state(data, tmp_path):
    going = start(data, tmp_path / "run", "--max_steps", "10000")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    while going.poll() is None and not last.exists():
        time.sleep(0.05)
    going.send_signal(signal.SIGINT)
    output, _ = going.communicate(timeout=120)
    assert going.returncode == 130, output.decode()
    assert "Interrupted. Resume with --resume" in output.decode()
    assert "Traceback" not in output.decode()
    read_checkpoint(last)
