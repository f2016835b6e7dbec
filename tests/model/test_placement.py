"""What a user relies on when placing cells."""

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import ortho_group

import alphastomics as al

QUIET = {"mode": "expr_to_pos", "progress_bar": False}
SMALL = {"d_model": 64, "num_heads": 2, "num_layers": 2, "d_ff": 128}


def predicted(model, cells, **options):
    model.predict(cells, **QUIET, **options)
    return cells.obsm["spatial_predicted"]


@pytest.mark.parametrize("kind", ["placer", "trained"])
def test_learns_the_tissue(kind, request):
    model, cells = request.getfixturevalue(kind)
    cells = cells.copy()
    predicted(model, cells)
    score = al.tl.score(cells, labels_key="cell_type").iloc[0]
    assert score["distance_spearman"] > 0.35
    assert score["neighbor_recall@20"] > 2 * 20 / 299
    assert (0.2 if kind == "placer" else 0.1) < score["spread"] < 1.2
    loss = model.history["train_loss"]["train_loss"]
    assert loss.iloc[-1] < 0.95 * loss.iloc[0]


def test_units_and_aspect_are_those_of_training(tissue):
    atlas = tissue[tissue.obs["section"] != "section_2"].copy()
    cells = tissue[tissue.obs["section"] == "section_2"].copy()
    placed = {}
    for factor in (1.0, 1024.0):  # a power of two: no rounding
        scaled = atlas.copy()
        scaled.obsm["spatial"] = atlas.obsm["spatial"] * factor
        al.AlphaSTomics.setup_anndata(scaled)
        model = al.AlphaSTomics(scaled, **SMALL)
        model.train(max_steps=20, batch_size=4, set_size=64, progress_bar=False)
        reference, query = cells[:150].copy(), cells[150:].copy()
        reference.obsm["spatial"] = reference.obsm["spatial"] * factor
        del query.obsm["spatial"]
        model.predict(query, reference=reference, progress_bar=False)
        placed[factor] = predicted(model, cells), query.obsm["spatial_predicted"]
    for small, large in zip(placed[1.0], placed[1024.0], strict=True):
        np.testing.assert_allclose(large, 1024 * small, rtol=1e-4, atol=0.1)


def test_rotated_and_mirrored_training_sections_give_the_same_scores():
    tissue = al.datasets.simulate_tissue(n_sections=5, n_cells=300, n_genes=40)
    held_out = (tissue.obs["section"] == "section_4").to_numpy()
    atlas, cells = tissue[~held_out].copy(), tissue[held_out].copy()
    registered, turned = atlas.copy(), atlas.copy()
    for i in range(4):
        members = (atlas.obs["section"] == f"section_{i}").to_numpy()
        points = atlas.obsm["spatial"][members]
        types = atlas.obs["cell_type"].astype(str).to_numpy()[members]
        registered.obsm["spatial"][members] = upright(points, types)
        turned.obsm["spatial"][members] = points @ ortho_group.rvs(2, random_state=i)
    scores = []
    for training in (registered, turned):
        al.AlphaSTomics.setup_anndata(training)
        model = al.AlphaSTomics(training, training_mode="expr_to_pos", **SMALL)
        model.train(max_steps=60, lr=2e-3, batch_size=4, set_size=128, progress_bar=False)
        scores.append(al.metrics.distance_spearman(cells.obsm["spatial"], predicted(model, cells)))
    assert min(scores) > 0.33
    assert scores[0] == pytest.approx(scores[1], abs=0.08)


def upright(points, types):
    """Layer 1 on top and the cavity to the right, as in the anatomy."""
    points = points - points.mean(0)
    up = points[types == "L1"].mean(0) - points[types == "L6"].mean(0)
    up /= np.linalg.norm(up)
    right = np.array([up[1], -up[0]])
    if points[types == "Ependymal"].mean(0) @ right < 0:
        right = -right
    return points @ np.stack([right, up], axis=1)


def test_same_seed_same_coordinates(tissue):
    runs = []
    for seed in (0, 0, 1):
        atlas = tissue.copy()
        al.AlphaSTomics.setup_anndata(atlas)
        model = al.AlphaSTomics(atlas, seed=seed, d_model=32, num_layers=1, d_ff=32)
        model.train(max_steps=4, set_size=64, progress_bar=False)
        cells = tissue[:100].copy()
        model.predict(cells, **QUIET)
        model.sample(cells, seed=seed, n_steps=3, **QUIET)
        runs.append((cells.obsm["spatial_predicted"], cells.obsm["spatial_sampled"]))
    for first, second, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, second)
        assert not np.allclose(first, other)


def test_order_of_cells_and_genes_changes_nothing(trained):
    model, cells = trained
    cells = cells.copy()
    rng = np.random.default_rng(0)
    order = rng.permutation(cells.n_obs)
    shuffled = cells[order][:, rng.permutation(cells.n_vars)].copy()
    for each in (cells, shuffled):
        model.predict(each, **QUIET)
        model.sample(each, n_samples=2, n_steps=4, **QUIET)
    for key in ("spatial_predicted", "spatial_sampled"):
        np.testing.assert_allclose(shuffled.obsm[key], cells.obsm[key][order], rtol=1e-9)


def test_true_positions_do_not_leak(trained):
    model, cells = trained
    with_truth, without = cells.copy(), cells.copy()
    del without.obsm["spatial"]
    with_truth.obsm["spatial"] = with_truth.obsm["spatial"] * 7
    model.predict(without, progress_bar=False)
    np.testing.assert_array_equal(predicted(model, with_truth), without.obsm["spatial_predicted"])


def test_sections_of_a_query_are_placed_apart(trained, tissue):
    model, cells = trained
    both = tissue[tissue.obs["section"] != "section_0"].copy()
    model.predict(both, **QUIET)
    model.sample(both, n_steps=3, **QUIET)
    alone = cells.copy()
    model.predict(alone, **QUIET)
    model.sample(alone, n_steps=3, **QUIET)
    members = (both.obs["section"] == "section_2").to_numpy()
    for key in ("spatial_predicted", "spatial_sampled"):
        np.testing.assert_allclose(both.obsm[key][members], alone.obsm[key], rtol=1e-5)


def test_large_sections_are_placed_in_parts(trained):
    model, cells = trained
    cells = cells.copy()
    whole, parts = predicted(model, cells), predicted(model, cells, max_cells_per_set=100)
    assert not np.array_equal(whole, parts)
    assert al.metrics.procrustes_rmse(whole, parts) < 0.5


def test_missing_genes_are_masked_with_one_warning(trained):
    model, cells = trained
    fewer = cells[:, 5:].copy()
    with pytest.warns(UserWarning, match="5 of the model's 40 genes are missing") as caught:
        model.predict(fewer, **QUIET)
    assert len(caught) == 1
    zero_filled = cells.copy()
    zero_filled.X[:, :5] = 0
    assert not np.allclose(predicted(model, zero_filled), fewer.obsm["spatial_predicted"])
    extra = ad.concat([cells, cells[:, :3].copy()], axis=1, merge="first")
    extra.var_names = [*cells.var_names, "new_1", "new_2", "new_3"]
    np.testing.assert_array_equal(predicted(model, extra), predicted(model, cells.copy()))


def test_draws_share_a_frame_and_points_summarise_them(trained):
    model, cells = trained
    cells = cells.copy()
    model.sample(cells, n_samples=4, n_steps=8, point=None, **QUIET)
    draws = cells.obsm["spatial_sampled_draws"]
    assert draws.shape == (cells.n_obs, 4, 2)
    assert "spatial_sampled" not in cells.obsm
    stacked = draws.transpose(1, 0, 2)
    model.sample(cells, n_samples=4, n_steps=8, point="medoid", key_added="m", **QUIET)
    model.sample(cells, n_samples=4, n_steps=8, point="consensus", key_added="c", **QUIET)
    np.testing.assert_allclose(cells.obsm["m"], stacked[al.metrics.medoid(stacked)])
    np.testing.assert_allclose(cells.obsm["c"], stacked.mean(0))
    assert al.metrics.rms_radius(cells.obsm["m"]) > al.metrics.rms_radius(cells.obsm["c"])


def test_draws_of_a_section_without_a_frame_are_superposed(trained):
    """No turn or mirror image of a draw is nearer to the mean of them all."""
    model, cells = trained
    cells = cells.copy()
    model.sample(cells, n_samples=3, n_steps=4, point=None, **QUIET)
    draws = cells.obsm["spatial_sampled_draws"].transpose(1, 0, 2)
    mean = draws.mean(0)
    tolerance = 0.02 * al.metrics.rms_radius(mean)
    for draw in draws:
        np.testing.assert_allclose(al.metrics.superpose(draw, mean), draw, atol=tolerance)
    mirror = cells.uns["alphastomics"]["spatial_sampled_draws"]["mirror"].loc["section_2"]
    assert set(mirror.index) == {"opposite_sides", "same_distance", "ambiguous"}


def test_coordinates_are_centred_on_the_origin(trained, tissue):
    model, _ = trained
    cells = tissue.copy()
    model.predict(cells, **QUIET)
    model.sample(cells, n_samples=2, n_steps=2, **QUIET)
    for key in ("spatial_predicted", "spatial_sampled"):
        for section in ("section_0", "section_1", "section_2"):
            part = cells.obsm[key][(cells.obs["section"] == section).to_numpy()]
            np.testing.assert_allclose(part.mean(0), 0, atol=1e-6)


def test_true_coordinates_are_never_overwritten(trained):
    model, cells = trained
    for place in (model.predict, model.sample):
        with pytest.raises(ValueError, match="key_added='spatial' is where the true coordinates"):
            place(cells, key_added="spatial", **QUIET)


def test_a_gene_silent_in_training_says_nothing(tissue):
    atlas = tissue.copy()
    counts = atlas.X.toarray()
    counts[:, 0] = 0
    atlas.X = counts
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, d_model=16, num_layers=1, d_ff=16)
    model.train(max_steps=3, set_size=32, progress_bar=False)
    values = torch.ones(2, 40)
    values[1, 0] = 2.0
    standard = model.module.expression_transform(values, torch.ones(2, 40, dtype=torch.bool))
    assert (standard[:, 0] == 0).all()


def test_what_is_written_and_what_is_not(trained):
    model, cells = trained
    cells = cells.copy()
    before = cells.copy()
    model.predict(cells, **QUIET)
    model.sample(cells, n_samples=2, n_steps=2, seed=5, **QUIET)
    how = cells.uns["alphastomics"]
    assert how["spatial_predicted"]["method"] == "predict"
    assert how["spatial_sampled"]["seed"] == 5
    assert how["spatial_sampled"]["model"] == how["spatial_predicted"]["model"]
    np.testing.assert_array_equal(cells.obsm["spatial"], before.obsm["spatial"])
    assert (cells.X != before.X).nnz == 0
    assert list(cells.obs) == list(before.obs)


def test_a_placed_section_survives_h5ad(trained, tmp_path):
    model, cells = trained
    cells = cells.copy()
    model.sample(cells, n_samples=2, n_steps=2, point=None, **QUIET)
    model.predict(cells, **QUIET)
    cells.write_h5ad(tmp_path / "placed.h5ad")
    back = ad.read_h5ad(tmp_path / "placed.h5ad")
    for key in ("spatial_predicted", "spatial_sampled_draws"):
        np.testing.assert_array_equal(back.obsm[key], cells.obsm[key])
    assert back.uns["alphastomics"]["spatial_predicted"]["method"] == "predict"


@pytest.mark.parametrize(
    "convert",
    [sparse.csc_matrix, sparse.csr_array, lambda x: x.toarray(), lambda x: x.astype(np.int64)],
)
def test_any_matrix_gives_the_same_placement(trained, convert):
    model, cells = trained
    expected = predicted(model, cells.copy())
    other = cells.copy()
    other = ad.AnnData(convert(cells.X), obs=cells.obs, var=cells.var)
    model.predict(other, progress_bar=False)
    np.testing.assert_array_equal(other.obsm["spatial_predicted"], expected)


def test_views_are_copied_with_one_warning(trained, tissue):
    model, cells = trained
    view = tissue[tissue.obs["section"] == "section_2"]
    with pytest.warns(UserWarning, match="view of another AnnData and is copied") as caught:
        model.predict(view, **QUIET)
    assert len(caught) == 1
    np.testing.assert_array_equal(view.obsm["spatial_predicted"], predicted(model, cells.copy()))
    assert "spatial_predicted" not in tissue.obsm
    view = tissue[tissue.obs["section"] != "section_2"]
    with pytest.warns(UserWarning, match="view of another AnnData and is copied") as caught:
        al.AlphaSTomics.setup_anndata(view)
    assert len(caught) == 1
    al.AlphaSTomics(view, d_model=16, num_layers=1, d_ff=16)


def test_a_backed_file_can_be_placed_and_learned_from(trained, tissue, tmp_path):
    model, cells = trained
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    np.testing.assert_array_equal(predicted(model, backed), predicted(model, cells.copy()))
    view = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")[:100]
    with pytest.warns(UserWarning, match="is copied"):
        model.predict(view, **QUIET)
    assert view.obsm["spatial_predicted"].shape == (100, 2)
    tissue.write_h5ad(tmp_path / "atlas.h5ad")
    atlas = ad.read_h5ad(tmp_path / "atlas.h5ad", backed="r")
    al.AlphaSTomics.setup_anndata(atlas)
    learner = al.AlphaSTomics(atlas, d_model=16, num_layers=1, d_ff=16)
    learner.train(max_steps=1, set_size=32, progress_bar=False)
    assert learner.is_trained


def test_three_dimensions():
    volume = al.datasets.simulate_tissue(2, 150, 20, n_dims=3)
    al.AlphaSTomics.setup_anndata(volume)
    model = al.AlphaSTomics(volume, d_model=32, num_layers=1, d_ff=32)
    model.train(max_steps=3, set_size=64, progress_bar=False)
    model.predict(volume, **QUIET)
    model.sample(volume, n_samples=2, n_steps=2, **QUIET)
    assert volume.obsm["spatial_predicted"].shape == (300, 3)
    assert np.isfinite(volume.obsm["spatial_sampled"]).all()


@pytest.mark.parametrize("convert", [sparse.csc_matrix, lambda x: x.astype(np.int64)])
def test_any_matrix_can_be_learned_from(tissue, convert):
    atlas = tissue.copy()
    atlas.X = convert(atlas.X)
    al.AlphaSTomics.setup_anndata(atlas)
    al.AlphaSTomics(atlas, d_model=16, num_layers=1, d_ff=16).train(
        max_steps=1, set_size=32, progress_bar=False
    )
    assert type(atlas.X) is type(convert(tissue.X))


@pytest.mark.parametrize("values", ["lognorm", "intensity"])
def test_other_values_from_a_layer(tissue, values):
    atlas = tissue.copy()
    logged = atlas.X.log1p() if values == "lognorm" else atlas.X * 0.3
    atlas.layers["measured"] = logged
    atlas.X = -atlas.X
    al.AlphaSTomics.setup_anndata(atlas, layer="measured", values=values)
    model = al.AlphaSTomics(atlas, d_model=16, num_layers=1, d_ff=16)
    model.train(max_steps=2, set_size=32, progress_bar=False)
    model.predict(atlas, **QUIET)
    assert np.isfinite(atlas.obsm["spatial_predicted"]).all()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("mean_head", "the head of mean positions gave values that are not finite"),
        ("arrangement_head", "the arrangement head gave values that are not finite"),
    ],
)
def test_a_network_that_diverged_is_an_error_and_nothing_is_written(
    placer, tmp_path, head, message
):
    model, cells = placer
    cells = cells.copy()
    model.save(tmp_path / "model")
    diverged = al.AlphaSTomics.load(tmp_path / "model")
    getattr(diverged.module, head).bias.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=message):
        diverged.predict(cells, **QUIET)
    assert list(cells.obsm) == ["spatial"]
    assert not cells.uns.get("alphastomics")
