"""Processed data, opened without reading the expression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics.io._errors import DataError, reading
from alphastomics.io._files import checksum
from alphastomics.io._layout import Cells
from alphastomics.io._lazy_rows import LazyRows
from alphastomics.io._manifest import Manifest, SectionEntry, Split, read_manifest


@dataclass(frozen=True)
class ProcessedSection:
    """One section of processed data; each property is read when first asked for.

    Attributes
    ----------
    entry
        What the manifest says of it.
    path
        Its store, which :func:`anndata.read_zarr` reads too.
    genes
        Names of the genes, those of all sections.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> folder = tempfile.TemporaryDirectory()
    >>> al.datasets.simulate_tissue(n_sections=2, n_cells=50).write_h5ad(f"{folder.name}/raw.h5ad")
    >>> _ = preprocess(f"{folder.name}/raw.h5ad", f"{folder.name}/data", progress=False)
    >>> section = al.io.open_data(f"{folder.name}/data").sections()[0]
    >>> section.name, section.position.shape, section.expression.shape
    ('section_0', (50, 2), (50, 60))
    >>> folder.cleanup()
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
        """Whether the section measures each gene, ``(n_genes,)``."""
        if self.entry.measured is None:
            return np.ones(len(self.genes), dtype=bool)
        return np.asarray(self.genes.isin(self.entry.measured))

    @cached_property
    def blocks(self) -> Cells:
        """Where blocks start, and the number of cells: ``(n_blocks + 1,)``."""
        return np.asarray(self._read(f"uns/{_keys.UNS}/{_keys.BLOCKS}"), dtype=np.int64)

    @cached_property
    def expression(self) -> LazyRows:
        """Expression ``(n, n_genes)``, read when indexed."""
        return LazyRows.open(self.path)

    def _read(self, key: str) -> Any:
        with reading(self.path, "a store of processed data"):
            return ad.io.read_elem(zarr.open_group(str(self.path), mode="r")[key])


@dataclass(frozen=True)
class ProcessedData:
    """A folder of processed data.

    Attributes
    ----------
    folder
        Where it is.
    manifest
        What it holds.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> folder = tempfile.TemporaryDirectory()
    >>> al.datasets.simulate_tissue(n_sections=2, n_cells=50).write_h5ad(f"{folder.name}/raw.h5ad")
    >>> _ = preprocess(f"{folder.name}/raw.h5ad", f"{folder.name}/data", progress=False)
    >>> data = al.io.open_data(f"{folder.name}/data")
    >>> data.verify()
    >>> len(data.genes), len(data.sections("train"))
    (60, 2)
    >>> folder.cleanup()
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
        return [part for part in self._sections if split in (None, part.entry.split)]

    def verify(self) -> None:
        """Raise if a store is not what ``preprocess`` wrote; reads all of them."""
        for section in self._sections:
            if checksum(section.path) != section.entry.checksum:
                raise DataError(
                    f"{section.path} was altered after preprocess wrote it, or is damaged: copy "
                    "the folder again or run preprocess with --overwrite."
                )


def open_data(folder: str | Path) -> ProcessedData:
    """Open a folder that ``alphastomics preprocess`` wrote.

    Only the manifest is read; sections are read when asked for.

    Parameters
    ----------
    folder
        Folder with a ``manifest.json``.

    Returns
    -------
    ProcessedData
        What the folder holds.

    Raises
    ------
    DataError
        If there is no manifest, it was altered, a newer version wrote it, or a store is missing.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> from alphastomics.cli.preprocess import preprocess
    >>> folder = tempfile.TemporaryDirectory()
    >>> al.datasets.simulate_tissue(n_sections=2, n_cells=50).write_h5ad(f"{folder.name}/raw.h5ad")
    >>> _ = preprocess(f"{folder.name}/raw.h5ad", f"{folder.name}/data", progress=False)
    >>> data = al.io.open_data(f"{folder.name}/data")
    >>> [section.name for section in data.sections("train")]
    ['section_0', 'section_1']
    >>> data.sections()[0].expression[[3, 0, 3]].shape
    (3, 60)
    >>> folder.cleanup()
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
