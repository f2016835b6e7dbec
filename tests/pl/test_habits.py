"""What all figures have in common: frames, colors, keywords, no warnings of other packages."""

import inspect
import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

import alphastomics as al

mpl.use("Agg")
FIGURES = al.pl.__all__
# Machado, Oliveira & Fernandes 2009, severity 1, in linear RGB.
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def halves(tissue):
    """Half of a section placed into the other half: reference and cells."""
    section = tissue[(tissue.obs["section"] == "section_0").to_numpy()].copy()
    rng = np.random.default_rng(0)
    section.obsm["spatial_predicted"] = section.obsm["spatial"] + 40 * rng.normal(size=(300, 2))
    section.obs["spatial_predicted_radius"] = rng.uniform(50, 150, 300)
    section.layers["expression_predicted"] = np.log1p(section.X.toarray()) * 0.8
    section.var["position_importance"] = np.arange(section.n_vars)
    for suffix, shift in (("_lower", -1), ("_upper", 1)):
        layer = section.layers["expression_predicted"] + shift
        section.layers["expression_predicted" + suffix] = layer
    section.var["expression_predicted_reliability"] = np.linspace(0, 1, section.n_vars)
    return section[::2].copy(), section[1::2].copy()


def call(name, cells, model, **options):
    arguments = {"expression": ["gene_3"], "history": []}.get(name, [])
    if name == "history":
        return al.pl.history(model, **options)
    return getattr(al.pl, name)(cells, *arguments, **options)


def axes_of(drawn):
    return list(np.atleast_1d(np.asarray(drawn, dtype=object)).flat)


def offsets(ax):
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


def colors_by_label(ax, labels):
    colors = [mpl.colors.to_hex(c) for c in ax.collections[0].get_facecolors()]
    return dict(zip(labels, colors, strict=True))


# --- frames


def test_panels_share_limits_that_hold_all_cells_and_y_points_down(halves):
    reference, cells = halves
    cells.obsm["spatial_predicted"] = cells.obsm["spatial_predicted"] * 1.3
    for options in ({}, {"reference": reference}, {"align": False}):
        axes = al.pl.positions(cells, **options)[0]
        assert len({(*ax.get_xlim(), *ax.get_ylim()) for ax in axes}) == 1
        (left, right), (bottom, top) = axes[0].get_xlim(), axes[0].get_ylim()
        for ax in axes:
            assert (offsets(ax) > [left, top]).all()
            assert (offsets(ax) < [right, bottom]).all()


def test_maps_point_down_and_have_equal_aspect(halves):
    reference, cells = halves
    for drawn in (
        al.pl.positions(cells),
        al.pl.displacement(cells),
        al.pl.uncertainty(cells, reference=reference),
        al.pl.expression(cells, "gene_3"),
    ):
        for ax in axes_of(drawn):
            assert ax.yaxis_inverted()
            assert not ax.xaxis_inverted()
            assert ax.get_aspect() == 1


def test_arrows_and_markers_stay_inside(halves):
    ax = al.pl.displacement(halves[1], n_arrows=150)
    arrows = ax.collections[1]
    ends = arrows.XY + np.stack([arrows.U, arrows.V], 1)
    assert (ends[:, 0] > ax.get_xlim()[0]).all()
    assert (ends[:, 0] < ax.get_xlim()[1]).all()
    assert (ends[:, 1] < ax.get_ylim()[0]).all()
    assert (ends[:, 1] > ax.get_ylim()[1]).all()
    few = al.pl.displacement(halves[1], n_arrows=4).collections[1].XY  # in the corners
    assert np.ptp(few, axis=0).min() > 0.5 * np.ptp(halves[1].obsm["spatial"], axis=0).min()


@pytest.mark.parametrize(
    ("units", "label"),
    [
        ("um", "µm"),
        ("micrometres, each section centered", "µm"),
        ("pixels (0.065 um/px)", "px"),
        ("mm", "mm"),
        (None, None),
    ],
)
def test_the_scale_bar_is_of_the_unit_or_of_that_of_the_reference(halves, units, label):
    reference, cells = halves
    del cells.uns["units"], reference.uns["units"]
    if units is not None:
        reference.uns["units"] = units
    ax = al.pl.positions(cells, reference=reference)[0, 2]
    bars = [child for child in ax.get_children() if isinstance(child, AnchoredSizeBar)]
    assert len(bars) == (label is not None)
    figure = al.pl.uncertainty(cells, reference=reference, return_fig=True)
    assert figure.axes[1].get_ylabel() == "90 % radius" + (f" ({label})" if label else "")
    if bars:
        length, unit = bars[0].txt_label.get_text().replace(",", "").split()
        assert unit == label
        assert 0.1 < float(length) / np.ptp(ax.get_xlim()) <= 0.25


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
def test_scale_bars_overlap_no_cell(halves, ratio):
    cells = halves[1]
    cells.obsm["spatial"] = np.random.default_rng(0).uniform(size=(150, 2)) * [1000, 1000 * ratio]
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"]
    for drawn in (al.pl.positions(cells), al.pl.displacement(cells)):
        for ax in axes_of(drawn):
            ax.figure.canvas.draw()
            (bar,) = (child for child in ax.get_children() if isinstance(child, AnchoredSizeBar))
            box = bar.get_window_extent(ax.figure.canvas.get_renderer())
            inside = [box.contains(*point) for point in ax.transData.transform(offsets(ax))]
            assert not any(inside)
            assert ax.get_window_extent().padded(1).y0 <= box.y0


def test_the_reference_lies_behind_and_gives_the_frame(halves):
    reference, cells = halves
    cells.obsm["spatial_predicted"] = cells.obsm["spatial_predicted"] + 500  # not superposed
    axes = al.pl.positions(cells, color="cell_type", reference=reference)[0]
    titles = [ax.get_title() for ax in axes]
    assert titles == ["Reference", "True positions", "Predicted positions"]
    for ax in (*axes[1:], al.pl.uncertainty(cells, reference=reference)):
        front, behind = ax.collections
        assert behind.get_zorder() < front.get_zorder()
        np.testing.assert_allclose(np.asarray(behind.get_offsets()), reference.obsm["spatial"])
    placed = np.asarray(axes[2].collections[0].get_offsets())
    np.testing.assert_allclose(placed, cells.obsm["spatial_predicted"])
    reference.obsm["spatial"] = np.ones((150, 3))
    with pytest.raises(ValueError, match=r"reference.obsm\['spatial'\] has 3 columns"):
        al.pl.positions(cells, reference=reference)


# --- colors


def lab(colors, matrix):
    """CIELAB of sRGB colors ``(n, 3)``, after a change of linear RGB."""
    rgb = np.array([mpl.colors.to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = np.clip(linear @ np.array(matrix).T, 0, 1) @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


def least_distance(colors, vision):
    values = lab(colors, VISION[vision])
    first, second = np.triu_indices(len(values), 1)
    return np.linalg.norm(values[first] - values[second], axis=1).min()


@pytest.mark.parametrize("vision", VISION)
def test_colors_of_20_types_differ_for_the_color_blind(vision):
    from scanpy.plotting.palettes import default_20

    assert len(set(al.pl.PALETTE)) == 20
    # Just noticeable is 2.3; the palette of scanpy has 14, 6 and 0.6.
    assert least_distance(al.pl.PALETTE, vision) > 11
    assert least_distance(al.pl.PALETTE, vision) > 1.4 * least_distance(default_20, vision)
    assert least_distance(al.pl.PALETTE[:8], vision) > 16
    white = [np.linalg.norm(c - lab(["white"], np.eye(3))) for c in lab(al.pl.PALETTE, np.eye(3))]
    assert min(white) > 20


def test_a_type_has_the_same_color_in_all_panels_and_both_data_sets(halves):
    reference, cells = halves
    cells = cells[cells.obs["cell_type"] != "L1"].copy()  # which the reference has
    axes = al.pl.positions(cells, color="cell_type", reference=reference)[0]
    known = colors_by_label(axes[0], reference.obs["cell_type"])
    assert len(set(known.values())) == len(known)
    assert set(known.values()) <= {color.lower() for color in al.pl.PALETTE}
    for ax in axes[1:]:
        placed = colors_by_label(ax, cells.obs["cell_type"])
        assert placed == {name: known[name] for name in placed}


def test_palettes_are_given_as_in_squidpy(halves):
    _, cells = halves
    types = list(cells.obs["cell_type"].cat.categories)
    red = dict.fromkeys(types, "#ff0000")
    many = [f"#0000{i:02x}" for i in range(len(types))]
    for palette, expected in (
        (red, red),
        (many, dict(zip(types, many, strict=True))),
        (mpl.colors.ListedColormap(many), dict(zip(types, many, strict=True))),
    ):
        ax = al.pl.positions(cells, color="cell_type", palette=palette)[0, 1]
        assert colors_by_label(ax, cells.obs["cell_type"]).items() <= expected.items()
    cells.uns["cell_type_colors"] = many
    ax = al.pl.positions(cells, color="cell_type")[0, 1]
    shown = colors_by_label(ax, cells.obs["cell_type"])
    assert shown.items() <= dict(zip(types, many, strict=True)).items()
    assert al.pl.displacement(cells, palette="magma").collections[0].get_cmap().name == "magma"
    for palette, message in (
        (many[:2], "palette has 2 colors for 9 categories"),
        ({"L1": "red"}, "palette has no color of"),
        ("no such", "palette 'no such' is no colormap"),
        (["no color"] * 9, "'no color', which is no color"),
    ):
        with pytest.raises(ValueError, match=message):
            al.pl.positions(cells, color="cell_type", palette=palette)


def test_more_types_than_colors_are_still_different(halves):
    _, cells = halves
    cells.obs["many"] = pd.Categorical(np.arange(150) % 31)
    ax = al.pl.positions(cells, color="many")[0, 1]
    assert len(set(colors_by_label(ax, cells.obs["many"]).values())) == 31


def test_genes_and_lists_color_rows(halves):
    reference, cells = halves
    keys = ["spatial_predicted", "spatial"]
    axes = al.pl.positions(cells, keys, color=["cell_type", "gene_3"], reference=reference)
    assert axes.shape == (2, 4)
    clims = {ax.collections[0].get_clim() for ax in axes[1]}
    assert len(clims) == 1
    values = np.sort(np.asarray(axes[1, 1].collections[0].get_array()))
    np.testing.assert_allclose(values, np.sort(cells[:, "gene_3"].X.toarray().ravel()))
    for color, message in (("x", "color 'x' is not in adata.obs"), ([], "color is empty")):
        with pytest.raises((KeyError, ValueError), match=message):
            al.pl.positions(cells, color=color)


def test_layers_of_a_gene_share_color_limits_and_are_alike(halves):
    cells = halves[1]
    axes = al.pl.expression(cells, ["gene_3", "gene_4"], [None, "expression_predicted"])
    assert axes.shape == (2, 2)
    for row in axes:
        assert row[0].collections[0].get_clim() == row[1].collections[0].get_clim()
    measured = np.asarray(axes[0, 0].collections[0].get_array())
    assert measured.max() < np.log1p(cells.X.max())  # not raw counts
    labels = [ax.get_ylabel() for ax in axes[0, 0].figure.axes[-2:]]
    assert labels == ["gene_3 (log-normalized)", "gene_4 (log-normalized)"]
    (counts,) = al.pl.expression(cells, "gene_3", None)
    values = np.sort(np.asarray(counts.collections[0].get_array()))
    np.testing.assert_allclose(values, np.sort(cells[:, "gene_3"].X.toarray().ravel()))


# --- keywords


@pytest.mark.parametrize("name", FIGURES)
def test_all_figures_have_the_keywords_of_scanpy(name, halves, trained, monkeypatch, tmp_path):
    parameters = inspect.signature(getattr(al.pl, name)).parameters
    assert {"palette", "ax", "show", "return_fig", "save"} <= set(parameters)
    assert "size" in parameters or name == "gene_importance"  # bars only
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = call(name, halves[1], trained[0], return_fig=True, save=tmp_path / "a.png")
        axes = call(name, halves[1], trained[0], show=False)
    assert isinstance(figure, Figure)
    assert not isinstance(axes, Figure)
    assert not shown
    pixels = plt.imread(tmp_path / "a.png").shape
    assert pixels[1] <= 150 * 10.3  # not wider than a page, in which text is 7 points high
    assert all(text.get_fontsize() >= 8 for ax in figure.axes for text in [ax.title, *ax.texts])
    call(name, halves[1], trained[0], show=True)
    assert shown == [name]


def test_titles_are_words(halves, trained):
    for name in FIGURES:
        figure = call(name, halves[1], trained[0], return_fig=True)
        for ax in figure.axes:
            assert "_" not in ax.get_title() + ax.get_xlabel()


def test_size_and_other_options_reach_the_markers(halves):
    cells = halves[1]
    for drawn in (
        al.pl.positions(cells, size=7, alpha=0.5),
        al.pl.displacement(cells, size=7, alpha=0.5),
        al.pl.uncertainty(cells, size=7, alpha=0.5),
        al.pl.expression(cells, "gene_3", size=7, alpha=0.5),
    ):
        for ax in axes_of(drawn):
            assert set(ax.collections[0].get_sizes()) == {7}
            assert ax.collections[0].get_alpha() == 0.5
    n_before = len(plt.get_fignums())
    with pytest.raises(TypeError, match=r"'alhpa' is neither an option.*Did you mean alpha"):
        al.pl.positions(cells, alhpa=0.5)
    with pytest.raises(ValueError, match="size must be above 0"):
        al.pl.displacement(cells, size=0)
    assert len(plt.get_fignums()) == n_before


# --- error bars, losses


def test_error_bars_hold_the_true_quantile(halves):
    from alphastomics.pl._calibration import quantile_interval

    rng = np.random.default_rng(0)
    found = np.array([quantile_interval(rng.exponential(size=200)) for _ in range(400)])
    true = -np.log(0.1)
    covered = ((found[:, 1] <= true) & (true <= found[:, 2])).mean()
    assert 0.92 < covered < 0.99
    assert (found[:, 1] <= found[:, 0]).all()
    assert (found[:, 0] <= found[:, 2]).all()
    ax = al.pl.calibration(halves[1], align=False, n_groups=5)
    assert len(ax.collections[0].get_segments()) == 5


def test_history_has_the_components_a_smooth_line_and_whole_epochs(trained):
    model, _ = trained
    ax = al.pl.history(model)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    recorded = [name for name in model.history if name.startswith("train_loss_")]
    assert len(labels) == 1 + len(recorded) >= 7
    assert labels[0] == "total"
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    loss = model.history["train_loss"]["train_loss"].to_numpy(dtype=float)
    line = ax.lines[0].get_ydata()
    assert np.abs(np.diff(line)).sum() <= np.abs(np.diff(loss)).sum() + 1e-9
    values = [np.asarray(points.get_offsets())[:, 1] for points in ax.collections]
    drawn = dict(zip(labels, values, strict=True))
    np.testing.assert_allclose(drawn.pop("total"), loss)
    del drawn["scale of the error of position"]
    np.testing.assert_allclose(np.sum(list(drawn.values()), axis=0), loss, rtol=1e-4)
