"""Tables of SpatialData: coordinates of what they annotate, and results back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import KDTree

from alphastomics import _keys
from alphastomics._anndata import sections_of
from alphastomics._compat import require
from alphastomics._coordinates import is_known, point_set

if TYPE_CHECKING:
    from spatialdata import SpatialData

TABLE, GLOBAL = "table", "global"
REGION, INSTANCE = "alphastomics_region", "alphastomics_cell"
NOT_COPIED = (_keys.SPATIALDATA, "_scvi")  # entries of uns that describe the table itself
Array = NDArray[np.float64]


def centroids(data: SpatialData, cells: AnnData, coordinate_system: str = GLOBAL) -> Array | None:
    """Centroids of what the rows of a table annotate ``(n, d)``; NaN where there is nothing."""
    get_centroids = require("spatialdata", "io", "Reading SpatialData").get_centroids
    attributes = cells.uns.get(_keys.SPATIALDATA)
    if attributes is None:
        return None
    regions = cells.obs[attributes["region_key"]].astype(str).to_numpy()
    instances = cells.obs[attributes["instance_key"]]
    position: Array | None = None
    for region in pd.unique(regions):
        if region not in data:
            continue
        frame = get_centroids(data[region], coordinate_system).compute()
        if position is None:
            position = np.full((cells.n_obs, frame.shape[1]), np.nan)
        here = regions == region
        position[here] = frame.reindex(instances[here]).to_numpy()
    return position


def read_table(
    sdata: SpatialData,
    table: str = TABLE,
    *,
    coordinate_system: str = GLOBAL,
    spatial_key: str = _keys.SPATIAL,
    section_key: str = _keys.SECTION,
) -> AnnData:
    """Read a table of SpatialData with coordinates and sections, as the model reads them.

    Parameters
    ----------
    sdata, table
        SpatialData, and name of a table that annotates its shapes, labels or points.
    coordinate_system
        Coordinate system of the result.
    spatial_key, section_key
        Names in ``.obsm`` and ``.obs`` of the coordinates and the region of each row, written
        unless they exist.

    Returns
    -------
    AnnData
        The table itself, not a copy, with ``.obsm[spatial_key]``, shape ``(n_cells, n_dims)``: the
        centroids of the annotated elements, NaN where there are none.

    Raises
    ------
    KeyError, ValueError
        If there is no such table, or it has no coordinates and annotates nothing that has.

    Examples
    --------
    >>> import alphastomics as al
    >>> from spatialdata import SpatialData
    >>> from spatialdata.models import ShapesModel, TableModel
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> spots = ShapesModel.parse(cells.obsm.pop("spatial"), geometry=0, radius=1.0)
    >>> cells.obs["region"], cells.obs["spot"] = "spots", spots.index.to_numpy()
    >>> cells.obs["region"] = cells.obs["region"].astype("category")
    >>> table = TableModel.parse(cells, "spots", "region", "spot")
    >>> sdata = SpatialData(shapes={"spots": spots}, tables={"table": table})
    >>> al.io.read_table(sdata).obsm["spatial"].shape
    (50, 2)
    """
    cells = _table(sdata, table)
    if spatial_key not in cells.obsm:
        position = centroids(sdata, cells, coordinate_system)
        if position is None:
            elements = sorted(name for _, name, _ in sdata.gen_spatial_elements())
            raise ValueError(
                f"table {table!r} has no coordinates in .obsm[{spatial_key!r}] and annotates none "
                f"of the elements {elements}: name another table, or let it annotate one by "
                "sdata.set_table_annotates_spatialelement."
            )
        cells.obsm[spatial_key] = position
    if section_key not in cells.obs and _keys.SPATIALDATA in cells.uns:
        cells.obs[section_key] = cells.obs[cells.uns[_keys.SPATIALDATA]["region_key"]].astype(
            "category"
        )
    return cells


def add_positions(
    sdata: SpatialData,
    table: str = TABLE,
    key: str = _keys.PREDICTED,
    *,
    radius: float | None = None,
    coordinate_system: str = GLOBAL,
    section_key: str | None = _keys.SECTION,
) -> None:
    """Add generated positions of a table's cells to SpatialData, as circles.

    Parameters
    ----------
    sdata, table
        SpatialData, and name of a table in which ``model.predict`` or ``model.sample`` has written.
    key
        Name in ``.obsm`` of the generated positions, ``(n_cells, n_dims)``.
    radius
        Radius of the circles in units of the coordinates; by default half the median distance of
        nearest cells.
    coordinate_system
        Coordinate system of the circles. Positions generated without a reference have a frame of
        their own: give it a new name.
    section_key
        Name in ``.obs`` of the section; all cells are one section when it is absent.

    Returns
    -------
    None
        Adds shapes ``key``, or ``key + "_" + section`` for each of several sections, indexed by the
        names of the cells, and a table ``table + "_" + key`` with the values of ``table`` that
        annotates them; what a name must not hold becomes ``_``. spatialdata-plot draws them by
        ``sdata.pl.render_shapes(key, color="cell_type", table_name=table + "_" + key).pl.show()``.

    Raises
    ------
    KeyError, ValueError
        If there are no such table or positions, or they are not one set of positions.

    Examples
    --------
    >>> import alphastomics as al
    >>> from spatialdata import SpatialData
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = cells.obsm["spatial"]
    >>> sdata = SpatialData(tables={"table": cells})
    >>> al.io.add_positions(sdata)
    >>> sorted(sdata.shapes), sorted(sdata.tables)
    (['spatial_predicted'], ['table', 'table_spatial_predicted'])
    """
    require("spatialdata", "io", "Writing SpatialData")
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    cells = _table(sdata, table)
    points = point_set(cells, key, where=f"sdata.tables[{table!r}]")
    known = is_known(points)
    points = points[known]
    placed = AnnData(
        None if cells.X is None else cells.X[known],
        obs=cells.obs[known].copy(),
        var=cells.var,
        uns={name: value for name, value in cells.uns.items() if not name.startswith(NOT_COPIED)},
    )
    sections = sections_of(placed, section_key if section_key in placed.obs else None)
    names = pd.unique(sections)
    element = {name: key if len(names) == 1 else _element(f"{key}_{name}") for name in names}
    shapes = {
        element[name]: ShapesModel.parse(
            points[sections == name],
            geometry=0,
            radius=_radius(points[sections == name]) if radius is None else radius,
            index=placed.obs_names[sections == name],
            transformations={coordinate_system: Identity()},
        )
        for name in names
    }
    placed.obs[REGION] = pd.Categorical([element[name] for name in sections])
    placed.obs[INSTANCE] = placed.obs_names.to_numpy()
    annotating = TableModel.parse(placed, list(shapes), REGION, INSTANCE)
    for name, circles in shapes.items():
        sdata.shapes[name] = circles
    sdata.tables[f"{table}_{key}"] = annotating


def _element(name: str) -> str:
    """Replace the characters that SpatialData does not allow in a name."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)


def _table(sdata: SpatialData, table: str) -> AnnData:
    if table not in sdata.tables:
        raise KeyError(f"table {table!r} is not in sdata, whose tables are {sorted(sdata.tables)}.")
    return sdata.tables[table]


def _radius(points: Array) -> float:
    distance, _ = KDTree(points).query(points, min(2, len(points)))
    nearest = float(np.median(distance[..., -1])) / 2
    return nearest if nearest > 0 else 1.0
