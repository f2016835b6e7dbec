"""Placing the cells of sections: from TissueData to coordinates."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from alphastomics.diffusion_model.levels import Schedule, sampling_levels
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.sampler import sample_positions
from alphastomics.metrics import consensus, generalised_procrustes, medoid
from alphastomics.model._data import TissueData
from alphastomics.model._datamodule import cell_set

Array = NDArray[np.float64]


def _number(name: str) -> int:
    """Turn a name into a number, the same in every process."""
    return zlib.crc32(name.encode())


class PlacementSet(NamedTuple):
    """Cells to be placed together: part ``part`` of a section, indices ``(N,)``."""

    section: str
    part: int
    cells: NDArray[np.int64]


def placement_sets(data: TissueData, max_set: int) -> Iterator[PlacementSet]:
    """Sections cut into sets of at most ``max_set`` cells.

    Cells are taken in the order of their names, so that the order of the input changes nothing. A
    larger section is dealt at random into sets of equal size, each a fair sample of it.
    """
    for section in sorted(pd.unique(data.section)):
        cells = data.cells_of(section)
        cells = cells[np.argsort(data.names[cells], kind="stable")]
        n_sets = -(-len(cells) // max_set)
        if n_sets > 1:
            cells = np.random.default_rng(_number(section)).permutation(cells)
        for part, some in enumerate(np.array_split(cells, n_sets)):
            yield PlacementSet(section, part, some)


def _standard_expression(
    module: MaskedDiffusionModule, data: TissueData, cells: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Standardised expression and visibility of one set, each ``(1, N, G)``, on the device."""
    one = cell_set(data, cells)
    visible = one.visible[None].to(module.device)
    return module.expression_transform(one.values[None].to(module.device), visible), visible


def _place_sets(
    module: MaskedDiffusionModule,
    data: TissueData,
    max_set: int,
    place: Callable[[Tensor, Tensor, PlacementSet], Tensor],
    progress: Callable[[int], object],
) -> Array:
    """Coordinates ``(n, d)`` in the units of training, set by set."""
    out = np.full((len(data.names), module.position_dim), np.nan)
    for one in placement_sets(data, max_set):
        expression, visible = _standard_expression(module, data, one.cells)
        standard = place(expression, visible, one)  # (1, N, d)
        out[one.cells] = module.position_transform.inverse(standard[0]).cpu().double().numpy()
        progress(len(one.cells))
    for section in pd.unique(data.section):
        cells = data.cells_of(section)
        out[cells] -= out[cells].mean(0)
    return out


@torch.inference_mode()
def predict_positions(
    module: MaskedDiffusionModule, data: TissueData, *, max_set: int, progress_bar: bool
) -> Array:
    """Conditional means, ``(n, d)``."""

    def place(expression: Tensor, visible: Tensor, one: PlacementSet) -> Tensor:
        return module.place(expression, visible)

    with tqdm(total=len(data.names), desc="Predicting", disable=not progress_bar) as bar:
        return _place_sets(module, data, max_set, place, bar.update)


@dataclass(frozen=True)
class DrawOptions:
    """How to draw, see ``AlphaSTomics.sample``."""

    n_samples: int
    n_steps: int
    schedule: Schedule
    allow_reflection: bool
    seed: int


def _draw_set(
    module: MaskedDiffusionModule,
    expression: Tensor,
    visible: Tensor,
    options: DrawOptions,
    entropy: list[int],
) -> Tensor:
    """One draw of the positions of one set, ``(1, N, d)``."""
    known = expression.new_zeros(expression.shape[:2])  # (1, N)

    def denoise(z: Tensor, level: Tensor) -> Tensor:
        return module(expression, visible, known, z, level.expand_as(known)).position

    state = np.random.SeedSequence([options.seed, *entropy]).generate_state(1)
    return sample_positions(
        denoise,
        module.place(expression, visible),
        sampling_levels(options.n_steps, options.schedule).to(known),
        module.sigma_data,
        generator=torch.Generator().manual_seed(int(state[0])),
    )


@torch.inference_mode()
def draw_positions(
    module: MaskedDiffusionModule,
    data: TissueData,
    options: DrawOptions,
    *,
    max_set: int,
    progress_bar: bool,
) -> Array:
    """Draws ``(n_samples, n, d)``, those of a section superposed on each other."""
    S = options.n_samples
    draws = np.empty((S, len(data.names), module.position_dim))
    with tqdm(total=S * len(data.names), desc="Sampling", disable=not progress_bar) as bar:
        for i in range(S):

            def place(
                expression: Tensor, visible: Tensor, one: PlacementSet, draw: int = i
            ) -> Tensor:
                entropy = [draw, _number(one.section), one.part]
                return _draw_set(module, expression, visible, options, entropy)

            draws[i] = _place_sets(module, data, max_set, place, bar.update)
    for section in pd.unique(data.section) if S > 1 else []:
        cells = data.cells_of(section)
        draws[:, cells] = generalised_procrustes(
            draws[:, cells], allow_reflection=options.allow_reflection
        )
    return draws


def summarise_draws(draws: Array, data: TissueData, point: str) -> Array:
    """One position per cell, ``(n, d)``, from draws ``(S, n, d)``; a medoid for each section."""
    if point == "consensus":
        return consensus(draws)
    chosen = np.empty_like(draws[0])
    for section in pd.unique(data.section):
        cells = data.cells_of(section)
        chosen[cells] = draws[medoid(draws[:, cells])][cells]
    return np.asarray(chosen)
