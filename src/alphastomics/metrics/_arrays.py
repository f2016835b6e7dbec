"""Checks of arrays, neighbors and arithmetic that the metrics share."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from scipy.spatial import KDTree

Array = NDArray[np.float64]
Cells = NDArray[np.int64]
Labels = NDArray[np.str_]

MAX_ROWS = 2000  # cells that are scored of a larger section


def as_floats(values: ArrayLike, name: str) -> Array:
    """Numbers as a float array; masked ones are NaN."""
    if issparse(values):
        raise ValueError(f"{name} is sparse: pass {name}.toarray().")
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        if np.iscomplexobj(values):
            raise ValueError
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be an array of numbers, found {type(values).__name__} that is none."
        ) from None


def checked_points(points: ArrayLike, name: str, least: int = 0) -> Array:
    """Check coordinates ``(n, d)`` of at least ``least`` cells and return them as floats."""
    array = as_floats(points, name)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (n_cells, n_dims), found shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite: drop those cells first.")
    if len(array) < least:
        raise ValueError(f"{name} must have at least {least} cells, found {len(array)}.")
    return array


def checked_draws(draws: ArrayLike, least: int = 1) -> Array:
    """Check draws ``(n_draws, n, d)`` and return them as floats."""
    array = as_floats(draws, "draws")
    if array.ndim != 3 or len(array) < least:
        raise ValueError(
            f"draws must have shape (n_draws, n_cells, n_dims) with n_draws at least {least}, "
            f"found shape {array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError("draws holds values that are not finite: drop those cells first.")
    return array


def point_pair(true: ArrayLike, predicted: ArrayLike) -> tuple[Array, Array]:
    """Check two point sets of the same cells and return them as floats."""
    T, P = checked_points(true, "true"), checked_points(predicted, "predicted")
    if T.shape != P.shape:
        raise ValueError(
            f"true and predicted must hold the same cells and dimensions, found {T.shape} and "
            f"{P.shape}."
        )
    return T, P


def checked_sections(true: ArrayLike, generated: ArrayLike, least: int = 1) -> tuple[Array, Array]:
    """Check two sections of the same number of dimensions and return them as floats."""
    T, G = checked_points(true, "true", least), checked_points(generated, "generated", least)
    if T.shape[1] != G.shape[1]:
        raise ValueError(
            f"true and generated must have the same dimensions, found {T.shape[1]} and "
            f"{G.shape[1]}."
        )
    return T, G


def checked_labels(labels: ArrayLike, n: int, name: str = "labels") -> Labels:
    """Check that there is a label for each of ``n`` cells and return them as text."""
    if np.shape(labels) != (n,):
        raise ValueError(
            f"{name} must have one entry per cell, shape ({n},), found shape {np.shape(labels)}."
        )
    return label_text(labels, name)


def label_text(labels: ArrayLike, name: str = "labels") -> Labels:
    """Labels as text; none may be missing."""
    if missing := int(np.sum(pd.isna(np.asarray(labels, dtype=object)))):
        raise ValueError(f"{name} is missing for {missing} cells: drop those cells first.")
    return np.asarray(labels).astype(str)


def check_neighbors(k: int, n: int) -> None:
    """Raise unless each of ``n`` cells has ``k`` neighbors."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k must be a whole number, found {k!r}.")
    if not 1 <= k < n:
        raise ValueError(f"k must be between 1 and n_cells - 1 = {n - 1}, found {k}.")


def subsample(n: int, seed: int) -> Cells:
    """All rows, or a seeded random 2,000 of them; the same rows for the same n."""
    if n <= MAX_ROWS:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, MAX_ROWS, replace=False))


def nearest_neighbors(points: Array, rows: Cells, k: int) -> Cells:
    """Find the k nearest other cells of each row, ``(len(rows), k)``."""
    _, found = KDTree(points).query(points[rows], k=k + 1)
    found = found.astype(np.int64)
    found_self = found == rows[:, None]
    found_self[~found_self.any(1), -1] = True  # coincident points may crowd the cell itself out
    return np.asarray(found[~found_self].reshape(len(rows), k))


def ratio(numerator: Array, denominator: Array) -> Array:
    """Divide, and give 0 where the denominator is 0."""
    fill = np.zeros(np.shape(numerator))
    return np.asarray(np.divide(numerator, denominator, out=fill, where=denominator > 0))
