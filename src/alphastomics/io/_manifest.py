"""The manifest of processed data: what the stores hold, checked when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alphastomics.io._errors import DataError
from alphastomics.io._files import write_file

FORMAT = "alphastomics-data"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"

Split = Literal["train", "val", "test"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SectionEntry(_Strict):
    """One section and its store.

    Attributes
    ----------
    name, split, n_cells, has_coordinates
        Name, ``"train"``, ``"val"`` or ``"test"``, number of cells, whether any has a position.
    file, source, checksum
        Store and raw file, relative to their folders; SHA-256 of the store.
    measured
        Its genes, where it lacks some of the manifest.

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
    file: str = Field(description="folder of its store, relative to the manifest")
    n_cells: int = Field(ge=1)
    split: Split
    has_coordinates: bool
    measured: list[str] | None = Field(description="its genes, where it lacks some of the manifest")
    source: str = Field(description="raw file, relative to the raw folder")
    checksum: str = Field(description="SHA-256 of the store")


class Statistics(_Strict):
    """Of the measured cells of training sections."""

    n_cells: int = Field(ge=0)
    median_total: float = Field(description="over genes that all training sections measure")
    mean: list[float] = Field(description="of each gene, over cells whose section measures it")
    expressed: list[float] = Field(description="share of these cells that express the gene")


class Provenance(_Strict):
    """How the data were made."""

    options: dict[str, Any]
    versions: dict[str, str]
    seed: int
    fingerprint: str = Field(description="of raw files and options")


class Manifest(_Strict):
    """What a folder of processed data holds.

    Attributes
    ----------
    genes
        Names of the genes.
    values
        ``"counts"``, ``"lognorm"`` or ``"intensity"``.
    n_dims
        2 or 3.
    units
        Of the coordinates, if the raw data say.
    labels_key, batch_key
        Names of cell type and of donor or platform in ``.obs``.
    sections
        One entry a section: name, split, cells, store, checksum.
    statistics
        Of the training cells.
    provenance
        Options, versions, seed, fingerprint.

    Examples
    --------
    >>> import alphastomics as al
    >>> manifest = al.io.open_data("processed").manifest  # doctest: +SKIP
    >>> [section.name for section in manifest.sections]  # doctest: +SKIP
    ['BZ5', 'BZ9', 'BZ14']
    """

    format: Literal["alphastomics-data"] = "alphastomics-data"
    format_version: int = FORMAT_VERSION
    genes: list[str]
    values: Literal["counts", "lognorm", "intensity"]
    n_dims: Literal[2, 3]
    units: str | None
    labels_key: str | None
    batch_key: str | None
    sections: list[SectionEntry]
    statistics: Statistics
    provenance: Provenance

    def write(self, folder: Path) -> None:
        """Write it into a folder, whole or not at all."""
        write_file(folder / MANIFEST_FILE, (self.model_dump_json(indent=1) + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a folder.

    Raises
    ------
    DataError
        If there is none, it was altered, or a newer version wrote it.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} holds no processed data: it has no {MANIFEST_FILE}. Make it with "
            "`alphastomics preprocess`, or run that again if it was interrupted."
        )
    content = path.read_bytes()
    try:
        head = _Head.model_validate_json(content)
        if head.format == FORMAT and head.format_version > FORMAT_VERSION:
            raise DataError(
                f"{path} has format {head.format_version}, but this alphastomics reads formats up "
                f"to {FORMAT_VERSION}: upgrade alphastomics."
            )
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{path} is damaged or was altered: {where}: {first['msg']}. Copy it again or run "
            "preprocess again."
        ) from None


class _Head(BaseModel):
    format: str
    format_version: int
