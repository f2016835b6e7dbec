"""Filling in what is unknown with draws."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alphastomics._choices import Schedule, Solver
from alphastomics.diffusion_model.interface import Denoised, NoisyCells
from alphastomics.diffusion_model.levels import sampling_levels, signal_and_noise
from alphastomics.diffusion_model.losses import superpose
from alphastomics.diffusion_model.module import EXPRESSION_SIGMA_DATA, MaskedDiffusionModule
from alphastomics.diffusion_model.sampler import State, sample
from alphastomics.model._devices import Devices
from alphastomics.model._filling import Array, Filled, centre_of_known, fill
from alphastomics.model._prediction import Ready, levels_of, mean_of, prepare
from alphastomics.model._request import Request
from alphastomics.model._sets import InferenceSet, inference_sets

N_STEPS = 16
Trajectory = list[State]  # what the denoiser was given at every step


def _number(name: str) -> int:
    """Turn a name into a number, the same in every process."""
    return zlib.crc32(name.encode())


@dataclass(frozen=True)
class DrawOptions:
    """How to draw, see ``AlphaSTomics.sample``."""

    n_samples: int
    n_steps: int
    solver: Solver
    schedule: Schedule
    frame: str
    allow_reflection: bool
    seed: int


def _draw(
    module: MaskedDiffusionModule,
    ready: Ready,
    request: Request,
    options: DrawOptions,
    entropy: list[int],
    *,
    anchors: Trajectory | None = None,
    way: Trajectory | None = None,
) -> Denoised:
    """One draw of everything unknown in a set, in the fields of ``Denoised``.

    The last cells of the set go the way of ``anchors``, the same in every set that has them. The
    way that this set goes is appended to ``way``.
    """
    mean = mean_of(module, ready, request)
    N = mean.position.shape[1]
    asked: list[tuple[Tensor, Tensor, float]] = []
    if request.fill_position:
        hidden = ~ready.sets.position_known[:, :N, None]
        asked.append((mean.position, hidden.to(mean.position), module.sigma_data))
    if request.fill_expression:
        gene_known = ready.gene_known[:, :N]
        start = torch.where(gene_known, ready.expression[:, :N], mean.expression)
        asked.append((start, (~gene_known).to(start), EXPRESSION_SIGMA_DATA))
    turns = options.frame == "invariant" and not bool(ready.sets.position_known.any())

    # What is known stays as it is from step to step, and what was made of it.
    context = ready.sets.context()._replace(pointed=mean.pointed)
    if not request.fill_expression:
        context = context._replace(embedded=mean.embedded)
    followed = iter(anchors or ())

    def denoise(z: State, level: Tensor) -> State:
        if anchors is not None:
            z = tuple(
                torch.cat([own[:, : -anchor.shape[1]], anchor], dim=1)
                for own, anchor in zip(z, next(followed), strict=True)
            )
        if way is not None:
            way.append(z)
        gene_level, position_level = levels_of(ready, level, request)
        position, expression = ready.position, ready.expression
        if request.fill_position:
            position = torch.cat([z[0], position[:, N:]], dim=1)
        if request.fill_expression:
            expression = torch.cat([z[-1], expression[:, N:]], dim=1)
        cells = NoisyCells(expression, gene_level, position, position_level)
        out = module(cells, context)
        placed = out.position
        if turns:
            weight = torch.ones_like(position_level)
            placed = superpose(placed, position, weight, allow_reflection=options.allow_reflection)
        return (placed,) * request.fill_position + (out.expression,) * request.fill_expression

    state = np.random.SeedSequence([options.seed, *entropy]).generate_state(1)
    drawn = sample(
        denoise,
        tuple(a[0] for a in asked),
        tuple(a[1] for a in asked),
        sampling_levels(options.n_steps, options.schedule).to(mean.position),
        [a[2] for a in asked],
        solver=options.solver,
        generator=torch.Generator().manual_seed(int(state[0])),
    )
    return mean._replace(
        position=drawn[0] if request.fill_position else mean.position,
        expression=drawn[-1] if request.fill_expression else mean.expression,
    )


class _Drawing:
    """Draws of sets, of which those of one section and draw follow the same anchors."""

    def __init__(
        self,
        module: MaskedDiffusionModule,
        request: Request,
        options: DrawOptions,
        sets: list[InferenceSet],
    ) -> None:
        self.module, self.request, self.options = module, request, options
        self.leaders = {one.section: one for one in sets if one.leads}
        self.led: tuple[int, str] | None = None
        self.way: Trajectory = []

    def __call__(self, one: InferenceSet, draw: int, *, way: Trajectory | None = None) -> Denoised:
        """Draw a set, and its anchors before it unless they were just drawn.

        The way that it goes is appended to ``way``.
        """
        leader = self.leaders.get(one.section)
        if leader is None:
            return self._draw(one, draw, way=way)
        if one.leads or self.led != (draw, one.section):
            self.led, self.way = (draw, one.section), []
            led = self._draw(leader, draw, way=self.way)
            if one.leads:
                if way is not None:
                    way.extend(self.way)
                return led
        return self._draw(one, draw, anchors=self.way, way=way)

    def _draw(self, one: InferenceSet, draw: int, **follows: Trajectory | None) -> Denoised:
        ready = prepare(self.module, self.request, one)
        entropy = [draw, _number(one.section), one.part]
        return _draw(self.module, ready, self.request, self.options, entropy, **follows)


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
    """Draws.

    Of a section larger than a set the anchors are drawn first. Every other set has them too and
    sees them, at every step, where they were at that step: as the denoiser sees a large set through
    its sample, all sets together are one draw.
    """
    return fill(
        module,
        request,
        lambda sets: _Drawing(module, request, options, sets),
        max_set=max_set,
        n_draws=options.n_samples,
        anchored=True,
        what="Sampling",
        progress_bar=progress_bar,
        devices=devices,
    )


@torch.inference_mode()
def watch(
    module: MaskedDiffusionModule, request: Request, options: DrawOptions, *, max_set: int
) -> Array:
    """Where the cells of the first draw are at every step, ``(n, n_steps + 1, d)``.

    A noisy position is shown ``cos(pi / 2 level)`` times as far out as it is, so that noise is as
    wide as tissue. NaN where no position is asked for.
    """
    levels = sampling_levels(options.n_steps, options.schedule)
    shrunk = [signal_and_noise(level)[0] for level in levels]  # 1 at the last level
    shown = np.full((request.n, len(levels), module.position_dim), np.nan)
    sets = list(inference_sets(request, max_set, anchored=True))
    drawing = _Drawing(module, request, options, sets)
    for one in sets:
        way: Trajectory = []
        drawn = drawing(one, 0, way=way)
        for step, state in enumerate([*(z[0] for z in way), drawn.position]):
            place = module.position_transform.inverse(shrunk[step].to(state) * state[0])
            shown[one.asked, step] = place.cpu().double().numpy()[one.fill]
        shown[one.asked] += centre_of_known(request, one.everyone)
    for _, cells in request.unframed_sections():
        shown[cells] -= shown[cells].mean(0)
    return shown
