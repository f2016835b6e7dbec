"""What the network makes of cells, beside the answer."""

import numpy as np
import pytest

import alphastomics as al

QUIET = {"progress_bar": False}


def test_the_way_from_noise_ends_in_the_draw(trained):
    model, cells = trained
    cells = cells.copy()
    model.sample(cells, mode="expr_to_pos", n_steps=6, seed=3, **QUIET)
    model.trajectory(cells, mode="expr_to_pos", n_steps=6, seed=3)
    way = cells.obsm["spatial_trajectory"]
    assert way.shape == (300, 7, 2)
    np.testing.assert_allclose(way[:, -1], cells.obsm["spatial_sampled"], rtol=1e-6, atol=1e-6)
    assert cells.uns["alphastomics"]["spatial_trajectory"]["n_steps"] == 6


def test_noise_is_as_wide_as_tissue_and_tells_nothing(trained):
    model, cells = trained
    cells = cells.copy()
    model.trajectory(cells, mode="expr_to_pos", n_steps=6)
    way, true = cells.obsm["spatial_trajectory"], cells.obsm["spatial"]
    noise, draw = (al.metrics.rms_radius(way[:, step]) for step in (0, -1))
    assert 0.7 < noise / draw < 1.4
    ranked = [al.metrics.distance_spearman(true, way[:, step]) for step in (0, -1)]
    assert ranked[0] < 0.1 < ranked[1]


def test_known_cells_stay_where_they_are_at_every_step(trained):
    model, cells = trained
    cells = cells.copy()
    cells.obsm["spatial"][::2] = np.nan
    model.trajectory(cells, n_steps=3)
    way, known = cells.obsm["spatial_trajectory"], ~np.isnan(cells.obsm["spatial"]).any(1)
    for step in range(4):
        assert np.array_equal(way[known, step], cells.obsm["spatial"][known])
    assert np.isfinite(way).all()


def test_parts_of_a_large_section_go_their_way_together(trained):
    model, cells = trained
    cells = cells.copy()
    options = {"mode": "expr_to_pos", "n_steps": 3, "max_set": 128}
    model.sample(cells, **options, **QUIET)
    model.trajectory(cells, **options)
    last = cells.obsm["spatial_trajectory"][:, -1]
    np.testing.assert_allclose(last, cells.obsm["spatial_sampled"], rtol=1e-6, atol=1e-6)


def test_cells_that_have_a_position_have_no_way_to_go(trained):
    model, cells = trained
    cells = cells.copy()
    with pytest.raises(ValueError, match="mode='expr_to_pos' to hide"):
        model.trajectory(cells, mode="pos_to_expr")
    assert "spatial_trajectory" not in cells.obsm


def test_cells_are_shared_out_between_experts(tissue):
    tissue = tissue.copy()
    al.AlphaSTomics.setup_anndata(tissue)
    model = al.AlphaSTomics(tissue, d_model=16, num_heads=2, num_layers=2, d_ff=16, num_experts=4)
    model.train(max_steps=2, set_size=64, **QUIET)
    shares = model.get_expert_utilisation(tissue)
    assert shares.shape == (2, 4)
    assert (shares.index.name, shares.columns.name) == ("block", "expert")
    np.testing.assert_allclose(shares.sum(1), 1)
    router = model.module.transformer.blocks[1].feed_forward.router
    router.weight.data.zero_()  # ties: top-k takes the same two of four
    assert sorted(model.get_expert_utilisation(tissue).loc[2]) == [0, 0, 0.5, 0.5]


def test_a_dense_model_has_no_experts(trained):
    model, cells = trained
    with pytest.raises(ValueError, match="has no experts"):
        model.get_expert_utilisation(cells)
