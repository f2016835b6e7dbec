"""What an interrupted ``preprocess`` has finished, kept in the output folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alphastomics.io import DataError, Manifest
from alphastomics.io._files import remove, write_file, writing
from alphastomics.io._processed import MANIFEST_FILE, read_manifest

STORES = "sections"
PROGRESS = ".progress"
LOCK = ".lock"
FINGERPRINT = "fingerprint.json"

Record = dict[str, Any]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes that ask for this from writing to it."""
    with writing(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"--output_dir: another preprocess is writing to {folder}: wait until it has "
                "ended, or choose another folder."
            ) from None
    try:
        yield
    finally:
        with suppress(PermissionError):  # of Windows, for an open file
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


class Progress:
    """Records of finished steps under a fingerprint of the raw files and options.

    A record is written after what it says is on disk under its final name, so a step without a
    record is done again, and a finished one never.
    """

    def __init__(self, folder: Path, fingerprint: str, *, overwrite: bool) -> None:
        self.folder = folder
        self._records = folder / PROGRESS
        if overwrite:
            with writing(folder, 0):
                self._clear()
        self.manifest = self._finished(fingerprint)
        if self.manifest is None:
            self._resume(fingerprint)

    def _clear(self) -> None:
        """Delete what an earlier run wrote. Killed meanwhile, it has to be asked for again."""
        mark = self._records / FINGERPRINT
        if not ((self.folder / MANIFEST_FILE).exists() or mark.exists()):
            return
        self._records.mkdir(exist_ok=True)
        write_file(mark, json.dumps("being replaced").encode())
        remove(self.folder / MANIFEST_FILE)
        remove(self.folder / STORES)
        for record in self._records.iterdir():
            if record != mark:
                remove(record)
        remove(self._records)

    def _finished(self, fingerprint: str) -> Manifest | None:
        """Read the manifest, if all was done before."""
        if not (self.folder / MANIFEST_FILE).exists():
            return None
        manifest = read_manifest(self.folder)
        self._check(manifest.provenance.fingerprint, fingerprint)
        remove(self._records)
        return manifest

    def _resume(self, fingerprint: str) -> None:
        path = self._records / FINGERPRINT
        if path.is_file():
            self._check(json.loads(path.read_bytes()), fingerprint)
        elif (self.folder / STORES).exists():
            raise DataError(
                f"--output_dir: {self.folder} holds a folder {STORES!r} that preprocess did not "
                "write: choose another folder."
            )
        with writing(self.folder, 0):
            self._records.mkdir(exist_ok=True)
            write_file(path, json.dumps(fingerprint).encode())
            (self.folder / STORES).mkdir(exist_ok=True)
            for left in (self.folder / STORES).glob(".*.tmp"):
                shutil.rmtree(left)

    def _check(self, found: str, fingerprint: str) -> None:
        if found != fingerprint:
            raise DataError(
                f"--output_dir: {self.folder} holds data of other raw files or options: choose "
                "another folder, or replace them by --overwrite."
            )

    def once(self, step: str, name: str, do: Callable[[], Record]) -> Record:
        """Record of a step, which is done if it has none."""
        path = self._records / f"{step}-{name}.json"
        if path.is_file():
            record: Record = json.loads(path.read_bytes())
            return record
        record = do()
        write_file(path, json.dumps(record).encode())
        return record

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest; then the records are not needed."""
        manifest.write(self.folder)
        remove(self._records)
