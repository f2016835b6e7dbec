"""Sets of cells in which an inference task is computed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import KDTree

from alphastomics.diffusion_model.batch import SECTION, WINDOW
from alphastomics.model._task import InferenceTask

MAX_SUPPORT = 8192
SUPPORT_PER_CELL = 4  # of a set
MAX_LANDMARKS = 1024
SHARED_CONTEXT = 4  # the context that all parts of a section share is 1 / 4 of a set
Cells = NDArray[np.int64]


class InferenceSet(NamedTuple):
    """Cells that attend to each other in one pass of the network.

    Attributes
    ----------
    section, part
        Part ``part`` of a section of the query.
    cells
        Indices into the cells of the task, ``(N,)``: those to fill in and their context.
    fill
        Which of them are to be filled in, ``(N,)``.
    scope
        Whether they are a random part of the section or a window of it.
    support
        Known cells that the others are only matched with, ``(M,)``.
    landmarks
        Known cells that fix the frame of the section, the same for all its parts, ``(L,)``.
    leads
        Whether the other parts of the section end with these cells, their context.
    """

    section: str
    part: int
    cells: Cells
    fill: NDArray[np.bool_]
    scope: int
    support: Cells
    landmarks: Cells
    leads: bool = False

    @property
    def targets(self) -> Cells:
        """Cells to fill in."""
        return self.cells[self.fill]

    @property
    def with_support(self) -> Cells:
        """Cells and then the support set, ``(N + M,)``."""
        return np.concatenate([self.cells, self.support])


def inference_sets(
    task: InferenceTask, max_cells: int, *, shared_context: bool = False
) -> Iterator[InferenceSet]:
    """Cut the sections of a query into sets of at most ``max_cells`` cells.

    Every section of the query is filled in by itself, with the whole reference as its context.
    Cells are taken in the order of their names, so that the order of the input changes nothing.

    A section that does not fit one set is divided at random into parts of equal size, each a fair
    sample of it, with a sample of the known cells; where all positions are known and some
    expression is, it is cut into windows instead, because near cells are the most informative.

    With ``shared_context``, the first part of a section without known positions is a sample of a
    quarter of a set, which is the context of all other parts.
    """
    data, to_fill = task.data, task.to_fill
    n_support = min(MAX_SUPPORT, SUPPORT_PER_CELL * max_cells)
    order = np.argsort(data.names, kind="stable")
    is_query, reference = task.in_query[order], order[order >= task.n_query]
    for section in sorted(pd.unique(data.section[: task.n_query])):
        members = order[is_query & (data.section[order] == section)]
        fill = members[to_fill[members]]
        if not len(fill):
            continue
        context = np.concatenate([members[~to_fill[members]], reference])
        # By the name, so that other sections and the order of cells change nothing.
        rng = np.random.default_rng(zlib.crc32(section.encode()))
        placed = bool(task.position_known[fill].all())
        both_known = task.position_known[context] & task.expression_known[context]
        # Only cells that are placed are matched, with known cells beyond those of their set too.
        to_compare = context[both_known & (not placed)]
        located = np.concatenate([members, reference])
        landmarks = rng.permutation(located[task.position_known[located]])[:MAX_LANDMARKS]
        leads = False
        if len(fill) + len(context) <= max_cells:
            parts = [(fill, context)]
            scope = SECTION
        elif shared_context and not (len(context) or task.position_known[fill].any()):
            parts, scope = _parts_with_shared_context(fill, max_cells, rng), SECTION
            leads = True
        elif placed and len(context) and task.expression_known[context].any():
            parts, scope = _windows(task, fill, context, max_cells), WINDOW
        else:
            known = task.position_known
            parts, scope = _random_parts(fill, context, known, max_cells, rng), SECTION
        for part, (targets, around) in enumerate(parts):
            is_target = np.arange(len(targets) + len(around)) < len(targets)
            cells = np.concatenate([targets, around])
            support = rng.permutation(to_compare[~np.isin(to_compare, cells)])[:n_support]
            leading = leads and part == 0
            yield InferenceSet(section, part, cells, is_target, scope, support, landmarks, leading)


def _parts_with_shared_context(
    fill: Cells, max_cells: int, rng: np.random.Generator
) -> list[tuple[Cells, Cells]]:
    """Split off a random sample, which is the context of all other parts."""
    order = rng.permutation(fill)
    shared, others = np.split(order, [max(1, max_cells // SHARED_CONTEXT)])
    n_parts = -(-len(others) // (max_cells - len(shared)))
    parts = [(part, shared) for part in np.array_split(others, n_parts)]
    return [(shared, shared[:0]), *parts]


def _random_parts(
    fill: Cells,
    context: Cells,
    position_known: NDArray[np.bool_],
    max_cells: int,
    rng: np.random.Generator,
) -> list[tuple[Cells, Cells]]:
    """Deal the cells to fill at random, half a set at most where there is context.

    Cells that only lack expression are context of the other parts, so that all share one frame.
    """
    shared = fill[position_known[fill]]
    size = max_cells - min(len(context) + len(shared), max_cells // 2)
    n_parts = -(-len(fill) // size)
    if n_parts > 1:
        fill = rng.permutation(fill)
    n_context = max_cells - -(-len(fill) // n_parts)
    parts = []
    for part in np.array_split(fill, n_parts):
        others = np.concatenate([shared[~np.isin(shared, part)], context])
        parts.append((part, rng.permutation(others)[:n_context]))
    return parts


def _windows(
    task: InferenceTask, fill: Cells, context: Cells, max_cells: int
) -> list[tuple[Cells, Cells]]:
    """Tiles of the cells to fill, each with the context nearest to it."""
    position = task.data.position
    context = context[task.position_known[context]]
    parts = []
    # A tile and the known cells of its own area fill a set, with as much again around them.
    share = len(fill) / (len(fill) + len(context))
    for tile in _tiles(position, fill, max(1, int(max_cells * share / 2))):
        distance, _ = KDTree(position[tile]).query(position[context])
        nearest = np.argsort(distance, kind="stable")[: max_cells - len(tile)]
        parts.append((tile, context[nearest]))
    return parts


def _tiles(position: NDArray[np.float64], cells: Cells, size: int) -> list[Cells]:
    """Halve the cells along their longest extent until no tile is larger than ``size``."""
    if len(cells) <= size:
        return [cells]
    points = position[cells]
    axis = int(np.ptp(points, axis=0).argmax())
    order = cells[np.argsort(points[:, axis], kind="stable")]
    half = len(order) // 2
    return _tiles(position, order[:half], size) + _tiles(position, order[half:], size)
