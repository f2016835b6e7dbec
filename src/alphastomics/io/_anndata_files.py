"""Sections of AnnData files (h5ad or zarr), SpatialData and 10x outputs, read on demand."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import zarr
from scipy import sparse

from alphastomics import _keys
from alphastomics._compat import quiet, require, squidpy
from alphastomics.io._files import DataError, reading
from alphastomics.io._section import (
    Array,
    RawKeys,
    RawSection,
    check_genes,
    list_sections,
    make_section,
    n_dims_of,
)
from alphastomics.io._spatialdata import ATTRIBUTES, centroids
from alphastomics.io._store import Cells, read_rows

COUNTS = "filtered_feature_bc_matrix"
# Parts of a Xenium output that are not read.
XENIUM_IMAGES = (
    *("aligned_images", "cells_boundaries", "cells_labels", "morphology_focus", "morphology_mip"),
    *("nucleus_boundaries", "nucleus_labels", "transcripts"),
)


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

    def sections(self, name: str) -> list[RawSection]:
        """List the sections without reading the expression."""
        with self.open() as group:
            self.matrix(group)
            obs = ad.io.read_elem(group["obs"])
            genes = check_genes(ad.io.read_elem(group["var"]).index, self.path)
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
            obs = ad.io.read_elem(group["obs"]).iloc[rows]
            genes = ad.io.read_elem(group["var"]).index.astype(str)
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
            return np.asarray(ad.io.read_elem(group[key]), dtype=np.float64)
        if self.table is None:
            return None
        data = require("spatialdata", "io", "Reading SpatialData").read_zarr(self.path)
        return centroids(data, data.tables[self.table])

    def section_key(self, group: Any) -> str:
        """Name in ``obs`` of the section, by default the region where SpatialData has several."""
        key, regions = self.keys.section_key, f"uns/{ATTRIBUTES}"
        default = key == _keys.SECTION and f"obs/{key}" not in group
        if self.table is None or not default or regions not in group:
            return key
        attributes = ad.io.read_elem(group[regions])
        return attributes["region_key"] if np.size(attributes["region"]) > 1 else key


def h5ad_sections(path: Path, keys: RawKeys) -> list[RawSection]:
    """Find the sections of an h5ad file."""
    return _Table(path, "h5ad", keys).sections(path.stem)


def zarr_sections(path: Path, keys: RawKeys) -> list[RawSection]:
    """Find the sections of a zarr store of AnnData, or of the tables of SpatialData."""
    stored = _Table(path, "zarr", keys)
    with stored.open() as group:
        if "tables" not in group:
            return stored.sections(path.stem)
        tables = sorted(group["tables"].group_keys())
    if not tables:
        raise DataError(f"{path} is a SpatialData without a table of expression.")
    names = [path.stem if len(tables) == 1 else f"{path.stem}_{table}" for table in tables]
    return [
        section
        for name, table in zip(names, tables, strict=True)
        for section in replace(stored, table=table).sections(name)
    ]


def tenx_kind(path: Path) -> str | None:
    """Kind of the 10x output that a file or folder is, if any."""
    if path.is_file():
        return "10x h5" if path.name.endswith("feature_bc_matrix.h5") else None
    if (path / "experiment.xenium").is_file():
        return "Xenium"
    if (path / f"{COUNTS}.h5").is_file():
        return "Visium" if any(path.glob("spatial/tissue_positions*.csv")) else "10x h5"
    return "10x mtx" if _mtx_folder(path) else None


def _mtx_folder(path: Path) -> Path | None:
    return next((f for f in (path, path / COUNTS) if any(f.glob("matrix.mtx*"))), None)


def tenx_sections(path: Path, kind: str, keys: RawKeys) -> list[RawSection]:
    """Find the one section of a 10x output, named like its folder."""
    if keys.layer is not None:
        raise DataError(f"--layer: {path} is a 10x output and has no layers.")
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    while folder.name in ("outs", COUNTS):  # of all samples alike
        folder = folder.parent
    section = _load_tenx(path, kind, folder.name)
    return [
        RawSection(
            name=folder.name,
            path=path,
            n_cells=section.n_obs,
            genes=section.var_names,
            n_dims=n_dims_of(section.obsm.get(_keys.SPATIAL), path),
            columns=tuple(section.obs.columns),
            units={"Xenium": "µm", "Visium": "pixels"}.get(kind),
            load=partial(_load_tenx, path, kind, folder.name),
        )
    ]


def _load_tenx(path: Path, kind: str, name: str) -> ad.AnnData:
    if kind == "Xenium" and importlib.util.find_spec("spatialdata_io") is None:
        raise DataError(
            f"{path} is a Xenium output: reading it needs the package spatialdata-io. Install it "
            "by `pip install spatialdata-io`, or convert the folder to h5ad."
        )
    with reading(path, kind):
        adata = _read_tenx(path, kind, name)
    adata.var_names_make_unique()  # gene symbols may come twice
    matrix, position = sparse.csr_matrix(adata.X), adata.obsm.get(_keys.SPATIAL)
    return make_section(name, path, matrix, adata.obs, adata.var_names, position)


def _read_tenx(path: Path, kind: str, name: str) -> ad.AnnData:
    import scanpy as sc

    if kind == "Xenium":
        from spatialdata_io import xenium

        return xenium(path, **dict.fromkeys(XENIUM_IMAGES, False)).tables["table"]
    if kind == "Visium":
        sq = squidpy()

        with quiet("spatialdata._logging"):
            return sq.read.visium(path, library_id=name)
    if kind == "10x h5":
        return sc.read_10x_h5(path if path.is_file() else path / f"{COUNTS}.h5")
    return sc.read_10x_mtx(_mtx_folder(path))
