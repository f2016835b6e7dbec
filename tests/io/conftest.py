import numpy as np
import pytest

import alphastomics as al
from alphastomics.io._store import arrange, compact, write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A section of three blocks of cells, and the same in memory."""
    cells = al.datasets.simulate_tissue(1, 20_000, 12)
    cells.X = compact(cells.X)
    arranged = arrange(cells, "section_0", seed=0)
    path = tmp_path_factory.mktemp("stores") / "section_0.zarr"
    write_store(path, arranged)
    return path, arranged


@pytest.fixture
def reads(monkeypatch):
    """Counts what is read from compressed arrays: the number of elements of each read."""
    import zarr

    counted = []
    read = zarr.Array.__getitem__

    def count(array, selection):
        values = read(array, selection)
        counted.append(int(np.size(values)))
        return values

    monkeypatch.setattr(zarr.Array, "__getitem__", count)
    return counted
