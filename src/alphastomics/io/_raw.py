"""Raw data: which sections there are, each read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import anndata as ad

from alphastomics import _keys
from alphastomics.io._anndata_files import h5ad_sections, zarr_sections
from alphastomics.io._errors import DataError
from alphastomics.io._section import RawKeys, RawSection
from alphastomics.io._tables import csv_sections, parquet_sections
from alphastomics.io._tenx import kind_of, tenx_sections

READABLE = (
    ".h5ad, .zarr (AnnData or SpatialData), .csv and .parquet in LUNA's layout, and 10x outputs "
    "(feature_bc_matrix.h5, mtx folders, Visium, Xenium)"
)


def find_sections(
    raw_dir: str | Path,
    *,
    layer: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    section_key: str = _keys.SECTION,
    also_obs: Sequence[str] = (),
) -> list[RawSection]:
    """Find the sections of a raw file or of all raw files in a folder, without reading their cells.

    Files are taken in the order of their names, folders in folders too; hidden ones and those of
    other kinds are left out.

    Parameters
    ----------
    raw_dir
        A file or folder with h5ad, zarr (AnnData or SpatialData), CSV or Parquet in LUNA's layout,
        or outputs of 10x.
    layer
        Layer to read; by default ``.X``.
    spatial_key
        Name in ``.obsm`` of the coordinates.
    section_key
        Name in ``.obs`` of the section. A file without the default name is one section, named as
        the file; LUNA's ``cell_section`` is found by itself.
    also_obs
        Numeric columns of tables that are no genes.

    Returns
    -------
    list of RawSection
        One of each section; ``load()`` reads it as AnnData.

    Raises
    ------
    DataError
        If there are none, a file is damaged, or a section comes twice.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> folder = tempfile.TemporaryDirectory()
    >>> raw = f"{folder.name}/raw.h5ad"
    >>> al.datasets.simulate_tissue(n_sections=2, n_cells=50).write_h5ad(raw)
    >>> [(section.name, section.n_cells) for section in al.io.find_sections(raw)]
    [('section_0', 50), ('section_1', 50)]
    >>> folder.cleanup()
    """
    root = Path(raw_dir)
    keys = RawKeys(layer, spatial_key, section_key)
    if not root.exists():
        raise DataError(f"--raw_dir: there is no file or folder {str(root)!r}.")
    sections = [section for path in _walk(root) for section in _read(path, keys, also_obs)]
    if not sections:
        inside = sorted(path.name for path in root.iterdir())[:5] if root.is_dir() else []
        found = f"it holds {', '.join(inside)}" if inside else "it is empty"
        if root.is_file():
            found = "it is another kind of file"
        raise DataError(f"--raw_dir: found no data in {str(root)!r}; {found}. Expected {READABLE}.")
    _check_names(sections)
    return sections


def read_sections(raw_dir: str | Path, **keys: str | None) -> Iterator[ad.AnnData]:
    """Read raw sections one after the other; options as in :func:`find_sections`.

    Parameters
    ----------
    raw_dir, **keys
        As in :func:`find_sections`.

    Returns
    -------
    iterator of AnnData
        One of each section, read when it is its turn.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> folder = tempfile.TemporaryDirectory()
    >>> raw = f"{folder.name}/raw.h5ad"
    >>> al.datasets.simulate_tissue(n_sections=2, n_cells=50).write_h5ad(raw)
    >>> [section.shape for section in al.io.read_sections(raw)]
    [(50, 60), (50, 60)]
    >>> folder.cleanup()
    """
    for section in find_sections(raw_dir, **keys):  # type: ignore[arg-type]
        yield section.load()


def _walk(path: Path) -> Iterator[Path]:
    """Files and folders that may hold sections."""
    if path.is_file() or _is_zarr(path) or kind_of(path):
        yield path
        return
    for inside in sorted(path.iterdir()):
        if not inside.name.startswith("."):
            yield from _walk(inside)


def _is_zarr(path: Path) -> bool:
    marks = (".zgroup", ".zattrs", "zarr.json")
    return path.is_dir() and (path.suffix == ".zarr" or any((path / m).is_file() for m in marks))


def _read(path: Path, keys: RawKeys, also_obs: Sequence[str]) -> list[RawSection]:
    if path.suffix == ".h5ad":
        return h5ad_sections(path, keys)
    if _is_zarr(path):
        return zarr_sections(path, keys)
    if path.name.endswith((".csv", ".csv.gz")):
        return csv_sections(path, keys, also_obs)
    if path.suffix == ".parquet":
        return parquet_sections(path, keys, also_obs)
    kind = kind_of(path)
    return tenx_sections(path, kind, keys) if kind else []


def _check_names(sections: Sequence[RawSection]) -> None:
    first: dict[str, Path] = {}
    for section in sections:
        if section.name in first:
            raise DataError(
                f"section {section.name!r} is in {first[section.name]} and again in "
                f"{section.path}: rename one of them. A section has to be in one file."
            )
        first[section.name] = section.path
