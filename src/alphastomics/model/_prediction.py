"""Filling in what is unknown: from a request to arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics.diffusion_model.arrangement import refine
from alphastomics.diffusion_model.geometry import procrustes
from alphastomics.diffusion_model.interface import Denoised, NoisyCells
from alphastomics.diffusion_model.levels import KNOWN, UNKNOWN
from alphastomics.diffusion_model.masks import Pattern
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.sets import CellSets
from alphastomics.diffusion_model.targets import standard_positions
from alphastomics.model._datamodule import cell_set, collate
from alphastomics.model._devices import Devices
from alphastomics.model._filling import Filled, fill
from alphastomics.model._request import Request
from alphastomics.model._sets import InferenceSet, inference_sets


class Ready(NamedTuple):
    """One set on the device, ready for the network."""

    sets: CellSets
    expression: Tensor  # standardised, (1, N, G)
    gene_known: Tensor  # (1, N, G)
    position: Tensor  # standardised, (1, N, d)


def prepare(module: MaskedDiffusionModule, request: Request, one: InferenceSet) -> Ready:
    cells = one.everyone
    pattern = Pattern(request.position_known[cells], request.expression_known[cells])
    single = cell_set(
        request.data,
        cells,
        pattern,
        scope=one.scope,
        n_dims=module.position_dim,
        n_bank=len(one.bank),
    )
    batch = collate([single]).to(module.device)
    # Positions that are hidden by the mode must not leak.
    batch = batch._replace(located=batch.position_known)
    gene_known = batch.measured & batch.expression_known[..., None]
    expression = module.expression_transform(batch.values, gene_known)
    if request.query_shift is not None and request.query_scale is not None:
        shift, scale = (torch.from_numpy(x) for x in (request.query_shift, request.query_scale))
        own = (expression - shift.to(expression)) / scale.to(expression)
        of_query = torch.from_numpy(cells < request.n_query).to(expression.device)
        expression = torch.where(of_query[:, None], own, expression)
    return Ready(batch, expression, gene_known, standard_positions(module, batch))


def levels_of(ready: Ready, level: Tensor, request: Request) -> tuple[Tensor, Tensor]:
    """Level of every gene ``(1, N, G)`` and position ``(1, N)``; not asked for is unknown."""
    unknown = torch.full_like(level, UNKNOWN)
    gene = torch.where(ready.gene_known, KNOWN, level if request.fill_expression else unknown)
    position = torch.where(
        ready.sets.position_known, KNOWN, level if request.fill_position else unknown
    )
    return gene, position


def mean_of(module: MaskedDiffusionModule, ready: Ready, request: Request) -> Denoised:
    """Conditional mean of everything unknown: one pass at level 1."""
    gene_level, position_level = levels_of(ready, ready.position.new_tensor(UNKNOWN), request)
    cells = NoisyCells(ready.expression, gene_level, ready.position, position_level)
    return module(cells, ready.sets.context())


def _point_estimate(
    module: MaskedDiffusionModule,
    ready: Ready,
    request: Request,
    *,
    arrange: bool,
    allow_reflection: bool,
) -> Denoised:
    """Conditional mean; of positions, if asked, the likeliest arrangement or place instead.

    Among known cells it is the mean or the mode of the places of those that resemble a cell: the
    network's correction is for draws.
    """
    mean = mean_of(module, ready, request)
    if not request.fill_position:
        return mean
    if mean.pointed is not None:
        place = mean.pointed.mode() if arrange else mean.pointed.mean()
        position = torch.where(mean.pointed.told[..., None], place, mean.position)
        return mean._replace(position=position)
    if not arrange or bool(ready.sets.position_known.any()):
        return mean
    arrangement = _refined(module, ready, mean.arrangement)
    arranged = procrustes(arrangement, mean.position, allow_reflection=allow_reflection)
    return mean._replace(position=arranged)


def _refined(module: MaskedDiffusionModule, ready: Ready, arrangement: Tensor) -> Tensor:
    """Refine the arrangement of cells by where they would sit in the sections of training."""
    told = ready.gene_known.any(-1)  # (1, N)
    if not len(module.atlas.features) or int(told.sum()) < 2:
        return arrangement
    cells = module.pointer.features(ready.expression[told], ready.gene_known[told])
    refined = arrangement.clone()
    refined[told] = refine(arrangement[told], module.atlas.places(module.pointer, cells))
    return refined


@torch.inference_mode()
def predict_missing(
    module: MaskedDiffusionModule,
    request: Request,
    *,
    arrange: bool,
    allow_reflection: bool,
    max_set: int,
    progress_bar: bool,
    devices: Devices | None = None,
) -> Filled:
    """Conditional means; where no position is known and ``arrange``, arrangements."""

    def estimate(one: InferenceSet, draw: int) -> Denoised:
        ready = prepare(module, request, one)
        return _point_estimate(
            module, ready, request, arrange=arrange, allow_reflection=allow_reflection
        )

    (filled,) = fill(
        module,
        request,
        lambda sets: estimate,
        max_set=max_set,
        what="Predicting",
        progress_bar=progress_bar,
        devices=devices,
    )
    return filled


@torch.inference_mode()
def look(
    module: MaskedDiffusionModule, request: Request, max_set: int
) -> Iterator[tuple[InferenceSet, Denoised]]:
    """Give every set with what the network makes of it in one pass."""
    for one in inference_sets(request, max_set):
        yield one, mean_of(module, prepare(module, request, one), request)
