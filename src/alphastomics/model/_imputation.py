"""Imputation of genes: the network stacked with estimators in closed form."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._data import CellTable, concatenate, without_genes
from alphastomics.model._inference import Estimates, predict_missing
from alphastomics.model._task import InferenceTask
from alphastomics.priors.stacking import (
    GeneTransfer,
    StackingFit,
    features,
    log_normalized,
    stacked,
    surroundings,
    z_scores,
)

Cells = NDArray[np.int64]
Genes = NDArray[np.int64]

FOLDS = 5  # in which visible genes are hidden
HIDDEN_AT_A_TIME = 64  # genes of a fold, at most
LEARNING_CELLS = 6000  # of a section, by which weights are learned
LEAST_CELLS, LEAST_GENES = 100, 10  # of a section, for weights of its own
CHUNK = 16_384


class Training(NamedTuple):
    """Cells of which the genes to impute are known, as measured ``(m, G)``, and their genes."""

    values: NDArray[np.float32]
    genes: NDArray[np.bool_]


def impute_missing(
    module: MaskedDiffusionModule,
    task: InferenceTask,
    imputed: Genes,
    *,
    max_cells: int,
    progress_bar: bool,
) -> Estimates:
    """Conditional means of the genes to impute, by the network and by closed forms.

    Every section of the query with enough cells and known genes is standardized by itself; what
    each estimator counts for is learned on visible genes, hidden in turn. The mean of a gene over a
    section is that of the network, which alone estimates all other cells.

    Parameters
    ----------
    module, task
        The network, and the task in which the genes are unknown.
    imputed
        Numbers of the genes to impute.
    max_cells, progress_bar
        As of :func:`predict_missing`.
    """
    estimates = predict_missing(
        module, task, arrange=False, max_cells=max_cells, progress_bar=progress_bar
    )
    training = _training_cells(module, imputed)
    if training is None or estimates.expression is None:
        return estimates
    for cells in _sections(task):
        known = task.data.panels[task.data.panel[cells[0]]] & training.genes
        known[imputed] = False
        if known.sum() < LEAST_GENES:
            continue
        section = _Section(module, task, training, cells, np.flatnonzero(known), max_cells)
        network = estimates.expression[np.ix_(cells, imputed)]
        found = section.impute(imputed, network)
        if module.has_no_negative_values:
            found = found.clip(0)
        estimates.expression[np.ix_(cells, imputed)] = found
    return estimates


def _training_cells(module: MaskedDiffusionModule, imputed: Genes) -> Training | None:
    """Stored cells of training that measure all genes to impute; ``None`` if they are few."""
    values, genes = [], np.ones(module.num_genes, dtype=bool)
    for store in (module.donors, module.examples):
        panels = store.panels.cpu().numpy()
        measures = panels[:, imputed].all(1)
        cells = np.flatnonzero(measures[store.panel.cpu().numpy()])
        values.append(store.measurement(torch.from_numpy(cells)).values.numpy())
        genes &= panels[np.unique(store.panel.cpu().numpy()[cells])].all(0)
    if sum(map(len, values)) < LEAST_CELLS:
        return None
    return Training(np.concatenate(values), genes)


def _sections(task: InferenceTask) -> Iterator[Cells]:
    """Cells of the query with known expression, by section and panel, in the order of names."""
    data = task.data
    order = np.argsort(data.names[: task.n_query], kind="stable")
    total = np.asarray(abs(data.expression[: task.n_query]).sum(1)).ravel()
    used = task.in_query[order] & task.expression_known[order] & (total[order] > 0)
    order = order[used]
    groups = pd.DataFrame({"section": data.section[order], "panel": data.panel[order]})
    for rows in groups.groupby(["section", "panel"], sort=True).indices.values():
        if len(rows) >= LEAST_CELLS:
            yield order[rows]


class _Section:
    """Cells of one section and panel of the query, and how to stack their estimates.

    Parameters
    ----------
    module, task, training
        The network, the task, and cells that have the genes to impute.
    cells
        Of the section.
    known
        Numbers of the genes that both they and the training cells have.
    max_cells
        As of :func:`predict_missing`.
    """

    def __init__(
        self,
        module: MaskedDiffusionModule,
        task: InferenceTask,
        training: Training,
        cells: Cells,
        known: Genes,
        max_cells: int,
    ) -> None:
        self.module, self.task, self.training = module, task, training
        self.cells, self.known, self.max_cells = cells, known, max_cells
        self.kind = module.expression_transform.values
        self.rng = np.random.default_rng(zlib.crc32(str(task.data.section[cells[0]]).encode()))

    def impute(self, imputed: Genes, network: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-normalized values ``(n, H)`` of genes that the network estimates as ``network``."""
        transform = self.module.expression_transform
        mean, std = (part.cpu().numpy()[imputed] for part in (transform.mean, transform.std))
        std = np.where(np.isfinite(std), std, 0)
        weights = self._weights()
        estimates = self._estimates(self.cells, self.known, imputed)
        around = surroundings(self._position(self.cells))
        return network.mean(0) + std * stacked(estimates, around, weights)

    def _position(self, cells: Cells) -> NDArray[np.float64]:
        known = self.task.position_known[cells, None]
        return np.where(known, self.task.data.position[cells], np.nan)

    def _estimates(self, cells: Cells, known: Genes, hidden: Genes) -> NDArray[np.float32]:
        """Estimates of every estimator in standardized units, ``(C, n, H)``."""
        fitted = self.training.values
        total = fitted[:, known].sum(1)
        visible, lacking = (
            log_normalized(fitted[:, genes], total, self.kind) for genes in (known, hidden)
        )
        values = self.task.data.expression[cells][:, known].toarray()
        return GeneTransfer.fit(visible, lacking)(log_normalized(values, values.sum(1), self.kind))

    def _weights(self) -> NDArray[np.float64]:
        """Weights of the estimators, learned by hiding genes that are known."""
        cells = self._learning_cells()
        around = surroundings(self._position(cells))
        values = self.task.data.expression[cells][:, self.known].toarray()
        truth = z_scores(log_normalized(values, values.sum(1), self.kind))
        fit = StackingFit()
        for fold in np.array_split(self.rng.permutation(len(self.known)), FOLDS):
            fold = np.sort(fold[:HIDDEN_AT_A_TIME])
            hidden, visible = self.known[fold], np.delete(self.known, fold)
            estimates = self._estimates(cells, visible, hidden)
            fit.add(features(estimates, around), truth[:, fold])
        return fit.weights()

    def _learning_cells(self) -> Cells:
        """Cells that weights are learned by: all, or those nearest to a random one."""
        cells = self.cells
        if len(cells) <= LEARNING_CELLS:
            return cells
        position = self._position(cells)
        located = np.flatnonzero(np.isfinite(position).all(1))
        if len(located) < LEARNING_CELLS:
            chosen = self.rng.permutation(len(cells))[:LEARNING_CELLS]
        else:
            center = position[self.rng.choice(located)]
            distance = np.square(position[located] - center).sum(1)
            chosen = located[np.argsort(distance, kind="stable")[:LEARNING_CELLS]]
        return cells[np.sort(chosen)]
