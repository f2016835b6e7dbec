"""Search for raw data: files, folders, and samples of instruments by the names of matrices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alphastomics._compat import warn
from alphastomics.io._files import DataError, reading
from alphastomics.io._instruments import GENERIC, Reader, Sample
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
from alphastomics.io._tenx import (
    H5_MATRIX,
    HD_BINS,
    MTX_MATRIX,
    XENIUM_MATRIX,
    read_tenx,
    read_xenium,
)

TABLES = (".csv", ".csv.gz", ".parquet")
HD_SIZE = 8  # µm


@dataclass(frozen=True)
class Platform:
    """Name of the matrix of an instrument, after the name of the sample, and its reader."""

    name: str
    matrix: str
    read: Reader

    def prefix(self, file: str) -> str | None:
        """Prefix of a name before that of the matrix, None if it is another file."""
        found = re.fullmatch(rf"(|.*?[_.-])({self.matrix})", file)
        return None if found is None else found[1]


# Of the matrices of one sample the first one is read.
PLATFORMS = (
    Platform("Xenium", XENIUM_MATRIX, read_xenium),
    Platform("10x h5", H5_MATRIX, read_tenx),
    Platform("10x mtx", MTX_MATRIX, read_tenx),
    Platform("MERSCOPE", MERSCOPE_MATRIX, read_merscope),
    Platform("CosMx", COSMX_MATRIX, read_cosmx),
    Platform("Slide-seq", SLIDESEQ_MATRIX, read_slideseq),
    Platform("Stereo-seq", GEM_MATRIX, read_stereoseq),
)


@dataclass(frozen=True)
class Found:
    """File, folder or sample that holds sections."""

    path: Path
    sample: Sample | None = None
    platform: Platform | None = None
    not_read: tuple[str, ...] = ()


def walk(path: Path, bin_size: int | None, root: str) -> Iterator[Found]:
    """Find files and folders that may hold sections; ``root`` is where the search began."""
    _check_path(path)
    with reading(path, "folder"):
        if path.is_file():
            found = _samples(path.parent, [path], bin_size)
            yield from found or [Found(path)]
            return
        if is_zarr(path):
            yield Found(path)
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
            warn(
                f"{entry} is a link to {os.path.realpath(entry)}, a folder that holds it: it is "
                "not followed."
            )
            continue
        yield from walk(entry, bin_size, root)


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


def _samples(folder: Path, files: Sequence[Path], bin_size: int | None) -> list[Found]:
    """Find samples whose matrices are among some files of a folder."""
    if folder.name in GENERIC[2:]:  # a folder of a matrix, in that of the sample
        folder = folder.parent
    matrices: dict[str, tuple[Path, Platform]] = {}
    for platform in PLATFORMS:
        for file in files:
            prefix = platform.prefix(file.name)
            if prefix is not None:
                matrices.setdefault(prefix, (file, platform))
    return [
        Found(
            file,
            Sample(folder, prefix, file, bin_size, alone=len(matrices) == 1),
            platform,
            tuple(f"{f.name} (not read)" for f in files if f != file and _is_other(f, prefix)),
        )
        for prefix, (file, platform) in sorted(matrices.items())
    ]


def _is_other(file: Path, prefix: str) -> bool:
    """True for a file in the folder of a matrix that could be mistaken for the data."""
    name = file.name
    if file.suffix == ".h5ad":
        return not prefix
    return name.startswith(prefix) and any(
        platform.prefix(name) == prefix for platform in PLATFORMS
    )


def _matrix_folder(path: Path, inside: Sequence[Path], bin_size: int | None) -> list[Found]:
    """Find the sample of a folder whose matrix is in a folder of its own."""
    for name in GENERIC[2:]:
        folder = path / name
        if folder in inside and folder.is_dir():
            with reading(folder, "folder"):
                found = _samples(folder, sorted(folder.iterdir()), bin_size)
            if found:
                return found[:1]
    return []


def _belongs(entry: Path, samples: Sequence[Found]) -> bool:
    """True for a file whose name starts with that of a sample in its folder; not for AnnData."""
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


def is_zarr(path: Path) -> bool:
    marks = (".zgroup", ".zattrs", "zarr.json")
    return path.is_dir() and (path.suffix == ".zarr" or any((path / m).is_file() for m in marks))
