"""Draws of the unknown values of a task, set by set."""

from __future__ import annotations

import zlib

import numpy as np
import torch

from alphastomics._validate import check_integer, check_memory
from alphastomics.config import EXPRESSION_ROUNDS, POSITION_ROUNDS, Schedule
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.rounds import DrawSettings, draw_expression, draw_positions
from alphastomics.model._inference import Estimates, Execution, estimate_in_sets
from alphastomics.model._set_reader import SetReader
from alphastomics.model._sets import InferenceSet
from alphastomics.model._task import InferenceTask

MAX_STEPS = 100_000  # of the diffusion heads


def draw_settings(schedule: Schedule, n_steps: int, n_rounds: int | None = None) -> DrawSettings:
    """Rounds and steps of a draw, checked; by default rounds differ between modalities."""
    rounds = (POSITION_ROUNDS, EXPRESSION_ROUNDS)
    n_steps = check_integer("n_steps", n_steps, 1, MAX_STEPS)
    if n_rounds is not None:
        rounds = (check_integer("n_rounds", n_rounds, 1),) * 2
    return DrawSettings(*rounds, n_steps, schedule)


def check_memory_of_draws(
    module: MaskedDiffusionModule, task: InferenceTask, n_samples: int
) -> None:
    """Raise if the draws of a task are larger than the memory of this machine."""
    check_memory(
        n_samples * Estimates.n_bytes(module, task),
        f"n_samples={n_samples} of {task.n} cells",
        "draw fewer at a time",
    )


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
        return Estimates.of_set(module, frame, alone.position[0], scale, logged, depth), alone


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
    execution: Execution,
    *,
    seed: int,
    n_samples: int = 1,
) -> list[Estimates]:
    """Draws of all unknown values.

    With several rounds, the first set of a section larger than a set is drawn first and is the
    context of all others, so that they are one draw together. With one round the cells are
    independent given their context, and so are the sets.
    """
    draws = estimate_in_sets(
        module,
        task,
        execution,
        lambda sets: SetSampler(module, task, settings, seed, sets),
        "Sampling",
        n_draws=n_samples,
        shared_context=settings.position_rounds > 1,
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
