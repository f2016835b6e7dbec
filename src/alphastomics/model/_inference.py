"""Estimates for the cells of a task, set by set, and conditional means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphastomics._compat import warn
from alphastomics._progress import Reporter
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.heads import require_finite
from alphastomics.diffusion_model.module import Encoding, MaskedDiffusionModule
from alphastomics.model._distributed import (
    Devices,
    OutOfMemoryError,
    map_on_devices,
    uniform_out_of_memory,
)
from alphastomics.model._set_reader import SectionFrame, SetReader
from alphastomics.model._sets import InferenceSet, inference_sets
from alphastomics.model._task import MIN_SET, InferenceTask
from alphastomics.priors.reference_matching import WIDE_AND_NARROW

MIN_BALANCED = 100  # cells of a set, of which the whole composition can be supposed

Array = NDArray[np.float64]


@dataclass
class Estimates:
    """Estimates for the cells of a task, or of a set of it; NaN for cells without an estimate.

    Attributes
    ----------
    position
        ``(n, d)`` in the units of training.
    scale
        Expected error of a coordinate, ``(n,)``, in the same units.
    expression
        Log-normalized, ``(n, G)``; ``None`` where it is not estimated.
    depth
        Depth relative to the median of training, ``(n,)``, 1 where it is not estimated.
    """

    position: Array
    scale: Array
    expression: NDArray[np.float32] | None
    depth: Array

    @classmethod
    def empty(cls, module: MaskedDiffusionModule, task: InferenceTask) -> Estimates:
        """Estimates of a task before any set is estimated."""
        n, G = task.n, module.num_genes
        return cls(
            position=np.full((n, module.position_dim), np.nan),
            scale=np.full(n, np.nan),
            expression=np.full((n, G), np.nan, np.float32) if task.fill_expression else None,
            depth=np.ones(n),
        )

    @classmethod
    def of_set(
        cls,
        module: MaskedDiffusionModule,
        frame: SectionFrame,
        position: Tensor,
        scale: Tensor,
        logged: Tensor | None,
        depth: Tensor | None,
    ) -> Estimates:
        """Estimates of one set, from values in the units of the network."""
        if logged is not None and module.has_no_negative_values:
            logged = logged.clamp_min(0.0)
        return cls(
            position=frame.to_units(module, position),
            scale=module.position_transform.inverse(scale).cpu().double().numpy(),
            expression=None if logged is None else logged.cpu().float().numpy(),
            depth=np.ones(len(position)) if depth is None else depth.cpu().double().numpy(),
        )

    @staticmethod
    def n_bytes(module: MaskedDiffusionModule, task: InferenceTask) -> int:
        """Memory of the estimates of a task."""
        per_cell = 8 * (module.position_dim + 2)
        arrays = 1000  # of Python
        return arrays + task.n * (per_cell + 4 * module.num_genes * task.fill_expression)

    def rows(self, cells: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Values of some cells by name."""
        return {name: array[cells] for name, array in vars(self).items() if array is not None}

    def insert(self, cells: NDArray[np.int64], rows: dict[str, NDArray[Any]]) -> None:
        """Take in the :meth:`rows` of some cells."""
        for name, array in rows.items():
            getattr(self, name)[cells] = array


class Execution(NamedTuple):
    """Computation of a task: sets, progress and devices.

    Attributes
    ----------
    max_cells
        Most cells of a set.
    progress_bar
        Whether to show progress; ``None`` for ``al.settings.progress_bar``.
    devices
        Options of the Trainer that distributes the sets; ``None`` for the device of the module.
    """

    max_cells: int
    progress_bar: bool | None = False
    devices: Devices | None = None


Estimator = Callable[[InferenceSet, int], Estimates]  # of a set, in a draw


def estimate_in_sets(
    module: MaskedDiffusionModule,
    task: InferenceTask,
    execution: Execution,
    estimator_for: Callable[[list[InferenceSet]], Estimator],
    description: str,
    *,
    n_draws: int = 1,
    shared_context: bool = False,
) -> list[Estimates]:
    """Estimate set by set, ``n_draws`` times.

    Where memory does not suffice, everything is estimated again in sets of half the size.

    Parameters
    ----------
    module, task, execution
        Network and cells, and how they are computed.
    estimator_for
        Makes the estimator, given all sets.
    description
        Text of the progress bar.
    n_draws
        Number of estimates of every set.
    shared_context
        As in :func:`inference_sets`.
    """
    max_cells, progress_bar, devices = execution
    total, has_warned = n_draws * int(task.to_fill.sum()), False
    while True:
        sets = list(inference_sets(task, max_cells, shared_context=shared_context))
        try:
            with Reporter.of(progress_bar).bar(description, total) as bar:
                draws = _estimate_all(
                    module, task, estimator_for(sets), sets, n_draws, devices, bar.update
                )
            break
        except OutOfMemoryError:
            largest = max(sets, key=lambda cell_set: len(cell_set.with_support))
            max_cells = (max_cells if has_warned else min(max_cells, len(largest.cells))) // 2
            if max_cells < MIN_SET:
                raise
            if not has_warned:
                warn(
                    f"A set of {len(largest.with_support):,} cells does not fit the memory of "
                    f"{module.device}: going on in sets of {max_cells:,} cells, or of half as many "
                    "again if these do not fit. To begin with smaller ones, pass "
                    "max_cells_per_set=."
                )
            has_warned = True
    for _, cells in task.unframed_sections() if task.fill_position else []:
        for estimates in draws:
            estimates.position[cells] -= estimates.position[cells].mean(0)
    return draws


def _estimate_all(
    module: MaskedDiffusionModule,
    task: InferenceTask,
    estimate: Estimator,
    sets: list[InferenceSet],
    n_draws: int,
    devices: Devices | None,
    progress: Callable[[int], object],
) -> list[Estimates]:
    """Estimates of all sets in every draw."""
    items = [(draw, cell_set) for draw in range(n_draws) for cell_set in sets]

    def work(item: int) -> dict[str, NDArray[Any]]:
        draw, cell_set = items[item]
        with uniform_out_of_memory(module.device):
            return estimate(cell_set, draw).rows(cell_set.fill)

    draws = [Estimates.empty(module, task) for _ in range(n_draws)]
    n_cells = [int(cell_set.fill.sum()) for _, cell_set in items]
    for item, rows in map_on_devices(work, n_cells, module, devices, progress):
        draw, cell_set = items[item]
        draws[draw].insert(cell_set.targets, rows)
    return draws


@torch.inference_mode()
def predict_missing(
    module: MaskedDiffusionModule, task: InferenceTask, execution: Execution, *, arrange: bool
) -> Estimates:
    """Conditional means; where no position is known and ``arrange``, arrangements."""
    reader = SetReader(module, task)

    def estimate(cell_set: InferenceSet, draw: int) -> Estimates:
        cells = reader.read(cell_set)
        encoding = module(cells)
        require_finite(encoding.position, "head of mean positions")
        require_finite(encoding.arrangement, "arrangement head")
        require_finite(encoding.expression, "head of mean expression")
        standards = task.standards
        balance = standards is not None and standards.is_own(int(cell_set.targets[0]))
        position, scale = _positions(module, cells, encoding, arrange=arrange, balance=balance)
        logged = depth = None
        if task.fill_expression:
            logged = module.expression_transform.inverse(encoding.expression[0])
            depth = reader.known_depth(cell_set)
        return Estimates.of_set(module, reader.frame(cell_set), position, scale, logged, depth)

    (estimates,) = estimate_in_sets(module, task, execution, lambda sets: estimate, "Predicting")
    return estimates


def _positions(
    module: MaskedDiffusionModule,
    cells: StandardizedCells,
    encoding: Encoding,
    *,
    arrange: bool,
    balance: bool,
) -> tuple[Tensor, Tensor]:
    """Mean positions ``(N, d)`` and error scales ``(N,)`` of one set.

    Among known cells the mode or the mean of the mixture of matching, which was measured to be
    better than the network; else the arrangement, superposed on the mean, or the mean. With
    ``balance`` the cells of a large set as a whole are moved apart if they fill too little of the
    known tissue: expression of another platform says little of the place.
    """
    position, scale = encoding.position[0], encoding.log_scale[0].exp()
    mixture = module.match(cells)
    if mixture is not None:
        if not arrange:
            place = mixture.mean()
        elif balance and int(mixture.valid.sum()) >= MIN_BALANCED:
            place = mixture.spread_mode()
        else:
            place = mixture.mode(WIDE_AND_NARROW)
        position = torch.where(mixture.valid[0, :, None], place[0], position)
        scale = torch.where(mixture.valid[0], mixture.variance(place)[0].sqrt(), scale)
    elif not bool(cells.position_known.any()):
        position = module.place_unframed(cells, encoding, arrange=arrange)[0]
    return position, scale


@torch.inference_mode()
def embed(
    module: MaskedDiffusionModule, task: InferenceTask, max_cells: int
) -> NDArray[np.float32]:
    """Tokens of the last block of the transformer, ``(n, d_model)``, NaN for cells left out."""
    reader = SetReader(module, task)
    tokens = np.full((task.n, module.architecture.d_model), np.nan, np.float32)
    for cell_set in inference_sets(task, max_cells):
        encoding = module(reader.read(cell_set))
        tokens[cell_set.targets] = encoding.tokens[0].cpu().float().numpy()[cell_set.fill]
    return tokens
