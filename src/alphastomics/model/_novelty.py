"""Sections of a query that are unlike those of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from alphastomics._compat import warn
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._inference import SetReader
from alphastomics.model._task import MAX_SET, InferenceTask, inference_sets

MAX_NOVELTY = 1.25
MIN_COMPARED = 100  # cells of a section, for a mean over them


@torch.no_grad()
def mark_novel(module: MaskedDiffusionModule, task: InferenceTask) -> InferenceTask:
    """Task in which the sections unlike those of training are marked, with a warning.

    Only sections with all genes and without a known position are examined: these are placed by what
    training sections have in common. The threshold lies between new sections of tissue seen in
    training (at most 1.11) and a section on which placing is near chance (1.32); see
    docs/placement-notes.md.
    """
    if not (task.fill_position and module.reference.is_fitted):
        return task
    unframed = {name: cells for name, cells in task.unframed_sections() if len(cells)}
    novel = np.zeros(task.n_query, dtype=bool)
    reader = SetReader(module, task)
    for cell_set in inference_sets(task, MAX_SET):
        if cell_set.part or cell_set.section not in unframed:
            continue
        cells = reader.read(cell_set)
        expressed = cells.gene_known.any(-1)  # (1, N)
        is_complete = bool(cells.gene_known[expressed].all())  # as the stored cells are
        if int(expressed.sum()) < MIN_COMPARED or not is_complete:
            continue
        features = module.matcher.features(cells.expression[expressed], cells.gene_known[expressed])
        found = module.reference.novelty(features)
        if found is not None and found > MAX_NOVELTY:
            novel[unframed[cell_set.section]] = True
            warn(
                f"section {cell_set.section!r} of the query is unlike the training sections: its "
                f"cells differ {found:.2f} times as much from the most similar training cells as "
                f"cells of different training sections do (limit {MAX_NOVELTY}). They may be "
                "placed no better than by chance, and their radius, if there is one, is widened "
                "to that. Train on a section like it, or pass reference=, cells of its tissue "
                "with positions."
            )
    return replace(task, novel=novel) if novel.any() else task
