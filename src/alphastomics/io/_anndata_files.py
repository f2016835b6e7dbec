"""Sections of AnnData files, h5ad or zarr, and of SpatialData; rows are read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._optional import require
from alphastomics.io._errors import DataError, reading
from alphastomics.io._layout import BLOCK_CELLS, Cells, runs
from alphastomics.io._section import (
    RawKeys,
    RawSection,
    check_genes,
    make_section,
    n_dims_of,
    split_rows,
)
from alphastomics.io._spatialdata import ATTRIBUTES, centroids

Array = NDArray[np.float64]
Opener = Callable[[], Any]

REGIONS = f"uns/{ATTRIBUTES}"
UNITS = f"uns/{_keys.UNITS}"
COLUMNS_AT_ONCE = 256  # of a matrix that is stored by columns


@contextmanager
def _open_h5ad(path: Path) -> Iterator[Any]:
    with h5py.File(path, "r") as file:
        yield file


@contextmanager
def _open_zarr(path: Path, table: str = "") -> Iterator[Any]:
    group: Any = zarr.open_group(str(path), mode="r")
    yield group[table] if table else group


def h5ad_sections(path: Path, keys: RawKeys) -> list[RawSection]:
    """Find the sections of an h5ad file."""
    with reading(path, "h5ad"):
        return _sections(path, path.stem, partial(_open_h5ad, path), "h5ad", keys)


def zarr_sections(path: Path, keys: RawKeys) -> list[RawSection]:
    """Find the sections of a zarr store of AnnData, or of the tables of SpatialData."""
    with reading(path, "zarr"):
        group: Any = zarr.open_group(str(path), mode="r")
        if "tables" not in group:
            return _sections(path, path.stem, partial(_open_zarr, path), "zarr", keys)
        tables = sorted(group["tables"].group_keys())
        if not tables:
            raise DataError(f"{path} is a SpatialData without a table of expression.")
        return [
            section
            for table in tables
            for section in _sections(
                path,
                path.stem if len(tables) == 1 else f"{path.stem}_{table}",
                partial(_open_zarr, path, f"tables/{table}"),
                "zarr",
                _region_keys(group["tables"][table], keys),
                partial(_centroids, path, table),
            )
        ]


def _region_keys(table: Any, keys: RawKeys) -> RawKeys:
    """Take the regions of a SpatialData table as sections, where there are several."""
    if keys.section_key != _keys.SECTION or f"obs/{_keys.SECTION}" in table or REGIONS not in table:
        return keys
    attributes = ad.io.read_elem(table[REGIONS])
    several = np.size(attributes["region"]) > 1
    return replace(keys, section_key=attributes["region_key"]) if several else keys


def _sections(
    path: Path,
    name: str,
    opener: Opener,
    kind: str,
    keys: RawKeys,
    find_positions: Callable[[], Array | None] = lambda: None,
) -> list[RawSection]:
    with opener() as group:
        _matrix(group, keys.layer, path)
        obs = ad.io.read_elem(group["obs"])
        genes = check_genes(ad.io.read_elem(group["var"]).index, path)
        position = _positions(group, keys.spatial_key)
        units = ad.io.read_elem(group[UNITS]) if UNITS in group else None
    if position is None:
        position = find_positions()
    return [
        RawSection(
            name=section,
            path=path,
            n_cells=len(rows),
            genes=genes,
            n_dims=n_dims_of(None if position is None else position[rows], path),
            columns=tuple(obs.columns),
            units=units if isinstance(units, str) else None,
            load=partial(_load, path, section, opener, kind, keys, rows, genes, find_positions),
        )
        for section, rows in split_rows(obs, path, name, keys.section_key).items()
    ]


def _load(
    path: Path,
    name: str,
    opener: Opener,
    kind: str,
    keys: RawKeys,
    rows: Cells,
    genes: pd.Index,
    find_positions: Callable[[], Array | None],
) -> ad.AnnData:
    with reading(path, kind), opener() as group:
        matrix = read_rows(_matrix(group, keys.layer, path), rows)
        obs = ad.io.read_elem(group["obs"]).iloc[rows]
        position = _positions(group, keys.spatial_key)
        if position is None:
            position = find_positions()
    return make_section(
        name, path, matrix, obs, genes, None if position is None else position[rows]
    )


def _matrix(group: Any, layer: str | None, path: Path) -> Any:
    """Open ``.X`` or a layer without reading it."""
    key = "X" if layer is None else f"layers/{layer}"
    if key not in group:
        layers = sorted(group["layers"]) if "layers" in group else []
        if layer is None:
            raise DataError(f"{path} has no X: name the layer to read by --layer, of {layers}.")
        raise DataError(f"--layer: {layer!r} is not in the layers of {path}, which are {layers}.")
    matrix = group[key]
    is_group = isinstance(matrix, h5py.Group | zarr.Group)
    return ad.io.sparse_dataset(matrix) if is_group else matrix


def _positions(group: Any, spatial_key: str) -> Array | None:
    key = f"obsm/{spatial_key}"
    if key not in group:
        return None
    return np.asarray(ad.io.read_elem(group[key]), dtype=np.float64)


def read_rows(matrix: Any, rows: Cells) -> sparse.csr_matrix:
    """Read sorted rows of a stored matrix, sparse or dense, a few thousand rows at a time."""
    if getattr(matrix, "format", None) == "csc":
        columns = range(0, matrix.shape[1], COLUMNS_AT_ONCE)
        return sparse.hstack(
            [sparse.csc_matrix(matrix[:, i : i + COLUMNS_AT_ONCE])[rows] for i in columns],
            format="csr",
        )
    pieces = []
    for start, stop in runs(rows, BLOCK_CELLS, BLOCK_CELLS):
        inside = rows[slice(*np.searchsorted(rows, [start, stop]))] - start
        if len(inside):
            pieces.append(sparse.csr_matrix(matrix[start:stop])[inside])
    return sparse.vstack(pieces, format="csr")


def _centroids(path: Path, table: str) -> Array | None:
    sd = require("spatialdata", "io", "Reading SpatialData")
    data = sd.read_zarr(path)
    return centroids(data, data.tables[table])
