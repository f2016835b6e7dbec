"""Spacing of cells: a pairwise-interaction prior on positions that are drawn independently."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor, nn

BINS = 16
REACH = 2.0  # median nearest-neighbor distances at which cells are taken not to interact
FLOOR = 1e-3  # least weight of a pair of cells
NEIGHBORS = 12
SWEEPS, MOVED = 60, 0.25  # Metropolis sweeps, and share of the cells that each proposes to move
STEP, TETHER = 0.35, 1.0  # of a proposal and from the drawn position, in neighbor distances

Points = NDArray[np.float64]


class SpacingPrior(nn.Module):
    """Pair-correlation function of training sections at short distances, as a Gibbs process.

    Cells occupy space, but draws of single cells do not know of each other's exact place and
    overlap. :meth:`relax` moves them by about a cell diameter, by Metropolis sampling (Metropolis
    et al. 1953), a quarter of the cells at a time, of a pairwise-interaction process. The weight of
    a pair is its pair correlation (Illian et al. 2008, section 3.6), which does not change when
    cells are left out at random: a section of fewer cells is relaxed less.

    Attributes
    ----------
    distance
        Median nearest-neighbor distance of the training sections, in RMS radii; 0 if not fitted.
    weight
        Weight of a pair of cells in 16 bins of its distance, up to ``REACH`` times that, ``(16,)``.
    """

    distance: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("distance", torch.zeros((), dtype=torch.float64))
        self.register_buffer("weight", torch.ones(BINS, dtype=torch.float64))

    @property
    def is_fitted(self) -> bool:
        """True if pair correlations were estimated."""
        return float(self.distance) > 0

    @torch.no_grad()
    def fit(self, sections: list[Points]) -> None:
        """Estimate pair correlations.

        Parameters
        ----------
        sections
            Positions of all cells of each training section in RMS radii, ``(n_s, d)``.
        """
        # The median, as a few cells far from the tissue would stretch a mean.
        nearest = [KDTree(points).query(points, 2)[0][:, 1] for points in sections]
        distance = float(np.median(np.concatenate(nearest)))
        edges = np.linspace(0, REACH * distance, BINS + 1)
        # Beyond the reach, pairs are as frequent as without interaction.
        edges = np.append(edges, 1.5 * REACH * distance)
        pairs = np.zeros(BINS + 1)
        for points in sections:
            tree = KDTree(points)
            pairs += np.diff(tree.count_neighbors(tree, edges) - float(len(points)))
        if distance <= 0 or pairs[-1] <= 0:
            return
        d = sections[0].shape[1]
        density = pairs / np.diff(edges**d)
        weight = np.clip(density[:-1] / density[-1], FLOOR, 1.0)
        self.distance.fill_(distance)
        self.weight.copy_(torch.from_numpy(weight))

    def relax(self, points: Points, movable: NDArray[np.bool_], rng: np.random.Generator) -> Points:
        """Move drawn cells apart.

        Parameters
        ----------
        points
            Positions in RMS radii, ``(n, d)``.
        movable
            Which of them were drawn, ``(n,)``; the others stay.
        rng
            Source of randomness.

        Returns
        -------
        ndarray
            ``(n, d)``.
        """
        distance = float(self.distance)
        drawn = np.flatnonzero(movable)
        if not self.is_fitted or len(points) < 2 or not len(drawn):
            return points
        at, n_moved = points.copy(), max(1, round(MOVED * len(drawn)))
        log_weight = np.log(self.weight.cpu().numpy())
        for _ in range(SWEEPS):
            cells = drawn[rng.permutation(len(drawn))[:n_moved]]
            proposed = at[cells] + STEP * distance * rng.standard_normal((n_moved, points.shape[1]))
            tree = KDTree(at)
            gain = np.zeros(n_moved)
            for sign, place in ((-1, at[cells]), (1, proposed)):
                energy = _interaction(tree, place, cells, distance, log_weight)
                tether = np.square(place - points[cells]).sum(1) / (2 * (TETHER * distance) ** 2)
                gain += sign * (energy - tether)
            accepted = np.log(rng.random(n_moved)) < gain
            at[cells[accepted]] = proposed[accepted]
        return at


def _interaction(
    tree: KDTree,
    place: Points,
    cells: NDArray[np.int64],
    distance: float,
    log_weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sum of the log weights of cells at ``place`` with all others around them, ``(m,)``."""
    reach = REACH * distance
    apart, other = tree.query(place, min(NEIGHBORS, tree.n), distance_upper_bound=reach)
    found = np.isfinite(apart) & (other != cells[:, None])  # (m, k)
    bins = np.where(found, apart, 0.0) * (BINS / reach)
    weights = log_weight[np.minimum(bins.astype(np.int64), BINS - 1)]
    return np.where(found, weights, 0.0).sum(1)
