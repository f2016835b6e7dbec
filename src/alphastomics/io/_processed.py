"""Processed data: the manifest, checked when read, and sections whose expression stays on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alphastomics import _keys
from alphastomics.io._files import DataError, checksum, reading, write_file
from alphastomics.io._store import KIND, Cells, LazyRows

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"

Split = Literal["train", "val", "test"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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

    Examples
    --------
    >>> import alphastomics as al
    >>> manifest = al.io.open_data("processed").manifest  # doctest: +SKIP
    >>> [section.name for section in manifest.sections]  # doctest: +SKIP
    ['BZ5', 'BZ9', 'BZ14']
    """

    format: Literal["alphastomics-data"] = "alphastomics-data"
    format_version: int = Field(FORMAT_VERSION, le=FORMAT_VERSION)
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
        """Write the manifest into a folder, whole or not at all."""
        write_file(folder / MANIFEST_FILE, (self.model_dump_json(indent=1) + "\n").encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a folder."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} holds no processed data: it has no {MANIFEST_FILE}. Make it with "
            "`alphastomics preprocess`, or run that again if it was interrupted."
        )
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        details = error.errors()
    for detail in details:
        if (detail["loc"], detail["type"]) == (("format_version",), "less_than_equal"):
            raise DataError(
                f"{path} has format {detail['input']}, but this alphastomics reads formats up to "
                f"{FORMAT_VERSION}: upgrade alphastomics."
            )
    where = ".".join(map(str, details[0]["loc"])) or "the file"
    raise DataError(
        f"{path} is damaged or was altered: {where}: {details[0]['msg']}. Copy it again or run "
        "preprocess again."
    )


@dataclass(frozen=True)
class ProcessedSection:
    """Section of processed data; each property is read at its first use.

    Attributes
    ----------
    entry, path, genes
        Entry in the manifest; store, which :func:`anndata.read_zarr` reads too; names of the genes,
        those of all sections.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     al.datasets.simulate_tissue(2, 50).write_h5ad(f"{folder}/raw.h5ad")
    ...     _ = preprocess(f"{folder}/raw.h5ad", f"{folder}/data", progress=False)
    ...     section = al.io.open_data(f"{folder}/data").sections()[0]
    ...     section.name, section.position.shape, section.expression.shape
    ('section_0', (50, 2), (50, 60))
    """

    entry: SectionEntry
    path: Path
    genes: pd.Index

    @property
    def name(self) -> str:
        """Name of the section."""
        return self.entry.name

    @cached_property
    def obs(self) -> pd.DataFrame:
        """Table of the cells, in the order of the store."""
        table: pd.DataFrame = self._read("obs")
        return table

    @cached_property
    def position(self) -> NDArray[np.float64] | None:
        """Positions ``(n, d)``, NaN rows where missing, or None where all are."""
        if not self.entry.has_coordinates:
            return None
        return np.asarray(self._read(f"obsm/{_keys.SPATIAL}"), dtype=np.float64)

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """Mask of genes that the section measures, ``(n_genes,)``."""
        if self.entry.measured is None:
            return np.ones(len(self.genes), dtype=bool)
        return np.asarray(self.genes.isin(self.entry.measured))

    @cached_property
    def blocks(self) -> Cells:
        """First row of each block, and the number of cells: ``(n_blocks + 1,)``."""
        return np.asarray(self._read(f"uns/{_keys.UNS}/{_keys.BLOCKS}"), dtype=np.int64)

    @cached_property
    def expression(self) -> LazyRows:
        """Expression ``(n, n_genes)``, read when indexed."""
        return LazyRows.open(self.path)

    def _read(self, key: str) -> Any:
        with reading(self.path, KIND):
            return ad.io.read_elem(zarr.open_group(str(self.path), mode="r")[key])


@dataclass(frozen=True)
class ProcessedData:
    """Folder of processed data, opened by :func:`open_data`.

    Attributes
    ----------
    folder, manifest
        Path, and the :class:`Manifest` in it.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     al.datasets.simulate_tissue(2, 50).write_h5ad(f"{folder}/raw.h5ad")
    ...     _ = preprocess(f"{folder}/raw.h5ad", f"{folder}/data", progress=False)
    ...     data = al.io.open_data(f"{folder}/data")
    ...     data.verify()
    >>> len(data.genes), len(data.sections("train"))
    (60, 2)
    """

    folder: Path
    manifest: Manifest

    @cached_property
    def genes(self) -> pd.Index:
        """Names of the genes."""
        return pd.Index(self.manifest.genes)

    @cached_property
    def _sections(self) -> tuple[ProcessedSection, ...]:
        return tuple(
            ProcessedSection(entry, self.folder / entry.file, self.genes)
            for entry in self.manifest.sections
        )

    def sections(self, split: Split | None = None) -> list[ProcessedSection]:
        """Sections of a split, or all of them, in the order of the manifest."""
        return [section for section in self._sections if split in (None, section.entry.split)]

    def verify(self) -> None:
        """Raise if a store is not what ``preprocess`` wrote; reads all of them."""
        for section in self._sections:
            if checksum(section.path) != section.entry.checksum:
                raise DataError(
                    f"{section.path} was altered after preprocess wrote it, or is damaged: copy "
                    "the folder again or run preprocess with --overwrite."
                )


def open_data(folder: str | Path) -> ProcessedData:
    """Open a folder that ``alphastomics preprocess`` wrote; sections are read at their use.

    Parameters
    ----------
    folder
        Folder with a ``manifest.json``.

    Returns
    -------
    ProcessedData
        Manifest and sections.

    Raises
    ------
    DataError
        If there is no manifest, it was altered, a newer version wrote it, or a store is missing.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     al.datasets.simulate_tissue(2, 50).write_h5ad(f"{folder}/raw.h5ad")
    ...     _ = preprocess(f"{folder}/raw.h5ad", f"{folder}/data", progress=False)
    ...     al.io.open_data(f"{folder}/data").sections()[0].expression[[3, 0, 3]].shape
    (3, 60)
    """
    path = Path(folder).resolve()
    data = ProcessedData(path, read_manifest(path))
    for section in data.sections():
        if not section.path.is_dir():
            raise DataError(
                f"{path} lacks the store {section.entry.file} of section {section.name!r}: copy "
                "the folder again or run preprocess with --overwrite."
            )
    return data
