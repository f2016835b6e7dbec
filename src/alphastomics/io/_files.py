"""Files and folders, read and written with errors that say what to do."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alphastomics import _files
from alphastomics._compat import MissingExtraError

NAME_LENGTH = 80
PIECE = 1 << 20  # bytes read at a time


class DataError(ValueError):
    """Error of data that cannot be used: the file or option, what was found and what to do.

    Examples
    --------
    >>> import alphastomics as al
    >>> al.io.open_data("nowhere")
    Traceback (most recent call last):
    alphastomics.io._files.DataError: ...nowhere holds no processed data...
    """


class WriteError(DataError):
    """The folder to write to is full or forbidden; the same command may go on later."""


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn any error of a decoder at a damaged file into one clear error."""
    try:
        yield
    except (DataError, MemoryError, MissingExtraError):
        raise
    except UnicodeDecodeError:
        raise DataError(
            f"{path} cannot be read as {kind}: its text is not UTF-8. Save it as UTF-8, or move it "
            "out of the folder."
        ) from None
    except PermissionError as error:
        raise DataError(
            f"{error.filename or path} may not be read (permission denied): ask its owner for "
            "permission, or move it out of the folder."
        ) from error
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{path} cannot be read as {kind}: {why}. It may be damaged or incomplete: copy it "
            "again, or move it out of the folder."
        ) from error


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with writing(path, len(content)), _files.whole(path) as part:
        part.write_bytes(content)


def remove(path: Path) -> None:
    """Delete a file or a folder if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, n_bytes: int) -> Iterator[None]:
    """Name the remedy when the disk is full or must not be written to."""
    try:
        with _files.writing("--output_dir", path):
            yield
    except OSError as error:
        remedy = ""
        if error.errno in _files.FULL:
            remedy = (
                f" It needs about {max(n_bytes / 1e6, 0.1):.1f} MB more. Run the same command "
                "again: it goes on with this section."
            )
        raise WriteError(f"{error}{remedy}") from error


def checksum(folder: Path) -> str:
    """SHA-256 of the names and contents of the files in a folder."""
    digest = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name in sorted(name for name, path in files.items() if path.is_file()):
        with files[name].open("rb") as file:
            digest.update(f"{len(name)} {name} {os.fstat(file.fileno()).st_size} ".encode())
            while content := file.read(PIECE):
                digest.update(content)
    return digest.hexdigest()


def stamps(paths: Iterable[Path], root: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and modification times of all files under some paths."""
    files = sorted(
        file
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file()
    )
    return [
        (os.path.relpath(file, root), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
    ]


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Safe and unique file names for sections, independent of the other sections.

    A name of other characters than letters, digits and ``+ - . _``, or that differs from another
    one in case only, gets the first digits of its checksum.
    """
    names = list(names)
    folded = Counter(name.casefold() for name in names)
    files = {}
    for name in names:
        safe = re.sub(r"[^A-Za-z0-9_+.-]", "_", name)[:NAME_LENGTH].lstrip(".") or "section"
        if safe != name or folded[name.casefold()] > 1:
            safe += f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        files[name] = safe
    return files
