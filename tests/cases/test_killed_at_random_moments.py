"""Killed or ended at any moment: the old state or the new one, never none."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import pytest
import torch
from typer.testing import CliRunner

import alphastomics as al
from alphastomics import _files
from alphastomics.cli.preprocess import preprocess
from alphastomics.io import open_data
from alphastomics.main import app
from alphastomics.model._checkpoint import read_checkpoint, read_saved

SIZE = "--d_model 16 --num_heads 2 --num_layers 1 --d_ff 16 --set_size 16 --batch_size 2"
TRAIN = f"train {SIZE} --training_mode pos_to_expr --logger none --output_dir run --data_dir data"
# A forked child of a process that has everything imported: importing takes longer than the rest.
SERVER = """
import os, sys
import alphastomics as al
import alphastomics.cli._processed, alphastomics.cli._preprocess_run, alphastomics.pl, torch
from alphastomics.main import app
from alphastomics.model._checkpoint import read_saved, write_model
from alphastomics.model._checkpoint_writer import Checkpoints
Checkpoints.__init__.__defaults__ = (0.0,)  # after every step
for line in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    os.dup2(os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    code = 1
    try:
        words = line.split()
        if words[0] == "save":
            state, payload = read_saved("model")
            while True:
                write_model("model", state, payload, overwrite=True)
        app(words)
    except SystemExit as error:
        code = error.code or 0
    finally:
        sys.stdout.flush()
        os._exit(code)
"""
MOMENTS = 2  # of each command and signal; ten were tried by hand


class Server:
    """Runs commands in a folder, and ends them."""

    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            # Processes in the background ignore Ctrl+C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, command, number=None, wait=0.0, new=None):
        """Run a command, end it after a while, and give its exit code and what it said.

        The while begins when the file ``new`` is written, if there is such a file to wait for.
        """
        before = time_of(new)
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        if number is not None:
            while new is not None and time_of(new) == before and is_alive(child):
                time.sleep(0.02)
            time.sleep(wait)
            subprocess.run(["kill", f"-{int(number)}", str(child)], check=False)
        code = int(self.process.stdout.readline())
        return code, (self.folder / "log").read_text()


def time_of(path):
    return path.stat().st_mtime_ns if path is not None and path.exists() else None


def is_alive(process):
    return subprocess.run(["kill", "-0", str(process)], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory, small_model):
    folder = tmp_path_factory.mktemp("killed")
    al.datasets.simulate_tissue(2, 60, 12).write_h5ad(folder / "raw.h5ad")
    preprocess(folder / "raw.h5ad", folder / "data", progress=False)
    small_model.save(folder / "model")
    server = Server(folder)
    assert server.run(f"{TRAIN} --max_steps 2")[0] == 0
    yield server
    server.process.stdin.close()
    server.process.wait(60)


@pytest.fixture
def ended(server, monkeypatch):
    """End a command at random moments, and check the exit code and what is there each time."""
    monkeypatch.chdir(server.folder)

    def end(command, check, longest):
        moments = random.Random(0)
        for number in (signal.SIGKILL, signal.SIGTERM):
            for _ in range(MOMENTS):
                code, text = server.run(command(), number, moments.uniform(0, longest))
                codes = {-9} if number == signal.SIGKILL else {143, -15}
                assert code in {0, *codes}, text
                assert "Traceback" not in text
                if code == 143:
                    assert text.count("Stopped by SIGTERM.") == 1
                    assert not list(Path().rglob(f"{_files.TEMPORARY}*")), text
                check()
                for left in Path().rglob(f"{_files.TEMPORARY}*"):
                    subprocess.run(["rm", "-r", left], check=True)

    return end


def test_save(ended):
    ended(lambda: "save", lambda: read_saved("model"), 0.3)
    assert al.AlphaSTomics.load("model").training_record.steps == 3


def test_train(ended, server):
    last = Path("run/checkpoints/last.ckpt")
    steps = [2]

    def check():
        steps.append(read_checkpoint(last)[1]["training"]["steps"])
        read_checkpoint(last.with_name("best.ckpt"))
        assert steps[-1] >= steps[-2]
        assert "output_dir: run" in Path("run/config.yaml").read_text()

    ended(lambda: f"train --resume {last} --max_steps {steps[-1] + 200}", check, 1.5)
    code, text = server.run(f"train --resume {last} --max_steps {steps[-1] + 1}")
    assert code == 0, text


def test_preprocess(ended, server):
    before = open_data("data").manifest.provenance.fingerprint
    task = "preprocess --raw_dir raw.h5ad --output_dir new"

    def check():
        assert open_data("data").manifest.provenance.fingerprint == before
        for store in Path("new").glob("sections/[!.]*"):
            assert ad.read_zarr(store).n_obs == 60
        code, text = server.run(task)  # goes on
        assert code == 0, text
        open_data("new").verify()
        subprocess.run(["rm", "-r", "new"], check=True)

    ended(lambda: task, check, 0.6)


def test_sample(ended, server):
    """E005: the file that is there stays until the new one is whole."""
    task = "sample --checkpoint run --input raw.h5ad --mode pos_to_expr --output out.h5ad"
    assert server.run(task)[0] == 0
    ended(
        lambda: f"{task} --overwrite",
        lambda: ad.read_h5ad("out.h5ad").layers["expression_sampled"],
        0.6,
    )


LONG = f"train {SIZE} --logger none --data_dir held_out"
STEPS = 30


@pytest.fixture
def held_out(server, monkeypatch):
    """The folder of the server, in which data with a validation section are."""
    monkeypatch.chdir(server.folder)
    if not Path("held_out").exists():
        preprocess("raw.h5ad", "held_out", val_sections=["section_1"], progress=False)
    return server


def test_killed_training_goes_on_to_the_same_weights_bit_for_bit(held_out):
    """Those of a process that was not killed and wrote no checkpoint in between."""
    torch.set_num_threads(1)  # as in the server
    task = f"{LONG} --max_steps {STEPS}"
    whole = CliRunner().invoke(app, f"{task} --output_dir whole".split())
    assert whole.exit_code == 0, whole.output
    last = Path("killed/checkpoints/last.ckpt")
    moments = random.Random(0)
    resume, steps = "", [0]
    for _ in range(2):
        killed = f"{task} --output_dir killed {resume}"
        code, text = held_out.run(killed, signal.SIGKILL, moments.uniform(0, 0.4), new=last)
        assert code in {0, -signal.SIGKILL}, text
        steps.append(read_checkpoint(last)[1]["training"]["steps"])
        resume = f"--resume {last}"
    assert steps[0] < steps[1] < steps[2]
    code, text = held_out.run(f"{task} --output_dir killed {resume}")
    assert code == 0, text
    expected, _ = read_checkpoint(Path("whole/checkpoints/last.ckpt"))
    weights, payload = read_checkpoint(last)
    assert payload["training"]["steps"] == STEPS
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_ctrl_c_keeps_the_state(held_out):
    last = Path("stopped/checkpoints/last.ckpt")
    task = f"{LONG} --output_dir stopped --max_steps 10000"
    code, text = held_out.run(task, signal.SIGINT, new=last)
    assert code == 130, text
    assert "Interrupted. Resume with --resume" in text
    assert "Traceback" not in text
    read_checkpoint(last)
