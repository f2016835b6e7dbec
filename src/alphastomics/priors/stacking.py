"""Stacking of estimates of hidden genes, with weights learned on genes that are visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.sparse import csr_array
from scipy.spatial import KDTree
from sklearn.neighbors import NearestNeighbors

Array = NDArray[np.floating]
Cells = NDArray[np.int64]

PENALTIES = (0.3, 3.0)  # of ridge, per cell and standardized gene
SIMILAR, SIMILAR_PLAIN = 50, 20  # training cells, of standardized and of plain values
NEAR = (8, 32, 128)  # cells around one in space
NEAR_REFERENCE = (6, 24)  # reference cells around one in space
AMPLITUDE = 0.5
SHRINKAGE = 0.01
TINY = 1e-6


def log_normalized(values: Array, total: Array, kind: str) -> NDArray[np.float32]:
    """Log-normalized expression ``(n, V)`` of one data set, by its own median depth.

    Parameters
    ----------
    values
        As measured.
    total
        Total of each cell over the genes that all data sets have, ``(n,)``.
    kind
        ``"counts"``, which are divided by the total and multiplied by its median, ``"intensity"``
        or ``"lognorm"``.
    """
    scale = np.ones(len(values))
    if kind == "counts":
        scale = np.median(np.maximum(total, 1)) / np.maximum(total, 1)
    scaled = np.asarray(values * scale[:, None], np.float32)
    return scaled if kind == "lognorm" else np.log1p(scaled)


def z_scores(values: Array) -> NDArray[np.float32]:
    """Standardize genes ``(n, V)``; those that do not vary are 0."""
    centered = values - values.mean(0)
    std = centered.std(0)
    return np.asarray(centered / np.where(std > TINY, std, np.inf), np.float32)


@dataclass(frozen=True)
class GeneTransfer:
    """Estimators of hidden genes from visible ones, fitted to cells that have both.

    Ridge regressions with a small and a large penalty (Hoerl & Kennard 1970), the means of the most
    similar cells by standardized and by plain values, and the mean of the visible genes, which
    needs no training cell: what all genes of a cell share. Each data set is standardized by itself,
    so that platforms may differ in the mean and the deviation of a gene.

    Attributes
    ----------
    plain, standard
        Log-normalized visible genes of the training cells, and standardized, ``(m, V)``.
    hidden
        Their standardized hidden genes, ``(m, H)``.
    slopes
        Coefficients of each ridge regression, ``(V, H)``.
    """

    plain: NDArray[np.float32]
    standard: NDArray[np.float32]
    hidden: NDArray[np.float32]
    slopes: tuple[NDArray[np.float32], ...]

    @classmethod
    def fit(cls, visible: Array, hidden: Array) -> GeneTransfer:
        """Fit to log-normalized cells, ``(m, V)`` and ``(m, H)``."""
        X, Y = z_scores(visible), z_scores(hidden)
        m, n_visible = X.shape
        slopes = []
        for penalty in PENALTIES:
            if n_visible <= m:
                gram = X.T @ X + penalty * m * np.eye(n_visible, dtype=X.dtype)
                slopes.append(np.linalg.solve(gram, X.T @ Y))
            else:
                gram = X @ X.T + penalty * m * np.eye(m, dtype=X.dtype)
                slopes.append(X.T @ np.linalg.solve(gram, Y))
        return cls(np.asarray(visible, np.float32), X, Y, tuple(slopes))

    def __call__(self, visible: Array) -> NDArray[np.float32]:
        """Estimate the hidden genes of log-normalized cells ``(n, V)`` of one data set.

        Returns ``(C, n, H)``, the estimates of ``C`` estimators in standardized units.
        """
        plain = np.asarray(visible, np.float32)
        standard = z_scores(plain)
        estimates = [standard @ slope for slope in self.slopes]
        for query, cells, k in (
            (standard, self.standard, SIMILAR),
            (plain, self.plain, SIMILAR_PLAIN),
        ):
            search = NearestNeighbors(n_neighbors=min(k, len(cells)), metric="cosine")
            nearest = search.fit(cells).kneighbors(query, return_distance=False)
            mean = csr_array(
                (
                    np.full(nearest.size, 1 / nearest.shape[1], np.float32),
                    nearest.ravel(),
                    np.arange(0, nearest.size + 1, nearest.shape[1]),
                ),
                shape=(len(query), len(cells)),
            )
            estimates.append(mean @ self.hidden)
        shared = standard.mean(1, keepdims=True)
        estimates.append(np.repeat(shared, self.hidden.shape[1], axis=1))
        return np.stack(estimates)


def surroundings(position: Array) -> list[csr_array]:
    """Averages over the nearest cells in space, themselves included, each ``(n, n)``.

    Parameters
    ----------
    position
        Coordinates ``(n, d)``; rows of NaN where unknown: such a cell has no surroundings but
        itself.
    """
    located = np.isfinite(position).all(1)
    known, unknown = np.flatnonzero(located), np.flatnonzero(~located)
    averages: list[csr_array] = []
    if not len(known):
        return averages
    most, n = min(NEAR[-1], len(known)), len(position)
    nearest = known[KDTree(position[known]).query(position[known], k=range(1, most + 1))[1]]
    for k in (min(k, most) for k in NEAR):
        near = np.where(located, k, 1)
        start = np.concatenate([[0], near.cumsum()])
        has_place = np.repeat(located, near)
        column = np.empty(start[-1], np.int32)
        column[has_place], column[~has_place] = nearest[:, :k].ravel(), unknown
        weight = np.repeat(1 / near, near).astype(np.float32)
        averages.append(csr_array((weight, column, start), shape=(n, n)))
    return averages


def surrounding_reference(position: Array, reference: Array) -> list[csr_array]:
    """Averages over the nearest reference cells in space, each ``(n, m)``.

    Parameters
    ----------
    position
        Coordinates ``(n, d)``; rows of NaN where unknown, of which the average is 0.
    reference
        Coordinates of the reference cells in the same frame, ``(m, d)``.
    """
    located = np.isfinite(position).all(1)
    n, m = len(position), len(reference)
    averages = []
    for k in (min(k, m) for k in NEAR_REFERENCE):
        nearest = KDTree(reference).query(position[located], k=range(1, k + 1))[1]
        start = np.concatenate([[0], np.where(located, k, 0).cumsum()])
        weight = np.full(nearest.size, 1 / k, np.float32)
        averages.append(csr_array((weight, nearest.ravel(), start), shape=(n, m)))
    return averages


def _scaled(estimates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Center each gene of estimates ``(C, n, H)``, and divide by the root of its deviation."""
    # A small deviation says that the estimator knows little of the gene, or that it compresses:
    # the root is between taking deviations as they are and making them equal.
    centered = estimates - estimates.mean(1, keepdims=True)
    scale = centered.std(1, keepdims=True).clip(TINY) ** AMPLITUDE
    return np.asarray(centered / scale, np.float32)


def features(estimates: NDArray[np.float32], around: Sequence[csr_array]) -> NDArray[np.float32]:
    """Scaled estimates and their averages over the surroundings, ``(C (1 + K), n, H)``."""
    scaled = _scaled(estimates)
    smooth = [np.stack([average @ part for part in scaled]) for average in around]
    smooth = [part - part.mean(1, keepdims=True) for part in smooth]
    return np.concatenate([scaled, *smooth])


@dataclass
class StackingFit:
    """Sums from which the weights of stacked estimates are found.

    Nonnegative least squares (Breiman 1996, Machine Learning 24, 49) over all cells and genes that
    were hidden, the same weights for all genes.
    """

    gram: NDArray[np.float64] | float = 0.0
    product: NDArray[np.float64] | float = 0.0
    n: int = 0

    def add(self, estimates: NDArray[np.float32], truth: NDArray[np.float32]) -> None:
        """Take in :func:`features` ``(F, n, H)`` and the standardized truth ``(n, H)``."""
        flat = estimates.reshape(len(estimates), -1)
        self.gram = self.gram + (flat @ flat.T).astype(np.float64)
        self.product = self.product + (flat @ truth.ravel()).astype(np.float64)
        self.n += truth.size

    def weights(self) -> NDArray[np.float64]:
        """Weights of the features, ``(F,)``, none negative."""
        gram, product = np.asarray(self.gram) / self.n, np.asarray(self.product) / self.n
        size = np.sqrt(np.diag(gram)).clip(TINY)
        correlation = gram / np.outer(size, size) + SHRINKAGE * np.eye(len(gram))
        root = np.linalg.cholesky(correlation)
        found, _ = nnls(root.T, np.linalg.solve(root, product / size))
        return np.asarray(found / size)


def stacked(
    estimates: NDArray[np.float32], around: Sequence[csr_array], weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Weighted sum of the :func:`features` of estimates ``(C, n, H)``, centered, ``(n, H)``."""
    scaled, mix = _scaled(estimates), weights.astype(np.float32).reshape(-1, len(estimates))
    total = np.tensordot(mix[0], scaled, 1)
    for average, weight in zip(around, mix[1:], strict=True):
        total = total + average @ np.tensordot(weight, scaled, 1)
    return np.asarray(total - total.mean(0))
