"""Draws in rounds: a share of the cells is drawn, and known in the next round."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics._choices import Schedule
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.module import Encoding, MaskedDiffusionModule
from alphastomics.diffusion_model.noise_schedule import sampling_sigmas
from alphastomics.diffusion_model.sampler import round_ends, sample

MARGIN = 1.1  # drawn cells lie within this times the extent of the training sections


class DrawSettings(NamedTuple):
    """Settings of a draw.

    Attributes
    ----------
    position_rounds, expression_rounds
        Rounds of positions and of expression, one pass of the transformer each.
    n_steps
        Steps of a diffusion head.
    schedule
        Spacing of the noise levels.
    """

    position_rounds: int
    expression_rounds: int
    n_steps: int
    schedule: Schedule


class ExpressionValues(NamedTuple):
    """Drawn expression: log-normalized values ``(N, G)`` and depth of each cell ``(N,)``."""

    logged: Tensor
    depth: Tensor


class DrawnPositions(NamedTuple):
    """One set with all its positions known, and the error scales ``(N,)`` of those drawn."""

    cells: StandardizedCells
    scale: Tensor


def draw_positions(
    module: MaskedDiffusionModule,
    cells: StandardizedCells,
    settings: DrawSettings,
    generator: torch.Generator,
    *,
    match: bool = True,
) -> DrawnPositions:
    """Draw the unknown positions of one set.

    With ``match``, cells that can be matched with known ones are drawn from the mixture of
    matching. All others are drawn by the head, in rounds.
    """
    n = cells.position.shape[1] - cells.n_support
    first: Encoding = module(cells)
    encoding: Encoding | None = first
    scale = first.log_scale[0].exp()  # (N,)
    mixture = module.match(cells) if match else None
    if mixture is not None:
        valid = mixture.valid[0]  # (N,)
        scale = torch.where(valid, mixture.variance()[0].sqrt(), scale)
        drawn = mixture.sample(generator)[0]  # (N, d)
        cells, encoding = _with_positions(cells, valid.nonzero()[:, 0], drawn[valid]), None
    unknown = (~cells.position_known[0, :n]).nonzero()[:, 0]
    order = unknown[torch.randperm(len(unknown), generator=generator).to(unknown.device)]
    radius = MARGIN * float(module.position_transform.extent)
    if cells.registered is not None and not bool(cells.registered.all()):
        radius = math.inf  # the center of the section is not known
    start = 0
    for end in round_ends(len(order), settings.position_rounds) if len(order) else []:
        chosen = order[start:end]
        encoding = module(cells) if encoding is None else encoding
        tokens, mean = encoding.tokens[0, chosen], encoding.position[0, chosen]
        condition = module.position_head.condition(tokens)
        sigmas = sampling_sigmas(settings.n_steps, settings.schedule).to(mean)
        drawn = sample(
            lambda z, sigma, condition=condition: _within(  # type: ignore[misc]
                module.position_head.guided(z, sigma[None], condition), radius
            ),
            mean,
            sigmas,
            module.position_head.sigma_data,
            generator,
        )
        _require_finite(drawn, "position")
        cells, encoding = _with_positions(cells, chosen, drawn), None
        start = end
    return DrawnPositions(cells, scale)


def _within(position: Tensor, radius: float) -> Tensor:
    """Pull positions ``(M, d)`` outside the training tissue back to its extent.

    Guidance overshoots where context and no context disagree (thresholding, Saharia et al. 2022).
    """
    if math.isinf(radius):
        return position
    return position * (radius / position.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)


def _with_positions(cells: StandardizedCells, chosen: Tensor, drawn: Tensor) -> StandardizedCells:
    """Take drawn positions ``(M, d)`` of cells of one set as known."""
    position, known = cells.position.clone(), cells.position_known.clone()
    position[0, chosen], known[0, chosen] = drawn.to(position), True
    return cells._replace(position=position, position_known=known)


def draw_expression(
    module: MaskedDiffusionModule,
    cells: StandardizedCells,
    known_depth: Tensor,
    settings: DrawSettings,
    generator: torch.Generator,
) -> ExpressionValues:
    """Draw the unknown expression of one set, known values as they are.

    Gene factors, and for counts the depth of the cell, are drawn by the head; what is observed is
    drawn given them, with the noise of measurement. Only genes that are unknown are replaced.

    Parameters
    ----------
    module
        The network.
    cells
        One set without a support set.
    known_depth
        Depth of the cells with known genes, ``(N,)``.
    settings
        Rounds and steps.
    generator
        Source of randomness, on the CPU.
    """
    transform, factors = module.expression_transform, module.factors
    depth = known_depth.clone()
    logged = transform.inverse(cells.expression[0])  # (N, G)
    incomplete = (~cells.gene_known[0]).any(-1).nonzero()[:, 0]
    order = incomplete[torch.randperm(len(incomplete), generator=generator).to(incomplete.device)]
    start = 0
    for end in round_ends(len(order), settings.expression_rounds) if len(order) else []:
        chosen = order[start:end]
        encoding = module(cells)
        context = module.expression_context(encoding)[0, chosen]
        condition = module.expression_head.condition(context)
        deviation = sample(
            lambda z, sigma, condition=condition: module.expression_head(  # type: ignore[misc]
                z, sigma[None], condition
            ),
            context.new_zeros(len(chosen), factors.size),
            sampling_sigmas(settings.n_steps, settings.schedule).to(context),
            1.0,
            generator,
        )
        _require_finite(deviation, "expression")
        known = cells.gene_known[0, chosen]
        mean = encoding.expression[0, chosen]
        drawn = _observe(module, mean, deviation, known, depth[chosen], generator)
        logged[chosen] = torch.where(known, logged[chosen], drawn.logged)
        depth[chosen] = drawn.depth
        expression, gene_known = cells.expression.clone(), cells.gene_known.clone()
        standardized = transform.standardize(drawn.logged)
        expression[0, chosen] = torch.where(known, expression[0, chosen], standardized)
        gene_known[0, chosen] = True
        cells = cells._replace(expression=expression, gene_known=gene_known)
        start = end
    return ExpressionValues(logged, depth)


def _observe(
    module: MaskedDiffusionModule,
    mean: Tensor,
    deviation: Tensor,
    known: Tensor,
    known_depth: Tensor,
    generator: torch.Generator,
) -> ExpressionValues:
    """Draw what is measured of cells: ``(M, G)`` and depths ``(M,)``.

    Their standardized mean ``(M, G)`` is taken as it is; of the deviation of their factors from it,
    ``(M, size)``, decoding takes the noise of measurement off, which is drawn anew.
    """
    transform, factors = module.expression_transform, module.factors
    drawn = factors.split(deviation)
    z = mean + factors.decode(drawn.factors)  # (M, G)
    if not factors.has_depth:
        noise = torch.randn(z.shape, generator=generator).to(z)
        return ExpressionValues(transform.inverse(z + factors.noise * noise), known_depth)
    partly = known.any(-1)  # (M,)
    depth = torch.where(partly, known_depth, drawn.depth)
    rate = transform.unlogged(transform.inverse(z))
    counts = factors.draw_counts(rate, depth, generator).to(z)
    # Whole cells are normalized by their own total, the others by that of their known genes.
    own = transform.size_factor(counts, torch.ones_like(known))[:, 0]
    depth = torch.where(partly, known_depth, own)
    return ExpressionValues(torch.log1p(counts / depth[:, None]), depth)


def _require_finite(values: Tensor, head: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise FloatingPointError(
            f"the {head} head drew values that are not finite: the training diverged. Train again "
            "with a lower learning rate, and check model.history for the step at which the loss "
            "grew."
        )
