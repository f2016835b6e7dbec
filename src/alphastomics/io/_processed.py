"""Processed data: the manifest, checked when read, and sections whose expression stays on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from tqdm.auto import tqdm

from alphastomics import _keys
from alphastomics._validate import check_values
from alphastomics.io._files import DataError, checksum, reading, write_file
from alphastomics.io._store import BLOCK_CELLS, KIND, Cells, LazyRows, open_store
from alphastomics.io._verify import REMEDY, check_files

FORMAT_VERSION = 2  # 1: without a checksum of the manifest itself
MANIFEST_FILE = "manifest.json"
MOST_BYTES = 500_000_000  # of a manifest
SHOWN_AFTER = 3.0  # seconds until a progress bar

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
        found = len(table) if isinstance(table, pd.DataFrame) else "none"
        self._require(found == self.entry.n_cells, f"{found} cells, not {self.entry.n_cells}")
        return table

    @cached_property
    def position(self) -> NDArray[np.float64] | None:
        """Positions ``(n, d)``, NaN rows where missing, or None where all are."""
        if not self.entry.has_coordinates:
            return None
        position = self._numbers(f"obsm/{_keys.SPATIAL}", np.float64)
        shapes = [(self.entry.n_cells, d) for d in (2, 3)]
        self._require(position.shape in shapes, f"positions of shape {position.shape}")
        self._require(not np.isnan(position).all(), "no positions, which the manifest promises")
        self._require(not np.isinf(position).any(), "infinite positions")
        return position

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """Mask of genes that the section measures, ``(n_genes,)``."""
        if self.entry.measured is None:
            return np.ones(len(self.genes), dtype=bool)
        return np.asarray(self.genes.isin(self.entry.measured))

    @cached_property
    def blocks(self) -> Cells:
        """First row of each block, and the number of cells: ``(n_blocks + 1,)``."""
        blocks = self._numbers(f"uns/{_keys.UNS}/{_keys.BLOCKS}", np.int64)
        fits = blocks.ndim == 1 and len(blocks) > 1 and bool((np.diff(blocks) > 0).all())
        fits = fits and (blocks[0], blocks[-1]) == (0, self.entry.n_cells)
        self._require(fits, "blocks that do not hold every cell once")
        return blocks

    @cached_property
    def expression(self) -> LazyRows:
        """Expression ``(n, n_genes)``, read when indexed."""
        rows, expected = LazyRows.open(self._intact), (self.entry.n_cells, len(self.genes))
        self._require(rows.shape == expected, f"expression {rows.shape}, not {expected}")
        return rows

    @cached_property
    def _intact(self) -> Path:
        """The store, which is, byte by byte, what ``preprocess`` wrote: found out once."""
        with reading(self.path, KIND):
            check_files(self.path)
            found = checksum(self.path)
        if found != self.entry.checksum:
            raise DataError(
                f"{self.path} was altered after preprocess wrote it, or is damaged: {REMEDY}"
            )
        return self.path

    def verify(self, n_dims: int, values: str) -> None:
        """Raise if the store is not what the manifest says; reads all, a block at a time."""
        vars(self).pop("_intact", None)  # anew
        genes = self._read("var").index
        self._require(list(genes) == list(self.genes), "other genes")
        self._require(len(self.obs) == self.blocks[-1], "another number of cells")
        with reading(self.path, KIND):
            has_coordinates = _keys.SPATIAL in open_store(self.path)["obsm"]
        found = "positions" if has_coordinates else "no positions"
        self._require(has_coordinates == self.entry.has_coordinates, found)
        if self.position is not None:
            d = self.position.shape[1]
            self._require(d == n_dims, f"{d}D positions, not {n_dims}D")
        for start in range(0, self.entry.n_cells, BLOCK_CELLS):
            rows = self.expression[start : start + BLOCK_CELLS]
            check_values(rows, values, f"{self.path}/X")

    def _require(self, holds: bool, found: str) -> None:
        if not holds:
            raise DataError(f"{self.path} does not fit the manifest: it has {found}: {REMEDY}")

    def _numbers(self, key: str, dtype: Any) -> NDArray[Any]:
        with reading(self.path, KIND):
            return np.asarray(self._read(key), dtype=dtype)

    def _read(self, key: str) -> Any:
        with reading(self.path, KIND):
            return ad.io.read_elem(open_store(self._intact)[key])


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

    def verify(
        self, sections: Sequence[ProcessedSection] | None = None, *, progress_bar: bool = False
    ) -> None:
        """Raise if a store is not what ``preprocess`` wrote, or not what the manifest says.

        Every byte is read and compared with the checksums of the manifest, and every value is read
        once, a few thousand cells at a time.

        Parameters
        ----------
        sections
            Sections to verify; by default all.
        progress_bar
            Whether to show a progress bar if it takes long.

        Raises
        ------
        DataError
            If a file is missing, was altered or does not fit the others.
        """
        chosen = self._sections if sections is None else sections
        bar = tqdm(chosen, "Verifying", unit="section", delay=SHOWN_AFTER, disable=not progress_bar)
        for section in bar:
            section.verify(self.manifest.n_dims, self.manifest.values)


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
                f"{path} lacks the store {section.entry.file} of section {section.name!r}: {REMEDY}"
            )
        if not section.path.resolve().is_relative_to(path):
            raise DataError(
                f"{section.path} is a link that leaves the folder of the data: copy the store "
                "itself into it."
            )
    return data
