"""What the network makes of cells, beside the answer."""

import numpy as np
import pytest

import alphastomics as al

QUIET = {"progress_bar": False}


def test_sections_are_registered_in_one_frame(trained, tissue):
    """Turned and mirrored sections come to lie on each other, layer on layer; distances stay."""
    model, _ = trained
    cells, turned = tissue.copy(), tissue.copy()
    c, s = np.cos(2.0), np.sin(2.0)
    moved = (tissue.obs["section"] == "section_2").to_numpy()
    turned.obsm["spatial"][moved] = tissue.obsm["spatial"][moved] @ [[c, s], [s, -c]] + 500
    for each in (cells, turned):
        model.register(each)
    registered = turned.obsm["spatial_registered"]
    np.testing.assert_allclose(registered, cells.obsm["spatial_registered"], atol=1)
    radius = al.metrics.rms_radius(registered[moved])
    true_radius = al.metrics.rms_radius(tissue.obsm["spatial"][moved])
    np.testing.assert_allclose(radius, true_radius, rtol=1e-5)
    types = tissue.obs["cell_type"].astype(str).to_numpy()
    for kind in ("L1", "L6"):
        centers = [
            registered[(types == kind) & (tissue.obs["section"] == name).to_numpy()].mean(0)
            for name in ("section_0", "section_1", "section_2")
        ]
        assert np.linalg.norm(np.ptp(centers, axis=0)) < 0.5 * radius


def test_register_says_what_is_missing(trained):
    model, cells = trained
    with pytest.raises(ValueError, match="key_added='spatial' is where the true coordinates"):
        model.register(cells.copy(), key_added="spatial")
    nowhere = cells.copy()
    nowhere.obsm["spatial"][:] = np.nan
    with pytest.raises(ValueError, match="section 'section_2' has no cell with a position"):
        model.register(nowhere)
