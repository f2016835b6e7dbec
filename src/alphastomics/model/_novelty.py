"""Sections of a query that are unlike those of training, or unlike their reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from alphastomics._compat import warn
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._set_reader import SetReader
from alphastomics.model._sets import inference_sets
from alphastomics.model._task import MAX_SET, InferenceTask, in_words
from alphastomics.priors.reference_matching import most_similar

MAX_NOVELTY = 1.25  # relative to that of another section of training
MIN_CORRELATION = 0.9  # of mean expression with that of a single section of training
MAX_DISTANCE = 2.0  # from a reference, relative to that of its cells from each other
MIN_COMPARED = 100  # cells of a section, for a mean over them
MAX_COMPARED = 4096  # reference cells


@torch.no_grad()
def mark_novel(module: MaskedDiffusionModule, task: InferenceTask) -> InferenceTask:
    """Task in which the sections unlike those of training are marked, with a warning.

    Sections without a known position are compared with those of training, others with the
    ``reference``, for which there is a warning only; in both cases only sections with all genes.
    The first limit lies between new sections of tissue seen in training (at most 1.11) and one on
    which placing is near chance (1.32). With a single training section that score does not exist:
    the correlation of mean expression is at least .94 for the former, at most .88 for the latter.
    The last limit lies between references of another animal (at most 1.64) and the anterior half of
    an embryo for its posterior one (5.8); see docs/placement-notes.md.
    """
    if not task.fill_position:
        return task
    unframed = dict(task.unframed_sections())
    has_reference = bool(task.position_known[task.n_query :].any())
    novel = np.zeros(task.n_query, dtype=bool)
    reader = SetReader(module, task)
    for cell_set in inference_sets(task, MAX_SET):
        is_unframed = cell_set.section in unframed
        if cell_set.part or not (module.reference.is_fitted if is_unframed else has_reference):
            continue
        cells = reader.read(cell_set)
        expressed = cells.gene_known.any(-1)  # (1, N)
        if not bool(cells.gene_known[expressed].all()):  # stored cells have all genes
            continue
        features = module.matcher.features(cells.expression[expressed], cells.gene_known[expressed])
        known = cells.position_known[expressed]
        if is_unframed:
            novel[unframed[cell_set.section]] = _is_novel(
                module, features, cells.expression[expressed], cell_set.section
            )
        elif task.standards is None or not task.standards.is_own(int(cell_set.targets[0])):
            _warn_uncovered(features[~known], features[known], cell_set.section)
    return replace(task, novel=novel) if novel.any() else task


def _is_novel(
    module: MaskedDiffusionModule, cells: Tensor, expression: Tensor, section: str
) -> bool:
    """True, with a warning, if cells are unlike those of training.

    They have features ``(N, D)`` and standardized expression ``(N, G)``.
    """
    if len(cells) < MIN_COMPARED:
        return False
    found = module.reference.novelty(cells)
    if found is None:
        return _has_other_means(module, expression, section)
    if found <= MAX_NOVELTY:
        return False
    warn(
        f"{in_words(section)} is unlike the training sections: its cells differ "
        f"{found:.2f} times as much from the most similar training cells as cells of different "
        f"training sections do (limit {MAX_NOVELTY}). They may be placed no better than by "
        "chance, and their radius, if there is one, is widened to that. Train on a section like "
        "it, or pass reference=, cells of its tissue with positions."
    )
    return True


def _has_other_means(module: MaskedDiffusionModule, expression: Tensor, section: str) -> bool:
    """True, with a warning, if mean expression is unlike that of the only training section."""
    transform = module.expression_transform
    if transform.values != "counts":  # means of values that may be centered say nothing
        return False
    means = torch.stack([transform.inverse(expression).mean(0), transform.mean])  # (2, G)
    found = float(torch.corrcoef(means)[0, 1])
    if not found < MIN_CORRELATION:
        return False
    warn(
        f"{in_words(section)} is unlike the training section: its mean expression "
        f"correlates {found:.2f} with that of training (limit {MIN_CORRELATION}). If these cells "
        "are a selection of types, expect this. If they are of another region, they may be placed "
        "no better than by chance: train on a section like it, or pass reference=, cells of its "
        "tissue with positions."
    )
    return True


def _warn_uncovered(cells: Tensor, reference: Tensor, section: str) -> None:
    """Warn if cells with features ``(N, D)`` lack similar ones among the reference ``(M, D)``."""
    if min(len(cells), len(reference)) < MIN_COMPARED:
        return
    reference = reference[:: -(-len(reference) // MAX_COMPARED)]
    within = 1 - most_similar(reference, reference, 2).values[:, 1]  # the first is the cell itself
    across = 1 - most_similar(cells, reference, 1).values
    found = float(across.mean() / within.mean().clamp_min(1e-6))
    if found > MAX_DISTANCE:
        warn(
            f"{in_words(section)} is unlike the reference: its cells differ "
            f"{found:.2f} times as much from the most similar reference cells as those do from "
            f"each other (limit {MAX_DISTANCE}). Cells from parts of the tissue that the reference "
            "does not cover are placed within it, wrongly: pass a reference that covers them."
        )
