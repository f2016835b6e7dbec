"""Manifest of processed data, checked when read."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from alphastomics.io._files import DataError, write_file
from alphastomics.io._verify import REMEDY

FORMAT_VERSION = 2  # 1: without a checksum of the manifest itself
MANIFEST_FILE = "manifest.json"
MOST_BYTES = 500_000_000  # of a manifest

Split = Literal["train", "val", "test"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SectionEntry(_Strict):
    """Entry of a section in the manifest.

    Attributes
    ----------
    name, split, n_cells, has_coordinates
        Name, ``"train"``, ``"val"`` or ``"test"``, number of cells, whether any has a position.
    file, source, checksum
        Store and raw file, relative to their folders; SHA-256 of the store.
    measured
        Genes of the section, where it lacks some of the manifest.

    Examples
    --------
    >>> entry = SectionEntry(
    ...     name="BZ5", file="sections/BZ5.zarr", n_cells=1049, split="test", has_coordinates=True,
    ...     measured=None, source="BZ5.h5ad", checksum="5d41402a",
    ... )
    >>> entry.name, entry.split
    ('BZ5', 'test')
    """

    name: str
    file: str
    n_cells: int = Field(ge=1)
    split: Split
    has_coordinates: bool
    measured: list[str] | None
    source: str
    checksum: str

    @field_validator("file")
    @classmethod
    def _is_inside(cls, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or not path.parts or ".." in path.parts or set(file) & set("\\:\0"):
            raise ValueError(f"{file!r} is not the name of a store in this folder")
        return file


class Statistics(_Strict):
    """Statistics of the measured cells of training sections."""

    n_cells: int = Field(ge=0)
    median_total: float = Field(description="over genes that all training sections measure")
    mean: list[float] = Field(description="of each gene, over cells whose section measures it")
    expressed: list[float] = Field(description="share of these cells that express the gene")


class Provenance(_Strict):
    """Options, package versions, seed, and fingerprint of raw files and options."""

    options: dict[str, Any]
    versions: dict[str, str]
    seed: int
    fingerprint: str


class Manifest(_Strict):
    """Manifest of a folder of processed data.

    Attributes
    ----------
    genes
        Names of the genes.
    values
        ``"counts"``, ``"lognorm"`` or ``"intensity"``.
    n_dims, units
        2 or 3, and unit of the coordinates, if the raw data name it.
    labels_key, batch_key
        Names of cell type and of donor or platform in ``.obs``.
    sections, statistics, provenance
        :class:`SectionEntry` of each section; statistics of the training cells; options, package
        versions, seed, and fingerprint of options and raw files.
    sha256
        Checksum of all this in the file.

    Examples
    --------
    >>> import alphastomics as al
    >>> manifest = al.io.open_data("processed").manifest  # doctest: +SKIP
    >>> [section.name for section in manifest.sections]  # doctest: +SKIP
    ['BZ5', 'BZ9', 'BZ14']
    """

    format: Literal["alphastomics-data"] = "alphastomics-data"
    format_version: int = Field(FORMAT_VERSION, ge=1, le=FORMAT_VERSION)
    genes: list[str] = Field(min_length=1)
    values: Literal["counts", "lognorm", "intensity"]
    n_dims: Literal[2, 3]
    units: str | None
    labels_key: str | None
    batch_key: str | None
    sections: list[SectionEntry] = Field(min_length=1)
    statistics: Statistics
    provenance: Provenance
    sha256: str | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        genes = set(self.genes)
        for what, names in (
            ("genes", self.genes),
            ("names of sections", [section.name for section in self.sections]),
            ("files of sections", [section.file for section in self.sections]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"it has {what} twice")
        for section in self.sections:
            if section.measured is not None and not set(section.measured) <= genes:
                raise ValueError(f"section {section.name!r} measures genes that are not listed")
        if not len(genes) == len(self.statistics.mean) == len(self.statistics.expressed):
            raise ValueError("statistics are of another number of genes")
        if self.provenance.options.get("values", self.values) != self.values:
            raise ValueError(f"values are {self.values}, but the options name others")
        return self

    def checksum(self) -> str:
        """SHA-256 of all that the manifest says."""
        return hashlib.sha256(self.model_dump_json(exclude={"sha256"}).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder, whole or not at all."""
        signed = self.model_copy(update={"sha256": self.checksum()})
        write_file(folder / MANIFEST_FILE, (signed.model_dump_json(indent=1) + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a folder."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} holds no processed data: it has no {MANIFEST_FILE}. Make it with "
            "`alphastomics preprocess`, or run that again if it was interrupted."
        )
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path} is larger than any manifest: {REMEDY}")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        details = error.errors()
    else:
        if manifest.format_version > 1 and manifest.sha256 != manifest.checksum():
            raise _altered(path, "it does not match its checksum")
        return manifest.model_copy(update={"sha256": None})
    for detail in details:
        if (detail["loc"], detail["type"]) == (("format_version",), "less_than_equal"):
            raise DataError(
                f"{path} has format {detail['input']}, but this alphastomics reads formats up to "
                f"{FORMAT_VERSION}: upgrade alphastomics."
            )
    where = ".".join(map(str, details[0]["loc"])) or "the file"
    raise _altered(path, f"{where}: {details[0]['msg'].removeprefix('Value error, ')}")


def _altered(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is damaged or was altered: {why[:300]}. Copy it again or run preprocess again."
    )
