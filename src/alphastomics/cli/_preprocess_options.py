"""The options of ``preprocess``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alphastomics.io import DataError

HOW = ("intersection", "union")


@dataclass(frozen=True)
class Options:
    """What :func:`alphastomics.cli.preprocess.preprocess` was told about the data."""

    genes: str = "intersection"
    num_genes: int | None = None
    min_genes: int = 0
    min_counts: float = 0
    min_cells: int = 0
    values: str = "counts"
    layer: str | None = None
    spatial_key: str = "spatial"
    section_key: str = "section"
    labels_key: str | None = None
    batch_key: str | None = None
    test_sections: tuple[str, ...] = ()
    val_sections: tuple[str, ...] = ()
    test_ratio: float = 0.0
    val_ratio: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        from alphastomics._validate import VALUES

        if self.values not in VALUES:
            raise DataError(f"--values must be one of {', '.join(VALUES)}, found {self.values!r}.")
        least = {"num_genes": 1, "min_genes": 0, "min_counts": 0, "min_cells": 0, "seed": 0}
        for name, smallest in least.items():
            found = getattr(self, name)
            if found is not None and found < smallest:
                raise DataError(f"--{name} must be at least {smallest}, found {found}.")

    @property
    def how(self) -> str:
        """How genes of several panels are combined, where they are not listed."""
        return self.genes if self.genes in HOW else "union"

    @cached_property
    def gene_list(self) -> list[str] | None:
        """Genes of the file that ``genes`` names, one a line."""
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

        told: list[Any] = [asdict(self), self.gene_list, stamps, FORMAT_VERSION, __version__]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
