"""A small run on real sections; skipped where they are absent."""

import anndata as ad

import alphastomics as al


def test_an_unseen_animal_is_placed_well_above_chance(shared_data):
    adata = ad.read_h5ad(shared_data / "starmap_mpfc.h5ad")
    held_out = (adata.obs["section"] == "BZ5").to_numpy()
    atlas, cells = adata[~held_out].copy(), adata[held_out].copy()
    truth = cells.obsm.pop("spatial")
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(
        atlas, training_mode="expr_to_pos", d_model=64, num_heads=2, num_layers=2, d_ff=128
    )
    model.train(max_steps=60, lr=2e-3, batch_size=4, set_size=256, progress_bar=False)
    model.predict(cells, progress_bar=False)
    assert al.metrics.distance_spearman(truth, cells.obsm["spatial_predicted"]) > 0.25
