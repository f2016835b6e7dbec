"""The training objective for positions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics.diffusion_model.geometry import centroid, kabsch
from alphastomics.diffusion_model.levels import (
    KNOWN,
    Schedule,
    draw_levels,
    precondition,
    sigma_from_level,
)
from alphastomics.diffusion_model.masks import hide_genes
from alphastomics.diffusion_model.module import MaskedDiffusionModule


class CellSets(NamedTuple):
    """A batch of sets of cells, in measured units.

    Attributes
    ----------
    values
        Expression, ``(B, N, G)``.
    visible
        Whether a gene was measured, boolean ``(B, N, G)``.
    position
        Coordinates, ``(B, N, d)``; anything where not known.
    has_position
        Whether the position of a cell is known, boolean ``(B, N)``; False for padding.
    cell_mask
        True for real cells, boolean ``(B, N)``; ``None`` when nothing is padded.
    """

    values: Tensor
    visible: Tensor
    position: Tensor
    has_position: Tensor
    cell_mask: Tensor | None


class PlacementLoss(NamedTuple):
    """Mean squared errors per coordinate in units of the data's variance.

    ``unknown`` is that of the conditional mean at level 1, ``noisy`` that between the levels.
    """

    unknown: Tensor
    noisy: Tensor


def weighted_mean_square(error: Tensor, weight: Tensor) -> Tensor:
    """Mean over cells of weight ``(B, N)`` and over coordinates of ``error**2``, ``(B, N, d)``."""
    total = weight.sum().clamp_min(1e-12) * error.shape[-1]
    return (weight[..., None] * error.square()).sum() / total


def standard_positions(module: MaskedDiffusionModule, sets: CellSets) -> tuple[Tensor, Tensor]:
    """Standardised true positions, centred on the cells that have one, and their weights."""
    weight = sets.has_position.to(sets.position.dtype)  # (B, N)
    position = module.position_transform(
        torch.where(sets.has_position[..., None], sets.position, 0.0)
    )
    return (position - centroid(position, weight)) * weight[..., None], weight


@torch.no_grad()
def superpose_truth(
    truth: Tensor, prediction: Tensor, weight: Tensor, *, allow_reflection: bool
) -> Tensor:
    """Turn the truth ``(B, N, d)`` onto the prediction, in full precision also under autocast."""
    with torch.autocast(truth.device.type, enabled=False):
        return truth @ kabsch(truth, prediction.float(), weight, allow_reflection=allow_reflection)


def placement_loss(
    module: MaskedDiffusionModule,
    sets: CellSets,
    *,
    schedule: Schedule,
    expression_mask_ratio: float,
    expression_noise: float,
    allow_reflection: bool = True,
    generator: torch.Generator | None = None,
) -> PlacementLoss:
    """Loss of placing sets none of whose positions are known (``frame="learned"``).

    The frame of a section is arbitrary, so the truth is superposed on the prediction before the
    squared error (as for atoms in AlphaFold 3, Abramson et al. 2024, algorithm 28). The network
    thereby settles on one frame for all sections. Each set is seen twice: at level 1, which fixes
    the frame, and at one level between for all its cells, with noise added to the truth *in that
    frame*, so that the sampler meets the frames of training.

    Parameters
    ----------
    module
        The network, with its transforms fitted.
    sets
        Sets of cells with their true positions.
    schedule
        How levels are drawn, see :func:`~alphastomics.diffusion_model.levels.draw_levels`.
    expression_mask_ratio
        Share of genes to hide from each cell.
    expression_noise
        Standard deviation of Gaussian noise on the standardised expression.
    allow_reflection
        Whether the truth may be mirrored.
    generator
        Source of randomness, on the CPU.
    """
    visible = hide_genes(sets.visible, expression_mask_ratio, generator)
    expression = module.expression_transform(sets.values, visible)  # (B, N, G)
    noise = torch.randn(expression.shape, generator=generator).to(expression)
    expression = (expression + expression_noise * noise) * visible
    truth, weight = standard_positions(module, sets)  # (B, N, d), (B, N)

    mean = module.place(expression, visible, sets.cell_mask)  # (B, N, d)
    truth = superpose_truth(truth, mean, weight, allow_reflection=allow_reflection)
    unknown = weighted_mean_square((mean - truth) / module.sigma_data, weight)

    B, N, _ = truth.shape
    level = draw_levels((B, 1), schedule, generator).to(truth).expand(B, N)
    sigma = sigma_from_level(level, module.sigma_data)[..., None]  # (B, N, 1)
    z = truth + sigma * torch.randn(truth.shape, generator=generator).to(truth)
    known = torch.full_like(level, KNOWN)
    denoised = module(expression, visible, known, z, level, sets.cell_mask).position
    # EDM table 1: the weight lambda = 1 / c_out^2 gives every level the same say at the start.
    c_out = precondition(level, module.sigma_data).c_out[..., None]
    noisy = weighted_mean_square((denoised - truth) / c_out, weight)
    return PlacementLoss(unknown, noisy)


@torch.no_grad()
def placement_error(
    module: MaskedDiffusionModule, sets: CellSets, *, allow_reflection: bool = True
) -> Tensor:
    """Compute the ``unknown`` part of :func:`placement_loss` with nothing hidden and no noise."""
    expression = module.expression_transform(sets.values, sets.visible)
    truth, weight = standard_positions(module, sets)
    mean = module.place(expression, sets.visible, sets.cell_mask)
    truth = superpose_truth(truth, mean, weight, allow_reflection=allow_reflection)
    return weighted_mean_square((mean - truth) / module.sigma_data, weight)
