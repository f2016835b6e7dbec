"""Processed data as the model reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._compat import quiet, warn
from alphastomics.config import ConfigError
from alphastomics.diffusion_model.transforms import Rows
from alphastomics.io import LazyRows, ProcessedData, ProcessedSection, open_data, stack_rows
from alphastomics.model import AlphaSTomics
from alphastomics.model._data import CellTable
from alphastomics.pp._highly_variable_genes import rank_genes, residual_variance

# Sample of the training cells from which the most variable genes are chosen.
SAMPLED_CELLS = 2000  # of a section
SAMPLED_SECTIONS = 12
ATLAS_CELLS = 20_000  # for the baselines


@dataclass(frozen=True)
class _Columns:
    """Columns of rows that stay on disk."""

    rows: LazyRows
    columns: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape[0], len(self.columns)

    def __getitem__(self, cells: Any) -> sparse.csr_matrix:
        return self.rows[cells][:, self.columns]


def choose_genes(data: ProcessedData, num_genes: int | None, seed: int) -> NDArray[np.int64]:
    """Find the columns of the most variable genes in a sample of the training cells."""
    n = len(data.genes)
    if num_genes is not None and num_genes > n:
        warn(f"--num_genes {num_genes} is more than the {n} genes of the data: all are used.")
    if num_genes is None or num_genes >= n:
        return np.arange(n)
    rng = np.random.default_rng(seed)
    sections = data.sections("train")
    variances = {}
    for i in rng.permutation(len(sections))[:SAMPLED_SECTIONS]:
        section = sections[i]
        cells = rng.permutation(len(section.expression))[:SAMPLED_CELLS]
        variances[section.name] = residual_variance(
            section.expression[np.sort(cells)], section.measured, data.manifest.values
        )
    return np.flatnonzero(rank_genes(variances, num_genes)["highly_variable"])


def columns_of(data: ProcessedData, genes: pd.Index) -> NDArray[np.int64]:
    """Columns of the genes of a model; raise if the data lack any."""
    lacking = genes[~genes.isin(data.genes)]
    if len(lacking):
        raise ConfigError(
            f"--data_dir: {data.folder} lacks {len(lacking)} of the model's {len(genes)} genes, "
            f"{lacking[0]!r} among them."
        )
    return np.asarray(data.genes.get_indexer(genes), dtype=np.int64)


def _training_sections(data: ProcessedData) -> list[ProcessedSection]:
    """Sections to train and to validate on."""
    return [*data.sections("train"), *data.sections("val")]


def _without_expression(
    data: ProcessedData, sections: list[ProcessedSection], keys: list[str] | None = None
) -> ad.AnnData:
    """AnnData of sections with empty expression, with columns of their tables or all and names."""
    manifest = data.manifest
    tables, positions = [], []
    for section in sections:
        table = section.obs if keys is None else section.obs[section.obs.columns.intersection(keys)]
        tables.append(table.assign(**{_keys.SECTION: section.name}))
        missing = np.full((len(table), manifest.n_dims), np.nan)
        positions.append(missing if section.position is None else section.position)
    obs = pd.concat(tables, ignore_index=keys is not None)
    obs.index = make_index_unique(obs.index.astype(str))
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
    if manifest.units is not None:
        cells.uns[_keys.UNITS] = manifest.units
    return cells


def set_up(data: ProcessedData, columns: NDArray[np.int64]) -> tuple[ad.AnnData, Rows]:
    """Cells for ``AlphaSTomics(cells)``, set up, and their expression on disk."""
    manifest = data.manifest
    keys = [manifest.labels_key, manifest.batch_key, _keys.EXPRESSION_KNOWN]
    sections = _training_sections(data)
    cells = _without_expression(data, sections, [key for key in keys if key is not None])
    cells = cells[:, columns].copy()
    with quiet("alphastomics"):  # its line names a method; `info` describes the data
        AlphaSTomics.setup_anndata(
            cells,
            values=manifest.values,
            labels_key=manifest.labels_key,
            batch_key=manifest.batch_key,
        )
    rows = stack_rows([section.expression for section in sections])
    is_whole = np.array_equal(columns, np.arange(len(data.genes)))
    return cells, rows if is_whole else _Columns(rows, columns)


def training_data(
    model: AlphaSTomics, data: ProcessedData, cells: ad.AnnData, expression: Rows
) -> CellTable:
    """Training cells of ``model`` with their expression and blocks on disk."""
    sizes = np.concatenate([np.diff(section.blocks) for section in _training_sections(data)])
    block = np.repeat(np.arange(len(sizes)), sizes)
    return replace(model._read_training(cells), expression=expression, block=block)


def read_section(section: ProcessedSection, genes: pd.Index, units: str | None) -> ad.AnnData:
    """Read a section with its expression, those of ``genes`` that it measures."""
    cells = ad.AnnData(
        section.expression[:], obs=section.obs.copy(), var=pd.DataFrame(index=section.genes)
    )
    if section.position is not None:
        cells.obsm[_keys.SPATIAL] = section.position
    cells.obs[_keys.SECTION] = section.name
    if units is not None:
        cells.uns[_keys.UNITS] = units
    return cells[:, genes[genes.isin(section.genes[section.measured])]].copy()


def read_sections(folder: Path) -> ad.AnnData:
    """Read all sections of processed data; positions are NaN in those without."""
    data = open_data(folder)
    sections = data.sections()
    cells = _without_expression(data, sections)
    cells.X = sparse.vstack([section.expression[:] for section in sections], format="csr")
    return cells


def read_atlas(data: ProcessedData, genes: pd.Index) -> ad.AnnData:
    """Read training sections with all genes until there are enough cells for baselines."""
    parts: list[ad.AnnData] = []
    for section in data.sections("train"):
        if sum(part.n_obs for part in parts) >= ATLAS_CELLS:
            break
        if section.entry.has_coordinates and section.measured.all():
            parts.append(read_section(section, genes, data.manifest.units))
    if not parts:  # every training section lacks a gene, and there are no baselines
        nobody = pd.DataFrame(
            {_keys.SECTION: pd.Series([], dtype=str)}, index=pd.Index([], dtype=str)
        )
        var = pd.DataFrame(index=genes)
        return ad.AnnData(sparse.csr_matrix((0, len(genes)), dtype=np.float32), nobody, var)
    atlas = ad.concat(parts, index_unique="-", keys=[str(i) for i in range(len(parts))])
    return atlas[:, genes].copy()
