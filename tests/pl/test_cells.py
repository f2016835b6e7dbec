"""Figures of the cells of one section."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import sparse

import alphastomics as al

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def log_normalized(counts):
    total = counts.sum(1, keepdims=True)
    return np.log1p(counts / total * np.median(total))


@pytest.fixture
def placed(tissue):
    """One section, placed 30 units off in a frame of its own."""
    cells = tissue[(tissue.obs["section"] == "section_0").to_numpy()].copy()
    moved = cells.obsm["spatial"].copy()
    moved[::2, 0] += 60
    cells.obsm["spatial_predicted"] = moved @ np.array([[0.0, -1], [1, 0]]) + 1e5
    cells.obs["spatial_predicted_radius"] = np.arange(300.0)
    cells.layers["expression_predicted"] = log_normalized(cells.X.toarray().astype(float)) / 2
    return cells


def drawn(ax):
    return ax.collections[0]


def test_displacement_is_drawn_where_cells_sit_and_coloured_by_the_error(placed):
    ax = al.pl.displacement(placed, n_arrows=20)
    points = np.asarray(drawn(ax).get_offsets())
    assert {tuple(p) for p in points.round(6)} == {
        tuple(p) for p in placed.obsm["spatial"].round(6)
    }
    np.testing.assert_allclose(np.asarray(drawn(ax).get_array()), 30, atol=2)
    assert len(ax.collections[1].get_offsets()) == 20
    assert ax.get_aspect() == 1
    unaligned = al.pl.displacement(placed, align=False, n_arrows=0)
    assert np.asarray(drawn(unaligned).get_array()).min() > 1e4
    assert len(unaligned.collections) == 1


def test_cells_without_one_of_the_positions_are_left_out(placed):
    placed.obsm["spatial"][:10] = np.nan
    placed.obsm["spatial_predicted"][10:30] = np.nan
    assert len(drawn(al.pl.displacement(placed)).get_offsets()) == 270
    assert len(drawn(al.pl.uncertainty(placed)).get_offsets()) == 280


def test_uncertainty_takes_the_radius_or_the_spread_of_draws(placed):
    assert np.asarray(drawn(al.pl.uncertainty(placed)).get_array()).max() == 299
    del placed.obs["spatial_predicted_radius"]
    with pytest.raises(KeyError, match=r"is not in adata.obs: a radius is written"):
        al.pl.uncertainty(placed)
    placed.obs["spread"] = 1.0
    ax = al.pl.uncertainty(placed, column="spread")
    assert [other.get_ylabel() for other in ax.figure.axes] == ["", "spread"]


def test_expression_of_layers_and_its_mean_over_near_cells(placed):
    axes = al.pl.expression(placed, "gene_3", smoothed=299)
    titles = [ax.get_title() for ax in axes]
    assert titles == ["Measured", "Predicted", "Measured, mean of 300 cells"]
    true, predicted, mean = (np.asarray(drawn(ax).get_array()) for ax in axes)
    np.testing.assert_allclose(predicted, true / 2)
    np.testing.assert_allclose(mean, true.mean(), rtol=1e-5)
    assert sparse.issparse(placed.X)


def test_a_radius_that_is_right_lies_on_the_diagonal(placed):
    rng = np.random.default_rng(0)
    radius = rng.uniform(10, 100, 300)
    error = radius * np.where(rng.random(300) < 0.97, 0.99, 1.5)
    angle = rng.uniform(0, 2 * np.pi, 300)
    off = error[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    placed.obsm["spatial_predicted"] = placed.obsm["spatial"] + off
    placed.obs["spatial_predicted_radius"] = radius
    ax = al.pl.calibration(placed, align=False, n_groups=6)
    said, found = ax.lines[1].get_data()
    assert len(said) == 6
    assert (np.diff(said) > 0).all()
    np.testing.assert_allclose(found, said, rtol=0.4)
    inside = (error <= radius).mean()
    assert ax.get_title() == f"{100 * inside:.0f} % of cells within their radius"
    del placed.obs["spatial_predicted_radius"]
    with pytest.raises(KeyError, match=r"model.predict writes it if the model is calibrated"):
        al.pl.calibration(placed)


def test_reliability_is_drawn_beside_the_realized_correlation(placed):
    rng = np.random.default_rng(0)
    true = placed.X.toarray()
    noise = np.linspace(0.5, 5, placed.n_vars)
    estimate = true + noise * rng.normal(size=true.shape)
    placed.layers["expression_predicted"] = estimate
    placed.layers["expression_predicted_lower"] = estimate - 1.645 * noise
    placed.layers["expression_predicted_upper"] = estimate + 1.645 * noise
    expected = al.metrics.pcc(true, estimate)
    placed.var["expression_predicted_reliability"] = expected
    ax = al.pl.reliability(placed, truth="X")
    points = ax.collections[0]
    np.testing.assert_allclose(points.get_offsets(), np.stack([expected, expected], 1))
    np.testing.assert_allclose(points.get_array().mean(), 0.9, atol=0.02)
    assert ax.get_title() == "90 % of the values within their interval; Spearman 1.00"
    bars = al.pl.reliability(placed, n_genes=6)
    names = [label.get_text() for label in bars.get_yticklabels()]
    order = placed.var_names[np.argsort(expected)]
    assert names == [*order[:3], *order[-3:]]
    with pytest.raises(KeyError, match=r"truth='counts' is not in adata.layers"):
        al.pl.reliability(placed, truth="counts")
    del placed.layers["expression_predicted_lower"]
    with pytest.raises(KeyError, match=r"write them if the model is calibrated"):
        al.pl.reliability(placed)


def test_axes_and_files_are_the_users(placed, tmp_path):
    _, axes = plt.subplots(1, 2)
    assert al.pl.displacement(placed, ax=axes[0], save=tmp_path / "a.png") is axes[0]
    assert al.pl.expression(placed, "gene_3", ax=axes)[1] is axes[1]
    assert (tmp_path / "a.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="ax holds 1 axes, but there are 2 panels"):
        al.pl.expression(placed, "gene_3", ax=axes[:1])


def test_three_dimensions_and_many_cells(placed):
    many = al.datasets.simulate_tissue(1, 6000, 10, n_dims=3)
    many.obsm["spatial_predicted"] = many.obsm["spatial"] * 1.1
    assert drawn(al.pl.displacement(many, dims=(0, 2), n_arrows=0)).get_rasterized()
    assert not drawn(al.pl.displacement(placed)).get_rasterized()


@pytest.mark.parametrize("call", [al.pl.displacement, al.pl.uncertainty])
def test_one_of_several_sections_must_be_named(tissue, call):
    cells = tissue.copy()
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"]
    cells.obs["spatial_predicted_radius"] = 1.0
    with pytest.raises(ValueError, match=r"3 sections: name one of \['section_0'"):
        call(cells)
    with pytest.raises(ValueError, match="section names 'x', but the sections are 'section_0'"):
        call(cells, section="x")
    assert len(drawn(call(cells, section="section_1")).get_offsets()) == 300


def test_missing_names_are_told(placed):
    with pytest.raises(KeyError, match=r"key 'x' is not in adata.obsm"):
        al.pl.displacement(placed, "x")
    with pytest.raises(KeyError, match=r"gene 'x' is not in adata.var_names"):
        al.pl.expression(placed, "x")
    with pytest.raises(KeyError, match=r"layers \['x'\] are not in adata.layers"):
        al.pl.expression(placed, "gene_3", [None, "x"])


def test_figures_change_no_data(placed):
    before = placed.copy()
    al.pl.displacement(placed)
    al.pl.uncertainty(placed)
    al.pl.expression(placed, "gene_3", smoothed=5)
    assert set(placed.obsm) == set(before.obsm)
    assert set(placed.obs) == set(before.obs)
    np.testing.assert_array_equal(
        placed.obsm["spatial_predicted"], before.obsm["spatial_predicted"]
    )


def test_categories_have_the_colors_of_uns(placed):
    n = placed.obs["cell_type"].cat.categories.size
    placed.uns["cell_type_colors"] = ["#010203"] * n
    right = al.pl.positions(placed, color="cell_type")[0, 1]
    assert mpl.colors.to_hex(drawn(right).get_facecolors()[0]) == "#010203"
