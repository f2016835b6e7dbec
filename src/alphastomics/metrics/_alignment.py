"""Superposition of point sets and summaries of several of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def checked_points(points: ArrayLike, name: str) -> Array:
    """Check coordinates ``(n, d)`` and return them as a float array."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (n_cells, n_dims), found shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite: drop those cells first.")
    return array


def _checked_draws(draws: ArrayLike) -> Array:
    """Check draws ``(n_draws, n, d)`` and return them as a float array."""
    array = np.asarray(draws, dtype=np.float64)
    if array.ndim != 3:
        raise ValueError(f"draws must have shape (n_draws, n_cells, n_dims), found {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError("draws holds values that are not finite: drop those cells first.")
    return array


def point_pair(true: ArrayLike, predicted: ArrayLike) -> tuple[Array, Array]:
    """Check two point sets of the same cells and return them as float arrays."""
    T, P = checked_points(true, "true"), checked_points(predicted, "predicted")
    if T.shape != P.shape:
        raise ValueError(
            f"true and predicted must hold the same cells and dimensions, found {T.shape} and "
            f"{P.shape}."
        )
    return T, P


def rms_radius(points: ArrayLike) -> float:
    """Root mean squared distance of points ``(n, d)`` from their centroid, in their unit.

    Parameters
    ----------
    points
        Coordinates, shape ``(n, d)``.

    Returns
    -------
    float
        In the units of the coordinates.

    Examples
    --------
    >>> rms_radius([[3.0, 0], [-3, 0], [0, 3], [0, -3]])
    3.0
    """
    P = checked_points(points, "points")
    return float(np.sqrt(np.square(P - P.mean(0)).sum(1).mean()))


def tissue_size(true: Array) -> float:
    """RMS radius of true positions ``(n, d)``, by which others are measured; not 0."""
    radius = rms_radius(true)
    if radius == 0:
        raise ValueError("all true positions coincide, so that there is no size to measure by.")
    return radius


def superpose(
    moving: ArrayLike, fixed: ArrayLike, *, allow_reflection: bool = True, allow_scale: bool = False
) -> Array:
    """Move a point set onto another by the best shift and rotation, in the least-squares sense.

    Parameters
    ----------
    moving, fixed
        Coordinates of the same cells, shape ``(n, d)``.
    allow_reflection
        Whether a mirror image may be taken.
    allow_scale
        Whether one scale factor may be taken too.

    Returns
    -------
    ndarray
        ``moving`` in the frame of ``fixed``, shape ``(n, d)``.

    References
    ----------
    Kabsch (1976), Acta Cryst. A32, 922; with scale, Umeyama (1991), IEEE TPAMI 13, 376.

    Examples
    --------
    >>> import numpy as np
    >>> square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    >>> np.allclose(superpose(square[:, ::-1] + 5, square), square)
    True
    """
    F, M = point_pair(fixed, moving)
    return superpose_by(
        M,
        F,
        np.ones(len(M), dtype=bool),
        allow_reflection=allow_reflection,
        allow_scale=allow_scale,
    )


def superpose_by(
    moving: Array,
    fixed: Array,
    chosen: NDArray[np.bool_],
    *,
    allow_reflection: bool = True,
    allow_scale: bool = False,
) -> Array:
    """Move all points ``(n, d)`` as :func:`superpose` moves the ``chosen`` ones, ``(n,)``.

    Parameters
    ----------
    moving, fixed
        Coordinates of the same cells, shape ``(n, d)``; anything where not chosen.
    chosen
        Cells that decide, boolean ``(n,)``.
    allow_reflection, allow_scale
        As in :func:`superpose`.

    Returns
    -------
    ndarray
        All of ``moving`` in the frame of ``fixed``, shape ``(n, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> fixed = np.array([[0.0, 0], [1, 0], [0, 1], [np.nan, np.nan]])
    >>> moving = np.array([[5.0, 5], [6, 5], [5, 6], [7, 7]])
    >>> superpose_by(moving, fixed, np.array([True, True, True, False])).round(6)[3]
    array([2., 2.])
    """
    M_centre, F_centre = moving[chosen].mean(0), fixed[chosen].mean(0)
    M, F = moving[chosen] - M_centre, fixed[chosen] - F_centre
    u, s, vh = np.linalg.svd(M.T @ F)
    if not allow_reflection and np.linalg.det(u @ vh) < 0:
        u[:, -1] *= -1
        s[-1] *= -1
    size = np.square(M).sum()
    scale = s.sum() / size if allow_scale and size > 0 else 1.0
    return np.asarray(scale * (moving - M_centre) @ (u @ vh) + F_centre)


def generalized_procrustes(
    draws: ArrayLike, *, allow_reflection: bool = True, max_iter: int = 50, tol: float = 1e-8
) -> Array:
    """Put several draws of the same cells into one frame.

    Each draw is superposed (no scale) on the mean of all, which is then taken anew, until the mean
    stays (Gower 1975, Psychometrika 40, 33). The frame is that of the first draw.

    Parameters
    ----------
    draws
        Shape ``(n_draws, n, d)``.
    allow_reflection
        Whether a draw may be mirrored.
    max_iter, tol
        Most iterations, and the relative change of the mean at which to stop.

    Returns
    -------
    ndarray
        The superposed draws, shape ``(n_draws, n, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> turned = points @ np.array([[0.0, 1], [-1, 0]]) + 5
    >>> draws = generalized_procrustes([points, turned])
    >>> np.allclose(draws[0], draws[1])
    True
    """
    aligned = _checked_draws(draws)
    mean = aligned[0]
    for _ in range(max_iter):
        aligned = np.stack(
            [superpose(draw, mean, allow_reflection=allow_reflection) for draw in aligned]
        )
        new_mean = aligned.mean(0)
        change = np.square(new_mean - mean).sum()
        mean = new_mean
        if change <= tol * np.square(mean - mean.mean(0)).sum():
            break
    # Back into the frame of the first draw, all together.
    n_draws, n, d = aligned.shape
    first = np.zeros((n_draws, n, d))
    first[0] = _checked_draws(draws)[0]
    chosen = np.arange(n_draws * n) < n
    together = superpose_by(
        aligned.reshape(-1, d), first.reshape(-1, d), chosen, allow_reflection=allow_reflection
    )
    return together.reshape(n_draws, n, d)


def consensus(draws: ArrayLike) -> Array:
    """Mean position of each cell over draws ``(n_draws, n, d)`` that share a frame, ``(n, d)``.

    Parameters
    ----------
    draws
        Shape ``(n_draws, n, d)``.

    Returns
    -------
    ndarray
        Shape ``(n, d)``; shrunk where draws disagree.

    Examples
    --------
    >>> consensus([[[0.0, 0]], [[2, 4]]])
    array([[1., 2.]])
    """
    return np.asarray(_checked_draws(draws).mean(0))


def medoid(draws: ArrayLike) -> int:
    """Index of the draw with the least summed squared distance to all others.

    ``draws`` has shape ``(n_draws, n, d)`` and shares a frame. Unlike the consensus, the medoid is
    itself a draw: it keeps the spread of the tissue.

    Parameters
    ----------
    draws
        Shape ``(n_draws, n, d)``.

    Returns
    -------
    int
        Index of a draw.

    Examples
    --------
    >>> medoid([[[0.0, 0]], [[1, 0]], [[5, 0]]])
    1
    """
    flat = _checked_draws(draws)
    flat = flat.reshape(len(flat), -1)
    gram = flat @ flat.T
    squared = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram
    return int(squared.sum(1).argmin())
