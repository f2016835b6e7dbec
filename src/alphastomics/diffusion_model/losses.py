"""Losses of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics.config import Objective
from alphastomics.diffusion_model.alignment import superpose
from alphastomics.diffusion_model.arrangement import distance_correlation
from alphastomics.diffusion_model.batch import CellBatch
from alphastomics.diffusion_model.corruption import Targets, make_targets
from alphastomics.diffusion_model.module import Encoding, MaskedDiffusionModule
from alphastomics.diffusion_model.noise_schedule import draw_sigmas
from alphastomics.nn.moe import Routing

DRAWS_PER_CELL = 4  # noise levels at which a hidden value is denoised in a step
ARRANGEMENT_WEIGHT = 4.0
BALANCE_WEIGHT, Z_WEIGHT = 0.01, 0.001  # Fedus et al. 2022; Zoph et al. 2022


class Losses(NamedTuple):
    """Losses of a batch.

    Attributes
    ----------
    position, expression
        Mean squared errors of the conditional means, in units of the data's variance.
    position_diffusion, expression_diffusion
        Denoising losses of the heads.
    arrangement
        One minus the correlation of distances.
    scale
        Negative log-likelihood of the error scale.
    routing
        Weighted losses of the routers of experts.
    least_used
        Load of the least-used expert relative to an even share; logged only.
    poses
        Statistics of the poses of training sections, ``(S, F)``; not a loss.
    """

    position: Tensor
    expression: Tensor
    position_diffusion: Tensor
    expression_diffusion: Tensor
    arrangement: Tensor
    scale: Tensor
    routing: Tensor
    least_used: Tensor
    poses: Tensor

    def named(self) -> dict[str, Tensor]:
        """Losses by name."""
        return {k: v for k, v in self._asdict().items() if k not in ("least_used", "poses")}

    def total(self) -> Tensor:
        """Weighted sum, which is minimized."""
        return (
            self.position
            + self.expression
            + self.position_diffusion
            + self.expression_diffusion
            + ARRANGEMENT_WEIGHT * self.arrangement
            + self.scale
            + self.routing
        )


def mean_square_per_set(error: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``error**2`` ``(B, N, F)`` of every set over its entries of weight 1, ``(B,)``."""
    total = weight.expand_as(error).sum((1, 2)).clamp_min(1e-12)  # (B,)
    return (weight * error).square().sum((1, 2)) / total


def training_losses(
    module: MaskedDiffusionModule,
    batch: CellBatch,
    objective: Objective,
    generator: torch.Generator | None = None,
) -> Losses:
    """Losses of everything that is hidden in a batch of sets, in one pass of the transformer.

    The mean of sets without a known position is compared with the truth superposed on it; all other
    losses of positions use the frame in which the sets are shown.

    Parameters
    ----------
    module
        The network, with its transforms and priors fitted.
    batch
        Sets of cells with their truth and what is known of them.
    objective
        What to hide, and the noise levels.
    generator
        Source of randomness, on the CPU.
    """
    with torch.autocast(module.device.type, enabled=False):
        targets, cells = make_targets(module, batch, objective, generator)
    encoding = module(cells)
    superposed = superposed_positions(module, encoding, targets)
    routing = encoding.routing
    return Losses(
        position=position_loss(module, encoding, targets, superposed),
        expression=expression_loss(encoding, targets),
        position_diffusion=_position_diffusion(module, encoding, targets, objective, generator),
        expression_diffusion=_expression_diffusion(
            module, batch, encoding, targets, objective, generator
        ),
        arrangement=arrangement_loss(encoding, targets),
        scale=scale_loss(encoding, superposed, targets.position_hidden),
        routing=routing_loss(routing).to(superposed),
        least_used=_least_used(routing).to(superposed),
        poses=_pose_statistics(module, batch, encoding, targets),
    )


def superposed_positions(
    module: MaskedDiffusionModule, encoding: Encoding, targets: Targets
) -> Tensor:
    """Superpose the truth of sets without a known position on their mean, ``(B, N, d)``."""
    if module.frame == "registered":
        return targets.position
    # Without a known position the frame is arbitrary, and only the shape can be right or wrong.
    weight = targets.position_hidden.to(targets.position)
    pose = superpose(
        targets.position, encoding.position, weight, allow_reflection=module.allow_reflection
    )
    return torch.where(targets.free[:, None, None], pose.apply(targets.position), targets.position)


def position_loss(
    module: MaskedDiffusionModule, encoding: Encoding, targets: Targets, true: Tensor
) -> Tensor:
    """Squared error of the mean of cells whose expression is known, in units of the variance."""
    weight = (targets.position_hidden & targets.placing[:, None])[..., None].to(true)
    error = mean_square_per_set(encoding.position - true, weight)
    return error.mean() / module.position_head.sigma_data**2


def expression_loss(encoding: Encoding, targets: Targets) -> Tensor:
    """Squared error of hidden genes, in units of their variance."""
    hidden = targets.gene_hidden
    error = ((encoding.expression - targets.expression) * hidden.to(targets.expression)).flatten(1)
    with torch.autocast(error.device.type, enabled=False):
        square = torch.linalg.vecdot(error.float(), error.float())  # (B,)
    return (square / hidden.count_nonzero((1, 2)).clamp_min(1)).mean()


def _position_diffusion(
    module: MaskedDiffusionModule,
    encoding: Encoding,
    targets: Targets,
    objective: Objective,
    generator: torch.Generator | None,
) -> Tensor:
    """Denoising loss of hidden positions; 0 without any."""
    hidden = targets.position_hidden
    tokens, true = encoding.tokens[hidden], targets.position[hidden]  # (M, D), (M, d)
    if not len(true):
        return encoding.tokens.sum() * 0.0
    sigma = _sigmas(len(true), objective, generator).to(true)
    loss = module.position_head.loss(true, tokens, sigma, generator)
    # As if averaged over sets: a batch with a single such set counts less.
    return loss.mean() * hidden.any(1).float().mean()


def _expression_diffusion(
    module: MaskedDiffusionModule,
    batch: CellBatch,
    encoding: Encoding,
    targets: Targets,
    objective: Objective,
    generator: torch.Generator | None,
) -> Tensor:
    """Denoising loss of the factors, less their mean, of cells with hidden genes."""
    hidden = targets.gene_hidden.any(-1) & ~targets.placing[:, None]  # (B, N)
    if not bool(hidden.any()):
        return encoding.tokens.sum() * 0.0
    context = module.expression_context(encoding)  # (B, N, D + size)
    true = module.factors.encode(targets.expression, batch.measured, targets.depth)
    # The head learns the deviation from the mean, which the expression loss has learned already.
    true = (true - context[..., encoding.tokens.shape[-1] :])[hidden]
    context = context[hidden]  # (M, D + size)
    sigma = _sigmas(len(true), objective, generator).to(true)
    loss = module.expression_head.loss(true, context, sigma, generator)
    return loss.mean() * hidden.any(1).float().mean()


def _sigmas(n: int, objective: Objective, generator: torch.Generator | None) -> Tensor:
    """Noise levels of every draw and cell, ``(K, n)``."""
    sigma = draw_sigmas(
        DRAWS_PER_CELL * n,
        objective.schedule,
        generator,
        diffusion_steps=objective.diffusion_steps,
    )
    return sigma.view(DRAWS_PER_CELL, n)


def arrangement_loss(encoding: Encoding, targets: Targets) -> Tensor:
    """One minus the correlation of distances, where no position is known; 0 in other sets."""
    free = targets.free  # (B,)
    if not bool(free.any()):
        return encoding.arrangement.sum() * 0.0
    correlation = distance_correlation(
        encoding.arrangement[free].float(), targets.position[free], targets.position_hidden[free]
    )
    return (1 - correlation).sum() / len(free)


def routing_loss(routings: Sequence[Routing]) -> Tensor:
    """Load balancing and z-loss, summed over blocks; 0 without experts."""
    each = [BALANCE_WEIGHT * routing.balance + Z_WEIGHT * routing.z for routing in routings]
    return torch.stack(each).sum() if each else torch.zeros(())


def _least_used(routings: Sequence[Routing]) -> Tensor:
    shares = [len(routing.utilization) * routing.utilization.min() for routing in routings]
    return torch.stack(shares).min() if shares else torch.ones(())


def scale_loss(encoding: Encoding, true: Tensor, hidden: Tensor) -> Tensor:
    """Negative log-likelihood of the placement error under a Gaussian of the predicted scale."""
    square = (encoding.position.detach() - true).square().mean(-1)  # (B, N)
    nll = encoding.log_scale + 0.5 * square * torch.exp(-2 * encoding.log_scale)
    weight = hidden.to(square)
    return (weight * nll).sum() / weight.sum().clamp_min(1)


def _pose_statistics(
    module: MaskedDiffusionModule, batch: CellBatch, encoding: Encoding, targets: Targets
) -> Tensor:
    """Statistics of the poses of sections, from sets in which no position was known."""
    if not module.poses.is_fitted:
        return module.poses.statistics
    section = module.position_transform(torch.where(batch.located[..., None], batch.position, 0.0))
    # Known cells were shown in a frame; only sets without any show the frame of the network.
    weight = targets.position_hidden & targets.free[:, None]
    return module.poses.measure(batch.section, section, encoding.position, weight)


@torch.no_grad()
def validation_error(
    module: MaskedDiffusionModule, batch: CellBatch, objective: Objective, *, places_cells: bool
) -> Tensor:
    """Error of the mean: of placing all cells given their expression, or of hidden expression."""
    plain = objective.replace(expression_mask_ratio=0.0, expression_noise=0.0, expression_shift=0.0)
    if places_cells:
        nothing, everything = torch.zeros_like(batch.located), torch.ones_like(batch.located)
        batch = batch._replace(position_known=nothing, expression_known=everything)
    with torch.autocast(module.device.type, enabled=False):
        generator = torch.Generator().manual_seed(0)  # the same turns in every validation
        targets, cells = make_targets(module, batch, plain, generator)
    encoding = module(cells)
    if not places_cells:
        return expression_loss(encoding, targets)
    return position_loss(module, encoding, targets, superposed_positions(module, encoding, targets))
