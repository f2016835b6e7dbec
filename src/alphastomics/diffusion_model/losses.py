"""The training objective: what is hidden is what the loss asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics.diffusion_model.arrangement import distance_correlation
from alphastomics.diffusion_model.geometry import kabsch
from alphastomics.diffusion_model.interface import Denoised
from alphastomics.diffusion_model.levels import UNKNOWN, draw_levels, precondition
from alphastomics.diffusion_model.module import EXPRESSION_SIGMA_DATA, MaskedDiffusionModule
from alphastomics.diffusion_model.sets import CellSets
from alphastomics.diffusion_model.targets import Objective, Targets, make_targets, noisy_cells
from alphastomics.nn.experts import Routing

ARRANGEMENT_WEIGHT = 4.0
BALANCE_WEIGHT, Z_WEIGHT = 0.01, 0.001  # Fedus et al. 2022; Zoph et al. 2022


class Losses(NamedTuple):
    """Mean squared errors in units of the data's variance, and the likelihood of the error scale.

    ``position`` and ``expression`` are those of the conditional mean at level 1, the ``noisy_``
    ones those at a level between; ``arrangement`` is one minus the correlation of distances;
    ``routing`` are the weighted losses of the routers of experts. ``least_used`` is no loss: how
    much the least used expert gets, 1 for an even share.
    """

    position: Tensor
    expression: Tensor
    noisy_position: Tensor
    noisy_expression: Tensor
    arrangement: Tensor
    scale: Tensor
    routing: Tensor
    least_used: Tensor

    def total(self) -> Tensor:
        """Sum them up, the arrangement with its weight: what is minimised."""
        losses = self[:-1]
        return (
            sum(losses, torch.zeros_like(self.scale)) + (ARRANGEMENT_WEIGHT - 1) * self.arrangement
        )


def mean_square_per_set(error: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``error**2`` ``(B, N, F)`` over the entries of weight 1, not 0, for every set."""
    total = weight.expand_as(error).sum((1, 2)).clamp_min(1e-12)  # (B,)
    return (weight * error).square().sum((1, 2)) / total


@torch.no_grad()
def superpose(moving: Tensor, fixed: Tensor, weight: Tensor, *, allow_reflection: bool) -> Tensor:
    """Turn points ``(B, N, d)`` onto others, in full precision also under autocast."""
    with torch.autocast(moving.device.type, enabled=False):
        moving, fixed = moving.float(), fixed.float()
        rotation = kabsch(moving, fixed, weight.float(), allow_reflection=allow_reflection)
        return moving @ rotation


def _frame_of(estimate: Tensor, targets: Targets, objective: Objective) -> Tensor:
    """Turn the truth of sets without a known position onto the estimate, ``(B, N, d)``."""
    if objective.frame == "registered":
        return targets.position
    turned = superpose(
        targets.position,
        estimate,
        targets.position_hidden.to(estimate),
        allow_reflection=objective.allow_reflection,
    )
    return torch.where(targets.framed[:, None, None], targets.position, turned)


def _errors(
    denoised: Denoised, position: Tensor, targets: Targets, level: Tensor, sigma_data: float
) -> tuple[Tensor, Tensor]:
    """Position and expression losses, EDM table 1: the weight 1 / c_out^2 makes levels equal.

    The mean over sets of each set's mean over what is hidden in it.
    """
    position_loss = mean_square_per_set(
        denoised.position - position, targets.position_hidden[..., None].to(position)
    )
    position_loss = position_loss / precondition(level, sigma_data).c_out.square()
    expression_loss = mean_square_per_set(
        denoised.expression - targets.expression, targets.gene_hidden.to(position)
    )
    gene_level = torch.where(targets.placing, UNKNOWN, level)
    expression_loss = (
        expression_loss / precondition(gene_level, EXPRESSION_SIGMA_DATA).c_out.square()
    )
    return position_loss.mean(), expression_loss.mean()


def denoising_loss(
    module: MaskedDiffusionModule,
    sets: CellSets,
    objective: Objective,
    generator: torch.Generator | None = None,
) -> Losses:
    """Loss of everything that is hidden in a batch of sets.

    Each set is seen with everything hidden at level 1, and again at one level between; of the sets
    that ask for positions given expression, every second one.

    Frames. Sections arrive in arbitrary rotations and mirror images. A set with a known position
    has the frame of its known cells; it is turned at random, because that frame is arbitrary. For a
    set with none, ``frame="learned"`` superposes the truth on the estimate of level 1 before the
    squared error (as for atoms in AlphaFold 3, Abramson et al. 2024, algorithm 28): the network
    settles on one frame for all sections. Noise is added to the truth *in that frame*, so that
    the sampler meets the frames of training. ``"invariant"`` adds noise in a random frame and
    superposes at every level. ``"registered"`` takes the coordinates as they are.

    Parameters
    ----------
    module
        The network, with its transforms fitted.
    sets
        Sets of cells with their truth and what is known of them.
    objective
        What to hide, and frames.
    generator
        Source of randomness, on the CPU.
    """
    with torch.autocast(module.device.type, enabled=False):
        targets = make_targets(module, sets, objective, generator)
    sigma_data = module.sigma_data
    B = len(sets.values)

    unknown = targets.position.new_full((B,), UNKNOWN)
    cells = noisy_cells(sets, targets, targets.position, unknown, sigma_data, generator)
    mean = module(cells, sets.context())
    position = _frame_of(mean.position, targets, objective)
    at_unknown = _errors(mean, position, targets, unknown, sigma_data)
    arrangement = arrangement_loss(mean, targets)
    scale = scale_loss(mean, position, targets.position_hidden)

    again = ~targets.placing | (torch.arange(B, device=unknown.device) % 2 == 0)  # (B,)
    sets, targets, position = sets.take(again), targets.take(again), position[again]
    level = draw_levels(
        (len(position),),
        objective.schedule,
        generator,
        diffusion_steps=objective.diffusion_steps,
    ).to(unknown)
    start = targets.position if objective.frame == "invariant" else position
    cells = noisy_cells(sets, targets, start, level, sigma_data, generator)
    denoised = module(cells, sets.context())
    if objective.frame == "invariant":
        position = _frame_of(denoised.position, targets, objective)
    at_noise = _errors(denoised, position, targets, level, sigma_data)
    routings = [*mean.routing, *denoised.routing]
    routing, least_used = routing_loss(routings).to(unknown), _least_used(routings).to(unknown)
    return Losses(*at_unknown, *at_noise, arrangement, scale, routing, least_used)


def arrangement_loss(mean: Denoised, targets: Targets) -> Tensor:
    """One minus the correlation of distances, where no position is known; 0 in other sets."""
    asked = targets.placing & ~targets.framed  # (B,)
    if not bool(asked.any()):
        return mean.arrangement.sum() * 0.0
    correlation = distance_correlation(
        mean.arrangement[asked].float(), targets.position[asked], targets.position_hidden[asked]
    )
    return (1 - correlation).sum() / len(asked)


def routing_loss(routings: Sequence[Routing]) -> Tensor:
    """Load balancing and z-loss, summed over blocks; 0 without experts."""
    each = [BALANCE_WEIGHT * routing.balance + Z_WEIGHT * routing.z for routing in routings]
    return torch.stack(each).sum() if each else torch.zeros(())


def _least_used(routings: Sequence[Routing]) -> Tensor:
    shares = [len(routing.utilisation) * routing.utilisation.min() for routing in routings]
    return torch.stack(shares).min() if shares else torch.ones(())


def scale_loss(mean: Denoised, position: Tensor, hidden: Tensor) -> Tensor:
    """Negative log-likelihood of the placement error under a Gaussian of the predicted scale."""
    square = (mean.position.detach() - position).square().mean(-1)  # (B, N)
    nll = mean.log_scale + 0.5 * square * torch.exp(-2 * mean.log_scale)
    weight = hidden.to(square)
    return (weight * nll).sum() / weight.sum().clamp_min(1)


@torch.no_grad()
def unknown_error(
    module: MaskedDiffusionModule, sets: CellSets, objective: Objective
) -> tuple[Tensor, Tensor]:
    """Position and expression errors at level 1, no genes hidden from known cells and no noise."""
    plain = replace(objective, expression_mask_ratio=0.0, expression_noise=0.0)
    with torch.autocast(module.device.type, enabled=False):
        targets = make_targets(module, sets, plain)
    unknown = targets.position.new_full((len(sets.values),), UNKNOWN)
    cells = noisy_cells(sets, targets, targets.position, unknown, module.sigma_data, None)
    mean = module(cells, sets.context())
    position = _frame_of(mean.position, targets, plain)
    return _errors(mean, position, targets, unknown, module.sigma_data)


def placement_error(module: MaskedDiffusionModule, sets: CellSets, objective: Objective) -> Tensor:
    """Mean squared error of placing sets with no position known and all expression known."""
    nothing, everything = torch.zeros_like(sets.located), torch.ones_like(sets.located)
    sets = sets._replace(position_known=nothing, expression_known=everything)
    return unknown_error(module, sets, objective)[0]
