import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

import alphastomics as al

mpl.use("Agg")


@pytest.fixture
def placed(tissue):
    cells = tissue.copy()
    turn = np.array([[0.0, -1], [1, 0]])
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"] @ turn + 1e5
    return cells


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def points(ax):
    return np.asarray(ax.collections[0].get_offsets())


def scale_bars(ax):
    return [child for child in ax.get_children() if isinstance(child, AnchoredSizeBar)]


def test_true_beside_generated_aligned_with_equal_aspect_and_scale_bar(placed):
    axes = al.pl.positions(placed, color="cell_type")
    assert axes.shape == (3, 2)
    np.testing.assert_allclose(points(axes[0, 0]), points(axes[0, 1]), atol=1e-6)
    assert all(ax.get_aspect() == 1 for ax in axes.flat)
    assert scale_bars(axes[0, 0])
    assert [ax.get_title() for ax in axes[:, 0]] == [
        f"section_{i}: true positions" for i in range(3)
    ]


def test_without_truth_or_sections_or_unit(placed, tmp_path):
    del placed.obsm["spatial"], placed.uns["units"], placed.obs["section"]
    axes = al.pl.positions(placed, save=tmp_path / "figure.png")
    assert axes.shape == (1, 1)
    assert not scale_bars(axes[0, 0])
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_sections_with_missing_truth(placed):
    placed.obsm["spatial"][:300] = np.nan
    placed.obsm["spatial"][300:350] = np.nan
    axes = al.pl.positions(placed, color="cell_type")
    assert not axes[0, 0].axison
    assert not axes[0, 0].collections
    assert len(points(axes[0, 1])) == 300
    np.testing.assert_allclose(points(axes[1, 0]), points(axes[1, 1])[50:], atol=1e-6)


def test_plotting_changes_no_coordinates(placed):
    before = {key: value.copy() for key, value in placed.obsm.items()}
    al.pl.positions(placed)
    for key, value in before.items():
        np.testing.assert_array_equal(placed.obsm[key], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "x"}, "key 'x' is not in adata.obsm.*model.predict"),
        ({"color": "x"}, "color 'x' is not in adata.obs"),
    ],
)
def test_missing_keys_are_named(placed, options, message):
    with pytest.raises(KeyError, match=message):
        al.pl.positions(placed, **options)


def test_positions_are_drawn_on_axes_that_are_given(tissue):
    cells = tissue[(tissue.obs["section"] == "section_0").to_numpy()].copy()
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"]
    figure, given = plt.subplots(1, 2)
    assert list(al.pl.positions(cells, ax=given)[0]) == list(given)
    assert all(len(ax.collections) for ax in figure.axes)
    with pytest.raises(ValueError, match="ax holds 1 axes, but there are 2 panels"):
        al.pl.positions(cells, ax=given[0])
    plt.close("all")


def test_text_has_the_same_colours_in_all_sections(placed):
    placed.obs["text"] = np.where(placed.obs["section"] == "section_0", "a", "b").astype(object)
    placed.obs.loc[placed.obs_names[::2], "text"] = "c"
    axes = al.pl.positions(placed, color="text")
    found = [
        {mpl.colors.to_hex(c) for c in ax.collections[0].get_facecolors()} for ax in axes[:, 1]
    ]
    assert len(found[0] & found[1]) == 1
    assert len(found[0] | found[1]) == 3
