"""Imputation of genes: estimators in closed form, stacked for each section of the query."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.rounds import DrawSettings
from alphastomics.model._draws import draw_missing
from alphastomics.model._inference import Estimates, Execution, predict_missing
from alphastomics.model._task import InferenceTask
from alphastomics.priors.stacking import (
    GeneTransfer,
    StackingFit,
    features,
    log_normalized,
    stacked,
    surrounding_reference,
    surroundings,
    z_scores,
)

Cells = NDArray[np.int64]
Genes = NDArray[np.int64]
Values = NDArray[np.float32]

FOLDS = 5  # in which visible genes are hidden
HIDDEN_AT_A_TIME = 64  # genes of a fold, at most
LEARNING_CELLS = 6000  # of a section, by which weights are learned
LEAST_CELLS, LEAST_GENES = 100, 10  # of a section, for weights of its own
LEAST_REFERENCE = 50  # reference cells, to standardize their genes


class Expression(NamedTuple):
    """Cells of one data set as measured, ``(n, G)``, and the kind of the values."""

    values: Values
    kind: str

    def logged(self, genes: Genes, counted: Genes) -> Values:
        """Log-normalized genes ``(n, len(genes))``, by the total of the ``counted`` ones."""
        total = self.values[:, counted].sum(1)
        return log_normalized(self.values[:, genes], total, self.kind)


def impute_missing(
    module: MaskedDiffusionModule,
    task: InferenceTask,
    imputed: Genes,
    execution: Execution,
    *,
    draw: tuple[DrawSettings, int] | None = None,
) -> Estimates:
    """Conditional means of the genes to impute, or a draw of the network.

    Every section of the query is standardized by itself, and what each estimator counts for is
    learned on its visible genes, hidden in turn. The mean of a gene over a section is that of the
    network, which alone estimates sections with few cells or few known genes, and cells without
    counts.

    Parameters
    ----------
    module, task
        The network, and the task in which the genes are unknown.
    imputed
        Numbers of the genes to impute.
    execution
        How the network is computed.
    draw
        Settings and seed of a draw; ``None`` for means.
    """
    if draw is not None:
        settings, seed = draw
        return draw_missing(module, task, settings, execution, seed=seed)[0]
    estimates = predict_missing(module, task, execution, arrange=False)
    assert estimates.expression is not None
    training, measured = _training_cells(module, imputed)
    if len(training.values) < LEAST_CELLS:
        return estimates
    std = module.expression_transform.std.cpu().numpy()[imputed]
    std = np.where(np.isfinite(std), std, 0)  # of genes that did not vary
    for cells in _sections(task):
        known = task.data.panels[task.data.panel[cells[0]]] & measured
        known[imputed] = False
        if known.sum() < LEAST_GENES:
            continue
        at = np.ix_(cells, imputed)
        deviation = _deviations(task, training, cells, np.flatnonzero(known), imputed)
        found = estimates.expression[at].mean(0) + std * deviation
        estimates.expression[at] = found.clip(0) if module.has_no_negative_values else found
    return estimates


class Known(NamedTuple):
    """Training and reference cells from which genes of a section are estimated.

    Attributes
    ----------
    training
        Cells that have the visible and the hidden genes.
    reference
        Those with positions in the frame of the section; ``None`` without any.
    place
        Positions of the reference, ``(m, d)``.
    """

    training: Expression
    reference: Expression | None
    place: NDArray[np.float64]

    def estimates(
        self, query: Expression, position: NDArray[np.float64], visible: Genes, hidden: Genes
    ) -> Values:
        """Estimates of every estimator in standardized units, ``(C, n, H)``."""
        transfer = GeneTransfer.fit(
            self.training.logged(visible, visible), self.training.logged(hidden, visible)
        )
        found = transfer(query.logged(visible, visible))
        if self.reference is None:
            return found
        values = z_scores(self.reference.logged(hidden, visible))
        near = surrounding_reference(position, self.place)
        return np.concatenate([found, np.stack([average @ values for average in near])])


def _reference(
    task: InferenceTask, kind: str, genes: Genes
) -> tuple[Expression | None, NDArray[np.float64]]:
    """Reference cells with positions that measure all of some genes, and these positions."""
    cells = np.arange(task.n_query, task.n)
    cells = cells[task.position_known[cells] & task.expression_known[cells]]
    measures = np.asarray(task.data.panels[:, genes].all(axis=1))
    cells = cells[measures[task.data.panel[cells]]]
    place = task.data.position[cells]
    if len(cells) < LEAST_REFERENCE:
        return None, place
    return Expression(task.data.expression[cells].toarray().astype(np.float32), kind), place


def _training_cells(
    module: MaskedDiffusionModule, imputed: Genes
) -> tuple[Expression, NDArray[np.bool_]]:
    """Stored cells of training that measure the genes to impute, and which genes all measure."""
    values, genes = [], np.ones(module.num_genes, dtype=bool)
    for store in (module.donors, module.examples):
        panels, panel = store.panels.cpu().numpy(), store.panel.cpu().numpy()
        measures = np.asarray(panels[:, imputed].all(axis=1))
        cells = np.flatnonzero(measures[panel])
        values.append(store.measurement(torch.from_numpy(cells)).values.numpy())
        genes &= panels[np.unique(panel[cells])].all(axis=0)
    return Expression(np.concatenate(values), module.expression_transform.values), genes


def _sections(task: InferenceTask) -> Iterator[Cells]:
    """Cells of the query with known expression, by section and panel, in the order of names."""
    data = task.data
    order = np.argsort(data.names[: task.n_query], kind="stable")
    total = np.asarray(abs(data.expression[: task.n_query]).sum(1)).ravel()
    order = order[task.in_query[order] & task.expression_known[order] & (total[order] > 0)]
    groups = pd.DataFrame({"section": data.section[order], "panel": data.panel[order]})
    for rows in groups.groupby(["section", "panel"], sort=True).indices.values():
        if len(rows) >= LEAST_CELLS:
            yield order[rows]


def _deviations(
    task: InferenceTask, training: Expression, cells: Cells, known: Genes, imputed: Genes
) -> Values:
    """Deviations of genes from their mean over a section, in those of training, ``(n, H)``."""
    rng = np.random.default_rng(zlib.crc32(str(task.data.section[cells[0]]).encode()))
    placed = task.position_known[cells, None]
    position = np.where(placed, task.data.position[cells], np.nan)
    query = Expression(task.data.expression[cells].toarray().astype(np.float32), training.kind)
    source = Known(training, *_reference(task, training.kind, np.concatenate([known, imputed])))
    learned = _learning_cells(position, rng)
    weights = _weights(
        Expression(query.values[learned], query.kind), source, position[learned], known, rng
    )
    estimates = source.estimates(query, position, known, imputed)
    return stacked(estimates, surroundings(position), weights)


def _learning_cells(position: NDArray[np.float64], rng: np.random.Generator) -> Cells:
    """Cells that weights are learned by: all, or those nearest to a random one."""
    located = np.flatnonzero(np.isfinite(position).all(1))
    if len(position) <= LEARNING_CELLS:
        return np.arange(len(position))
    if len(located) < LEARNING_CELLS:
        return np.sort(rng.permutation(len(position))[:LEARNING_CELLS])
    distance = np.square(position[located] - position[rng.choice(located)]).sum(1)
    return np.sort(located[np.argsort(distance, kind="stable")[:LEARNING_CELLS]])


def _weights(
    query: Expression,
    source: Known,
    position: NDArray[np.float64],
    known: Genes,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Weights of the estimators, learned by hiding genes that are known."""
    around = surroundings(position)
    truth = z_scores(query.logged(known, known))
    fit = StackingFit()
    for fold in np.array_split(rng.permutation(len(known)), FOLDS):
        hidden = np.sort(fold[:HIDDEN_AT_A_TIME])
        visible = np.delete(known, hidden)
        estimates = source.estimates(query, position, visible, known[hidden])
        fit.add(features(estimates, around), truth[:, hidden])
    return fit.weights()
