"""Options of ``preprocess`` and what follows from them."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from alphastomics.config import PreprocessConfig

HOW = ("intersection", "union")


class Options(PreprocessConfig):
    """Options of :func:`alphastomics.cli.preprocess.preprocess`, checked."""

    def __init__(self, **values: Any) -> None:
        from alphastomics.io import DataError

        try:
            super().__init__(**values)
        except ValueError as error:
            raise DataError(f"--{error}") from None

    @property
    def how(self) -> str:
        """How genes of several panels are combined, where they are not listed."""
        return self.genes if self.genes in HOW else "union"

    @cached_property
    def gene_list(self) -> list[str] | None:
        """Genes of the file that ``genes`` names, one a line."""
        from alphastomics.io import DataError

        if self.genes in HOW:
            return None
        path = Path(self.genes)
        if not path.is_file():
            raise DataError(
                f"--genes must be intersection, union or a file with one gene a line; there is no "
                f"file {self.genes!r}."
            )
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except UnicodeDecodeError:
            raise DataError(f"--genes: {path} is not a text file with one gene a line.") from None
        if not any(lines):
            raise DataError(f"--genes: {path} names no gene.")
        return [line for line in lines if line]

    def fingerprint(self, stamps: list[tuple[str, int, int]]) -> str:
        """Checksum of the options and of the names, sizes and times of the raw files."""
        from alphastomics import __version__
        from alphastomics.io._processed import FORMAT_VERSION

        content: list[Any] = [
            self.model_dump(),
            self.gene_list,
            stamps,
            FORMAT_VERSION,
            __version__,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
