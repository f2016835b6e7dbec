from pathlib import Path

import pytest
import torch

import alphastomics as al

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _two_threads():
    torch.set_num_threads(2)


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


@pytest.fixture(scope="session")
def trained(tissue):
    """A small model trained on two sections, and the third one."""
    atlas, cells = split(tissue, "section_2")
    al.AlphaSTomics.setup_anndata(atlas, labels_key="cell_type")
    model = al.AlphaSTomics(atlas, d_model=64, num_heads=2, num_layers=2, d_ff=128)
    model.train(max_steps=60, set_size=128, progress_bar=False)
    return model, cells
