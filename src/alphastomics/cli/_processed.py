"""Processed data as the model learns from them, expression left on disk."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics.diffusion_model.transforms import Rows
from alphastomics.io import LazyRows, ProcessedData, ProcessedSection, stack_rows
from alphastomics.model import AlphaSTomics
from alphastomics.model._data import CellTable
from alphastomics.pp._highly_variable_genes import rank_genes, residual_variance

CELLS_TO_CHOOSE_BY = 2000  # of a section, when the most variable genes are chosen
SECTIONS_TO_CHOOSE_BY = 12


@dataclass(frozen=True)
class _SomeColumns:
    """Some genes of rows that are read when asked for."""

    rows: LazyRows
    columns: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape[0], len(self.columns)

    def __getitem__(self, cells: Any) -> sparse.csr_matrix:
        return self.rows[cells][:, self.columns]


def choose_genes(data: ProcessedData, num_genes: int | None, seed: int) -> NDArray[np.int64]:
    """Find the columns of the most variable genes, of a sample of the training cells."""
    n = len(data.genes)
    if num_genes is not None and num_genes > n:
        warnings.warn(
            f"--num_genes {num_genes} is more than the {n} genes of the data: all are used.",
            UserWarning,
            stacklevel=2,
        )
    if num_genes is None or num_genes >= n:
        return np.arange(n)
    rng = np.random.default_rng(seed)
    sections = data.sections("train")
    variances = {}
    for i in rng.permutation(len(sections))[:SECTIONS_TO_CHOOSE_BY]:
        section = sections[i]
        cells = rng.permutation(section.expression.shape[0])[:CELLS_TO_CHOOSE_BY]
        variances[section.name] = residual_variance(
            section.expression[np.sort(cells)], section.measured, data.manifest.values
        )
    return np.flatnonzero(rank_genes(variances, num_genes)["highly_variable"])


def without_expression(data: ProcessedData, sections: list[ProcessedSection]) -> ad.AnnData:
    """Everything of some sections but their expression, which is left empty."""
    tables, positions = [], []
    for section in sections:
        n = section.expression.shape[0]
        keys = [data.manifest.labels_key, data.manifest.batch_key, _keys.EXPRESSION_KNOWN]
        kept = section.obs[[key for key in keys if key is not None and key in section.obs]]
        tables.append(kept.assign(**{_keys.SECTION: section.name}))
        missing = np.full((n, data.manifest.n_dims), np.nan)
        positions.append(missing if section.position is None else section.position)
    obs = pd.concat(tables, ignore_index=True)
    obs.index = obs.index.astype(str)
    if _keys.EXPRESSION_KNOWN in obs:
        obs[_keys.EXPRESSION_KNOWN] = obs[_keys.EXPRESSION_KNOWN].fillna(True).astype(bool)
    cells = ad.AnnData(
        sparse.csr_matrix((len(obs), len(data.genes)), dtype=np.float32),
        obs=obs,
        var=pd.DataFrame(index=data.genes),
        obsm={_keys.SPATIAL: np.concatenate(positions)},
    )
    if not all(section.measured.all() for section in sections):
        cells.varm[_keys.MEASURED] = pd.DataFrame(
            {section.name: section.measured for section in sections}, index=data.genes
        )
    return cells


def _learned_from(data: ProcessedData) -> list[ProcessedSection]:
    """Sections to train and to validate on."""
    return [*data.sections("train"), *data.sections("val")]


def set_up(data: ProcessedData, columns: NDArray[np.int64]) -> tuple[ad.AnnData, Rows]:
    """Cells for ``AlphaSTomics(cells)``, set up, and their expression on disk."""
    sections = _learned_from(data)
    cells = without_expression(data, sections)[:, columns].copy()
    manifest = data.manifest
    AlphaSTomics.setup_anndata(
        cells,
        values=manifest.values,
        labels_key=manifest.labels_key,
        batch_key=manifest.batch_key,
    )
    rows = stack_rows([section.expression for section in sections])
    if len(columns) == len(data.genes):
        return cells, rows
    return cells, _SomeColumns(rows, columns)


def blocks(sections: list[ProcessedSection]) -> NDArray[np.int64]:
    """Find the block of every cell of several sections, ``(n,)``."""
    numbers, first = [], 0
    for section in sections:
        sizes = np.diff(section.blocks)
        numbers.append(first + np.repeat(np.arange(len(sizes)), sizes))
        first += len(sizes)
    return np.concatenate(numbers)


def training_data(
    model: AlphaSTomics, data: ProcessedData, cells: ad.AnnData, expression: Rows
) -> CellTable:
    """Give what ``model`` learns from: ``cells`` with their expression on disk."""
    read = model._read_training(cells)
    return replace(read, expression=expression, block=blocks(_learned_from(data)))
