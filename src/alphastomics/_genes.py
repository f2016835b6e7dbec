"""Genes of a matrix in another order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def select_genes(matrix: sparse.csr_matrix, column: NDArray[np.int64]) -> sparse.csr_matrix:
    """Columns of a matrix in a new order ``(G,)``, not copied if it is theirs; -1 gives none."""
    if np.array_equal(column, np.arange(matrix.shape[1])):
        return matrix
    found = np.flatnonzero(column >= 0)
    selector = sparse.csr_matrix(
        (np.ones(len(found), dtype=matrix.dtype), (column[found], found)),
        shape=(matrix.shape[1], len(column)),
    )
    return sparse.csr_matrix(matrix @ selector)
