"""Sections of AnnData files (h5ad or zarr) and SpatialData, read on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import zarr
from scipy import sparse

from alphastomics import _keys
from alphastomics._compat import require
from alphastomics.io._files import DataError, reading
from alphastomics.io._section import (
    Array,
    RawKeys,
    RawSection,
    check_genes,
    list_sections,
    make_section,
)
from alphastomics.io._spatialdata import centroids
from alphastomics.io._store import Cells, read_rows

ELEMENTS = ("images", "labels", "points", "shapes")  # of SpatialData


@dataclass(frozen=True)
class _Table:
    """AnnData on disk: an h5ad file, a zarr store, or a ``table`` of a zarr SpatialData."""

    path: Path
    kind: str
    keys: RawKeys
    table: str | None = None

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open the HDF5 file or zarr group."""
        with reading(self.path, self.kind):
            if self.kind == "h5ad":
                with h5py.File(self.path, "r") as file:
                    yield file
            else:
                group: Any = zarr.open_group(str(self.path), mode="r")
                yield group if self.table is None else group["tables"][self.table]

    def check(self, group: Any) -> None:
        """Raise if this is not AnnData."""
        missing = [name for name in ("obs", "var") if name not in group]
        if missing:
            inside = ", ".join(sorted(map(str, group))[:8])
            raise DataError(
                f"{self.path} is not AnnData: it has no {' and no '.join(missing)}, but "
                f"{inside or 'nothing'}. Move it out of the folder, or write its cells by anndata."
            )

    def frame(self, group: Any, name: str) -> pd.DataFrame:
        """Read ``obs`` or ``var``."""
        table = ad.io.read_elem(group[name])
        if not isinstance(table, pd.DataFrame):
            raise DataError(
                f"{self.path}: {name} is no table. A column without a name makes it one that "
                "anndata cannot read: write the file again without it."
            )
        return table

    def sections(self, name: str) -> list[RawSection]:
        """List the sections without reading the expression."""
        with self.open() as group:
            self.check(group)
            self.matrix(group)
            obs = self.frame(group, "obs")
            genes = check_genes(self.frame(group, "var").index, self.path)
            units = group.get(f"uns/{_keys.UNITS}")
            units = None if units is None else ad.io.read_elem(units)
            return list_sections(
                self.path,
                obs,
                genes,
                self.positions(group),
                self.load,
                name=name,
                section_key=self.section_key(group),
                columns=tuple(obs.columns),
                units=units if isinstance(units, str) else None,
            )

    def load(self, name: str, rows: Cells) -> ad.AnnData:
        """Read the rows of one section."""
        with self.open() as group:
            matrix = read_rows(self.matrix(group), rows)
            obs = self.frame(group, "obs").iloc[rows]
            genes = self.frame(group, "var").index.astype(str)
            position = self.positions(group)
        located = None if position is None else position[rows]
        return make_section(name, self.path, matrix, obs, genes, located)

    def matrix(self, group: Any) -> Any:
        """Open ``.X`` or a layer without reading it."""
        layer, path = self.keys.layer, self.path
        key = "X" if layer is None else f"layers/{layer}"
        if key not in group:
            layers = sorted(group["layers"]) if "layers" in group else []
            if layer is None:
                raise DataError(f"{path} has no X: name the layer to read by --layer, of {layers}.")
            raise DataError(
                f"--layer: {layer!r} is not in the layers of {path}, which are {layers}."
            )
        matrix = group[key]
        is_sparse = isinstance(matrix, h5py.Group | zarr.Group)
        return ad.io.sparse_dataset(matrix) if is_sparse else matrix

    def positions(self, group: Any) -> Array | None:
        """Coordinates of all cells ``(n, d)``, else the centroids of what a table annotates."""
        key = f"obsm/{self.keys.spatial_key}"
        if key in group:
            return _as_array(ad.io.read_elem(group[key]))
        if self.table is None:
            return None
        data = require("spatialdata", "io", "Reading SpatialData").read_zarr(self.path)
        return centroids(data, data.tables[self.table])

    def section_key(self, group: Any) -> str:
        """Name in ``obs`` of the section, by default the region where SpatialData has several."""
        key, regions = self.keys.section_key, f"uns/{_keys.SPATIALDATA}"
        default = key == _keys.SECTION and f"obs/{key}" not in group
        if self.table is None or not default or regions not in group:
            return key
        attributes = ad.io.read_elem(group[regions])
        return attributes["region_key"] if np.size(attributes["region"]) > 1 else key


def _as_array(coordinates: Any) -> Array:
    """Coordinates of any form as an array."""
    if sparse.issparse(coordinates):
        coordinates = coordinates.toarray()
    return np.asarray(coordinates, dtype=np.float64)


def h5ad_sections(path: Path, keys: RawKeys) -> list[RawSection]:
    """Find the sections of an h5ad file."""
    return _Table(path, "h5ad", keys).sections(path.stem)


def keys_of(path: Path) -> dict[str, list[str]]:
    """Keys of the layers, obsm and uns of an AnnData file, without reading them."""
    kind = "zarr" if path.is_dir() else "h5ad"
    with _Table(path, kind, RawKeys()).open() as group:
        return {name: sorted(group[name]) for name in ("layers", "obsm", "uns") if name in group}


def zarr_sections(path: Path, keys: RawKeys) -> list[RawSection]:
    """Find the sections of a zarr store of AnnData, or of the tables of SpatialData."""
    stored = _Table(path, "zarr", keys)
    with stored.open() as group:
        elements = [name for name in ELEMENTS if name in group]
        if "tables" not in group and not (_keys.SPATIALDATA in group.attrs or elements):
            return stored.sections(path.stem)
        tables = sorted(group["tables"].group_keys()) if "tables" in group else []
    if not tables:
        raise DataError(
            f"{path} is SpatialData without a table of expression; it has "
            f"{', '.join(elements) or 'no elements'}. Add one by sdata.tables[...] = adata, or "
            "move it out of the folder."
        )
    names = [path.stem if len(tables) == 1 else f"{path.stem}_{table}" for table in tables]
    return [
        section
        for name, table in zip(names, tables, strict=True)
        for section in replace(stored, table=table).sections(name)
    ]
