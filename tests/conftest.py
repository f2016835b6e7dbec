import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import alphastomics as al

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Squidpy's statistics change the number of threads of the whole process."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real sections beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real sections are not at ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tissue():
    """Three sections of one simulated tissue; copy before changing."""
    return al.datasets.simulate_tissue(n_sections=3, n_cells=300, n_genes=40)


def split(adata, held_out):
    """Training sections and one held-out section."""
    test = (adata.obs["section"] == held_out).to_numpy()
    return adata[~test].copy(), adata[test].copy()


def train_on_two_sections(tissue, training_mode, **steps):
    atlas, cells = split(tissue, "section_2")
    al.AlphaSTomics.setup_anndata(atlas, labels_key="cell_type")
    model = al.AlphaSTomics(
        atlas, training_mode=training_mode, d_model=64, num_heads=2, num_layers=2, d_ff=128
    )
    model.train(batch_size=4, set_size=128, progress_bar=False, **steps)
    return model, cells


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make what takes long in a single process of the tests; the others read it."""

    def get(name, make):
        if "PYTEST_XDIST_WORKER" not in os.environ:
            return make()
        path = tmp_path_factory.getbasetemp().parent / f"{name}.pickle"
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                path.write_bytes(pickle.dumps(make()))
        return pickle.loads(path.read_bytes())

    return get


def registered(model, cells):
    """A model whose training cells are set up in this process, too."""
    al.AlphaSTomics.setup_anndata(model.adata, labels_key="cell_type")
    return model, cells


@pytest.fixture(scope="session")
def trained(tissue, once):
    """A small model of every task, trained on two sections, and the third one."""
    steps = {"max_steps": 160, "lr": 2e-3}
    return registered(*once("trained", lambda: train_on_two_sections(tissue, "joint", **steps)))


@pytest.fixture(scope="session")
def placer(tissue, once):
    """A small model that only places cells, trained on two sections, and the third one."""
    steps = {"max_steps": 100, "lr": 4e-3}
    return registered(
        *once("placer", lambda: train_on_two_sections(tissue, "expr_to_pos", **steps))
    )


@pytest.fixture(scope="session")
def half():
    """Whether each cell of a section of 300 is in its first half."""
    return np.random.default_rng(0).permutation(300) < 150
