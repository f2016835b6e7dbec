"""Which cells lie beside which in a store.

The cells of a section are dealt at random into blocks, so that the cells of one block are a random
sample of the section, and sorted in each block along a Hilbert curve, so that the cells of a
spatial window are a few contiguous runs of it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int64]

BLOCK_CELLS = 8192  # most cells in a block
CHUNK_CELLS = 1024  # cells in a compressed chunk of the expression
HILBERT_BITS = 16  # of each coordinate


def hilbert_index(position: NDArray[np.float64]) -> Cells:
    """Place of each position ``(n, d)`` along a Hilbert curve through their bounding cube.

    The transform of J. Skilling, "Programming the Hilbert curve", AIP Conf. Proc. 707 (2004), on
    all positions at once. Positions whose distance along the curve is small are near each other.
    """
    corner = position.min(0)
    extent = float((position.max(0) - corner).max()) or 1.0
    largest = (1 << HILBERT_BITS) - 1
    x = ((position - corner) / extent * largest).round().astype(np.int64).T.copy()  # (d, n)
    n_dims = len(x)
    for bit in (1 << b for b in range(HILBERT_BITS - 1, 0, -1)):  # undo excess work
        for i in range(n_dims):
            high = (x[i] & bit) > 0
            swapped = np.where(high, 0, (x[0] ^ x[i]) & (bit - 1))
            x[0] ^= np.where(high, bit - 1, swapped)
            x[i] ^= swapped
    for i in range(1, n_dims):  # Gray encode
        x[i] ^= x[i - 1]
    flip = np.zeros_like(x[0])
    for bit in (1 << b for b in range(HILBERT_BITS - 1, 0, -1)):
        flip ^= np.where((x[-1] & bit) > 0, bit - 1, 0)
    x ^= flip
    index = np.zeros_like(x[0])
    for b in range(HILBERT_BITS - 1, -1, -1):  # interleave the bits of all coordinates
        for i in range(n_dims):
            index = (index << 1) | ((x[i] >> b) & 1)
    return index


def deal_blocks(
    position: NDArray[np.float64] | None, n_cells: int, name: str, seed: int
) -> tuple[Cells, Cells]:
    """Order of the cells of a section in its store, and where its blocks start and end.

    Parameters
    ----------
    position
        ``(n_cells, d)``, NaN rows where unknown (these come last in a block), or None.
    name
        Name of the section: with ``seed`` it determines the deal, whatever other sections are.

    Returns
    -------
    order
        Cell at each place of the store, ``(n_cells,)``.
    blocks
        Places where blocks start, and ``n_cells``: ``(n_blocks + 1,)``.
    """
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    n_blocks = -(-n_cells // BLOCK_CELLS)
    along = np.full(n_cells, np.iinfo(np.int64).max)
    if position is not None:
        known = ~np.isnan(position).any(1)
        along[known] = hilbert_index(position[known]) if known.any() else 0
    dealt = [np.sort(block) for block in np.array_split(rng.permutation(n_cells), n_blocks)]
    order = np.concatenate([block[np.argsort(along[block], kind="stable")] for block in dealt])
    return order, np.cumsum([0, *map(len, dealt)], dtype=np.int64)


def runs(rows: Cells, gap: int, longest: int) -> list[tuple[int, int]]:
    """Half-open runs that cover sorted rows, joined over gaps up to ``gap``, cut at ``longest``."""
    if not len(rows):
        return []
    ends = np.flatnonzero(np.diff(rows) > gap)
    starts = rows[np.concatenate([[0], ends + 1])].tolist()
    stops = (rows[np.concatenate([ends, [len(rows) - 1]])] + 1).tolist()
    return [
        (cut, min(cut + longest, stop))
        for start, stop in zip(starts, stops, strict=True)
        for cut in range(start, stop, longest)
    ]
