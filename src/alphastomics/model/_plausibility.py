"""Warnings of training data and results that are possible, but probably not what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import KDTree

from alphastomics import _keys
from alphastomics._compat import warn
from alphastomics.model._data import CellTable, SetupArgs

LEAST_CELLS = 20  # of a section whose extent and density are compared
MAX_CELLS = 2000  # of a section whose distances are measured
MOST_RATIO = 3.0  # of the extents, and of the distances of neighbors, of two sections
# Cells that would express a gene if the section were like the others: rare genes may be absent.
EXPECTED_CELLS = 20
LEAST_RADIUS = 0.05  # of cells that are placed, in RMS radii of the training sections
NAMED = 3  # sections or genes named in a warning


def warn_implausible(data: CellTable, setup: SetupArgs) -> None:
    """Warn of what is probably a mistake, once for each kind, with numbers."""
    where = f"obsm[{setup.spatial_key!r}]"
    for message in (*_of_positions(data, where), *_of_expression(data, setup)):
        warn(message)


def warn_of_collapse(
    position: NDArray[np.float64],
    sections: Iterable[tuple[str, NDArray[np.int64]]],
    radius: float,
    steps: int,
) -> None:
    """Warn once if all cells of a section are placed at nearly one point.

    Parameters
    ----------
    position
        Placed cells, ``(n, d)``, NaN without a place.
    sections
        Name and cells of the sections that are placed without any known position.
    radius
        RMS radius of the training sections, in the same units.
    steps
        Steps of training.
    """
    for name, cells in sections:
        placed = position[cells][np.isfinite(position[cells]).all(1)]
        if len(placed) < LEAST_CELLS:
            continue
        own = float(np.sqrt(np.square(placed - placed.mean(0)).sum(1).mean()))
        if own < LEAST_RADIUS * radius:
            warn(
                f"all {len(placed):,} cells of section {name!r} are placed at nearly one point "
                f"(RMS radius {own:.3g}; {radius:.3g} in training): the model is barely trained "
                f"({steps} steps). Train longer."
            )
            return


def _of_positions(data: CellTable, where: str) -> Iterator[str]:
    """Doubts about coordinates."""
    names = [str(name) for name in pd.unique(data.section[data.has_position])]
    partly = {
        name: int((~data.has_position[cells]).sum())
        for name in names
        if not data.has_position[cells := data.cells_of(name)].all()
    }
    if partly:
        n = sum(len(data.cells_of(name)) for name in partly)
        yield (
            f"{sum(partly.values())} of the {n} cells of {_list(partly)} have no position in "
            f"{where} (NaN): they are trained on as cells of unknown position."
        )
    points = {name: data.position[data.has_position & (data.section == name)] for name in names}
    flat = np.all([np.ptp(p, axis=0) == 0 for p in points.values()], axis=0)
    if flat.any():
        d = len(flat)
        yield (
            f"coordinate {int(np.flatnonzero(flat)[0])} of the {d} in {where} is constant in every "
            f"section: {'keep the other two only' if d == 3 else 'the tissue is a line'}."
        )
    yield from _of_units({n: p for n, p in points.items() if len(p) >= LEAST_CELLS}, where)


def _of_units(points: dict[str, NDArray[np.float64]], where: str) -> Iterator[str]:
    """Doubts about the units of sections."""
    if len(points) < 2:
        return
    radius = {n: float(np.sqrt(np.square(p - p.mean(0)).sum(1).mean())) for n, p in points.items()}
    spacing = {n: _spacing(p) for n, p in points.items()}
    for measure, what in ((radius, "wide"), (spacing, "far between neighboring cells")):
        low, high = min(measure, key=measure.__getitem__), max(measure, key=measure.__getitem__)
        if measure[low] > 0 and measure[high] > MOST_RATIO * measure[low]:
            yield (
                f"section {high!r} is {measure[high] / measure[low]:.1f} times as {what} as "
                f"section {low!r} ({measure[high]:.3g} and {measure[low]:.3g} in {where}): check "
                "that all sections have the same units (al.pp.normalize_positions)."
            )
            return


def _spacing(points: NDArray[np.float64]) -> float:
    """Median distance of random cells to the nearest other one."""
    some = np.random.default_rng(0).permutation(len(points))[:MAX_CELLS]
    return float(np.median(KDTree(points).query(points[some], 2)[0][:, 1]))


def _of_expression(data: CellTable, setup: SetupArgs) -> Iterator[str]:
    """Doubts about expression; none where there is nothing but placeholders."""
    matrix = sparse.csr_matrix(data.expression)  # in memory, not copied
    if not matrix.nnz:
        return
    where = ".X" if setup.layer is None else f".layers[{setup.layer!r}]"
    if setup.values == "lognorm":
        yield from _of_lognorm(matrix.data, where)
    expressed = sparse.csr_matrix((matrix.data != 0, matrix.indices, matrix.indptr), matrix.shape)
    silent = (expressed.getnnz(1) if expressed.data.all() else expressed.sum(1).A1) == 0
    n_silent, n_known = int((silent & data.expression_known).sum()), data.expression_known.sum()
    if n_silent:
        yield (
            f"{n_silent} of the {n_known} cells have no expression in {where} (all genes 0): they "
            "say nothing about the tissue; leave them out (al.pp.filter_cells), or set "
            f"obs[{_keys.EXPRESSION_KNOWN!r}] to False for them."
        )
    yield from _of_panels(data, expressed)


def _of_lognorm(values: NDArray[np.floating], where: str) -> Iterator[str]:
    """Doubts that values are log-normalized."""
    if values.min() < 0:
        yield (
            f"values='lognorm', but {where} holds negative values (least {values.min():.3g}), as "
            "scaled data do: name a layer of log-normalized values or counts."
        )
    elif np.array_equal(values, np.rint(values)):
        yield (
            f"values='lognorm', but {where} holds whole numbers only (up to {values.max():g}), as "
            "counts are: pass values='counts'."
        )


def _of_panels(data: CellTable, expressed: sparse.csr_matrix) -> Iterator[str]:
    """Doubts that genes were measured in sections where no cell has them."""
    names, code = np.unique(data.section[data.expression_known].astype(str), return_inverse=True)
    known = np.flatnonzero(data.expression_known)
    member = sparse.csr_matrix((np.ones(len(known)), (code, known)), (len(names), len(data.names)))
    counts = (member @ expressed.astype(np.float64)).toarray()  # (S, G) cells that express a gene
    first = known[np.unique(code, return_index=True)[1]]
    measured = data.panels[data.panel[first]]  # (S, G)
    n = np.bincount(code)[:, None] * measured  # (S, G)
    share = (counts.sum(0) - counts) / np.maximum(n.sum(0) - n, 1)  # in the other sections
    doubtful = measured & (counts == 0) & (share * n >= EXPECTED_CELLS)
    numbers = zip(names, doubtful.sum(1), strict=True)
    by_section = {str(name): int(number) for name, number in numbers if number}
    if by_section:
        each = ", ".join(f"{number} in {name!r}" for name, number in _first(by_section))
        yield (
            f"{int(doubtful.any(0).sum())} genes are 0 in every cell of a section but not of "
            f"others ({each}): if its panel did not measure them, say so in "
            f"varm[{_keys.MEASURED!r}], a boolean column for each section."
        )


def _first(values: dict[str, int]) -> list[tuple[str, int]]:
    return list(values.items())[:NAMED]


def _list(values: dict[str, int]) -> str:
    """Names of sections, of the first ones if there are many."""
    named = ", ".join(repr(name) for name, _ in _first(values))
    more = len(values) - NAMED
    return f"section {named}" if more <= 0 else f"sections {named} and {more} more"
