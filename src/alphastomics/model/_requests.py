"""Warnings of requests whose answer says little, with what to do instead."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alphastomics._compat import warn
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._data import CellTable
from alphastomics.model._task import InferenceTask

MARGIN = 0.25  # of the width of the known tissue, within which positions are not far outside
COMPARED = 200  # cells of a query that are compared with those of training
LEAST_SHARE = 0.5  # of them, so that a query counts as training cells


def warn_of_positions(module: MaskedDiffusionModule, task: InferenceTask) -> None:
    """Warn of positions whose expression is estimated without a frame, or far from the tissue.

    A section has a frame if it or the reference has a cell with a position and expression. A model
    of ``frame="registered"`` takes the orientation of the coordinates.
    """
    if not task.fill_expression or task.fill_position:
        return
    both = task.position_known & task.expression_known
    known = task.data.position[both & (np.arange(task.n) >= task.n_query)]
    for section in pd.unique(task.data.section[: task.n_query]):
        cells = np.flatnonzero(task.in_query & (task.data.section == section))
        placed = cells[task.position_known[cells] & ~task.expression_known[cells]]
        if not len(placed):
            continue
        around = np.concatenate([known, task.data.position[cells[both[cells]]]])
        points = task.data.position[placed]
        if len(around):
            _warn_far_outside(points, around)
            continue
        _warn_too_wide(module, points)
        if module.frame != "registered":
            warn(
                f"expression is predicted at {len(placed)} positions of which no cell is measured: "
                "their orientation in the tissue is unknown, and estimates are near the mean of "
                "the tissue, or of cell types if these are given. Pass reference=, measured cells "
                "with positions in the same frame, or train a model with frame='registered' on "
                "registered sections."
            )


def _warn_far_outside(points: NDArray[np.float64], around: NDArray[np.float64]) -> None:
    """Warn of positions ``(n, d)`` far outside the box around measured cells ``(m, d)``."""
    low, high = around.min(0), around.max(0)
    margin = MARGIN * (high - low).max()
    outside = int(((points < low - margin) | (points > high + margin)).any(1).sum())
    if outside:
        box = " x ".join(f"{a:.4g} to {b:.4g}" for a, b in zip(low, high, strict=True))
        warn(
            f"{outside} of {len(points)} positions lie far outside the measured cells ({box}): "
            "expression there is extrapolated. Check that positions and reference are in one frame "
            "and unit; sections of different animals are not, unless they were registered."
        )


def _warn_too_wide(module: MaskedDiffusionModule, points: NDArray[np.float64]) -> None:
    """Warn if positions ``(n, d)`` spread wider than any training section."""
    most = module.tissue_radius(1.0)
    distance = np.linalg.norm(points - points.mean(0), axis=1)
    outside = int((distance > (1 + MARGIN) * most).sum())
    if outside:
        warn(
            f"{outside} of {len(points)} positions lie up to {distance.max():.4g} from their "
            f"center, but training sections reach {most:.4g}: expression there is extrapolated. "
            "Check the unit of positions."
        )


def warn_wide_radius(radius: NDArray[np.float64], tissue_radius: float) -> None:
    """Warn if half of the cells ``(n,)`` may lie anywhere in the tissue."""
    if not len(radius) or not np.isfinite(radius).any():
        return
    median = float(np.nanmedian(radius))
    if median >= tissue_radius:
        warn(
            f"the 90 % radius of half of the cells is {median:.4g} or more, as wide as the tissue "
            f"(90 % of the cells of a section lie within {tissue_radius:.4g} of its center): their "
            "expression hardly determines their position. Train longer or on more sections, or "
            "pass reference=."
        )


def warn_of_training_cells(
    training: CellTable, sections: list[str], table: CellTable, imputed: NDArray[np.int64]
) -> None:
    """Warn if measured genes are imputed of the cells that the model was trained on.

    Parameters
    ----------
    training, sections
        Cells with the genes of the model, and their sections that it was trained on.
    table
        Cells of the query, with the same genes.
    imputed
        Numbers of the genes to impute.
    """
    place = pd.Index(training.names).get_indexer(pd.Index(table.names))
    shared = np.flatnonzero((place >= 0) & np.isin(training.section[place], sections))
    if len(shared) < LEAST_SHARE * len(table.names):
        return
    cells = np.random.default_rng(0).permutation(shared)[:COMPARED]
    measured = table.measured(cells) & training.measured(place[cells])
    if not measured[:, imputed].any():
        return
    own = table.expression[cells][:].toarray()
    trained = training.expression[place[cells]][:].toarray()
    same = ((own == trained) | ~measured).all(1) & (own > 0).any(1)
    if same.mean() >= LEAST_SHARE:
        warn(
            f"the {len(table.names)} cells of adata are training cells, and the genes to impute "
            "were measured in them: the model has learned from these values, so a comparison with "
            "them overstates the accuracy. Impute cells of a section that was left out of training."
        )


def warn_of_short_folds(max_steps: int | None, steps: int) -> None:
    """Warn if a training of the calibration is shorter than ``steps``, for as many cells."""
    if max_steps is not None and max_steps < steps:
        warn(
            f"max_steps={max_steps} is less than {steps} steps, which correspond to the training "
            "of the model: networks that are trained for fewer steps have other errors, so radius "
            "and intervals may not hold 90 % of the cells. Leave max_steps out."
        )
