"""Raw data of any format: which sections there are, each read on demand."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad

from alphastomics import _keys
from alphastomics.io._anndata_files import h5ad_sections, zarr_sections
from alphastomics.io._files import DataError, reading
from alphastomics.io._instruments import GENERIC, Reader, Sample, output_section
from alphastomics.io._platforms import (
    COSMX_MATRIX,
    GEM_MATRIX,
    MERSCOPE_MATRIX,
    SLIDESEQ_MATRIX,
    read_cosmx,
    read_merscope,
    read_slideseq,
    read_stereoseq,
)
from alphastomics.io._section import RawKeys, RawSection
from alphastomics.io._tables import table_sections
from alphastomics.io._tenx import (
    H5_MATRIX,
    HD_BINS,
    MTX_MATRIX,
    XENIUM_MATRIX,
    read_tenx,
    read_xenium,
)

READABLE = (
    ".h5ad, .zarr (AnnData or SpatialData), .csv and .parquet in LUNA's layout, and outputs of "
    "10x (h5, mtx, Visium, Visium HD, Xenium), MERSCOPE, CosMx, Slide-seq and Stereo-seq"
)
TABLES = (".csv", ".csv.gz", ".parquet")
HD_SIZE = 8  # µm


@dataclass(frozen=True)
class _Platform:
    """How the matrix of an instrument is called, after the name of the sample, and its reader."""

    name: str
    matrix: str
    read: Reader

    def prefix(self, file: str) -> str | None:
        """What a name has before that of the matrix, None if it is another file."""
        found = re.fullmatch(rf"(|.*?[_.-])({self.matrix})", file)
        return None if found is None else found[1]


# Of the matrices of one sample the first one is read.
PLATFORMS = (
    _Platform("Xenium", XENIUM_MATRIX, read_xenium),
    _Platform("10x h5", H5_MATRIX, read_tenx),
    _Platform("10x mtx", MTX_MATRIX, read_tenx),
    _Platform("MERSCOPE", MERSCOPE_MATRIX, read_merscope),
    _Platform("CosMx", COSMX_MATRIX, read_cosmx),
    _Platform("Slide-seq", SLIDESEQ_MATRIX, read_slideseq),
    _Platform("Stereo-seq", GEM_MATRIX, read_stereoseq),
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
    inputs = list(_walk(root, bin_size, os.path.realpath(root)))
    sections = [section for found in inputs for section in _read(found, keys, also_obs)]
    if not sections:
        inside = sorted(path.name for path in root.iterdir())[:5] if root.is_dir() else []
        found = f"it holds {', '.join(inside)}" if inside else "it is empty"
        if root.is_file():
            found = "it is another kind of file"
        raise DataError(f"--raw_dir: found no data in {str(root)!r}; {found}. Expected {READABLE}.")
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
        Sections, each read when it is its turn.

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


@dataclass(frozen=True)
class _Found:
    """File, folder or sample that holds sections."""

    path: Path
    sample: Sample | None = None
    platform: _Platform | None = None
    not_read: tuple[str, ...] = ()


def _walk(path: Path, bin_size: int | None, root: str) -> Iterator[_Found]:
    """Find files and folders that may hold sections; ``root`` is where the search began."""
    _check_path(path)
    with reading(path, "folder"):
        if path.is_file():
            found = _samples(path.parent, [path], bin_size)
            yield from found or [_Found(path)]
            return
        if _is_zarr(path):
            yield _Found(path)
            return
        inside = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
        files = [entry for entry in inside if entry.is_file()]
    samples = _samples(path, files, bin_size) or _matrix_folder(path, inside, bin_size)
    yield from samples
    if any(found.sample is not None and not found.sample.prefix for found in samples):
        return  # the whole folder is that of an instrument
    if any(file.name == "experiment.xenium" for file in files):
        raise DataError(
            f"{path} is a Xenium output without cell_feature_matrix.h5: copy it there, it has the "
            "counts."
        )
    for entry in _choose_bins(path, inside, bin_size):
        if _belongs(entry, samples) or (samples and entry.name == "spatial"):
            continue
        if entry.is_symlink() and entry.is_dir() and _holds(entry, root):
            warnings.warn(
                f"{entry} is a link to {os.path.realpath(entry)}, a folder that holds it: it is "
                "not followed.",
                UserWarning,
                stacklevel=2,
            )
            continue
        yield from _walk(entry, bin_size, root)


def _check_path(path: Path) -> None:
    """Raise if a name cannot be written to a manifest, or a link leads nowhere."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the name of {os.fsencode(path)!r} is not UTF-8: rename it or move it out of the "
            "folder."
        ) from None
    if path.is_symlink() and not path.exists():
        raise DataError(
            f"{path} is a link to {os.readlink(path)}, which does not exist: copy the file, or "
            "delete the link."
        )


def _holds(link: Path, root: str) -> bool:
    """True if a link leads to a folder that it, or the raw folder, is in."""
    target = os.path.realpath(link)
    here = os.path.realpath(link.parent)
    return any(Path(inner).is_relative_to(target) for inner in (here, root))


def _samples(folder: Path, files: Sequence[Path], bin_size: int | None) -> list[_Found]:
    """Find samples whose matrices are among some files of a folder."""
    if folder.name in GENERIC[2:]:  # a folder of a matrix, in that of the sample
        folder = folder.parent
    matrices: dict[str, tuple[Path, _Platform]] = {}
    for platform in PLATFORMS:
        for file in files:
            prefix = platform.prefix(file.name)
            if prefix is not None:
                matrices.setdefault(prefix, (file, platform))
    return [
        _Found(
            file,
            Sample(folder, prefix, file, bin_size, alone=len(matrices) == 1),
            platform,
            tuple(f"{f.name} (not read)" for f in files if f != file and _is_other(f, prefix)),
        )
        for prefix, (file, platform) in sorted(matrices.items())
    ]


def _is_other(file: Path, prefix: str) -> bool:
    """True for a file beside a matrix that could be taken for the data."""
    name = file.name
    if file.suffix == ".h5ad":
        return not prefix
    return name.startswith(prefix) and any(
        platform.prefix(name) == prefix for platform in PLATFORMS
    )


def _matrix_folder(path: Path, inside: Sequence[Path], bin_size: int | None) -> list[_Found]:
    """Find the sample of a folder whose matrix is in a folder of its own."""
    for name in GENERIC[2:]:
        folder = path / name
        if folder in inside and folder.is_dir():
            with reading(folder, "folder"):
                found = _samples(folder, sorted(folder.iterdir()), bin_size)
            if found:
                return found[:1]
    return []


def _belongs(entry: Path, samples: Sequence[_Found]) -> bool:
    """True for a file whose name starts with that of a sample beside it; AnnData stand alone."""
    return (
        entry.is_file()
        and entry.suffix != ".h5ad"
        and any(
            re.match(rf"{re.escape(found.sample.stem)}[_.-]", entry.name)
            for found in samples
            if found.sample is not None
        )
    )


def _choose_bins(path: Path, inside: Sequence[Path], bin_size: int | None) -> list[Path]:
    """Entries of a folder to search; of Visium HD the bins of one size."""
    binned = [entry for entry in inside if entry.name == "binned_outputs" and entry.is_dir()]
    if binned:  # the rest are images, segmentations and matrices of other forms
        return binned
    sizes = {
        int(found[1]): entry
        for entry in inside
        if entry.is_dir() and (found := HD_BINS.fullmatch(entry.name))
    }
    if not sizes:
        return list(inside)
    wanted = HD_SIZE if bin_size is None else bin_size
    if wanted not in sizes:
        raise DataError(
            f"--bin_size: {path} has no bins of {wanted} µm, but of "
            f"{', '.join(map(str, sorted(sizes)))}: choose one of them."
        )
    return [sizes[wanted]]


def _is_zarr(path: Path) -> bool:
    marks = (".zgroup", ".zattrs", "zarr.json")
    return path.is_dir() and (path.suffix == ".zarr" or any((path / m).is_file() for m in marks))


def _read(found: _Found, keys: RawKeys, also_obs: Sequence[str]) -> list[RawSection]:
    path = found.path
    if found.sample is not None and found.platform is not None:
        platform = found.platform
        return [output_section(found.sample, platform.name, platform.read, keys, found.not_read)]
    if path.suffix == ".h5ad":
        return h5ad_sections(path, keys)
    if _is_zarr(path):
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
