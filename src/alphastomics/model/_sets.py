"""Partition of the cells of a request into sets that fit the network."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import KDTree

from alphastomics.model._datamodule import SECTION, WINDOW
from alphastomics.model._request import Request

MAX_SUPPORT = 8192
SUPPORT_PER_CELL = 4  # of a set
MAX_LANDMARKS = 1024
MIN_SET = 2
ANCHORS = 4  # a set holds one anchor among so many cells
Cells = NDArray[np.int64]


class InferenceSet(NamedTuple):
    """Cells that see each other.

    Attributes
    ----------
    section, part
        Part ``part`` of a section of the query.
    cells
        Indices into the request, ``(N,)``: those to fill in and their context.
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
    def asked(self) -> Cells:
        """The cells to fill in."""
        return self.cells[self.fill]

    @property
    def with_support(self) -> Cells:
        """The cells and then the support set, ``(N + M,)``."""
        return np.concatenate([self.cells, self.support])


def inference_sets(
    request: Request, max_set: int, *, anchored: bool = False
) -> Iterator[InferenceSet]:
    """Cut the sections of a query into sets of at most ``max_set`` cells.

    Every section of the query is filled in by itself, with the whole reference as its context.
    Cells are taken in the order of their names, so that the order of the input changes nothing.

    A section that does not fit one set is dealt at random into parts of equal size, each a fair
    sample of it, with a sample of the known cells; where all positions are known and some
    expression is, it is cut into windows instead, because near cells tell most.

    With ``anchored``, the first part of a section where nothing is known of the positions is a
    sample of a quarter of a set, and all other parts have it as their context.
    """
    data, to_fill = request.data, request.to_fill
    n_support = min(MAX_SUPPORT, SUPPORT_PER_CELL * max_set)
    order = np.argsort(data.names, kind="stable")
    is_query = order < request.n_query
    reference = order[~is_query]
    for section in sorted(pd.unique(data.section[: request.n_query])):
        own = order[is_query & (data.section[order] == section)]
        fill = own[to_fill[own]]
        if not len(fill):
            continue
        context = np.concatenate([own[~to_fill[own]], reference])
        rng = np.random.default_rng(zlib.crc32(section.encode()))
        placed = bool(request.position_known[fill].all())
        both_known = request.position_known[context] & request.expression_known[context]
        to_compare = context[both_known & (not placed)]
        located = np.concatenate([own, reference])
        landmarks = rng.permutation(located[request.position_known[located]])[:MAX_LANDMARKS]
        leads = False
        if len(fill) + len(context) <= max_set:
            parts = [(fill, context)]
            scope = SECTION
        elif anchored and not (len(context) or request.position_known[fill].any()):
            parts, scope, leads = _anchored_parts(fill, max_set, rng), SECTION, True
        elif placed and len(context) and request.expression_known[context].any():
            parts, scope = _windows(request, fill, context, max_set), WINDOW
        else:
            known = request.position_known
            parts, scope = _random_parts(fill, context, known, max_set, rng), SECTION
        for part, (some, beside) in enumerate(parts):
            filled = np.arange(len(some) + len(beside)) < len(some)
            cells = np.concatenate([some, beside])
            support = rng.permutation(to_compare[~np.isin(to_compare, cells)])[:n_support]
            leading = leads and part == 0
            yield InferenceSet(section, part, cells, filled, scope, support, landmarks, leading)


def _anchored_parts(
    fill: Cells, max_set: int, rng: np.random.Generator
) -> list[tuple[Cells, Cells]]:
    """Split off a random sample, the context of all other parts."""
    order = rng.permutation(fill)
    anchors, others = np.split(order, [max(1, max_set // ANCHORS)])
    n_parts = -(-len(others) // (max_set - len(anchors)))
    parts = [(part, anchors) for part in np.array_split(others, n_parts)]
    return [(anchors, anchors[:0]), *parts]


def _random_parts(
    fill: Cells,
    context: Cells,
    position_known: NDArray[np.bool_],
    max_set: int,
    rng: np.random.Generator,
) -> list[tuple[Cells, Cells]]:
    """Deal the cells to fill at random, half a set at most where there is context.

    Cells that only lack expression are context of the other parts, so that all share one frame.
    """
    anchors = fill[position_known[fill]]
    size = max_set - min(len(context) + len(anchors), max_set // 2)
    n_parts = -(-len(fill) // size)
    if n_parts > 1:
        fill = rng.permutation(fill)
    beside = max_set - -(-len(fill) // n_parts)
    parts = []
    for some in np.array_split(fill, n_parts):
        others = np.concatenate([anchors[~np.isin(anchors, some)], context])
        parts.append((some, rng.permutation(others)[:beside]))
    return parts


def _windows(
    request: Request, fill: Cells, context: Cells, max_set: int
) -> list[tuple[Cells, Cells]]:
    """Tiles of the cells to fill, each with the context nearest to it."""
    assert request.data.position is not None
    position = request.data.position
    context = context[request.position_known[context]]
    parts = []
    # A tile and the known cells of its own area fill a set, with as much again around them.
    share = len(fill) / (len(fill) + len(context))
    for tile in _tiles(position, fill, max(1, int(max_set * share / 2))):
        distance, _ = KDTree(position[tile]).query(position[context])
        nearest = np.argsort(distance, kind="stable")[: max_set - len(tile)]
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
