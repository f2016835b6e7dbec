"""Checks of a query against its reference, and of what is known of its cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alphastomics._anndata import Mask
from alphastomics._compat import warn
from alphastomics.diffusion_model.transforms import CHUNK
from alphastomics.model._data import CellTable

Cells = NDArray[np.int64]
NAMED = 3  # cells in a message


def blank_cells(query: CellTable, position_known: Mask, expression_known: Mask) -> Cells:
    """Cells without counts whose position is unknown: nothing is known of them, ``(n,)``.

    Parameters
    ----------
    query
        The cells.
    position_known, expression_known
        What is given of each, ``(n_query,)``.

    Raises
    ------
    ValueError
        If those are all cells.
    """
    cells = np.flatnonzero(expression_known & ~position_known)
    chunks = [cells[start : start + CHUNK] for start in range(0, len(cells), CHUNK)]
    blank = [chunk[_n_nonzero(query.expression[chunk]) == 0] for chunk in chunks]
    found = np.concatenate([*blank, cells[:0]])
    if not len(found):
        return found
    if len(found) == len(query.names):
        raise ValueError(
            f"adata has no counts of the model's genes in any of its {len(found)} cells, and no "
            "known position: check the matrix and adata.var_names."
        )
    names = ", ".join(map(repr, query.names[found[:NAMED]]))
    warn(
        f"{len(found)} of {len(query.names)} cells ({names}{', ...' if len(found) > NAMED else ''})"
        " have no counts of the model's genes and no known position: nothing is known of them, and "
        "their estimates are NaN. They can be left out by scanpy.pp.filter_cells(min_counts=1)."
    )
    return found


def _n_nonzero(rows: sparse.csr_matrix) -> NDArray[np.int64]:
    return np.asarray((rows != 0).sum(1)).ravel()


def check_reference(
    query: CellTable, reference: CellTable, position_known: Mask, *, fill_position: bool
) -> None:
    """Check that a reference has an extent and is another part of the same tissue.

    Parameters
    ----------
    query, reference
        Cells to fill in, and cells with positions.
    position_known
        Which positions of the query are given, ``(n_query,)``.
    fill_position
        Whether positions are estimated.

    Raises
    ------
    ValueError
        If cells are to be placed, and all of the reference lie at one point.
    """
    extent = np.ptp(reference.position, axis=0)
    if fill_position and not extent.any():
        raise ValueError(
            f"reference has no extent: all {len(reference.names)} cells with a position lie at "
            f"{reference.position[0].tolist()}, so that cells cannot be placed among them."
        )
    n_same = _n_same_cells(query, reference)
    if n_same:
        warn(
            f"{n_same:,} of {len(query.names):,} cells of adata are also in reference, with known "
            "positions, so that their scores will be too good. Leave them out of the reference."
        )
    if position_known.any():
        _warn_of_other_frame(query.position[position_known], reference.position)


def _n_same_cells(query: CellTable, reference: CellTable) -> int:
    """Count cells of the query that the reference has, too, with the same expression."""
    place = pd.Index(reference.names).get_indexer(pd.Index(query.names))  # unique names
    own = np.flatnonzero((place >= 0) & query.expression_known)
    own = own[reference.expression_known[place[own]]]
    same = 0
    for start in range(0, len(own), CHUNK):
        cells = own[start : start + CHUNK]
        given, known = query.expression[cells], reference.expression[place[cells]]
        differs = np.asarray((given != known).sum(1)).ravel() > 0
        same += int((~differs & (_n_nonzero(given) > 0)).sum())
    return same


def _warn_of_other_frame(query: NDArray[np.float64], reference: NDArray[np.float64]) -> None:
    """Warn if the boxes around known positions are further apart than either is wide."""
    (low, high), (least, most) = ((p.min(0), p.max(0)) for p in (query, reference))
    gap = np.maximum(low - most, least - high).max()
    width = max((high - low).max(), (most - least).max())
    if gap > width:
        warn(
            f"known positions of adata ({_range(low, high)}) and of reference "
            f"({_range(least, most)}) lie {gap:.4g} apart, further than either is wide "
            f"({width:.4g}): they must be in one frame and unit. Set those of adata to NaN or "
            "pass mode='expr_to_pos' to place the cells into the frame of the reference."
        )


def _range(low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    return " x ".join(f"{a:.4g} to {b:.4g}" for a, b in zip(low, high, strict=True))
