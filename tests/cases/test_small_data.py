"""Few cells, few genes, few sections: trained on and calibrated, or one error that says why not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from typer.testing import CliRunner

import alphastomics as al
from alphastomics.main import app

FEW = {"max_steps": 1, "set_size": 16, "batch_size": 2, "progress_bar": False}


def tissue(n_sections, n_cells, n_genes):
    adata = al.datasets.simulate_tissue(n_sections=n_sections, n_cells=max(n_cells, 8), n_genes=50)
    wide = np.tile(adata.X.toarray(), (1, -(-n_genes // 50)))[:, :n_genes]
    adata = AnnData(wide, obs=adata.obs, obsm={"spatial": adata.obsm["spatial"]})
    keep = adata.obs.groupby("section", observed=True).cumcount() < n_cells
    return adata[keep.to_numpy()].copy()


def assert_finite(model, adata):
    cells = adata.copy()
    model.predict(cells, mode="expr_to_pos", progress_bar=False)
    counted = cells.X.sum(axis=1) > 0  # the others have no place
    assert np.isfinite(cells.obsm["spatial_predicted"][counted]).all()
    for name, tensor in model.module.state_dict().items():
        if tensor.is_floating_point() and name != "expression_transform.std":
            assert torch.isfinite(tensor).all(), name


@pytest.mark.parametrize(
    ("n_sections", "n_cells", "n_genes"),
    [
        pytest.param(1, 40, 60, id="A041"),
        pytest.param(1, 100, 128, id="A107"),
        pytest.param(1, 100, 500, id="A108"),
        pytest.param(1, 127, 500, id="A109"),
        pytest.param(1, 49, 300, id="input-69"),
        pytest.param(1, 100, 1, id="1-gene"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*have no expression:UserWarning")
def test_small_data_are_trained_on(fit, n_sections, n_cells, n_genes):
    adata = tissue(n_sections, n_cells, n_genes)
    assert_finite(fit(adata, steps=1, train={"set_size": 16}), adata)


@pytest.mark.parametrize(
    ("n_sections", "n_cells", "n_genes"),
    [
        pytest.param(1, 200, 150, id="A111"),
        pytest.param(2, 100, 150, id="A112"),
        pytest.param(1, 6, 500, id="6-cells"),
        pytest.param(2, 3, 40, id="A308-A455"),
        pytest.param(3, 5, 2, id="2-genes"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*have no expression:UserWarning")
def test_small_data_are_calibrated(fit, n_sections, n_cells, n_genes):
    adata = tissue(n_sections, n_cells, n_genes)
    model = fit(adata, steps=1, train={"set_size": 16})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model.calibrate(**FEW)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        np.isfinite(q) for of in model.training_record.calibration.values() for q in of.values()
    )
    assert_finite(model, adata)


@pytest.mark.parametrize("n_genes", [1, 40])
@pytest.mark.filterwarnings("ignore:.*have no expression:UserWarning")
def test_three_cells_are_trained_on_and_calibration_says_what_it_needs(fit, n_genes):
    adata = tissue(1, 3, n_genes)
    adata.X[0] = 0  # else a single gene would not vary
    model = fit(adata, steps=1, train={"set_size": 16})
    assert_finite(model, adata)
    with pytest.raises(ValueError, match=r"has 1 cells with position and expression.* at least 3"):
        model.calibrate(**FEW)


def test_a_small_file_is_trained_on_by_command(tmp_path):  # F021
    raw, data, runs = (str(tmp_path / name) for name in ("raw", "data", "run"))
    Path(raw).mkdir()
    tissue(2, 40, 150).write_h5ad(Path(raw) / "small.h5ad")
    small = ["--d_model", "16", "--num_heads", "2", "--num_layers", "1", "--d_ff", "16"]
    small += ["--set_size", "16", "--max_steps", "1", "--logger", "none"]
    for command in (
        ["preprocess", "--raw_dir", raw, "--output_dir", data],
        ["train", "--data_dir", data, "--output_dir", runs, *small],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output


def known_in_one(adata):
    adata.obs["expression_known"] = (adata.obs["section"] == "section_0").to_numpy()
    return adata


def test_expression_of_one_section_only_is_trained_on(fit):  # A098
    adata = known_in_one(tissue(2, 60, 150))
    model = fit(adata, steps=1, train={"set_size": 16})
    model.calibrate(**FEW)
    assert list(model.training_record.calibration) == ["framed"]
    assert_finite(model, adata)


def test_nothing_that_links_positions_and_expression_is_named(unchanged):  # A099
    adata = known_in_one(tissue(2, 60, 150))
    adata.obsm["spatial"][:60] = np.nan
    with unchanged(adata), pytest.raises(ValueError, match=r"0 of the 120 cells .*60 have one"):
        al.AlphaSTomics.setup_anndata(adata)


def test_the_fully_measured_section_may_be_small(fit):  # A113
    adata = tissue(2, 100, 150)
    measured = {"section_0": True, "section_1": np.arange(150) < 100}
    adata.varm["measured"] = pd.DataFrame(measured, index=adata.var_names)
    assert_finite(fit(adata, steps=1), adata)


@pytest.mark.parametrize(
    "values", [pytest.param("counts", id="A080"), pytest.param("lognorm", id="A103")]
)
@pytest.mark.filterwarnings("ignore:values='lognorm':UserWarning")
def test_genes_that_do_not_vary_are_refused(fit, atlas, values):
    atlas.X = np.ones(atlas.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="no gene varies between the training cells"):
        fit(atlas, values=values)
