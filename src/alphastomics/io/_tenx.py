"""Sections of 10x outputs: a folder is a section. Gene symbols that come twice are numbered."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import anndata as ad
from scipy import sparse

from alphastomics import _keys
from alphastomics._quiet import quiet
from alphastomics.io._errors import DataError, reading
from alphastomics.io._section import RawKeys, RawSection, make_section, n_dims_of

COUNTS = "filtered_feature_bc_matrix"
XENIUM = "experiment.xenium"
NOT_READ = (
    "aligned_images",
    "cells_boundaries",
    "cells_labels",
    "morphology_focus",
    "morphology_mip",
    "nucleus_boundaries",
    "nucleus_labels",
    "transcripts",
)
NAMELESS = ("outs", COUNTS)


def kind_of(path: Path) -> str | None:
    """Which 10x output a file or folder is, if any."""
    if path.is_file():
        return "10x h5" if path.name.endswith("feature_bc_matrix.h5") else None
    if (path / XENIUM).is_file():
        return "Xenium"
    if (path / f"{COUNTS}.h5").is_file():
        return "Visium" if any(path.glob("spatial/tissue_positions*.csv")) else "10x h5"
    if any(path.glob("matrix.mtx*")):
        return "10x mtx"
    return "10x mtx" if any(path.glob(f"{COUNTS}/matrix.mtx*")) else None


def tenx_sections(path: Path, kind: str, keys: RawKeys) -> list[RawSection]:
    """Find the one section of a 10x output."""
    if keys.layer is not None:
        raise DataError(f"--layer: {path} is a 10x output and has no layers.")
    name = _name(path)
    section = _load(path, kind, name)
    units = "µm" if kind == "Xenium" else "pixels" if kind == "Visium" else None
    return [
        RawSection(
            name=name,
            path=path,
            n_cells=section.n_obs,
            genes=section.var_names,
            n_dims=n_dims_of(section.obsm.get(_keys.SPATIAL), path),
            columns=tuple(section.obs.columns),
            units=units,
            load=partial(_load, path, kind, name),
        )
    ]


def _name(path: Path) -> str:
    """Name of the folder, without those that all samples have in common."""
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    while folder.name in NAMELESS:
        folder = folder.parent
    return folder.name


def _load(path: Path, kind: str, name: str) -> ad.AnnData:
    if kind == "Xenium" and importlib.util.find_spec("spatialdata_io") is None:
        raise DataError(
            f"{path} is a Xenium output: reading it needs the package spatialdata-io. Install it "
            "by `pip install spatialdata-io`, or convert the folder to h5ad."
        )
    with reading(path, kind):
        adata = _read(path, kind, name)
    adata.var_names_make_unique()
    matrix = sparse.csr_matrix(adata.X)
    position = adata.obsm.get(_keys.SPATIAL)
    return make_section(name, path, matrix, adata.obs, adata.var_names, position)


def _read(path: Path, kind: str, name: str) -> ad.AnnData:
    import scanpy as sc

    if kind == "Xenium":
        from spatialdata_io import xenium

        without = dict.fromkeys(NOT_READ, False)
        return xenium(path, **without).tables["table"]
    if kind == "Visium":
        import squidpy as sq

        with quiet("spatialdata._logging"):
            return sq.read.visium(path, library_id=name)
    if kind == "10x h5":
        return sc.read_10x_h5(path if path.is_file() else path / f"{COUNTS}.h5")
    return sc.read_10x_mtx(path if any(path.glob("matrix.mtx*")) else path / COUNTS)
