"""Queries of another platform: how they are recognized, and standardized by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from alphastomics._compat import warn
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.transforms import CHUNK, LEAST_STD
from alphastomics.model._task import InferenceTask, QueryStandards, in_words

Standardize = Literal["auto", "training", "query"]
STANDARDIZE: tuple[Standardize, ...] = ("auto", "training", "query")
SHIFTED_DEPTH = 2.5
MIN_STANDARDIZED = 100  # cells of a section, for statistics of its own
LOOKED_AT = 10_000  # cells of a section, at regular intervals


def standardize_query(
    module: MaskedDiffusionModule, task: InferenceTask, standardize: Standardize
) -> InferenceTask:
    """Task in which the genes of sections of the query are standardized by themselves.

    With ``"auto"`` these are the sections that look like another platform, see
    :func:`is_shifted`, with a warning; with ``"query"`` all sections.
    """
    if standardize == "training":
        return task
    if standardize == "query" and task.fill_expression:
        raise ValueError(
            "standardize='query' is for placing cells: expression comes back in the scale of "
            "training. Pass mode='expr_to_pos', or standardize='training'."
        )
    number, names = pd.factorize(task.data.section[: task.n_query])
    known = task.expression_known[: task.n_query] & task.in_query[: task.n_query]
    sections = [np.flatnonzero(known & (number == i)) for i in range(len(names))]
    if standardize == "auto":
        sections = [_if_shifted(module, task, cells) for cells in sections]
        if not any(map(len, sections)):
            return task
    G = module.num_genes
    shift, scale = np.zeros((len(names), G), np.float32), np.ones((len(names), G), np.float32)
    own = np.zeros(len(names), dtype=bool)
    for i, cells in enumerate(sections):
        own[i] = bool(len(cells)) or standardize == "query"
        if own[i]:
            found = section_statistics(module, task, cells)
            shift[i], scale[i] = found.mean, found.std
    return replace(task, standards=QueryStandards(shift, scale, number, own))


class SectionStatistics(NamedTuple):
    """Depth and genes of a section of the query, relative to training.

    Attributes
    ----------
    depth
        Median of the size factors of its cells.
    mean, std
        Of its genes in standardized units, ``(G,)``: 0 and 1 in training. The deviation is infinite
        for genes that do not vary.
    """

    depth: float
    mean: NDArray[np.float32]
    std: NDArray[np.float32]


@torch.no_grad()
def section_statistics(
    module: MaskedDiffusionModule, task: InferenceTask, cells: NDArray[np.int64]
) -> SectionStatistics:
    """Compute the statistics of cells of a query, a few thousand at a time."""
    data, transform = task.data, module.expression_transform
    total, square, n = torch.zeros(3, module.num_genes, dtype=torch.float64)
    depths = []
    for chunk in np.array_split(cells, max(1, -(-len(cells) // CHUNK))):
        measured = torch.from_numpy(data.measured(chunk)).to(module.device)
        values = torch.from_numpy(data.expression[chunk].toarray().astype(np.float32))
        values = values.to(module.device)
        depths.append(transform.depth(values, measured).cpu().numpy())
        z = torch.where(measured, transform(values, measured), 0.0).cpu().double()
        total, square, n = total + z.sum(0), square + z.square().sum(0), n + measured.cpu().sum(0)
    mean = total / n.clamp_min(1)
    std = (square / n.clamp_min(1) - mean.square()).clamp_min(0).sqrt()
    std = torch.where(std < LEAST_STD, torch.inf, std)
    depth = float(np.median(np.concatenate(depths))) if len(cells) else 1.0
    return SectionStatistics(depth, mean.float().numpy(), std.float().numpy())


def is_shifted(found: SectionStatistics) -> bool:
    """True if counts of a section look like another platform than training, by their depth.

    The threshold lies between sections and animals of one platform (0.6 to 1.7 times the depth of
    training) and different platforms (0.3, and 3 to 11 times); see docs/placement-notes.md.
    """
    return max(found.depth, 1 / max(found.depth, 1e-12)) > SHIFTED_DEPTH


def _if_shifted(
    module: MaskedDiffusionModule, task: InferenceTask, cells: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Cells of a section if it looks like another platform and is to be standardized, else none."""
    if len(cells) < MIN_STANDARDIZED:
        return cells[:0]
    sample = cells[:: max(1, len(cells) // LOOKED_AT)]
    found = section_statistics(module, task, sample)
    if not is_shifted(found):
        return cells[:0]
    name = task.data.section[cells[0]]
    what = (
        f"{in_words(name)} looks like another platform than the training cells: "
        f"the median depth of its cells is {found.depth:.3g} times theirs"
    )
    if task.fill_expression:
        warn(
            f"{what}. Its genes are read in the scale of training, since expression comes back in "
            "it: place these cells by mode='expr_to_pos', which standardizes them by themselves."
        )
        return cells[:0]
    warn(
        f"{what}. Its genes are standardized by themselves, and its cells are moved apart if they "
        "fill too little of a reference (estimate='mean' is not), which supposes the composition "
        "of the training sections. standardize='query' does this without a warning, "
        "standardize='training' uses the statistics of training instead."
    )
    return cells
