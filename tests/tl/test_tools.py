"""Tools on generated coordinates, and squidpy and scanpy after them."""

import numpy as np
import pytest
import scanpy as sc
import squidpy as sq
from scipy.stats import ortho_group

import alphastomics as al


@pytest.fixture
def placed(tissue):
    """Three sections, each generated in a frame of its own."""
    cells = tissue.copy()
    section = cells.obs["section"].cat.codes.to_numpy()
    cells.obsm["spatial_predicted"] = np.concatenate(
        [
            cells.obsm["spatial"][section == i] @ ortho_group.rvs(2, random_state=i) + 100 * i
            for i in range(3)
        ]
    )
    return cells


def test_superpose_undoes_the_frame_of_every_section(placed):
    al.tl.superpose(placed)
    np.testing.assert_allclose(
        placed.obsm["spatial_predicted_superposed"], placed.obsm["spatial"], atol=1e-6
    )
    truth = placed.obsm["spatial"].copy()
    placed.obsm["spatial"][::2] = np.nan
    al.tl.superpose(placed, key_added="by_half")
    np.testing.assert_allclose(placed.obsm["by_half"], truth, atol=1e-6)


def test_copies_leave_the_cells_alone(placed):
    before = set(placed.obsm)
    assert "x" in al.tl.superpose(placed, key_added="x", copy=True).obsm
    assert al.tl.neighbors(placed, copy=True).obsp
    assert set(placed.obsm) == before
    assert not placed.obsp


def test_neighbours_are_those_of_the_generated_coordinates_and_of_one_section(placed):
    al.tl.neighbors(placed, n_neighbors=5)
    graph = placed.obsp["spatial_predicted_connectivities"].tocoo()
    section = placed.obs["section"].cat.codes.to_numpy()
    assert (section[graph.row] == section[graph.col]).all()
    sq.gr.spatial_neighbors(placed, library_key="section", coord_type="generic", n_neighs=5)
    assert (graph.tocsr() != placed.obsp["spatial_connectivities"]).nnz == 0


def test_uncertainty_is_the_spread_of_draws(placed):
    draws = np.zeros((placed.n_obs, 2, 2))
    draws[0] = [[3, 4], [-3, -4]]
    placed.obsm["spatial_sampled_draws"] = draws
    al.tl.uncertainty(placed)
    spread = placed.obs["spatial_sampled_draws_uncertainty"].to_numpy()
    assert spread[0] == 5
    assert (spread[1:] == 0).all()


def test_an_ordinary_workflow_runs_after_predict(trained):
    model, cells = trained
    cells = cells.copy()
    del cells.obsm["spatial"]
    model.predict(cells, progress_bar=False)
    al.tl.neighbors(cells)
    sq.gr.nhood_enrichment(
        cells,
        cluster_key="cell_type",
        connectivity_key="spatial_predicted",
        n_perms=20,
        show_progress_bar=False,
    )
    sq.gr.spatial_autocorr(cells, connectivity_key="spatial_predicted_connectivities", mode="moran")
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    cells.obsm["X_alphastomics"] = model.get_latent_representation(trained[1])
    sc.pp.neighbors(cells, use_rep="X_alphastomics")
    sc.tl.umap(cells, maxiter=20)
    assert cells.obsm["X_umap"].shape == (cells.n_obs, 2)
    assert np.isfinite(cells.uns["moranI"]["I"]).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: al.tl.superpose(a, "nothing"), KeyError, "'nothing' is not in adata.obsm"),
        (lambda a: al.tl.neighbors(a, "nothing"), KeyError, "key 'nothing' is not in adata.obsm"),
        (lambda a: al.tl.uncertainty(a), KeyError, r"model.sample\(n_samples=8, point=None\)"),
        (lambda a: al.tl.uncertainty(a, "spatial"), ValueError, "two draws at least"),
    ],
)
def test_errors_say_what_to_do(tissue, call, error, message):
    with pytest.raises(error, match=message):
        call(tissue.copy())
