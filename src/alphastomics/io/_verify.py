"""Stores are checked before anything in them is decoded: sizes they declare, and their decoders."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from alphastomics.io._files import DataError

# Decoders of what zarr and anndata write; others of numcodecs run code, such as "pickle".
CODECS = {"blosc", "gzip", "lz4", "shuffle", "vlen-utf8", "zlib", "zstd"}
METADATA = {".zarray", ".zattrs", ".zgroup"}
MOST_METADATA = 1_000_000  # bytes
EXPANSION = 1000  # largest size in memory of an array, relative to its store on disk
REMEDY = "copy the folder again or run preprocess with --overwrite."


def check_files(store: Path) -> None:
    """Raise unless all files of a store are of the kind that ``preprocess`` writes.

    Only their sizes and the metadata of their arrays are read.
    """
    files = [
        Path(folder) / name for folder, _, names in os.walk(store, onerror=_fail) for name in names
    ]
    on_disk = 0
    for file in files:
        found = file.stat() if file.exists() else file.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{file} is not a file: {REMEDY}")
        on_disk += found.st_size
        if (file.name.startswith(".z") or file.name == "zarr.json") and (
            file.name not in METADATA or found.st_size > MOST_METADATA
        ):
            raise DataError(f"{file} is not of a store that preprocess wrote: {REMEDY}")
    for file in files:
        if file.name == ".zarray":
            _check_array(file, on_disk)


def _fail(error: OSError) -> None:
    raise error


def _check_array(file: Path, on_disk: int) -> None:
    """Raise unless an array is decoded without running code, and has a plausible size."""
    try:
        array = json.loads(file.read_bytes())
        codecs = {
            codec["id"] for codec in [array["compressor"], *(array["filters"] or [])] if codec
        }
        sizes = [_elements(array[key]) for key in ("shape", "chunks")]
        dtype = np.dtype(array["dtype"]) if isinstance(array["dtype"], str) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} is damaged: {REMEDY}") from error
    text = array["filters"] == [{"id": "vlen-utf8"}]
    if dtype is None or not codecs <= CODECS or (dtype.hasobject and not text):
        found = ", ".join(map(str, sorted(codecs - CODECS, key=str))) or array["dtype"]
        raise DataError(
            f"{file} needs a decoder that preprocess does not use ({found!s:.80}): {REMEDY}"
        )
    if max(sizes) * dtype.itemsize > EXPANSION * on_disk:
        raise DataError(
            f"{file} declares {max(sizes) * dtype.itemsize:,} bytes in a store of {on_disk:,}: "
            f"{REMEDY}"
        )


def _elements(shape: Any) -> int:
    """Number of elements of an array of some shape."""
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"no shape: {shape}")
    return math.prod(shape)
