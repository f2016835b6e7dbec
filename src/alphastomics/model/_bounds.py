"""Calibrated bounds of the expression that a task estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._intervals import Intervals, Values
from alphastomics.model._task import InferenceTask

NOT_CALIBRATED = ""
ROUNDING = 1e-3  # of a count


def patterns_of(task: InferenceTask) -> NDArray[np.object_]:
    """Calibrated pattern by which each query cell's expression is estimated, ``(n_query,)``.

    Cells of which nothing is known, and those at positions without a measured cell of their section
    or of a reference, have no pattern that is calibrated.
    """
    n = task.n_query
    informs = task.position_known & task.expression_known
    section = task.data.section[:n]
    among = np.isin(section, section[informs[:n]]) | bool(informs[n:].any())
    expressed, placed = task.expression_known[:n], task.position_known[:n]
    pattern = np.full(n, NOT_CALIBRATED, dtype=object)
    pattern[expressed] = "genes"
    pattern[expressed & placed] = "genes_at_positions"
    pattern[~expressed & placed & among] = "positions"
    pattern[task.blank] = NOT_CALIBRATED
    return pattern


@dataclass(frozen=True)
class ExpressionBounds:
    """Calibrated intervals for the cells of a task.

    Attributes
    ----------
    pattern
        What the expression of each query cell is estimated from, ``(n_query,)``.
    intervals
        Those of each pattern that is calibrated.
    lowest
        The lowest value there can be.
    counts
        Whether values are counts, log-normalized.
    reliability
        Of each gene, ``(G,)``, for the pattern of most cells.
    """

    pattern: NDArray[np.object_]
    intervals: dict[str, Intervals]
    lowest: float
    counts: bool
    reliability: NDArray[np.float64]

    @classmethod
    def of_task(
        cls,
        task: InferenceTask,
        saved: Mapping[str, dict[str, list[Any]]],
        module: MaskedDiffusionModule,
    ) -> Self | None:
        """Bounds of a task by the saved intervals of a model; ``None`` if none are of its kind."""
        pattern = patterns_of(task)
        counted = pd.Series(pattern[task.to_fill[: task.n_query]]).value_counts()
        used = [str(name) for name in counted.index if name in saved]
        if not task.fill_expression or not used:
            return None
        intervals = {name: Intervals.from_json(saved[name]) for name in used}
        return cls(
            pattern,
            intervals,
            module.lowest_value,
            module.expression_transform.values == "counts",
            intervals[used[0]].reliability,
        )

    def around(
        self, cells: NDArray[np.int64], logged: Values, depth: NDArray[np.float64]
    ) -> tuple[Values, Values]:
        """Lower and upper bounds of some cells, ``(len(cells), G)``, NaN where not calibrated.

        Where the depth ``(len(cells),)`` is known, bounds of counts are whole counts at that depth.
        """
        lower, upper = np.full_like(logged, np.nan), np.full_like(logged, np.nan)
        for name, intervals in self.intervals.items():
            own = self.pattern[cells] == name
            low, high = intervals.bounds(logged[own], self.lowest)
            if self.counts and name != "positions":
                low, high = _whole_counts(low, high, depth[own, None])
            lower[own] = np.minimum(low, logged[own])
            upper[own] = np.maximum(high, logged[own])
        return lower, upper


def _whole_counts(
    lower: Values, upper: Values, depth: NDArray[np.float64]
) -> tuple[Values, Values]:
    """Move bounds inwards to the next whole counts of cells of a depth ``(n, 1)``."""
    least = np.ceil(depth * np.expm1(lower) - ROUNDING)
    most = np.floor(depth * np.expm1(upper) + ROUNDING)
    return np.log1p(least / depth).astype(lower.dtype), np.log1p(most / depth).astype(upper.dtype)
