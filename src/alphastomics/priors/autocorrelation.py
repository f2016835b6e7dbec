"""Spatial autocorrelation of expression, by which cells of drawn sections exchange places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import KDTree
from torch import Tensor, nn

Array = NDArray[np.float64]
FactorsOf = Callable[[NDArray[np.int64]], Array]

NEIGHBORS = (8, 32, 128)
REACH = 60  # nearest places with one of which a cell may exchange its own
SWEEPS = 80
MAX_CELLS = 1024  # of a section to which the prior is fitted


class AutocorrelationPrior(nn.Module):
    """Moran's I of the factors of expression in training sections.

    Independently sampled cells are less similar to their neighbors than in a tissue.
    :meth:`exchange` lets nearby cells exchange their places until Moran's I of every factor is that
    of training: the stochastic reconstruction of random media from their correlation functions
    (Yeong & Torquato 1998, Phys. Rev. E 57, 495), without annealing.

    Parameters
    ----------
    n_factors
        Number of factors ``K``.

    Attributes
    ----------
    moran
        Moran's I of each factor among the 8, 32 and 128 nearest neighbors, ``(3, K)``.
    n_cells
        Mean number of cells of the training sections; 0 if not fitted.
    """

    moran: Tensor
    n_cells: Tensor

    def __init__(self, n_factors: int) -> None:
        super().__init__()
        self.register_buffer("moran", torch.zeros(len(NEIGHBORS), n_factors, dtype=torch.float64))
        self.register_buffer("n_cells", torch.zeros((), dtype=torch.float64))

    @property
    def is_fitted(self) -> bool:
        """True if there was a training section."""
        return float(self.n_cells) > 0

    @torch.no_grad()
    def fit(self, sections: Sequence[tuple[Array, FactorsOf]], seed: int) -> None:
        """Take the mean of sections, of at most 1,024 random cells of each and their neighbors.

        Parameters
        ----------
        sections
            Positions of all cells ``(n_s, d)``, and what maps numbers of cells ``(m,)`` to their
            factors ``(m, K)``.
        seed
            Of the choice of cells.
        """
        rng = np.random.default_rng(seed)
        by_section = [_sampled_moran(*section, rng) for section in sections]
        self.moran.copy_(torch.from_numpy(np.mean(by_section, axis=0)))
        self.n_cells.fill_(float(np.mean([len(points) for points, _ in sections])))

    def exchange(self, points: Array, factors: Array, rng: np.random.Generator) -> Array:
        """Exchange the places of nearby cells.

        Parameters
        ----------
        points, factors
            Positions ``(n, d)`` and factors ``(n, K)`` of the cells of a drawn section.
        rng
            Source of randomness.

        Returns
        -------
        ndarray
            The same positions in another order, ``(n, d)``.
        """
        n = len(points)
        if n < 3 or not self.is_fitted:
            return points
        weights, nearby = _weights(points, NEIGHBORS[0]), _neighbors(points, REACH)
        target = self._target(n)
        cell_at, values = np.arange(n), _standardized(factors)  # of each place
        for _ in range(SWEEPS):
            around = weights @ values  # (n, K)
            missing = target - (values * around).mean(0)  # (K,)
            a, b = _disjoint_pairs(nearby, rng)
            # n I changes by 2 (z_a - z_b) (W z_b - W z_a) - 2 W_ab (z_a - z_b)^2.
            difference = values[a] - values[b]  # (P, K)
            shared = np.asarray(weights[a, b]).reshape(-1, 1)
            change = 2 / n * difference * (around[b] - around[a] - shared * difference)
            better = 2 * change @ missing > np.square(change).sum(1)
            a, b, change = a[better], b[better], change[better]
            # Each exchange helps alone; of all together only the first ones may be taken.
            left = np.square(missing - change.cumsum(0)).sum(1)  # after each exchange
            if not len(left) or left.min() >= np.square(missing).sum():
                break
            a, b = a[: left.argmin() + 1], b[: left.argmin() + 1]
            for of_place in (values, cell_at):
                of_place[a], of_place[b] = of_place[b].copy(), of_place[a].copy()
        moved = np.empty_like(points)
        moved[cell_at] = points
        return moved

    def _target(self, n: int) -> Array:
        """Moran's I among 8 of ``n`` cells, ``(K,)``: of fewer cells, these are farther away."""
        moran = self.moran.cpu().numpy()
        log_rank = np.log(NEIGHBORS[0] * max(float(self.n_cells) / n, 1.0))
        return np.array([np.interp(log_rank, np.log(NEIGHBORS), column) for column in moran.T])


def _standardized(factors: Array) -> Array:
    centered = factors - factors.mean(0)
    return np.asarray(centered / np.maximum(centered.std(0), 1e-12))


def _neighbors(points: Array, k: int) -> NDArray[np.int64]:
    """Nearest neighbors of each cell, itself excluded, ``(n, k)`` or as many as there are."""
    near = KDTree(points).query(points, min(k + 1, len(points)))[1]
    return np.asarray(near[:, 1:])


def _weights(points: Array, k: int) -> sparse.csr_matrix:
    """Weights ``(n, n)`` of the mean over ``k`` neighbors, made symmetric."""
    near = _neighbors(points, k)
    n, k = near.shape
    rows = np.repeat(np.arange(n), k)
    mean = sparse.csr_matrix((np.full(n * k, 1 / k), (rows, near.ravel())), shape=(n, n))
    return ((mean + mean.T) / 2).tocsr()


def _sampled_moran(points: Array, factors_of: FactorsOf, rng: np.random.Generator) -> Array:
    """Moran's I (Moran 1950) of a section among neighbors up to each rank, ``(3, K)``.

    From random cells and eight of their neighbors, evenly spaced by rank.
    """
    chosen = rng.permutation(len(points))[:MAX_CELLS]  # (m,)
    near = KDTree(points).query(points[chosen], min(NEIGHBORS[-1] + 1, len(points)))[1][:, 1:]
    columns = [min(k, near.shape[1]) for k in NEIGHBORS]
    picked = [
        near[:, np.linspace(0, k - 1, min(NEIGHBORS[0], k)).round().astype(int)] for k in columns
    ]
    needed = np.unique(np.concatenate([chosen, *(part.ravel() for part in picked)]))
    factors = factors_of(needed)  # (n, K)
    central = factors[np.searchsorted(needed, chosen)]  # (m, K)
    factors, central = (
        (part - central.mean(0)) / np.maximum(central.std(0), 1e-12) for part in (factors, central)
    )
    around = [factors[np.searchsorted(needed, part)].mean(1) for part in picked]  # (m, K) each
    return np.stack([(central * mean).mean(0) for mean in around])


def _disjoint_pairs(
    nearby: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of a random place and a random one near it, none in two pairs."""
    n, k = nearby.shape
    first = rng.permutation(n)
    pairs = np.stack([first, nearby[first, rng.integers(k, size=len(first))]], axis=1)
    is_new = np.zeros(pairs.size, dtype=bool)
    is_new[np.unique(pairs, return_index=True)[1]] = True
    pairs = pairs[is_new.reshape(-1, 2).all(1)]
    return pairs[:, 0], pairs[:, 1]
