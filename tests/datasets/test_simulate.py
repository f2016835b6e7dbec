import numpy as np
import pytest
from scipy.spatial.distance import cdist

import alphastomics as al


@pytest.mark.parametrize("n_dims", [2, 3])
def test_same_seed_same_tissue_and_sections_do_not_depend_on_their_number(n_dims):
    few = al.datasets.simulate_tissue(2, 100, 20, n_dims=n_dims, seed=3)
    more = al.datasets.simulate_tissue(3, 100, 20, n_dims=n_dims, seed=3)
    assert few.obsm["spatial"].shape == (200, n_dims)
    np.testing.assert_array_equal(few.obsm["spatial"], more.obsm["spatial"][:200])
    np.testing.assert_array_equal(few.X.toarray(), more.X.toarray()[:200])
    other = al.datasets.simulate_tissue(2, 100, 20, n_dims=n_dims, seed=4)
    assert (few.X != other.X).nnz > 0


def test_counts_are_overdispersed_whole_numbers_of_varying_depth():
    tissue = al.datasets.simulate_tissue(1, 2000, 30)
    x = tissue.X.toarray()
    assert x.dtype == np.float32
    assert (x == np.rint(x)).all()
    assert (x >= 0).all()
    assert np.median(x.var(0) / x.mean(0)) > 1.5
    assert x.sum(1).std() / x.sum(1).mean() > 0.3


def test_anatomy_layers_stack_and_the_cavity_is_empty_and_lined():
    tissue = al.datasets.simulate_tissue(1, 3000, 10)
    types, points = tissue.obs["cell_type"].astype(str).to_numpy(), tissue.obsm["spatial"]
    centres = [points[types == t].mean(0) for t in ("L1", "L2/3", "L4", "L5", "L6")]
    to_top = np.linalg.norm(np.array(centres) - centres[0], axis=1)
    assert (np.diff(to_top) > 0).all()
    lining = points[types == "Ependymal"]
    from_centre = cdist(lining.mean(0, keepdims=True), points)[0]
    assert from_centre.min() > 100  # µm
    assert types[from_centre.argsort()[:20]].tolist() == ["Ependymal"] * 20


def test_sections_differ_in_rotation_mirror_image_and_size():
    tissue = al.datasets.simulate_tissue(8, 400, 10)
    handed, sizes = set(), []
    for _, cells in tissue.obs.groupby("section", observed=True):
        part = tissue[cells.index]
        types, points = part.obs["cell_type"].astype(str).to_numpy(), part.obsm["spatial"]
        sizes.append(al.metrics.rms_radius(points))
        deep, cavity = (points[types == t].mean(0) - points.mean(0) for t in ("L6", "Ependymal"))
        handed.add(np.sign(deep[0] * cavity[1] - deep[1] * cavity[0]))
    assert handed == {-1.0, 1.0}
    assert 1.05 < max(sizes) / min(sizes) < 1.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_cells": 2}, "n_cells must be at least 3, found 2"),
        ({"n_sections": 0}, "n_sections must be at least 1"),
        ({"n_dims": 4}, "n_dims must be 2 or 3, found 4"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        al.datasets.simulate_tissue(**options)
