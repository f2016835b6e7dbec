"""Draws in rounds: a share of the cells is drawn, and known in the next round."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.spatial import ConvexHull
from torch import Tensor

from alphastomics._choices import Schedule
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.module import Encoding, MaskedDiffusionModule
from alphastomics.diffusion_model.noise_schedule import sampling_sigmas
from alphastomics.diffusion_model.sampler import round_ends, sample
from alphastomics.priors.donors import adjusted_counts

PSEUDORATE, MAX_RATIO = 0.1, 10.0  # of mean expression, and of a drawn cell to its donor


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
    facets = None
    if cells.registered is None or bool(cells.registered.all()):
        facets = _facets(module.tissue_outline())
    start = 0
    for end in round_ends(len(order), settings.position_rounds) if len(order) else []:
        chosen = order[start:end]
        encoding = module(cells) if encoding is None else encoding
        tokens, mean = encoding.tokens[0, chosen], encoding.position[0, chosen]
        condition = module.position_head.condition(tokens)
        sigmas = sampling_sigmas(settings.n_steps, settings.schedule).to(mean)
        drawn = sample(
            lambda z, sigma, condition=condition: _within(  # type: ignore[misc]
                module.position_head.guided(z, sigma[None], condition), facets
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


def _facets(outline: Tensor) -> Tensor | None:
    """Facets of the convex hull of points ``(P, d)`` around the origin, ``(F, d)``.

    The hull holds the positions whose product with every facet is at most 1. ``None`` without
    points, or with none on some side of the origin.
    """
    if not len(outline):
        return None
    # Points on a line have no hull: they are moved by a little ("QJ").
    equations = ConvexHull(outline.cpu().double().numpy(), qhull_options="QJ").equations  # (F, d+1)
    facets = torch.from_numpy(equations[:, :-1] / -equations[:, -1:]).to(outline)
    return facets if (equations[:, -1] < 0).all() else None


def _within(position: Tensor, facets: Tensor | None) -> Tensor:
    """Pull positions ``(M, d)`` outside the training tissue back to its convex hull.

    Guidance overshoots where context and no context disagree (thresholding, Saharia et al. 2022).
    """
    if facets is None:
        return position
    return position / (position @ facets.T).amax(-1, keepdim=True).clamp_min(1.0)


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

    The head draws the description of a cell by gene factors and, for counts, its depth; what is
    measured of it comes from the donor nearest to it. Only genes that are unknown are replaced.

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
        drawn = _measure(module, encoding.expression[0, chosen], deviation, generator)
        logged[chosen] = torch.where(known, logged[chosen], drawn.logged)
        depth[chosen] = torch.where(known.any(-1), depth[chosen], drawn.depth)
        expression, gene_known = cells.expression.clone(), cells.gene_known.clone()
        standardized = transform.standardize(drawn.logged)
        expression[0, chosen] = torch.where(known, expression[0, chosen], standardized)
        gene_known[0, chosen] = True
        cells = cells._replace(expression=expression, gene_known=gene_known)
        start = end
    return ExpressionValues(logged, depth)


def _measure(
    module: MaskedDiffusionModule,
    mean: Tensor,
    deviation: Tensor,
    generator: torch.Generator,
) -> ExpressionValues:
    """Draw what is measured of cells, given their mean ``(M, G)`` and the deviation from it.

    The donor of the most similar description ``(M, size)`` gives its measurement, changed by the
    ratio of the expression of both without noise (the difference, for values without counts).
    Genes that it lacks have the value without noise.
    """
    transform, factors, donors = module.expression_transform, module.factors, module.donors
    donor = donors.nearest(module.estimated_factors(mean) + deviation, factors.weight)
    values, measured = (part.to(mean.device) for part in donors.measurement(donor))
    z = mean + factors.decode(deviation)  # (M, G)
    of_donor = factors.decode(donors.description[donor])
    depth = torch.ones_like(z[:, 0])
    if transform.values == "counts":
        rate, donor_rate, average = (
            transform.unlogged(transform.inverse(part)) for part in (z, of_donor, 0 * z[:1])
        )
        least = PSEUDORATE * average
        donor_rate = (donor_rate + least).clamp_min(1e-12)  # 0 where no training cell has counts
        ratio = ((rate + least) / donor_rate).clamp_max(MAX_RATIO)
        counts = adjusted_counts(values.cpu(), ratio.cpu(), generator).to(mean)
        logged = transform.log(counts, measured)
        depth = transform.depth(counts, measured)
    else:
        own = transform(values, measured)
        logged = transform.inverse(own + z - of_donor)
    logged = torch.where(measured, logged, transform.inverse(z))
    return ExpressionValues(logged, depth)


def _require_finite(values: Tensor, head: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise FloatingPointError(
            f"the {head} head drew values that are not finite: the training diverged. Train again "
            "with a lower learning rate, and check model.history for the step at which the loss "
            "grew."
        )
