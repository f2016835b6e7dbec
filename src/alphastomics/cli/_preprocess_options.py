"""Options of ``preprocess``: the one list of their names, types, defaults and help."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any


class Values(StrEnum):
    """Kinds of expression values."""

    counts = "counts"
    lognorm = "lognorm"
    intensity = "intensity"


HOW = ("intersection", "union")
LEAST = {"num_genes": 1, "min_genes": 0, "min_counts": 0, "min_cells": 0, "seed": 0}
TYPES = {
    **dict.fromkeys(("genes", "values"), str),
    **dict.fromkeys(("min_counts", "test_ratio", "val_ratio"), float),
    **dict.fromkeys(("test_sections", "val_sections"), list),
}


@dataclass(frozen=True)
class Options:
    """Options of :func:`alphastomics.cli.preprocess.preprocess`, checked."""

    genes: Annotated[str, "intersection, union, or a file with one gene a line."] = "intersection"
    num_genes: Annotated[int | None, "Keep the most variable genes."] = None
    min_genes: Annotated[int, "Least genes of a cell."] = 0
    min_counts: Annotated[float, "Least total of a cell."] = 0
    min_cells: Annotated[int, "Least training cells that express a gene."] = 0
    values: Annotated[Values, "Kind of the expression values."] = Values.counts
    layer: Annotated[str | None, "Layer to read; by default X."] = None
    spatial_key: Annotated[str, "Coordinates in obsm."] = "spatial"
    section_key: Annotated[str, "Section in obs."] = "section"
    labels_key: Annotated[str | None, "Cell type in obs."] = None
    batch_key: Annotated[str | None, "Donor or platform in obs."] = None
    test_sections: Annotated[list[str], "Hold out; may be repeated."] = field(default_factory=list)
    val_sections: Annotated[list[str], "Hold out; may be repeated."] = field(default_factory=list)
    test_ratio: Annotated[float, "Share of sections to hold out."] = 0.0
    val_ratio: Annotated[float, "Share of sections to hold out."] = 0.0
    seed: Annotated[int, "Seed of random splits and of the layout."] = 0

    def __post_init__(self) -> None:
        from alphastomics.io import DataError

        # One type each: the fingerprint is the same for 0 and 0.0, a tuple and a list.
        for name, kind in TYPES.items():
            object.__setattr__(self, name, kind(getattr(self, name)))
        if self.values not in list(Values):
            raise DataError(f"--values must be one of {', '.join(Values)}, found {self.values!r}.")
        for name, least in LEAST.items():
            found = getattr(self, name)
            if found is not None and found < least:
                raise DataError(f"--{name} must be at least {least}, found {found}.")

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

        content: list[Any] = [asdict(self), self.gene_list, stamps, FORMAT_VERSION, __version__]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
