"""Whether draws of a tissue disagree by a mirror image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

OPPOSITE, SAME_DISTANCE = 0.35, 0.2


def mirror_ambiguity(draws: ArrayLike) -> dict[str, Any]:
    """Tell whether a tissue looks like its own mirror image to the model.

    Along each principal axis of all draws, pairs of draws are compared cell by cell: the share of
    cells on opposite sides of the centre (0 when the side is certain, 0.5 when it is a coin toss),
    and the rank correlation of the distances from it (0 when nothing is known along the axis). Both
    high means a mirror: how far from the middle is known, on which side is not.

    Parameters
    ----------
    draws
        Shape ``(n_draws, n, d)``, two draws at least, in one frame.

    Returns
    -------
    dict
        Of the axis with the most such evidence: ``"opposite_sides"``, ``"same_distance"``, and
        ``"ambiguous"``, True when they are above 0.35 and 0.2.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> tissue = rng.normal(size=(300, 2)) * [3, 1]
    >>> sides = rng.choice([-1, 1], size=(4, 300))
    >>> draws = tissue * np.stack([sides, np.ones_like(sides)], axis=-1)
    >>> mirror_ambiguity(draws)["ambiguous"]
    True
    """
    x = np.asarray(draws, dtype=np.float64)
    if x.ndim != 3 or len(x) < 2:
        raise ValueError(
            f"draws must have shape (n_draws, n_cells, n_dims) with two draws at least, found "
            f"{x.shape}."
        )
    x = x - x.mean((0, 1))
    flat = x.reshape(-1, x.shape[-1])
    _, axes = np.linalg.eigh(flat.T @ flat)
    along = x @ axes  # (S, n, d)
    first, second = np.triu_indices(len(x), 1)
    opposite = (along[first] * along[second] < 0).mean((0, 1))  # (d,)
    rank = rankdata(np.abs(along), axis=1)
    rank = rank - rank.mean(1, keepdims=True)
    norm = np.sqrt(np.square(rank).sum(1))  # (S, d)
    size = norm[first] * norm[second]  # 0 along an axis on which all cells lie at one place
    product = (rank[first] * rank[second]).sum(1)
    same = np.divide(product, size, out=np.zeros_like(size), where=size > 0).mean(0)  # (d,)
    axis = int((np.minimum(opposite, OPPOSITE) * np.maximum(same, 0)).argmax())
    return {
        "opposite_sides": float(opposite[axis]),
        "same_distance": float(same[axis]),
        "ambiguous": bool(opposite[axis] > OPPOSITE and same[axis] > SAME_DISTANCE),
    }
