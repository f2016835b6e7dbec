"""Estimates for the cells of a task, set by set: conditional means and draws."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphastomics._compat import warn
from alphastomics._progress import Reporter
from alphastomics.diffusion_model.alignment import Pose, superpose
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.heads import require_finite
from alphastomics.diffusion_model.masking import Pattern
from alphastomics.diffusion_model.module import Encoding, MaskedDiffusionModule
from alphastomics.diffusion_model.rounds import DrawSettings, draw_expression, draw_positions
from alphastomics.model._data import CellTable
from alphastomics.model._datamodule import cell_batch, collate
from alphastomics.model._distributed import (
    Devices,
    OutOfMemoryError,
    map_on_devices,
    uniform_out_of_memory,
)
from alphastomics.model._task import (
    MAX_LANDMARKS,
    MIN_SET,
    InferenceSet,
    InferenceTask,
    inference_sets,
)
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


Estimator = Callable[[InferenceSet, int], Estimates]  # of a set, in a draw


class SectionFrame(NamedTuple):
    """Frame of the known cells of a section.

    Attributes
    ----------
    center
        Their center in measured units, ``(d,)``.
    pose
        From positions relative to it, in RMS radii, to the frame of the network.
    registered
        Whether that is the common frame.
    """

    center: NDArray[np.float64]
    pose: Pose
    registered: bool

    def to_common(
        self, module: MaskedDiffusionModule, position: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Positions ``(N, d)`` in measured units in the common frame, in the same units."""
        centered = torch.from_numpy(position - self.center).to(self.pose.shift.dtype)
        standard = module.position_transform(centered.to(self.pose.shift.device))
        common = module.position_transform.inverse(self.pose.apply(standard[None])[0])
        return np.asarray(common.cpu().double().numpy())

    def to_units(self, module: MaskedDiffusionModule, position: Tensor) -> NDArray[np.float64]:
        """Positions ``(N, d)`` of the network's frame in measured units."""
        given = module.position_transform.inverse(self.pose.invert(position[None])[0])
        return np.asarray(given.cpu().double().numpy() + self.center)


class SetReader:
    """Reader of the sets of a task as tensors, each section in one frame.

    Parameters
    ----------
    module
        The network.
    task
        Cells with their known values.
    """

    def __init__(self, module: MaskedDiffusionModule, task: InferenceTask) -> None:
        self.module, self.task = module, task
        self._frames: dict[str, SectionFrame] = {}

    def frame(self, cell_set: InferenceSet) -> SectionFrame:
        """Frame of the section of a set."""
        if cell_set.section not in self._frames:
            self._frames[cell_set.section] = self.register(cell_set.landmarks)
        return self._frames[cell_set.section]

    def register(self, landmarks: NDArray[np.int64]) -> SectionFrame:
        """Superpose known cells on the mean positions that their expression predicts."""
        module, task = self.module, self.task
        d, device = module.position_dim, module.device
        # Without landmarks the model's own frame is the frame of the section.
        identity = Pose(torch.eye(d, device=device)[None], torch.zeros(1, 1, d, device=device))
        if not len(landmarks):
            is_common = module.frame == "registered" or module.poses.is_fitted
            return SectionFrame(np.zeros(d), identity, is_common)
        center = task.data.position[landmarks].mean(0)
        expressed = task.expression_known[landmarks]
        if not module.poses.is_fitted or not expressed.any():
            return SectionFrame(center, identity, module.frame == "registered")
        landmarks = landmarks[expressed]
        cells = self._standardize(landmarks, center, scope=0, n_support=0)
        nowhere = cells._replace(position_known=torch.zeros_like(cells.position_known))
        predicted = module(nowhere).position
        weight = torch.ones_like(predicted[..., 0])
        pose = superpose(
            cells.position, predicted, weight, allow_reflection=module.allow_reflection
        )
        return SectionFrame(center, pose, True)

    def _standardize(
        self,
        cells: NDArray[np.int64],
        center: NDArray[np.float64],
        *,
        scope: int,
        n_support: int,
        visible: Tensor | None = None,
    ) -> StandardizedCells:
        """Standardized values of cells; hidden values are not among them."""
        module, task = self.module, self.task
        pattern = Pattern(task.position_known[cells], task.expression_known[cells])
        single = cell_batch(
            task.data,
            cells,
            pattern,
            scope=scope,
            n_dims=module.position_dim,
            center=center,
            n_support=n_support,
        )
        batch = collate([single]).to(module.device)
        gene_known = batch.measured & batch.expression_known[..., None]
        if visible is not None:
            gene_known &= visible
        expression = module.expression_transform(batch.values, gene_known)
        if task.standards is not None:
            shift, scale, section, _ = task.standards
            of_query = cells < task.n_query
            own = section[cells[of_query]]
            row = torch.from_numpy(of_query).to(expression.device)
            expression = expression.clone()
            expression[:, row] -= torch.from_numpy(shift[own]).to(expression)
            expression[:, row] /= torch.from_numpy(scale[own]).to(expression)
        known = batch.position_known[..., None]
        position = module.position_transform(torch.where(known, batch.position, 0.0))
        return StandardizedCells(
            expression=expression,
            gene_known=gene_known,
            position=position,
            position_known=batch.position_known,
            scope=batch.scope,
            label=batch.label_condition() * task.fill_expression,  # never an input to placement
            batch=batch.batch,
            n_support=batch.n_support,
        )

    def read(self, cell_set: InferenceSet, visible: Tensor | None = None) -> StandardizedCells:
        """Cells of a set in the frame of their section, its support set last.

        All known genes of a cell, or those of them that are ``visible``, boolean ``(N, G)``.
        """
        frame = self.frame(cell_set)
        cells = self._standardize(
            cell_set.with_support,
            frame.center,
            scope=cell_set.scope,
            n_support=len(cell_set.support),
            visible=visible,
        )
        position = torch.where(
            cells.position_known[..., None], frame.pose.apply(cells.position), 0.0
        )
        registered = torch.tensor([frame.registered], device=position.device)
        return cells._replace(position=position, registered=registered)

    def known_depth(self, cell_set: InferenceSet) -> Tensor:
        """Depth of the cells of a set by their known genes, 1 without any, ``(N,)``."""
        transform, task, cells = self.module.expression_transform, self.task, cell_set.cells
        values = torch.from_numpy(task.data.expression[cells].toarray().astype(np.float32))
        known = task.data.measured(cells) & task.expression_known[cells, None]
        is_known = torch.from_numpy(known).to(self.module.device)
        depth = transform.depth(values.to(self.module.device), is_known)
        return torch.where(is_known.any(-1), depth, 1.0)


def _estimates(
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
    return Estimates(
        position=frame.to_units(module, position),
        scale=module.position_transform.inverse(scale).cpu().double().numpy(),
        expression=None if logged is None else logged.cpu().float().numpy(),
        depth=np.ones(len(position)) if depth is None else depth.cpu().double().numpy(),
    )


@torch.inference_mode()
def predict_missing(
    module: MaskedDiffusionModule,
    task: InferenceTask,
    *,
    arrange: bool,
    max_cells: int,
    progress_bar: bool | None,
    devices: Devices | None = None,
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
        return _estimates(module, reader.frame(cell_set), position, scale, logged, depth)

    (estimates,) = _estimate_in_sets(
        module,
        task,
        lambda sets: estimate,
        max_cells=max_cells,
        description="Predicting",
        progress_bar=progress_bar,
        devices=devices,
    )
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
def encode_sets(
    module: MaskedDiffusionModule, task: InferenceTask, max_cells: int
) -> Iterator[tuple[InferenceSet, Encoding]]:
    """Every set and its encoding by the network."""
    reader = SetReader(module, task)
    for cell_set in inference_sets(task, max_cells):
        yield cell_set, module(reader.read(cell_set))


@torch.inference_mode()
def registered_positions(module: MaskedDiffusionModule, data: CellTable) -> Array:
    """Positions of sections in the common frame, ``(n, d)``, NaN where missing.

    Raises
    ------
    ValueError
        If a section has no cell with a position and expression.
    """
    positions = np.full_like(data.position, np.nan)
    known = data.has_position & data.expression_known
    reader = SetReader(
        module,
        InferenceTask(
            data,
            len(data.names),
            position_known=known,
            expression_known=data.expression_known,
            fill_position=False,
            fill_expression=False,
        ),
    )
    by_name = np.argsort(data.names, kind="stable")
    for section in pd.unique(data.section):
        cells = by_name[(data.section == section)[by_name]]
        landmarks = cells[known[cells]]
        if not len(landmarks):
            raise ValueError(
                f"section {section!r} has no cell with a position and expression, by which "
                "it could be registered: drop it."
            )
        landmarks = np.random.default_rng(0).permutation(landmarks)[:MAX_LANDMARKS]
        located = cells[data.has_position[cells]]
        positions[located] = reader.register(landmarks).to_common(module, data.position[located])
    return positions


class SetSampler:
    """Estimator that draws sets; those of a section have its first set as their context.

    Parameters
    ----------
    module, task, settings
        Network, cells, rounds and steps.
    seed
        Of all draws.
    sets
        All sets of the task.
    """

    def __init__(
        self,
        module: MaskedDiffusionModule,
        task: InferenceTask,
        settings: DrawSettings,
        seed: int,
        sets: list[InferenceSet],
    ) -> None:
        self.module, self.task, self.settings, self.seed = module, task, settings, seed
        self.reader = SetReader(module, task)
        self.leaders = {s.section: s for s in sets if s.leads}
        self._led: tuple[int, str] | None = None
        self._context: StandardizedCells | None = None

    def __call__(self, cell_set: InferenceSet, draw: int) -> Estimates:
        """Draw a set, and before it the first set of its section unless that was just drawn."""
        leader = self.leaders.get(cell_set.section)
        if leader is None:
            return self._draw(cell_set, draw, None)[0]
        if cell_set.leads or self._led != (draw, cell_set.section):
            estimate, self._context = self._draw(leader, draw, None)
            self._led = (draw, cell_set.section)
            if cell_set.leads:
                return estimate
        return self._draw(cell_set, draw, self._context)[0]

    def _draw(
        self, cell_set: InferenceSet, draw: int, context: StandardizedCells | None
    ) -> tuple[Estimates, StandardizedCells]:
        """Draw positions, then expression given all positions."""
        module, task, settings = self.module, self.task, self.settings
        section = zlib.crc32(cell_set.section.encode())  # hash() differs between processes
        entropy = np.random.SeedSequence([self.seed, draw, section, cell_set.part])
        generator = torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
        cells = self.reader.read(cell_set)
        if context is not None:
            cells = _with_context(cells, context)
        scale = torch.zeros(len(cell_set.cells))
        if task.fill_position:
            # Cells are matched with measured positions, not with drawn ones.
            match = context is None
            cells, scale = draw_positions(module, cells, settings, generator, match=match)
        alone, _ = cells.split()
        logged = depth = None
        if task.fill_expression:
            known_depth = self.reader.known_depth(cell_set)
            logged, depth = draw_expression(module, alone, known_depth, settings, generator)
        frame = self.reader.frame(cell_set)
        return _estimates(module, frame, alone.position[0], scale, logged, depth), alone


def _with_context(cells: StandardizedCells, context: StandardizedCells) -> StandardizedCells:
    """Give the last cells of a set the positions that were drawn for them before."""
    n = context.position.shape[1]
    position, known = cells.position.clone(), cells.position_known.clone()
    position[:, -n:], known[:, -n:] = context.position, True
    return cells._replace(position=position, position_known=known)


@torch.inference_mode()
def draw_missing(
    module: MaskedDiffusionModule,
    task: InferenceTask,
    settings: DrawSettings,
    *,
    n_samples: int,
    seed: int,
    max_cells: int,
    progress_bar: bool | None,
    devices: Devices | None = None,
) -> list[Estimates]:
    """Draws of all unknown values.

    With several rounds, the first set of a section larger than a set is drawn first and is the
    context of all others, so that they are one draw together. With one round the cells are
    independent given their context, and so are the sets.
    """
    draws = _estimate_in_sets(
        module,
        task,
        lambda sets: SetSampler(module, task, settings, seed, sets),
        max_cells=max_cells,
        n_draws=n_samples,
        shared_context=settings.position_rounds > 1,
        description="Sampling",
        progress_bar=progress_bar,
        devices=devices,
    )
    if task.fill_position:
        for number, draw in enumerate(draws):
            _relax(module, task, draw, seed, number)
            if task.fill_expression:
                _exchange(module, task, draw, seed, number)
    return draws


def _exchange(
    module: MaskedDiffusionModule, task: InferenceTask, estimates: Estimates, seed: int, draw: int
) -> None:
    """Exchange positions of cells in sections of which nothing is known, in place."""
    transform, data = module.expression_transform, task.data
    by_name = np.argsort(data.names[: task.n_query], kind="stable")
    for section, cells in task.unframed_sections():
        if task.expression_known[cells].any() or task.n > task.n_query:
            continue
        cells = by_name[(data.section[: task.n_query] == section)[by_name]]
        assert estimates.expression is not None
        logged = torch.from_numpy(estimates.expression[cells]).to(module.device)
        values = transform.standardize(logged)
        factors = module.factors.of_genes(values, torch.ones_like(values, dtype=torch.bool))
        rng = np.random.default_rng([seed, draw, zlib.crc32(section.encode()), 1])
        estimates.position[cells] = module.autocorrelation.exchange(
            estimates.position[cells], factors.cpu().double().numpy(), rng
        )


def _relax(
    module: MaskedDiffusionModule, task: InferenceTask, estimates: Estimates, seed: int, draw: int
) -> None:
    """Move drawn cells apart, section by section, in place; known cells stay."""
    scale = float(module.position_transform.scale)
    by_name = np.argsort(task.data.names, kind="stable")  # whatever the order of the cells
    section_of, in_query = task.data.section, task.in_query
    around = np.arange(task.n) >= task.n_query
    for section in np.unique(section_of[in_query]):
        cells = by_name[(in_query & (section_of == section) | around)[by_name]]
        known = task.position_known[cells]
        cells = cells[known | in_query[cells]]
        known = task.position_known[cells]
        points = estimates.position[cells] / scale
        if known.any():
            points[known] = task.data.position[cells[known]] / scale
        rng = np.random.default_rng([seed, draw, zlib.crc32(section.encode())])
        moved = module.spacing.relax(points, ~known, rng)
        if not known.any():
            moved += points.mean(0) - moved.mean(0)
        estimates.position[cells[~known]] = moved[~known] * scale


def _estimate_in_sets(
    module: MaskedDiffusionModule,
    task: InferenceTask,
    estimator_for: Callable[[list[InferenceSet]], Estimator],
    *,
    max_cells: int,
    n_draws: int = 1,
    shared_context: bool = False,
    description: str,
    progress_bar: bool | None,
    devices: Devices | None = None,
) -> list[Estimates]:
    """Estimate set by set, ``n_draws`` times.

    Where memory does not suffice, everything is estimated again in sets of half the size.

    Parameters
    ----------
    module, task
        Network and cells.
    estimator_for
        Makes the estimator, given all sets.
    max_cells, shared_context
        As in :func:`inference_sets`.
    n_draws
        Number of estimates of every set.
    description, progress_bar
        Text of the progress bar, and whether to show one.
    devices
        Options of the Trainer that distributes the sets; ``None`` for the device of the module.
    """
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
