"""``examples.sh``, in a folder whose name has a space."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alphastomics.main import app

ROOT = Path(__file__).parents[1]
# In place of Python: writes its arguments down, and fails at one of them if asked to.
WRITES_DOWN = f"""#!{sys.executable} -IS
import json, os, sys
with open(os.environ["COMMANDS"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(2 if os.environ.get("FAILS") in sys.argv else 0)
"""


@pytest.fixture
def example(tmp_path):
    """Let the script choose an example in a copy, and give the commands that it ran."""
    folder = tmp_path / "a copy"
    folder.mkdir()
    shutil.copy(ROOT / "examples.sh", folder)
    python, commands = tmp_path / "python", tmp_path / "commands"
    python.write_text(WRITES_DOWN)
    python.chmod(0o755)

    def call(*arguments, answer="", fails="nothing"):
        environment = {
            **os.environ,
            "PYTHON": str(python),
            "COMMANDS": str(commands),
            "FAILS": fails,
            "EXAMPLE_STEPS": "2",
            "EXAMPLE_CELLS": "60",
        }
        commands.write_text("")
        done = subprocess.run(
            [folder / "examples.sh", *arguments],
            env=environment,
            cwd=tmp_path,
            input=answer,
            capture_output=True,
            text=True,
        )
        return done, [json.loads(line) for line in commands.read_text().splitlines()]

    call.folder = folder
    return call


def run(command, monkeypatch):
    """Run a command of Python in this process."""
    kind, what, *words = command
    if kind == "-c":
        monkeypatch.setattr(sys, "argv", ["-c", *words])
        exec(compile(what, "examples.sh", "exec"), {})
    else:
        assert (kind, what) == ("-m", "alphastomics")
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{words}\n{result.output}\n{result.exception!r}"


def test_basic(example, monkeypatch):
    """Every command works on what those before it wrote."""
    done, commands = example("basic")
    assert done.returncode == 0, done.stderr
    assert "alphastomics train --data_dir" in done.stdout  # commands are shown
    assert [command[2] for command in commands[1:]] == ["preprocess", "train", "test", "sample"]
    for command in commands:
        run(command, monkeypatch)
    work = example.folder / "examples_data" / "basic"
    for name in ("config.yaml", "checkpoints/best.ckpt", "test/metrics.json", "generated.h5ad"):
        assert (work / "run" / name).is_file(), name


def test_compare_from_the_menu(example):
    done, (command,) = example(answer="compare\n")
    assert done.returncode == 0, done.stderr
    assert "7  all" in done.stdout
    assert command == ["-m", "alphastomics", "compare-configs"]


def test_an_unknown_example_lists_the_choices(example):
    done, commands = example("nonsense")
    assert done.returncode == 2
    assert not commands
    for name in ("basic", "gated", "moe", "combined", "full", "compare", "all"):
        assert name in done.stderr


def test_an_error_stops_an_example(example):
    done, commands = example("moe", fails="train")
    assert done.returncode == 2
    assert "train" in commands[-1]
    assert "test --checkpoint" not in done.stdout
