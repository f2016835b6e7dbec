"""Generated coordinates: superposition, spatial neighbors and spread of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from alphastomics import _keys
from alphastomics._anndata import sections_of
from alphastomics._compat import spatial_graph, warn
from alphastomics._coordinates import Points, is_known, point_set, read_coordinates
from alphastomics._output import check_key
from alphastomics._validate import check_integer, require_adata
from alphastomics.metrics import superpose_by

ALIGNED_SUFFIX = "_superposed"
UNCERTAINTY_SUFFIX = "_uncertainty"
GRAPH_OPTIONS = ("delaunay", "percentile", "radius", "set_diag", "transform")


def read_placed(adata: AnnData, key: str, true: Points, spatial_key: str) -> Points:
    """Read generated coordinates, of the dimension of the true ones."""
    placed = point_set(adata, key)
    if placed.shape != true.shape:
        raise ValueError(
            f"adata.obsm[{key!r}] has {placed.shape[1]} columns and adata.obsm[{spatial_key!r}] "
            f"{true.shape[1]}: they must be of the same dimension."
        )
    return placed


def sections_if_named(adata: AnnData, section_key: str | None) -> NDArray[np.str_]:
    """Section of each cell ``(n_cells,)``; a single section without the column of the default."""
    require_adata(adata)
    absent = section_key == _keys.SECTION and section_key not in adata.obs
    return sections_of(adata, None if absent else section_key)


def superpose(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = _keys.SECTION,
    allow_reflection: bool = True,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Rotate, mirror and shift generated coordinates onto the true ones, section by section.

    Parameters
    ----------
    adata
        Cells with generated and true coordinates.
    key
        Name in ``.obsm`` of the generated coordinates ``(n_cells, n_dims)``.
    spatial_key
        Name in ``.obsm`` of the true coordinates; cells with rows of NaN are moved with the others.
    section_key
        Name in ``.obs`` of the section; all cells are one section when it is None, or when there
        is no column ``"section"``.
    allow_reflection
        Whether to allow a mirror image.
    key_added
        Name in ``.obsm``; ``key + "_superposed"`` by default.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Returns
    -------
    AnnData or None
        Writes ``.obsm[key_added]``, ``(n_cells, n_dims)``, not scaled. Sections without a true
        position are not moved.

    Examples
    --------
    >>> import numpy as np
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["spatial_predicted"] = -cells.obsm["spatial"]
    >>> al.tl.superpose(cells)
    >>> np.allclose(cells.obsm["spatial_predicted_superposed"], cells.obsm["spatial"])
    True
    """
    key_added = _name_added(key_added, key, ALIGNED_SUFFIX, spatial_key)
    true = point_set(adata, spatial_key, "spatial_key")
    moved = read_placed(adata, key, true, spatial_key).copy()
    section = sections_if_named(adata, section_key)
    located = is_known(true) & is_known(moved)
    for name in pd.unique(section[located]):
        cells = section == name
        moved[cells] = superpose_by(
            moved[cells], true[cells], located[cells], allow_reflection=allow_reflection
        )
    adata = adata.copy() if copy else adata
    adata.obsm[key_added] = moved
    return adata if copy else None


def _name_added(
    key_added: str | None, key: str, suffix: str, spatial_key: str | None = None
) -> str:
    """Key to write to, checked; not over the true coordinates."""
    name = f"{key}{suffix}" if key_added is None else key_added
    check_key("key_added", name, {spatial_key: "the true coordinates are"} if spatial_key else {})
    return name


def neighbors(
    adata: AnnData,
    key: str = _keys.PREDICTED,
    *,
    n_neighbors: int = 6,
    section_key: str | None = _keys.SECTION,
    key_added: str | None = None,
    copy: bool = False,
    **kwargs: Any,
) -> AnnData | None:
    """Build squidpy's graph of spatial neighbors, section by section.

    Parameters
    ----------
    adata, key, section_key, copy
        As in :func:`superpose`.
    n_neighbors
        Number of neighbors per cell; all other cells in smaller sections.
    key_added
        Prefix of the results, ``key`` by default: the ``connectivity_key`` of squidpy.
    **kwargs
        More options of squidpy: ``percentile``, ``transform``, ``set_diag``; with ``radius`` or
        ``delaunay`` the graph is that of :func:`squidpy.gr.spatial_neighbors_radius` or
        :func:`squidpy.gr.spatial_neighbors_delaunay`.

    Returns
    -------
    AnnData or None
        Writes ``.obsp[key_added + "_connectivities"]``, ``.obsp[key_added + "_distances"]`` and
        ``.uns[key_added + "_neighbors"]``. Cells without a position have no neighbors.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> al.tl.neighbors(cells, "spatial")
    >>> cells.obsp["spatial_connectivities"].shape
    (50, 50)
    """
    n_neighbors = check_integer("n_neighbors", n_neighbors, 1)
    if unknown := sorted(set(kwargs) - set(GRAPH_OPTIONS)):
        raise TypeError(
            f"neighbors has no option {unknown[0]!r}: options are n_neighbors and, as in squidpy, "
            f"{', '.join(GRAPH_OPTIONS)}."
        )
    name = _name_added(key_added, key, "")
    points, section = point_set(adata, key), sections_if_named(adata, section_key)
    graphs = _section_graphs(points, section, key, n_neighbors, kwargs)
    adata = adata.copy() if copy else adata
    params = {"coord_type": "generic", "n_neighbors": n_neighbors}
    record: dict[str, Any] = {"params": params | {k: v for k, v in kwargs.items() if v is not None}}
    for kind, graph in zip(("connectivities", "distances"), graphs, strict=True):
        adata.obsp[f"{name}_{kind}"] = graph
        record[f"{kind}_key"] = f"{name}_{kind}"
    adata.uns[f"{name}_neighbors"] = record
    return adata if copy else None


def _section_graphs(
    points: Points,
    section: NDArray[np.str_],
    key: str,
    n_neighbors: int,
    options: dict[str, Any],
) -> tuple[csr_matrix, csr_matrix]:
    """Connectivities and distances ``(n_cells, n_cells)``; no edge between sections."""
    known, n = is_known(points), len(points)
    if not known.any():
        raise ValueError(f"adata.obsm[{key!r}] is NaN for every cell: no cell has neighbors.")
    nearest = not options.get("delaunay") and options.get("radius") is None
    graphs: list[tuple[NDArray[np.int64], csr_matrix, csr_matrix]] = []
    small = []
    for name in pd.unique(section[known]):
        cells = np.flatnonzero(known & (section == name))
        k = min(n_neighbors, len(cells) - 1)
        if k < n_neighbors and nearest:
            small.append(f"{name!r} of {len(cells)} cells")
        if k < 1:
            continue
        obs = pd.DataFrame(index=cells.astype(str))
        numbered = AnnData(obs=obs, obsm={_keys.SPATIAL: points[cells]})
        try:
            graphs.append((cells, *spatial_graph(numbered, n_neighs=k, **options)))
        except Exception as error:
            raise ValueError(
                f"squidpy makes no graph of section {name!r}, {len(cells)} cells in "
                f"adata.obsm[{key!r}], with {options}: {error}"
            ) from error
    _warn_of_neighbors(int(n - known.sum()), small, key, n_neighbors)
    return (
        _joined([(cells, graph) for cells, graph, _ in graphs], n),
        _joined([(cells, distance) for cells, _, distance in graphs], n),
    )


def _joined(graphs: list[tuple[NDArray[np.int64], csr_matrix]], n: int) -> csr_matrix:
    """Graph of ``n`` cells from graphs of groups of them."""
    if not graphs:
        return csr_matrix((n, n))
    parts = [(cells, graph.tocoo()) for cells, graph in graphs]
    row = np.concatenate([cells[graph.row] for cells, graph in parts])
    column = np.concatenate([cells[graph.col] for cells, graph in parts])
    data = np.concatenate([graph.data for _, graph in parts])
    return csr_matrix((data, (row, column)), shape=(n, n))


def _warn_of_neighbors(n_missing: int, small: list[str], key: str, n_neighbors: int) -> None:
    """Warn of cells that have no neighbors, and of sections that have few."""
    if n_missing:
        warn(f"{n_missing} cells have no position in adata.obsm[{key!r}] and get no neighbors.")
    if small:
        shown = ", ".join(small[:5])
        warn(
            f"{len(small)} sections have no more cells with a position than "
            f"n_neighbors={n_neighbors}, {shown} among them: all their cells are neighbors."
        )


def uncertainty(
    adata: AnnData,
    key: str = _keys.SAMPLED + _keys.DRAWS_SUFFIX,
    *,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Compute the spread of the samples of a cell's position.

    Parameters
    ----------
    adata
        Cells with several samples, ``model.sample(..., n_samples=8, point=None)``.
    key
        Name in ``.obsm`` of the samples, ``(n_cells, n_samples, n_dims)``, in one frame.
    key_added
        Column of ``.obs`` to write; ``key + "_uncertainty"`` by default.
    copy
        As in :func:`superpose`.

    Returns
    -------
    AnnData or None
        Writes ``.obs[key_added]``, the root mean squared distance of the samples of a cell from
        their mean, in the unit of the coordinates; 0 where the position was known.

    Examples
    --------
    >>> import numpy as np
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> cells.obsm["draws"] = np.tile([[[3.0, 4.0]], [[0.0, 0.0]]], (25, 2, 1))
    >>> al.tl.uncertainty(cells, "draws", key_added="spread")
    >>> float(cells.obs["spread"].iloc[0])
    0.0
    """
    call = "model.sample(n_samples=8, point=None)"
    key_added = _name_added(key_added, key, UNCERTAINTY_SUFFIX)
    draws = read_coordinates(adata, key, call=call)
    if draws.ndim != 3 or draws.shape[1] < 2:
        raise ValueError(
            f"adata.obsm[{key!r}] must have shape (n_cells, n_draws, n_dims) with two draws at "
            f"least, found {draws.shape}: run {call}."
        )
    adata = adata.copy() if copy else adata
    square = np.square(draws - draws.mean(1, keepdims=True)).sum(-1)  # (n_cells, n_draws)
    adata.obs[key_added] = np.sqrt(square.mean(1))
    return adata if copy else None
