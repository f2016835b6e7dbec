"""Visium: pixels of the image, and the scale factors beside it."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import squidpy as sq

import alphastomics as al

mpl.use("Agg")
QUIET = {"progress_bar": False}


def library(spot_diameter):
    """What squidpy and scanpy keep of a Visium section: a small image, and scale factors."""
    factors = {"spot_diameter_fullres": spot_diameter, "tissue_hires_scalef": 0.1}
    return {"images": {"hires": np.ones((400, 400, 3))}, "scalefactors": factors}


@pytest.fixture
def spots(tissue):
    """Three sections in pixels of .5 µm."""
    spots = tissue.copy()
    low = spots.obsm["spatial"].min(0)
    spots.obsm["spatial"] = 2 * (spots.obsm["spatial"] - low) + 1
    del spots.uns["units"]
    spots.uns["spatial"] = {name: library(130.0) for name in spots.obs["section"].unique()}
    return spots


def test_cells_are_placed_in_the_pixels_of_the_image(spots):
    al.AlphaSTomics.setup_anndata(spots)
    model = al.AlphaSTomics(spots, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    model.train(max_steps=2, **QUIET)
    section = spots[spots.obs["section"] == "section_1"].copy()
    half = np.arange(section.n_obs) % 2 == 0
    reference, query = section[half].copy(), section[~half].copy()
    true = query.obsm["spatial"].copy()
    model.predict(query, mode="expr_to_pos", reference=reference, **QUIET)
    assert np.ptp(query.obsm["spatial_predicted"], axis=0).max() < 1.5 * np.ptp(true, axis=0).max()
    assert abs(query.obsm["spatial_predicted"].mean(0) - true.mean(0)).max() < 0.3 * true.max()
    sq.pl.spatial_scatter(query, spatial_key="spatial_predicted", library_id="section_1")
    low, high = sorted(plt.gca().get_xlim())  # of the picture, a tenth of the pixels
    assert low - 1 <= query.obsm["spatial_predicted"][:, 0].min() * 0.1 <= high + 1
    plt.close("all")
    assert len(al.pl.positions(query)[0]) == 2
    plt.close("all")
    model.predict(query, mode="expr_to_pos", **QUIET)  # in a frame of its own
    assert "spatial_predicted" not in query.uns


def test_positions_in_micrometres_stand_beside_those_in_pixels(spots):
    before = spots.obsm["spatial"].copy()
    al.pp.normalize_positions(spots, factor="visium", key_added="spatial_um")
    np.testing.assert_allclose(spots.obsm["spatial_um"], before / 2)
    assert np.array_equal(spots.obsm["spatial"], before)
    assert spots.uns["units"] == "µm"


def test_every_section_has_the_scale_of_its_library(spots):
    spots.uns["spatial"]["section_2"] = library(65.0)
    al.pp.normalize_positions(spots, factor="visium", key_added="spatial_um")
    ratio = spots.obsm["spatial_um"] / spots.obsm["spatial"]
    here = (spots.obs["section"] == "section_2").to_numpy()
    np.testing.assert_allclose(ratio[here], 1)
    np.testing.assert_allclose(ratio[~here], 0.5)


def test_pixels_of_different_size_are_warned_of(spots):
    spots.uns["spatial"]["section_2"] = library(65.0)
    with pytest.warns(UserWarning, match="are 0.5 to 1 µm wide"):
        al.AlphaSTomics.setup_anndata(spots)


def test_a_scale_that_is_not_told_is_an_error(spots):
    with pytest.raises(ValueError, match="key_added is missing"):
        al.pp.normalize_positions(spots, factor="visium")
    with pytest.raises(ValueError, match="factor must be a number above 0 or 'visium', found 'px'"):
        al.pp.normalize_positions(spots, factor="px")
    del spots.uns["spatial"]["section_2"]
    with pytest.raises(ValueError, match=r"for the sections \['section_2'\], but for"):
        al.pp.normalize_positions(spots, factor="visium", key_added="spatial_um")


def test_visium_hd_tells_the_size_of_a_pixel(spots):
    factors = {"spot_diameter_fullres": 29.0, "microns_per_pixel": 0.25}
    spots.uns["spatial"] = {"hd": {"scalefactors": factors}}
    al.pp.normalize_positions(spots, factor="visium", key_added="spatial_um")
    np.testing.assert_allclose(spots.obsm["spatial_um"], 0.25 * spots.obsm["spatial"])


def test_images_are_not_those_of_another_section(spots):
    al.AlphaSTomics.setup_anndata(spots)
    model = al.AlphaSTomics(spots, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    model.train(max_steps=1, **QUIET)
    one, other = (spots[spots.obs["section"] == f"section_{i}"].copy() for i in (0, 1))
    for cells, name in ((one, "section_0"), (other, "section_1")):
        cells.uns["spatial"] = {name: spots.uns["spatial"][name]}
    other.uns["umap"] = {"params": 1}
    for key in ("spatial_predicted", "umap"):
        model.predict(other, mode="expr_to_pos", reference=one, key_added=key, **QUIET)
    assert "spatial_predicted" not in other.uns
    assert other.uns["umap"] == {"params": 1}
