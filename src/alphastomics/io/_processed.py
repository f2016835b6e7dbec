"""Processed data: sections whose expression stays on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._progress import Reporter
from alphastomics._validate import check_values
from alphastomics.io._files import DataError, checksum, reading
from alphastomics.io._manifest import Manifest, SectionEntry, Split, read_manifest
from alphastomics.io._store import BLOCK_CELLS, KIND, Cells, LazyRows, open_store
from alphastomics.io._verify import REMEDY, check_files

SHOWN_AFTER = 3.0  # seconds until a progress bar


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
        """Raise if the store differs from the manifest; reads all values, block by block."""
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
        self,
        sections: Sequence[ProcessedSection] | None = None,
        *,
        progress_bar: bool | None = False,
    ) -> None:
        """Raise if a store differs from what ``preprocess`` wrote, or from the manifest.

        Every byte is read and compared with the checksums of the manifest, and every value is read
        once, a few thousand cells at a time.

        Parameters
        ----------
        sections
            Sections to verify; by default all.
        progress_bar
            Whether to show progress if it takes long; ``None`` for ``al.settings.progress_bar``.

        Raises
        ------
        DataError
            If a file is missing, was altered or does not fit the others.
        """
        chosen = self._sections if sections is None else sections
        reporter = Reporter.of(progress_bar)
        with reporter.bar("verifying", len(chosen), "sections", delay=SHOWN_AFTER) as bar:
            for section in chosen:
                section.verify(self.manifest.n_dims, self.manifest.values)
                bar.update(note=section.name)


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
