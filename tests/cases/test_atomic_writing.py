"""Files and folders are written whole or not at all, and no planted link is followed."""

import errno
import multiprocessing
import os
import resource
import secrets
import signal
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import alphastomics as al
from alphastomics import _files
from alphastomics.cli._cells import write_cells
from alphastomics.model._checkpoint import read_saved, write_model


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def loads(folder):
    return al.AlphaSTomics.load(folder).training_record.steps


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("tissue.h5ad", "dir_path: .* is a file: choose a folder", id="C072"),
        pytest.param("tissue.h5ad/x", "dir_path: .* cannot be written: Not a dir", id="C073"),
        pytest.param("/proc/x", "dir_path: /proc/x cannot be written: No such", id="C074"),
        pytest.param("a" * 300, "dir_path: .* cannot be written: File name too", id="C076"),
        pytest.param("odd", r"weights\.safetensors is a folder, not a file", id="C078"),
        pytest.param("here", "dir_path: .* is the current folder", id="C073-here"),
    ],
)
def test_save_names_the_argument_and_the_folder(small_model, tmp_path, monkeypatch, name, message):
    (tmp_path / "tissue.h5ad").write_text("mine")
    (tmp_path / "odd" / "weights.safetensors").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match=message) as caught:
        small_model.save(tmp_path / name, overwrite=True)
    assert "[Errno" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "tissue.h5ad").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        pytest.param(errno.ENOSPC, "dir_path: the disk is full.*free some space", id="E024"),
        pytest.param(errno.EROFS, "dir_path: .*Read-only file system", id="E026"),
    ],
)
def test_save_on_a_full_or_read_only_disk(small_model, tmp_path, monkeypatch, number, message):
    small_model.save(tmp_path / "model")
    before = content(tmp_path / "model")

    def fails(path, data):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match=message):
        small_model.save(tmp_path / "model", overwrite=True)
    assert content(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["out.h5ad", "out.zarr"])
def test_a_full_disk_is_one_message(tmp_path, capfd, name):
    """E020: without tracebacks of h5py at files that it closes later."""
    cells = ad.AnnData(np.random.default_rng(0).random((500, 500)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"--output: the disk is full.*free some space"):
            write_cells(cells, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "rename"])
def test_save_swaps_a_whole_folder(small_model, tmp_path, monkeypatch, exchanges):
    """C081: the folder holds one model or the other at every moment."""
    if not exchanges:
        monkeypatch.setattr(_files, "_exchange", lambda first, second: False)
    folder = tmp_path / "model"
    small_model.save(folder)
    old = content(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "sub").mkdir()
    (folder / "sub" / "weights.safetensors").write_text("mine, too")
    inode = (folder / "notes.txt").stat().st_ino
    state, payload = read_saved(folder)
    seen = []
    replace = os.replace

    def watched(source, target):
        replace(source, target)
        if folder.exists():
            assert content(folder).keys() == {*old, "notes.txt"}
            seen.append(loads(folder))

    monkeypatch.setattr(os, "replace", watched)
    payload["training"]["steps"] = 77
    write_model(folder, state, payload, overwrite=True)
    assert loads(folder) == 77
    assert set(seen) <= {3, 77}
    assert (folder / "notes.txt").stat().st_ino == inode
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "sub" / "weights.safetensors").read_text() == "mine, too"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_save_through_a_link_keeps_the_link(small_model, tmp_path):
    """C080."""
    (tmp_path / "link").symlink_to(tmp_path / "model")
    small_model.save(tmp_path / "model")
    small_model.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert loads(tmp_path / "model") == 3


def test_planted_links_are_not_followed(small_model, tmp_path, monkeypatch):
    """C080: names are random, and even a guessed one is not written to."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "model"
    small_model.save(folder)
    for name in ("weights.safetensors", "model.json"):
        (folder / f".{name}.tmp").symlink_to(victim)
    small_model.save(folder, overwrite=True)
    assert victim.read_text() == "precious"
    monkeypatch.setattr(secrets, "token_hex", lambda n: "guessed")
    (tmp_path / ".alphastomics-guessed").symlink_to(victim)
    (tmp_path / ".alphastomics-guessed.csv").symlink_to(victim)
    with pytest.raises(FileExistsError), _files.whole(tmp_path / "table.csv") as part:
        part.write_text("wrong")
    with pytest.raises(FileExistsError):
        small_model.save(folder, overwrite=True)
    assert victim.read_text() == "precious"
    assert loads(folder) == 3


@pytest.mark.parametrize("name", ["x.ckpt", "x.CKPT", "x", "x.h5ad"])
def test_a_model_may_have_any_name(small_model, tmp_path, name):
    """C063."""
    small_model.save(tmp_path / name)
    assert loads(tmp_path / name) == 3
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        al.AlphaSTomics.load(tmp_path / "nothing.ckpt")


def _save_again_and_again(folder, state, payload, stop, results, exchanges):
    if not exchanges:
        _files._exchange = lambda first, second: False
    n = 0
    try:
        while not stop.is_set():
            write_model(folder, state, payload, overwrite=True)
            n += 1
    except BaseException as error:
        results.put(repr(error))
    results.put(n)


@pytest.mark.parametrize("exchanges", [True, False], ids=["E030", "E030-rename"])
def test_readers_beside_writers_always_load_a_whole_model(small_model, tmp_path, exchanges):
    folder = tmp_path / "model"
    small_model.save(folder)
    state, payload = read_saved(folder)
    context = multiprocessing.get_context("fork")
    stop, results = context.Event(), context.Queue()
    arguments = (folder, state, payload, stop, results, exchanges)
    savers = [context.Process(target=_save_again_and_again, args=arguments) for _ in range(2)]
    for saver in savers:
        saver.start()
    try:
        for _ in range(60):
            assert read_saved(folder)[1]["training"]["steps"] == 3
    finally:
        stop.set()
        saved = [results.get(timeout=60) for _ in savers]
        for saver in savers:
            saver.join(60)
    assert all(isinstance(n, int) and n > 0 for n in saved), saved
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_process_leaves_is_recognized(tmp_path):
    """E005: it is hidden, and its name says whose it is."""
    process = multiprocessing.get_context("fork").Process(target=_die_writing, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(_files.TEMPORARY)
    assert left.suffix == ".h5ad"


def _die_writing(folder):
    with _files.whole(folder / "out.h5ad") as part:
        part.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
