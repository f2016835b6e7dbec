"""Public data sets, from files on this machine: squidpy downloads and checks them."""

import sys

import numpy as np
import pooch
import pytest
import squidpy as sq
from anndata import AnnData

import alphastomics as al


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file in the folder named by the environment variable; nothing can be downloaded."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("ALPHASTOMICS_DATA", str(folder))

    def refuse(*args, **kwargs):
        raise OSError("no connection")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    AnnData(np.eye(3, dtype=np.float32)).write_h5ad(folder / "merfish.h5ad")
    return folder / "merfish.h5ad"


def test_a_file_in_the_folder_is_read(file):
    assert al.datasets.merfish(progress_bar=False).shape == (3, 3)


def test_a_folder_may_be_named(file, tmp_path):
    file.rename(tmp_path / "merfish.h5ad")
    assert al.datasets.merfish(cache_dir=tmp_path).shape == (3, 3)
    assert list(file.parent.iterdir()) == []


def test_the_folder_may_be_in_the_home_folder(file, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / "mine").mkdir()
    file.rename(tmp_path / "mine" / "merfish.h5ad")
    assert al.datasets.merfish(cache_dir="~/mine").shape == (3, 3)


def test_without_a_connection_it_is_said_where_to_place_the_file(file):
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(ConnectionError) as told:
        al.datasets.merfish(progress_bar=False)
    for part in (f"place it at {file}", "cache_dir=", "ALPHASTOMICS_DATA"):
        assert part in str(told.value)
    file.write_bytes(content)
    assert al.datasets.merfish(progress_bar=False).shape == (3, 3)


def test_a_damaged_file_is_no_error_of_the_connection(file):
    file.write_bytes(b"of the user")
    with pytest.raises(OSError, match="file signature"):
        al.datasets.merfish()
    assert file.read_bytes() == b"of the user"


@pytest.mark.parametrize("name", ["merfish", "seqfish", "slideseqv2", "visium_hne"])
def test_squidpy_loads_them_with_or_without_progress(name, monkeypatch, tmp_path, capfd):
    squidpys = "visium_hne_adata" if name == "visium_hne" else name
    asked = []

    def load(path):
        asked.append(path)
        print("100%", file=sys.stderr)

    monkeypatch.setattr(sq.datasets, squidpys, load)
    monkeypatch.delenv("ALPHASTOMICS_DATA", raising=False)
    getattr(al.datasets, name)(cache_dir=tmp_path, progress_bar=False)
    assert capfd.readouterr().err == ""
    getattr(al.datasets, name)()
    assert "100%" in capfd.readouterr().err
    assert asked == [tmp_path / f"{squidpys}.h5ad", None]
