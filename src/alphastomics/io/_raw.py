"""Raw data of any format: which sections there are, each read on demand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anndata as ad

from alphastomics import _keys
from alphastomics._files import content
from alphastomics.io._anndata_files import h5ad_sections, zarr_sections
from alphastomics.io._files import DataError
from alphastomics.io._instruments import output_section
from alphastomics.io._search import TABLES, Found, is_zarr, walk
from alphastomics.io._section import RawKeys, RawSection
from alphastomics.io._tables import table_sections

READABLE = (
    ".h5ad, .zarr (AnnData or SpatialData), .csv and .parquet in LUNA's layout, and outputs of "
    "10x (h5, mtx, Visium, Visium HD, Xenium), MERSCOPE, CosMx, Slide-seq and Stereo-seq"
)


def find_sections(
    raw_dir: str | Path,
    *,
    layer: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    section_key: str = _keys.SECTION,
    also_obs: Sequence[str] = (),
    bin_size: int | None = None,
) -> list[RawSection]:
    """Find the sections of a raw file or of all raw files in a folder, without reading their cells.

    Files are in the order of their names, with those of subfolders, without hidden ones.

    Parameters
    ----------
    raw_dir
        File or folder with h5ad, zarr (AnnData or SpatialData), CSV or Parquet in LUNA's layout, or
        outputs of 10x (h5, mtx, Visium, Visium HD, Xenium), MERSCOPE, CosMx, Slide-seq, Stereo-seq.
    layer, spatial_key
        Layer to read, by default ``.X``; name in ``.obsm`` of the coordinates.
    section_key
        Name in ``.obs`` of the section. A file without the default name is one section, named as
        the file; LUNA's ``cell_section`` needs no option.
    also_obs
        Numeric columns of tables that are not genes.
    bin_size
        Side of the bins, in µm of Visium HD, by default 8, and in DNBs of Stereo-seq, by default
        that of the table, or 50 if it is not binned.

    Returns
    -------
    list of RawSection
        Sections, whose ``load()`` reads them as AnnData.

    Raises
    ------
    DataError
        If there are none, a file is damaged, or a section comes twice.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     al.datasets.simulate_tissue(2, 50).write_h5ad(f"{folder}/raw.h5ad")
    ...     [(section.name, section.n_cells) for section in al.io.find_sections(folder)]
    [('section_0', 50), ('section_1', 50)]
    """
    root = Path(raw_dir)
    keys = RawKeys(layer, spatial_key, section_key)
    if not root.exists():
        raise DataError(f"--raw_dir: there is no file or folder {str(root)!r}.")
    # All names are checked before the first file is read.
    inputs = list(walk(root, bin_size, os.path.realpath(root)))
    sections = [section for found in inputs for section in _read(found, keys, also_obs)]
    if not sections:
        found = content(root) if root.is_dir() else "is another kind of file"
        raise DataError(
            f"--raw_dir: found no data in {str(root)!r}; it {found}. Expected {READABLE}."
        )
    _check_names(sections)
    return sections


def read_sections(raw_dir: str | Path, **keys: Any) -> Iterator[ad.AnnData]:
    """Read raw sections one after the other.

    Parameters
    ----------
    raw_dir, **keys
        As in :func:`find_sections`.

    Returns
    -------
    iterator of AnnData
        Sections, each read when the iterator reaches it.

    Raises
    ------
    DataError
        As in :func:`find_sections`.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     al.datasets.simulate_tissue(2, 50).write_h5ad(f"{folder}/raw.h5ad")
    ...     [section.shape for section in al.io.read_sections(folder)]
    [(50, 60), (50, 60)]
    """
    for section in find_sections(raw_dir, **keys):
        yield section.load()


def _read(found: Found, keys: RawKeys, also_obs: Sequence[str]) -> list[RawSection]:
    path = found.path
    if found.sample is not None and found.platform is not None:
        platform = found.platform
        return [output_section(found.sample, platform.name, platform.read, keys, found.not_read)]
    if path.suffix == ".h5ad":
        return h5ad_sections(path, keys)
    if is_zarr(path):
        return zarr_sections(path, keys)
    return table_sections(path, keys, also_obs) if path.name.endswith(TABLES) else []


def _check_names(sections: Sequence[RawSection]) -> None:
    first: dict[str, Path] = {}
    for section in sections:
        if section.name in first:
            raise DataError(
                f"section {section.name!r} is in {first[section.name]} and again in "
                f"{section.path}: rename one of them. A section has to be in one file."
            )
        first[section.name] = section.path
