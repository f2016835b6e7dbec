"""The exchange with other tools: what is exported is read by a method and scored."""

import importlib
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

FOLDER = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the benchmarks are not packaged")


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER / "peers"))
    earlier = set(sys.modules)
    yield {name: importlib.import_module(name) for name in ("export", "run", "score")}
    for name in {"export", "run", "score", "common", "placement", "reference"} - earlier:
        sys.modules.pop(name, None)


def test_estimates_come_back_to_their_cells_and_genes(peers, tmp_path, monkeypatch):
    """A stub that knows the truth has the best scores, in places and in genes."""
    rng = np.random.default_rng(0)
    for name, n_cells in (("osmfish_published", 60), ("osmfish_scrna_ref", 40), ("tissue", 80)):
        genes = [f"g{i}" for i in range(33)]
        positions = {"spatial": rng.normal(size=(n_cells, 2))}
        counts = csr_matrix(rng.poisson(4, (n_cells, 33)).astype("float32"))
        cells = ad.AnnData(counts, var=pd.DataFrame(index=genes), obsm=positions)
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    (tmp_path / "truth").mkdir()
    monkeypatch.setattr(peers["export"], "SECTIONS", (("tissue", "counts", 70),))
    peers["export"].mapping(tmp_path, tmp_path, [0])
    peers["export"].imputation(tmp_path, tmp_path)

    tasks = sorted(tmp_path.glob("*_*_?.npz"))
    assert len(tasks) == 1 + 10 + 5 + 5
    for path in tasks:
        task = np.load(path)
        assert not any("truth" in key for key in task.files)
        truth = np.load(tmp_path / "truth" / path.name)["truth"]
        stub = {"stub": lambda _, truth=truth: {"known": truth}}
        monkeypatch.setattr(peers["run"], "METHODS", {"map": stub, "impute": stub})
        peers["run"].run("stub", path, before=0)
    placed = peers["score"].mapping(tmp_path, tmp_path)
    assert placed["cells"].tolist() == [35]
    assert placed["distance_spearman"].to_numpy() == pytest.approx(1)
    imputed = peers["score"].imputation(tmp_path)
    assert imputed.groupby("protocol")["gene"].nunique().tolist() == [33, 33, 33]
    assert imputed["pcc"].to_numpy() == pytest.approx(1)
    for text in (peers["score"].mapping_text(placed), peers["score"].imputation_text(imputed)):
        assert "stub, known" in text


def test_weights_are_read_as_mean_and_as_likeliest_place(peers):
    positions = np.array([[0.0, 0.0], [4.0, 0.0]])
    found = peers["run"].placed(np.array([[3.0, 1.0], [0.0, 2.0]]), positions)
    np.testing.assert_allclose(found["mean"], [[1, 0], [4, 0]])
    np.testing.assert_allclose(found["argmax"], [[0, 0], [4, 0]])
