"""Draws of one set after the other: from a request to arrays."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.rounds import DrawSettings, draw_expression, draw_positions
from alphastomics.model._devices import Devices
from alphastomics.model._filling import Filled, SetEstimate, fill
from alphastomics.model._prediction import SetReader
from alphastomics.model._request import Request
from alphastomics.model._sets import InferenceSet

POSITION_ROUNDS, EXPRESSION_ROUNDS, N_STEPS = 1, 4, 12


@dataclass(frozen=True)
class DrawOptions:
    """Number of draws, how each is drawn, and the seed of all, see ``AlphaSTomics.sample``."""

    n_samples: int
    settings: DrawSettings
    seed: int


class SetSampler:
    """Draws of sets; those of one section and draw have its first set as their context.

    Parameters
    ----------
    module, request, options
        The network, the cells, and how to draw.
    sets
        All sets of the request.
    """

    def __init__(
        self,
        module: MaskedDiffusionModule,
        request: Request,
        options: DrawOptions,
        sets: list[InferenceSet],
    ) -> None:
        self.module, self.request, self.options = module, request, options
        self.reader = SetReader(module, request)
        self.leaders = {s.section: s for s in sets if s.leads}
        self._led: tuple[int, str] | None = None
        self._context: StandardizedCells | None = None

    def __call__(self, cell_set: InferenceSet, draw: int) -> SetEstimate:
        """Draw a set, and the first one of its section before it unless that was just drawn."""
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
    ) -> tuple[SetEstimate, StandardizedCells]:
        """Draw positions, then expression given all positions."""
        module, request, settings = self.module, self.request, self.options.settings
        section = zlib.crc32(cell_set.section.encode())  # the same in every process
        entropy = np.random.SeedSequence([self.options.seed, draw, section, cell_set.part])
        generator = torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))
        cells = self.reader.read(cell_set)
        if context is not None:
            cells = _with_context(cells, context)
        scale = torch.zeros(len(cell_set.cells))
        if request.fill_position:
            # Cells are matched with measured positions, not with drawn ones.
            match = context is None
            cells, scale = draw_positions(module, cells, settings, generator, match=match)
        alone, _ = cells.split()
        logged = depth = None
        if request.fill_expression:
            known_depth = self.reader.known_depth(cell_set)
            logged, depth = draw_expression(module, alone, known_depth, settings, generator)
        estimate = SetEstimate(
            position=self.reader.frame(cell_set).to_units(module, alone.position[0]),
            scale=module.position_transform.inverse(scale).cpu().double().numpy(),
            logged=logged,
            depth=depth,
        )
        return estimate, alone


def _with_context(cells: StandardizedCells, context: StandardizedCells) -> StandardizedCells:
    """Give the last cells of a set the positions that were drawn for them before."""
    n = context.position.shape[1]
    position, known = cells.position.clone(), cells.position_known.clone()
    position[:, -n:], known[:, -n:] = context.position, True
    return cells._replace(position=position, position_known=known)


@torch.inference_mode()
def draw_missing(
    module: MaskedDiffusionModule,
    request: Request,
    options: DrawOptions,
    *,
    max_set: int,
    progress_bar: bool,
    devices: Devices | None = None,
) -> list[Filled]:
    """Draws of everything that is missing.

    With several rounds, the first set of a section larger than a set is drawn first and is the
    context of all others, so that they are one draw together. With one round the cells are
    independent given their context, and so are the sets.
    """
    draws = fill(
        module,
        request,
        lambda sets: SetSampler(module, request, options, sets),
        max_set=max_set,
        n_draws=options.n_samples,
        anchored=options.settings.position_rounds > 1,
        what="Sampling",
        progress_bar=progress_bar,
        devices=devices,
    )
    if request.fill_position:
        for number, filled in enumerate(draws):
            _relax(module, request, filled, options.seed, number)
            if request.fill_expression:
                _exchange(module, request, filled, options.seed, number)
    return draws


def _exchange(
    module: MaskedDiffusionModule, request: Request, filled: Filled, seed: int, draw: int
) -> None:
    """Exchange places of cells in sections of which nothing is known, in place."""
    transform, data = module.expression_transform, request.data
    by_name = np.argsort(data.names[: request.n_query], kind="stable")
    for section, cells in request.unframed_sections():
        if request.expression_known[cells].any() or request.n > request.n_query:
            continue
        cells = by_name[(data.section[: request.n_query] == section)[by_name]]
        assert filled.expression is not None
        logged = torch.from_numpy(filled.expression[cells]).to(module.device)
        values = transform.standardize(logged)
        factors = module.factors.of_genes(values, torch.ones_like(values, dtype=torch.bool))
        rng = np.random.default_rng([seed, draw, zlib.crc32(section.encode()), 1])
        filled.position[cells] = module.autocorrelation.exchange(
            filled.position[cells], factors.cpu().double().numpy(), rng
        )


def _relax(
    module: MaskedDiffusionModule, request: Request, filled: Filled, seed: int, draw: int
) -> None:
    """Move drawn cells apart, section by section, in place; known cells stay."""
    scale = float(module.position_transform.scale)
    by_name = np.argsort(request.data.names, kind="stable")  # whatever the order of the cells
    section_of = request.data.section
    in_query = np.arange(request.n) < request.n_query
    for section in np.unique(section_of[: request.n_query]):
        cells = by_name[(in_query & (section_of == section) | ~in_query)[by_name]]
        known = request.position_known[cells]
        cells = cells[known | in_query[cells]]
        known = request.position_known[cells]
        points = filled.position[cells] / scale
        if known.any():
            assert request.data.position is not None
            points[known] = request.data.position[cells[known]] / scale
        rng = np.random.default_rng([seed, draw, zlib.crc32(section.encode())])
        moved = module.spacing.relax(points, ~known, rng)
        if not known.any():
            moved += points.mean(0) - moved.mean(0)
        filled.position[cells[~known]] = moved[~known] * scale
