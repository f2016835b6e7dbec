"""Files and folders that are written whole or not at all, and errors that say what to do."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import secrets
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
TEMPORARY = ".alphastomics-"  # a process that is killed while it writes leaves such a file
# Of renameat2: exchange two names at once (Linux; not on every file system).
AT_FDCWD, RENAME_EXCHANGE = -100, 2
NAMED = 5  # entries of a folder in a message
READS, PAUSE = 100, 0.01  # of a folder that is being replaced

Result = TypeVar("Result")


def temporary(path: Path) -> Path:
    """Random name in the folder of ``path``, with its suffix, for a file that is renamed later."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix}")


def content(folder: Path) -> str:
    """First names in a folder, as a message says what it holds."""
    names = sorted(path.name for path in folder.iterdir())
    more = ", ..." if len(names) > NAMED else ""
    return f"holds {', '.join(names[:NAMED])}{more}" if names else "is empty"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a new, empty file to write to, which takes the place of ``path`` if all goes well."""
    part = temporary(path)
    # Exclusively: a file or link that is there already is not written to.
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, replaced: Collection[str] | None = None) -> Iterator[Path]:
    """Give a new folder to write to, which takes the place of ``path`` if all goes well.

    Of a folder that is there, entries other than ``replaced`` (all if ``None``) are in the new
    one, too, as hard links.
    """
    path = path.resolve()  # of a link, the folder that it points to
    if path == Path.cwd() or path in Path.cwd().parents:
        raise OSError(f"{path} is the current folder or holds it: choose another folder.")
    part = temporary(path)
    part.mkdir()
    try:
        if replaced is not None and path.exists():
            while_unchanged(path, lambda: _link_others(path, part, replaced))
        yield part
        _put(part, path)
    finally:
        remove_folder(part)  # after an exchange this is the earlier folder


def remove_folder(folder: Path) -> None:
    """Remove a folder, also if threads, as those of zarr after a signal, still write to it."""
    for _ in range(READS):
        if not folder.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(PAUSE)


def _link_others(folder: Path, new: Path, replaced: Collection[str]) -> None:
    """Give a new folder hard links to the entries of another, without those to be replaced."""
    pattern = shutil.ignore_patterns(*replaced)

    def link(source: str, target: str) -> None:
        with suppress(FileExistsError):  # of an attempt before
            os.link(source, target, follow_symlinks=False)

    shutil.copytree(
        folder,
        new,
        symlinks=True,
        ignore=lambda at, names: pattern(at, names) if Path(at) == folder else set(),
        copy_function=link,
        dirs_exist_ok=True,
    )


def require_writable(path: Path) -> None:
    """Raise ``OSError`` if ``path`` cannot be written."""
    with suppress(FileNotFoundError):
        os.lstat(path)  # its name is too long, or it would lie in a file
    part = temporary(next(folder for folder in path.absolute().parents if folder.exists()) / "x")
    part.touch(exist_ok=False)
    part.unlink()


def _put(part: Path, path: Path) -> None:
    """Give a folder the name ``path``; what has that name now gets the name ``part``, or none."""
    while True:
        try:
            os.replace(part, path)  # nothing is there, or an empty folder
            return
        except OSError as error:
            if error.errno not in NOT_EMPTY:
                raise
        if _exchange(part, path):
            return
        # Not at once, then: for a moment there is nothing (``while_unchanged`` waits).
        old = temporary(path)
        try:
            os.replace(path, old)
        except FileNotFoundError:  # another process is at this point, too
            continue
        try:
            os.replace(part, path)
        except OSError as error:
            if error.errno in NOT_EMPTY:  # another process was faster
                shutil.rmtree(old, ignore_errors=True)
                continue
            os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
        return


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names at once; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if _is_linux() else None
    if rename is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    return bool(rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0)


def _is_linux() -> bool:
    return sys.platform == "linux"


def while_unchanged(folder: Path, read: Callable[[], Result]) -> Result:
    """Result of ``read``, which is repeated if ``folder`` was replaced meanwhile and it fails."""
    for _ in range(READS):
        before = _state(folder)
        try:
            return read()
        except (OSError, ValueError, RuntimeError):  # the last by safetensors
            if _state(folder) == before and not _is_being_replaced(folder):
                raise
            time.sleep(PAUSE)
    return read()


def _state(folder: Path) -> tuple[int, int] | None:
    """Identity of a folder, which changes when another one gets its name."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _is_being_replaced(folder: Path) -> bool:
    """True if the name of a folder is free while another process writes in the same folder."""
    return not folder.exists() and any(folder.parent.glob(f"{TEMPORARY}*"))


@contextmanager
def writing(argument: str, path: Path) -> Iterator[None]:
    """Turn an error of the file system into one that names the argument and the remedy."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        chain = [error, *_contexts(error)]
        numbers = [e.errno for e in chain if isinstance(e, OSError) and e.errno is not None]
        if not numbers:  # of ours, or no error of the file system
            if isinstance(error, OSError):
                raise type(error)(f"{argument}: {error}") from None
            raise
        number = numbers[0]
        text = f"{argument}: {path} cannot be written: {os.strerror(number)}. Choose another place."
        if number in FULL:
            text = f"{argument}: the disk is full, {path} cannot be written: free some space."
        found = type(OSError(number, ""))(text)
        found.errno = number
        _release(chain)
        raise found from None


def _contexts(error: BaseException) -> Iterator[BaseException]:
    """Errors while which an error was raised: h5py fails again when it closes a file."""
    while error.__context__ is not None:
        error = error.__context__
        yield error


def _release(chain: list[BaseException]) -> None:
    """Delete what failed calls hold, without the tracebacks of h5py for files it cannot close."""
    usual, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        for error in chain:
            traceback.clear_frames(error.__traceback__)
        gc.collect()
    finally:
        sys.unraisablehook = usual
