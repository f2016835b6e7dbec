"""Checks of user input that fail early, with the remedy in the message."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from alphastomics._compat import warn
from alphastomics._options import MOST_SHOWN
from alphastomics._settings import MAX_SEED, settings
from alphastomics.config import Values

Function = TypeVar("Function", bound=Callable[..., Any])

VALUES: tuple[str, ...] = get_args(Values)
MIN_CELLS = 3
PIECE = 10_000_000  # values checked at a time
ROUNDING = 1e-3  # counts that are nearer to whole numbers are rounded
LARGEST = 1e30  # squares of expression beyond this are not finite in single precision
# Extents of sections beyond these are not either; finer differences than 1e-12 of a coordinate are
# rounding noise.
EXTENTS, RESOLUTION = (1e-30, 1e30), 1e-12


def renamed_argument(old: str, new: str) -> Callable[[Function], Function]:
    """Let a function take an argument by its former name, with a warning."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if old in kwargs:
                warn(f"{old} is now called {new}.", FutureWarning)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    return decorate


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, found {value!r}.")


def check_number(name: str, value: object) -> None:
    """Raise unless ``value`` is one real number."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, found {short(value)} ({type(value).__name__}).")


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise if ``value`` is below ``least``, or no number."""
    check_number(name, value)
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, found {value}.")


def check_integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """Raise unless ``value`` is a whole number of a range; give it as ``int``."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"{name} must be a whole number, found {short(value)} ({type(value).__name__})."
        )
    check_at_least(name, int(value), least)
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most:,}, found {value}.")
    return int(value)


def check_seed(seed: object) -> int:
    """Seed as ``int``, that of the settings for ``None``; raise unless NumPy and torch take it."""
    if seed is None:
        return settings.seed
    return check_integer("seed", seed, 0, MAX_SEED)


def row_numbers(rows: Any, n_rows: int) -> NDArray[np.int64]:
    """Numbers of rows of a matrix, given in any order, by a slice or by a mask ``(n_rows,)``."""
    if isinstance(rows, slice):
        return np.arange(*rows.indices(n_rows), dtype=np.int64)
    chosen = np.asarray(rows)
    if chosen.dtype == bool:
        if chosen.shape != (n_rows,):
            raise IndexError(f"the mask has shape {chosen.shape}, but there are {n_rows} cells.")
        return np.flatnonzero(chosen)
    if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
        raise IndexError("ask for cells by a one-dimensional array of whole numbers.")
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < n_rows:
        raise IndexError(
            f"cells {chosen.min()} to {chosen.max()} were requested, but they are numbered from 0 "
            f"to {n_rows - 1}."
        )
    return chosen.astype(np.int64)


def check_memory(n_bytes: float, what: str, remedy: str) -> None:
    """Raise if a result is larger than the memory of this machine."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return  # Windows
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if n_bytes > there:
        raise ValueError(
            f"{what} needs {n_bytes / 1e9:,.0f} GB of memory, but this machine has "
            f"{there / 1e9:,.0f} GB: {remedy}."
        )


def short(value: object) -> str:
    """Representation of a value in a message, cut if it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def check_share(name: str, value: float) -> None:
    """Raise unless ``value`` is in [0, 1)."""
    check_number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, found {value}.")


def require_adata(adata: object, name: str = "adata") -> None:
    """Raise if ``adata`` is not an AnnData."""
    if not isinstance(adata, AnnData):
        found = type(adata).__name__
        remedy = "; pass a table of it, al.io.read_table(sdata)" if found == "SpatialData" else ""
        raise TypeError(f"{name} must be an AnnData, found {found}{remedy}.")


def check_unique(adata: AnnData, axis: Literal["obs", "var"], name: str) -> None:
    """Raise if names of cells (``"obs"``) or of genes are duplicated."""
    names = getattr(adata, f"{axis}_names").astype(str)
    if not names.is_unique:
        raise ValueError(
            f"{name} has duplicated {'cell' if axis == 'obs' else 'gene'} names, "
            f"{names[names.duplicated()][0]!r} among them: "
            f"call {name}.{axis}_names_make_unique() first."
        )


def check_adata(adata: AnnData, name: str = "adata") -> None:
    """Raise if ``adata`` is not an AnnData, is empty, or has duplicated names; copy a view."""
    require_adata(adata, name)
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(f"{name} is empty: found {adata.n_obs} cells and {adata.n_vars} genes.")
    check_unique(adata, "obs", name)
    check_unique(adata, "var", name)
    if adata.is_view:
        warn(
            f"{name} is a view of another AnnData and is copied; pass {name}.copy() to "
            "silence this."
        )
        adata._init_as_actual(adata.to_memory() if adata.isbacked else adata.copy())


def check_values(matrix: sparse.csr_matrix, values: str, where: str) -> sparse.csr_matrix:
    """Raise if expression is not finite, or does not look like the declared kind of values.

    Returns the matrix; counts with rounding noise come rounded, in a new one.
    """
    check_choice("values", values, VALUES)
    exact = True
    # A piece at a time: a million cells have hundreds of millions of values.
    for start in range(0, max(matrix.nnz, 1), PIECE):
        exact &= _check_piece(matrix.data[start : start + PIECE], values, where)
    if exact:
        return matrix
    return sparse.csr_matrix(
        (np.rint(matrix.data) + 0.0, matrix.indices, matrix.indptr), shape=matrix.shape
    )


def _check_piece(data: NDArray[np.floating], values: str, where: str) -> bool:
    """Check some values; False if they have to be rounded."""
    if not np.isfinite(data).all():
        raise ValueError(f"{where} holds NaN or infinite values: remove or fill them first.")
    if data.size and np.abs(data, dtype=np.float64).max() > LARGEST:
        raise ValueError(
            f"{where} holds values up to {np.abs(data).max():g}, but single precision computes "
            f"with values up to {LARGEST:g}: correct or rescale them."
        )
    if values == "lognorm":
        return True
    least = data.min(initial=0)
    if least < (-ROUNDING if values == "counts" else 0):
        raise ValueError(
            f"{where} holds negative values (least {least:g}), but values={values!r} expects "
            "none: name the layer with raw data by layer=, or pass values='lognorm'."
        )
    if values != "counts" or data.dtype.kind not in "f":
        return True
    off = np.abs(data - np.rint(data))
    if off.max(initial=0) > ROUNDING:
        raise ValueError(
            f"{where} holds fractional values (such as {data[off > ROUNDING][0]:g}; the worst is "
            f"{off.max():.3g} from a whole number), but values='counts' expects whole numbers: "
            "name the layer with raw counts by layer=, or pass values='lognorm' (log-normalized) "
            "or values='intensity' (continuous, not yet logged)."
        )
    return not off.any()


def read_points(positions: object, n_dims: int) -> NDArray[np.float64]:
    """Read an argument ``positions``, or raise unless it is ``(n_cells, n_dims)``, finite."""
    shape = f"positions must have shape (n_cells, {n_dims})"
    if isinstance(positions, AnnData):
        raise TypeError(f"{shape}, found an AnnData: pass its coordinates, adata.obsm['spatial'].")
    try:
        dense = positions.toarray() if sparse.issparse(positions) else positions  # type: ignore[attr-defined]
        points = np.ma.filled(np.ma.asarray(dense, dtype=np.float64), np.nan)
    except (TypeError, ValueError):
        found = f"{short(positions)} ({type(positions).__name__})"
        raise ValueError(f"{shape} and hold numbers, found {found}.") from None
    if points.ndim != 2 or points.shape[1] != n_dims or not len(points):
        raise ValueError(f"{shape}, found shape {points.shape}.")
    if not (np.abs(points) < EXTENTS[1]).all():
        raise ValueError("positions holds values that are not finite, or huge: drop those cells.")
    return np.asarray(points)


def check_position_rows(positions: NDArray[np.float64], spatial_key: str) -> None:
    """Raise unless every row of ``(n, d)`` is a finite position or NaN as a whole."""
    where = f"adata.obsm[{spatial_key!r}]"
    if positions.ndim != 2 or positions.shape[1] not in (2, 3):
        raise ValueError(
            f"{where} must have 2 or 3 columns (x, y or x, y, z), found shape {positions.shape}."
        )
    check_rows(positions, where)


def check_rows(positions: NDArray[np.float64], where: str) -> None:
    """Raise unless every row of ``(n, d)`` is finite or NaN as a whole."""
    if np.isinf(positions).any():
        raise ValueError(
            f"{where} holds infinite coordinates in {int(np.isinf(positions).any(1).sum())} cells: "
            "set rows of unknown position to NaN."
        )
    if np.nanmax(np.abs(positions), initial=0) > EXTENTS[1]:
        raise ValueError(
            f"{where} holds coordinates up to {np.nanmax(np.abs(positions)):.3g}: store them "
            "in another unit, such as µm."
        )
    missing = np.isnan(positions)
    if (missing.any(1) & ~missing.all(1)).any():
        raise ValueError(
            f"{where} holds rows with some coordinates NaN and others not: "
            "a position is missing only where its whole row is NaN."
        )


def check_positions(
    positions: NDArray[np.float64], sections: NDArray[np.str_], spatial_key: str
) -> None:
    """Raise if coordinates, rows checked, cannot be learned from.

    Parameters
    ----------
    positions
        Shape ``(n, d)``; NaN rows where missing.
    sections
        Section of each cell, shape ``(n,)``.
    spatial_key
        Name to use in the message.
    """
    where = f"adata.obsm[{spatial_key!r}]"
    missing = np.isnan(positions)
    known = ~missing.any(1)
    if not known.any():
        raise ValueError(
            f"{where} is NaN for every cell: training needs at least one section with coordinates."
        )
    for section in pd.unique(sections[known]):
        check_section(positions[known & (sections == section)], section, where)


def check_section(positions: NDArray[np.float64], section: str, where: str) -> None:
    """Raise if a section has too few cells or no extent."""
    if len(positions) < MIN_CELLS:
        raise ValueError(
            f"section {section!r} has {len(positions)} cells with coordinates in {where}, but at "
            f"least {MIN_CELLS} are needed: drop the section, or correct section_key."
        )
    with np.errstate(over="ignore"):
        extent = float(np.ptp(positions, axis=0).max())
    if extent == 0:
        raise ValueError(
            f"{where} is constant in section {section!r}: all {len(positions)} cells lie at "
            "one point."
        )
    farthest = float(np.abs(positions).max())
    if extent < RESOLUTION * farthest:
        raise ValueError(
            f"{where} spans {extent:.3g} at coordinates of {farthest:.3g} in section {section!r}, "
            "which is near the rounding noise of double precision: subtract the offset before "
            "storing coordinates."
        )
    if not EXTENTS[0] < extent < EXTENTS[1]:
        raise ValueError(
            f"{where} spans {extent:.3g} in section {section!r}, but must span {EXTENTS[0]:g} to "
            f"{EXTENTS[1]:g}: store coordinates in another unit, such as µm."
        )
