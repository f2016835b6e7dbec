"""Public data sets, from a server on this machine."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from anndata import AnnData

import alphastomics as al
from alphastomics.datasets import _public


class Silent(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def log_message(self, *args):
        self.asked.append(self.path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of one small file that is published as merfish.h5ad; no other cache is touched."""
    served = tmp_path / "served"
    served.mkdir()
    AnnData(np.eye(3, dtype=np.float32)).write_h5ad(served / "merfish.h5ad")
    digest = hashlib.sha256((served / "merfish.h5ad").read_bytes()).hexdigest()
    monkeypatch.setattr(_public, "MERFISH", _public.PublicFile("merfish.h5ad", digest))
    Silent.asked.clear()
    running = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(served)))
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setattr(_public, "ADDRESS", f"http://127.0.0.1:{running.server_port}/")
    monkeypatch.setenv(_public.FOLDER_VARIABLE, str(tmp_path / "cache"))
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_file_is_downloaded_once(server, tmp_path):
    assert al.datasets.merfish(progress_bar=False).shape == (3, 3)
    assert (tmp_path / "cache" / "merfish.h5ad").is_file()
    assert al.datasets.merfish(progress_bar=False).shape == (3, 3)
    assert len(Silent.asked) == 1


def test_a_folder_may_be_named(server, tmp_path):
    al.datasets.merfish(cache_dir=tmp_path / "mine", progress_bar=False)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["merfish.h5ad"]
    assert not (tmp_path / "cache").exists()


def test_the_folder_may_be_in_the_home_folder(server, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert al.datasets.merfish(cache_dir="~/mine", progress_bar=False).shape == (3, 3)
    assert (tmp_path / "mine" / "merfish.h5ad").is_file()


def test_progress_is_shown_unless_not_wanted(server, tmp_path, capfd):
    al.datasets.merfish(cache_dir=tmp_path / "a", progress_bar=False)
    assert capfd.readouterr().err == ""
    al.datasets.merfish(cache_dir=tmp_path / "b")
    assert "100%" in capfd.readouterr().err


def test_another_file_than_published_is_not_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_public, "MERFISH", _public.PublicFile("merfish.h5ad", "0" * 64))
    with pytest.raises(ValueError, match="did not give the file that was published") as told:
        al.datasets.merfish(progress_bar=False)
    found = hashlib.sha256((tmp_path / "served" / "merfish.h5ad").read_bytes()).hexdigest()
    for part in ("merfish.h5ad", "0" * 64, found):
        assert part in str(told.value)
    assert not list((tmp_path / "cache").iterdir())


def test_another_file_of_that_name_is_not_replaced(server, tmp_path):
    place = tmp_path / "cache" / "merfish.h5ad"
    place.parent.mkdir()
    place.write_bytes(b"of the user")
    with pytest.raises(ValueError, match="is not the file that was published"):
        al.datasets.merfish(progress_bar=False)
    assert place.read_bytes() == b"of the user"


def test_without_a_connection_it_is_said_where_to_place_the_file(server, tmp_path, monkeypatch):
    content = (tmp_path / "served" / "merfish.h5ad").read_bytes()
    monkeypatch.setattr(_public, "ADDRESS", "http://127.0.0.1:9/")  # nobody listens there
    place = tmp_path / "cache" / "merfish.h5ad"
    with pytest.raises(ConnectionError) as told:
        al.datasets.merfish(progress_bar=False)
    for part in ("http://127.0.0.1:9/merfish.h5ad", f"place it at {place}", "cache_dir="):
        assert part in str(told.value)
    place.write_bytes(content)
    assert al.datasets.merfish(progress_bar=False).shape == (3, 3)


def test_a_file_that_the_server_lacks_is_an_error_of_the_connection(server, tmp_path):
    (tmp_path / "served" / "merfish.h5ad").unlink()
    with pytest.raises(ConnectionError, match="HTTPError"):
        al.datasets.merfish(progress_bar=False)


def test_a_request_that_cannot_be_made_is_no_wrong_hash(server, monkeypatch):
    monkeypatch.setattr(_public, "ADDRESS", "nowhere://")  # requests' error is a ValueError as well
    with pytest.raises(ConnectionError, match="InvalidSchema"):
        al.datasets.merfish(progress_bar=False)


def test_addresses_and_hashes_are_those_that_squidpy_states():
    yaml = pytest.importorskip("yaml")
    squidpy = find_spec("squidpy")  # found, not imported, which takes seconds
    if squidpy is None:
        pytest.skip("squidpy is not installed")
    path = Path(squidpy.origin).parent / "datasets" / "datasets.yaml"
    if not path.is_file():
        pytest.skip("this squidpy has no registry")
    registry = yaml.safe_load(path.read_text())
    assert registry["s3_base_url"] == _public.ADDRESS
    stated = {f["name"]: f["sha256"] for d in registry["datasets"].values() for f in d["files"]}
    for file in (_public.MERFISH, _public.SEQFISH, _public.SLIDESEQV2, _public.VISIUM_HNE):
        assert stated[file.name] == file.sha256
