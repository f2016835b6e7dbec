"""``examples.sh``, in a folder whose name has a space."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def example(tmp_path):
    """Run an example in a copy, with few steps on few cells."""
    folder = tmp_path / "a copy"
    folder.mkdir()
    shutil.copy(ROOT / "examples.sh", folder)

    def call(*arguments, answer=None, steps="2"):
        environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT / "src"),
            "EXAMPLE_STEPS": steps,
            "EXAMPLE_CELLS": "60",
        }
        return subprocess.run(
            [folder / "examples.sh", *arguments],
            env=environment,
            cwd=tmp_path,
            input=answer or "",
            capture_output=True,
            text=True,
        )

    call.folder = folder
    return call


def test_basic(example):
    done = example("basic")
    assert done.returncode == 0, done.stderr
    assert "alphastomics train --data_dir" in done.stdout  # commands are shown
    work = example.folder / "examples_data" / "basic"
    for name in ("config.yaml", "checkpoints/best.ckpt", "test/metrics.json", "generated.h5ad"):
        assert (work / "run" / name).is_file(), name


def test_compare_from_the_menu(example):
    done = example(answer="compare\n")
    assert done.returncode == 0, done.stderr
    assert "7  all" in done.stdout
    assert "Gated + MoE, 2 of 8" in done.stdout


def test_an_unknown_example_lists_the_choices(example):
    done = example("nonsense")
    assert done.returncode == 2
    for name in ("basic", "gated", "moe", "combined", "full", "compare", "all"):
        assert name in done.stderr


def test_an_error_stops_an_example(example):
    done = example("moe", steps="0")
    assert done.returncode == 2
    assert "max_steps" in done.stderr
    assert "test --checkpoint" not in done.stdout
