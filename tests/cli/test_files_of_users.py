"""Files of users are never moved or replaced unasked."""

import anndata as ad
import numpy as np
import pytest

from alphastomics.cli._cells import check_output
from alphastomics.cli._new_run import new_run
from alphastomics.cli._run_folder import RUN, check_folder
from alphastomics.config import Config, ConfigError


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["notes.txt", "config.yaml", "checkpoints.zip"])
def test_a_folder_of_the_user_is_no_run(tmp_path, data, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("mine")
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=f"{name}.*choose another folder"):
        check_folder(folder, data, resumes=False)
    assert files(tmp_path) == before


def test_a_run_with_a_file_of_the_user_in_it_is_not_moved(tmp_path, data):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / RUN).write_text("{}")
    (folder / "generated.h5ad").write_text("")
    (folder / ".alphastomics-0123.csv").write_text("")  # of a run that was killed
    check_folder(folder, data, resumes=False)  # all of it was written by runs
    (folder / "paper.docx").write_text("mine")
    with pytest.raises(ConfigError, match=r"paper\.docx"):
        check_folder(folder, data, resumes=False)
    check_folder(folder, data, resumes=True)
    (folder / RUN).unlink()
    with pytest.raises(ConfigError, match=r"is not the folder of a run.*put the checkpoint"):
        check_folder(folder, data, resumes=True)


@pytest.mark.parametrize("where", [".", "runs/first", ".."])
def test_runs_and_data_do_not_lie_in_each_other(data, where):
    with pytest.raises(ConfigError, match="overlap"):
        check_folder(data / where, data, resumes=True)


def test_a_new_and_an_empty_folder_are_fine(tmp_path, data):
    check_folder(tmp_path / "new", data, resumes=False)
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty", data, resumes=False)


def test_outputs_replace_nothing_unasked(tmp_path):
    cells = tmp_path / "cells.h5ad"
    ad.AnnData(np.ones((2, 2), np.float32)).write_h5ad(cells)
    check_output(tmp_path / "new.h5ad", [cells], overwrite=False)
    with pytest.raises(ConfigError, match=r"exists already.*--overwrite"):
        check_output(cells, [None], overwrite=False)
    check_output(cells, [None], overwrite=True)
    with pytest.raises(ConfigError, match="is read by this command"):
        check_output(cells, [cells], overwrite=True)
    with pytest.raises(ConfigError, match="is a folder"):
        check_output(tmp_path, [cells], overwrite=True)


def new(folder):
    return new_run(folder, Config(), {})


def test_a_run_that_was_killed_before_its_first_checkpoint_is_replaced(tmp_path):
    run = tmp_path / "first"
    for _ in range(3):
        with new(run):  # a killed process does not leave the block
            (run / "checkpoints").mkdir()
            (run / "csv").mkdir()
            (run / "csv" / "hparams.yaml").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    for name in ("csv/metrics.csv", "history.csv", "checkpoints/best.ckpt"):  # of use to someone
        (run / name).touch()
        with new(run):
            (run / "checkpoints").mkdir()
            (run / "csv").mkdir()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_run_without_a_checkpoint_leaves_nothing_behind(tmp_path, capsys):
    run = tmp_path / "outputs" / "first"

    def stopped(*, after_checkpoint):
        with new(run):
            (run / "csv").mkdir()
            (run / "csv" / "metrics.csv").touch()
            if after_checkpoint:
                (run / "checkpoints").mkdir()
                (run / "checkpoints" / "last.ckpt").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        stopped(after_checkpoint=False)
    assert error.value.__notes__ == [
        f"There was no checkpoint yet, so {run} was removed: start again."
    ]
    assert list(run.parent.iterdir()) == []
    with pytest.raises(KeyboardInterrupt) as error:
        stopped(after_checkpoint=True)
    assert not hasattr(error.value, "__notes__")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(KeyboardInterrupt) as error:
        stopped(after_checkpoint=False)
    assert f"{run} is the earlier run" in error.value.__notes__[0]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert list(run.parent.iterdir()) == [run]
