"""Estimates of expression that is known but hidden, on which intervals are calibrated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from alphastomics._anndata import Mask
from alphastomics._coordinates import is_known
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.transforms import ExpressionTransform
from alphastomics.model._data import CellTable, without_genes
from alphastomics.model._imputation import impute_missing
from alphastomics.model._inference import Execution, predict_missing
from alphastomics.model._intervals import Pattern, Scored
from alphastomics.model._task import MAX_PLACED_SET, InferenceTask, imputation_task

GENE_FOLDS = 5
KNOWN_SHARE = 0.5  # of the cells around those whose expression is hidden
MOST_VALUES, MOST_CELLS, FEWEST_CELLS = 4_000_000, 2048, 512  # of a section
N_WINDOWS = 4
Cells = NDArray[np.int64]


def estimates_of_hidden(
    module: MaskedDiffusionModule,
    section: CellTable,
    trained: Mask,
    units: ExpressionTransform,
    seed: int,
) -> dict[Pattern, Scored]:
    """Estimates and truth of the expression of a section that was not in training.

    Genes are hidden a fifth at a time, given the others, with and without the positions; then
    all genes of half of the cells, given their positions and the other half.

    Parameters
    ----------
    module
        The network.
    section
        Cells of a section.
    trained
        Cells that the network was trained on, ``(n,)``: never scored, but the half that is known.
        Where there are none, half of the cells are known.
    units
        Transform in whose units the values are wanted.
    seed
        Of what is hidden.
    """
    by_name = np.argsort(section.names, kind="stable")  # whatever the order of the cells
    rng = np.random.default_rng([seed, 1])
    n_most = int(np.clip(MOST_VALUES // module.num_genes, FEWEST_CELLS, MOST_CELLS))
    chosen = by_name[_dense_sample(section.position[by_name], n_most, rng)]
    # Types are a condition where they are known, and then estimates are better.
    data = section.subset(chosen)
    data = replace(data, label=np.zeros_like(data.label))
    trained = trained[chosen]
    new = data.subset(np.flatnonzero(~trained & data.expression_known))
    nowhere = replace(new, position=np.full_like(new.position, np.nan))
    located = data.has_position & data.expression_known
    known = trained if trained.any() else rng.random(len(chosen)) < KNOWN_SHARE
    folds = np.array_split(rng.permutation(module.num_genes), min(GENE_FOLDS, module.num_genes))
    found: dict[Pattern, Scored] = {"genes": _without_genes(module, nowhere, folds)}
    if new.has_position.any():
        found["genes_at_positions"] = _without_genes(module, new, folds)
    if (located & known).any() and (located & ~known).any():
        cells = np.flatnonzero(located)
        found["positions"] = _at_positions(module, data.subset(cells), known[cells])
    return {pattern: _in_units(scored, module, units) for pattern, scored in found.items()}


def _dense_sample(position: NDArray[np.float64], n_most: int, rng: np.random.Generator) -> Cells:
    """All cells of a section, or those nearest to a few random ones, as dense as the section."""
    n = len(position)
    if n <= n_most:
        return np.arange(n)
    located = np.flatnonzero(is_known(position))
    if len(located) < n_most:
        return np.sort(rng.permutation(n)[:n_most])
    centers = rng.permutation(located)[:N_WINDOWS]
    size = n_most // N_WINDOWS
    _, near = KDTree(position[located]).query(position[centers], size)
    return np.unique(located[near])


def _without_genes(
    module: MaskedDiffusionModule, data: CellTable, folds: Iterable[Cells]
) -> Scored:
    """Estimates of genes given the others, a fold of them hidden at a time."""
    shape = (len(data.names), module.num_genes)
    scored = Scored(np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32))
    for fold in folds:
        hidden = np.isin(np.arange(module.num_genes), fold)
        visible = without_genes(data, hidden)
        counts = np.asarray((visible.expression[:] != 0).sum(1)).ravel()
        cells = np.flatnonzero((counts > 0) | data.has_position)
        if not len(cells):
            continue
        task = imputation_task(visible.subset(cells), None)
        found = impute_missing(module, task, fold, Execution(MAX_PLACED_SET)).expression
        assert found is not None
        scored.estimate[np.ix_(cells, fold)] = found[:, fold]
        scored.truth[np.ix_(cells, fold)] = _logged(module, data.subset(cells), ~hidden)[:, fold]
    return scored


def _at_positions(module: MaskedDiffusionModule, data: CellTable, known: Mask) -> Scored:
    """Estimates of cells with a position, given the expression of others, ``known`` ``(n,)``."""
    task = InferenceTask(
        data,
        len(data.names),
        position_known=data.has_position,
        expression_known=known,
        fill_position=False,
        fill_expression=True,
    )
    estimate = predict_missing(module, task, Execution(MAX_PLACED_SET), arrange=False).expression
    assert estimate is not None
    estimate[known] = np.nan
    return Scored(estimate, _logged(module, data, np.ones(module.num_genes, dtype=bool)))


@torch.inference_mode()
def _logged(module: MaskedDiffusionModule, data: CellTable, counted: Mask) -> NDArray[np.float32]:
    """Log-normalized values ``(n, G)`` at the depth of the counted genes, NaN if not measured."""
    transform = module.expression_transform
    measured = data.measured(np.arange(len(data.names)))
    values = torch.from_numpy(data.expression[:].toarray().astype(np.float32))
    is_counted = torch.from_numpy(measured & counted)
    values, is_counted = values.to(module.device), is_counted.to(module.device)
    depth = torch.where(is_counted.any(-1), transform.depth(values, is_counted), 1.0)
    logged = transform.log_at_depth(values, depth).cpu().numpy()
    return np.where(measured, logged, np.nan).astype(np.float32)


def _in_units(scored: Scored, module: MaskedDiffusionModule, units: ExpressionTransform) -> Scored:
    """Values relative to the median depth of another training."""
    own = module.expression_transform
    if own.values != "counts" or own is units:
        return scored
    ratio = float(units.median_total / own.median_total)
    return Scored(*(np.log1p(np.expm1(values) * ratio) for values in scored))
