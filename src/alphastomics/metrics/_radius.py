"""Whether the radius given with each predicted position holds what it says."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from alphastomics.metrics._alignment import (
    Array,
    checked_points,
    point_pair,
    superpose,
    tissue_size,
)


def _errors_and_radii(
    true: ArrayLike, predicted: ArrayLike, radius: ArrayLike, align: bool
) -> tuple[Array, Array]:
    """Distance of every cell from its true position, and its radius, ``(n,)`` each."""
    T, P = point_pair(true, predicted)
    r = np.asarray(radius, dtype=np.float64)
    if r.shape not in ((), (len(T),)):
        raise ValueError(
            f"radius must be one number or have shape ({len(T)},), one a cell; found {r.shape}."
        )
    if not np.isfinite(r).all() or (r < 0).any():
        raise ValueError("radius must be finite and not negative in every cell.")
    moved = superpose(P, T) if align else P
    return np.linalg.norm(T - moved, axis=1), np.broadcast_to(r, len(T))


def coverage(
    true: ArrayLike, predicted: ArrayLike, radius: ArrayLike, *, align: bool = True
) -> float:
    """Share of cells whose true position lies within the radius of the predicted one.

    A 90 % radius should have 0.90. A huge radius covers too: report :func:`radius_scores` with it.

    Parameters
    ----------
    true, predicted
        Coordinates of the same cells, shape ``(n_cells, n_dims)``.
    radius
        Radius of each cell, shape ``(n_cells,)``, or one for all, in the units of the coordinates.
    align
        Whether ``predicted`` is first superposed on ``true``, by shift, rotation and mirror image
        but not scale. False where the frame is given, as by known cells.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> coverage([[0.0, 0], [4, 0]], [[0.0, 1], [4, 3]], radius=2.0, align=False)
    0.5
    """
    errors, radii = _errors_and_radii(true, predicted, radius, align)
    return float((errors <= radii).mean())


def radius_scores(
    true: ArrayLike, predicted: ArrayLike, radius: ArrayLike, *, align: bool = True
) -> dict[str, float]:
    """Judge radii: are they right, small, and larger where the error is.

    Parameters
    ----------
    true, predicted, radius, align
        As in :func:`coverage`.

    Returns
    -------
    dict
        ``"coverage"``, see there; ``"radius"``, the median radius ÷ RMS radius of ``true`` (with
        all cells at the centre, a radius of 1.34 covers 90 % of a uniform disc); and
        ``"radius_error_spearman"``, the Spearman correlation over cells of radius and error:
        chance is 0, and a constant radius gets 0.

    Examples
    --------
    >>> true, predicted = [[0.0, 0], [4, 0], [0, 4]], [[0.0, 1], [4, 3], [0, 6]]
    >>> scores = radius_scores(true, predicted, [1.0, 3, 2], align=False)
    >>> scores["coverage"], round(scores["radius_error_spearman"], 6)
    (1.0, 1.0)
    """
    errors, radii = _errors_and_radii(true, predicted, radius, align)
    varies = np.ptp(errors) > 0 and np.ptp(radii) > 0
    return {
        "coverage": float((errors <= radii).mean()),
        "radius": float(np.median(radii)) / tissue_size(checked_points(true, "true")),
        "radius_error_spearman": float(spearmanr(radii, errors).statistic) if varies else 0.0,
    }
