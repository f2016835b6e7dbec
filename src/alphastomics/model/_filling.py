"""Filling in what is unknown, set by set."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from alphastomics._threads import limited_threads
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._devices import Devices, OutOfMemoryError, spread, telling_out_of_memory
from alphastomics.model._request import Request
from alphastomics.model._sets import MIN_SET, InferenceSet, inference_sets

Array = NDArray[np.float64]


class SetEstimate(NamedTuple):
    """Estimates for the cells of one set.

    Attributes
    ----------
    position
        ``(N, d)`` in the units of training.
    scale
        Expected error of a coordinate, ``(N,)``, in the same units.
    logged
        Log-normalized expression, ``(N, G)``; ``None`` where it was not estimated.
    depth
        Depth of each cell relative to the median of training, ``(N,)``.
    """

    position: Array
    scale: Array
    logged: Tensor | None
    depth: Tensor | None


Estimate = Callable[[InferenceSet, int], SetEstimate]  # of a set, in a draw


@dataclass
class Filled:
    """Estimates for all cells of a request; NaN where nothing was asked for.

    Attributes
    ----------
    position
        ``(n, d)`` in the units of training.
    scale
        Expected error of a coordinate, ``(n,)``, in the same units.
    expression
        Log-normalized, ``(n, G)``; ``None`` when it is not to be filled in.
    depth
        Depth relative to the median of training, ``(n,)``, 1 where nothing says otherwise.
    """

    position: Array
    scale: Array
    expression: NDArray[np.float32] | None
    depth: Array


def _empty(module: MaskedDiffusionModule, request: Request) -> Filled:
    n, G = request.n, module.num_genes
    return Filled(
        position=np.full((n, module.position_dim), np.nan),
        scale=np.full(n, np.nan),
        expression=np.full((n, G), np.nan, np.float32) if request.fill_expression else None,
        depth=np.ones(n),
    )


@limited_threads()
def fill(
    module: MaskedDiffusionModule,
    request: Request,
    estimate_among: Callable[[list[InferenceSet]], Estimate],
    *,
    max_set: int,
    n_draws: int = 1,
    anchored: bool = False,
    what: str,
    progress_bar: bool,
    devices: Devices | None = None,
) -> list[Filled]:
    """Estimate set by set, one or several times over.

    Where memory does not suffice, all is done again in sets of half the size.

    Parameters
    ----------
    module, request
        What estimates, and what for.
    estimate_among
        Given all sets, gives what estimates one of them.
    max_set, anchored
        As in :func:`inference_sets`.
    n_draws
        How often every set is estimated.
    what
        What the progress bar says.
    progress_bar
        Whether to show one.
    devices
        Over which to spread the sets; ``None`` for where the module is.
    """
    total, told = n_draws * int(request.to_fill.sum()), False
    while True:
        sets = list(inference_sets(request, max_set, anchored=anchored))
        work = _Filling(module, request, sets, estimate_among(sets), n_draws)
        try:
            with tqdm(total=total, desc=what, disable=not progress_bar) as bar:
                spread(work, module, devices, bar.update)
            break
        except OutOfMemoryError:
            largest = max(sets, key=lambda one: len(one.with_support))
            max_set = (max_set if told else min(max_set, len(largest.cells))) // 2
            if max_set < MIN_SET:
                raise
            if not told:
                warnings.warn(
                    f"A set of {len(largest.with_support):,} cells does not fit the memory of "
                    f"{module.device}: going on in sets of {max_set:,} cells, or of half as many "
                    "again if these do not fit. Pass max_set= to begin with smaller ones.",
                    stacklevel=2,
                )
            told = True
    for _, cells in request.unframed_sections() if request.fill_position else []:
        for one in work.filled:
            one.position[cells] -= one.position[cells].mean(0)
    return work.filled


class _Filling:
    """The work that is to be done, in pieces that do not depend on each other."""

    def __init__(
        self,
        module: MaskedDiffusionModule,
        request: Request,
        sets: list[InferenceSet],
        estimate: Estimate,
        n_draws: int,
    ) -> None:
        self.module, self.request, self.estimate = module, request, estimate
        self.pieces = [(draw, one) for draw in range(n_draws) for one in sets]
        self.filled = [_empty(module, request) for _ in range(n_draws)]

    def __len__(self) -> int:
        return len(self.pieces)

    def do(self, piece: int) -> None:
        """Estimate one set, in one draw."""
        draw, one = self.pieces[piece]
        with telling_out_of_memory(self.module.device):
            out = self.estimate(one, draw)
        into, cells = self.filled[draw], one.asked
        into.position[cells] = out.position[one.fill]
        into.scale[cells] = out.scale[one.fill]
        if into.expression is not None and out.logged is not None and out.depth is not None:
            into.expression[cells] = out.logged.cpu().float().numpy()[one.fill]
            into.depth[cells] = out.depth.cpu().double().numpy()[one.fill]

    def n_cells(self, piece: int) -> int:
        """Count what a piece fills in."""
        return int(self.pieces[piece][1].fill.sum())

    def result(self, piece: int) -> dict[str, NDArray[Any]]:
        """Give what was estimated for a piece."""
        draw, one = self.pieces[piece]
        every = vars(self.filled[draw]).items()
        return {name: values[one.asked] for name, values in every if values is not None}

    def take(self, piece: int, result: dict[str, NDArray[Any]]) -> None:
        """Take in what was estimated elsewhere."""
        draw, one = self.pieces[piece]
        for name, values in result.items():
            getattr(self.filled[draw], name)[one.asked] = values
