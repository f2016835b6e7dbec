"""Tables of SpatialData in, generated positions back."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from spatialdata import SpatialData, get_centroids, read_zarr
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Scale, set_transformation

import alphastomics as al

mpl.use("Agg")


@pytest.fixture
def sdata(tissue):
    """Three sections whose coordinates are in their shapes, in an order of their own."""
    cells = tissue.copy()
    position = cells.obsm.pop("spatial")
    cells.obs["region"] = cells.obs.pop("section").astype(str).astype("category")
    shapes = {}
    for region in cells.obs["region"].cat.categories:
        here = np.flatnonzero(cells.obs["region"] == region)[::-1]
        names = cells.obs_names[here]
        shapes[region] = ShapesModel.parse(position[here], geometry=0, radius=1.0, index=names)
    cells.obs["instance"] = cells.obs_names.to_numpy()
    table = TableModel.parse(cells, list(shapes), "region", "instance")
    return SpatialData(shapes=shapes, tables={"table": table})


def test_a_table_gets_the_coordinates_of_what_it_annotates(sdata, tissue):
    cells = al.io.read_table(sdata)
    assert cells is sdata.tables["table"]
    np.testing.assert_allclose(cells.obsm["spatial"], tissue.obsm["spatial"])
    assert list(cells.obs["section"]) == list(tissue.obs["section"])
    cells.obsm["spatial"] = cells.obsm["spatial"] + 1  # what is there is kept
    np.testing.assert_allclose(al.io.read_table(sdata).obsm["spatial"], tissue.obsm["spatial"] + 1)


def test_coordinates_are_those_of_the_system_asked_for(sdata, tissue):
    for shapes in sdata.shapes.values():
        set_transformation(shapes, Scale([2.0, 2.0], axes=("x", "y")), "half")
    cells = al.io.read_table(sdata, coordinate_system="half")
    np.testing.assert_allclose(cells.obsm["spatial"], 2 * tissue.obsm["spatial"])


def test_tables_are_trained_on_placed_and_drawn(sdata, tmp_path, trained):
    cells = al.io.read_table(sdata)
    al.AlphaSTomics.setup_anndata(cells)
    trained[0].predict(cells, mode="expr_to_pos", progress_bar=False)
    before = sdata.tables["table"].uns["spatialdata_attrs"].copy()
    al.io.add_positions(sdata, coordinate_system="predicted")
    names = [f"spatial_predicted_section_{i}" for i in range(3)]
    assert set(names) < set(sdata.shapes)
    assert sdata.tables["table"].uns["spatialdata_attrs"] == before
    sdata.write(tmp_path / "placed.zarr")
    back = read_zarr(tmp_path / "placed.zarr")
    here = (cells.obs["section"] == "section_1").to_numpy()
    centres = get_centroids(back[names[1]], "predicted").compute()
    np.testing.assert_allclose(centres, cells.obsm["spatial_predicted"][here])
    assert list(centres.index) == list(cells.obs_names[here])
    placed = back.tables["table_spatial_predicted"]
    assert (placed.X != cells.X).nnz == 0


def test_spatialdata_plot_draws_placed_cells(sdata):
    pytest.importorskip("spatialdata_plot")
    cells = al.io.read_table(sdata)
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"] - 3
    al.io.add_positions(sdata, radius=20, coordinate_system="predicted")
    name = "spatial_predicted_section_0"
    options = {"color": "cell_type", "table_name": "table_spatial_predicted"}
    shown = sdata.pl.render_shapes(name, **options)
    ax = shown.pl.show(coordinate_systems="predicted", return_ax=True)
    assert ax.collections
    plt.close("all")


def test_cells_without_a_position_are_left_out(sdata):
    cells = al.io.read_table(sdata)
    cells.obsm["spatial_sampled"] = cells.obsm["spatial"].copy()
    cells.obsm["spatial_sampled"][:10] = np.nan
    al.io.add_positions(sdata, key="spatial_sampled")
    assert sdata.tables["table_spatial_sampled"].n_obs == 890


def test_what_is_missing_is_said(sdata):
    with pytest.raises(TypeError, match=r"found SpatialData; pass a table of it, al\.io\.read_tab"):
        al.AlphaSTomics.setup_anndata(sdata)
    with pytest.raises(KeyError, match=r"\(a table of SpatialData gets them by al\.io\.read_table"):
        al.AlphaSTomics.setup_anndata(sdata.tables["table"], section_key="region")
    with pytest.raises(KeyError, match=r"table 'cells' is not in sdata, whose tables are \['table"):
        al.io.read_table(sdata, "cells")
    missing = r"is not in sdata.tables\['table'\].obsm.*: run model\.predict or model\.sample first"
    with pytest.raises(KeyError, match=missing):
        al.io.add_positions(sdata)
    del sdata.tables["table"].uns["spatialdata_attrs"]
    with pytest.raises(ValueError, match=r"annotates none of the elements \['section_0'"):
        al.io.read_table(sdata)


def test_any_names_of_sections_and_columns_will_do(sdata):
    cells = al.io.read_table(sdata)
    cells.obs["section"] = cells.obs["section"].cat.rename_categories(
        lambda name: f"mouse 1/{name}"
    )
    cells.obs["cell"] = "mine"
    cells.obsm["spatial_predicted"] = cells.obsm["spatial"]
    al.io.add_positions(sdata)
    assert "spatial_predicted_mouse_1_section_0" in sdata.shapes
    assert set(sdata.tables["table_spatial_predicted"].obs["cell"]) == {"mine"}


def test_without_sections_there_is_one_element(sdata):
    cells = sdata.tables["table"]
    cells.obsm["spatial_predicted"] = np.zeros((cells.n_obs, 2))
    al.io.add_positions(sdata)
    assert "spatial_predicted" in sdata.shapes


def test_nothing_is_added_if_something_is_wrong(sdata):
    cells = al.io.read_table(sdata)
    cells.obsm["draws"] = np.zeros((cells.n_obs, 4, 2))
    with pytest.raises(ValueError, match=r"has shape \(900, 4, 2\), but one set"):
        al.io.add_positions(sdata, key="draws")
    assert len(sdata.shapes) == 3
