"""Draws in rounds: a share of the cells is drawn, and known in the next round."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics.config import Schedule
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.heads import require_finite
from alphastomics.diffusion_model.module import Encoding, MaskedDiffusionModule
from alphastomics.diffusion_model.noise_schedule import sampling_sigmas
from alphastomics.diffusion_model.sampler import sample
from alphastomics.priors.donors import adjusted_counts
from alphastomics.priors.support import Support

TRIES = 8  # to draw a cell within the tissue
PSEUDORATE, MAX_RATIO = 0.1, 10.0  # of mean expression, and of a drawn cell to its donor


def round_ends(n_cells: int, n_rounds: int) -> list[int]:
    """Count the cells drawn at the end of each round, by the cosine schedule of MaskGIT.

    Chang et al. 2022 (arXiv:2202.04200), eq. 2: few cells in the
    first rounds, when little is known, and more in later ones. At most one round for each cell.

    Examples
    --------
    >>> round_ends(100, 4)
    [8, 29, 62, 100]
    """
    n_rounds = min(n_rounds, n_cells)
    shares = [1 - math.cos(math.pi / 2 * r / n_rounds) for r in range(1, n_rounds)]
    ends = [max(round(n_cells * share), r + 1) for r, share in enumerate(shares)]
    return [*ends, n_cells]


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
    rounds = _rounds(~cells.position_known[0, :n], settings.position_rounds, generator)
    # The support of the tissue is known in the common frame only.
    is_framed = cells.registered is None or bool(cells.registered.all())
    if module.frame == "registered":
        is_framed = not bool(cells.position_known.any())
    tissue = module.tissue() if is_framed and rounds else None
    for chosen in rounds:
        encoding = module(cells) if encoding is None else encoding
        drawn = _draw_within(module, encoding, chosen, tissue, settings, generator)
        cells, encoding = _with_positions(cells, chosen, drawn), None
    return DrawnPositions(cells, scale)


def _rounds(unknown: Tensor, n_rounds: int, generator: torch.Generator) -> list[Tensor]:
    """Deal the unknown cells ``(N,)`` at random to rounds, each ``(M,)``; none without any."""
    cells = unknown.nonzero()[:, 0]
    if not len(cells):
        return []
    order = cells[torch.randperm(len(cells), generator=generator).to(cells.device)]
    return list(torch.tensor_split(order, round_ends(len(cells), n_rounds)[:-1]))


def _draw_within(
    module: MaskedDiffusionModule,
    encoding: Encoding,
    chosen: Tensor,
    tissue: Support | None,
    settings: DrawSettings,
    generator: torch.Generator,
) -> Tensor:
    """Draw positions of cells ``(M,)`` by the head, ``(M, d)``.

    Those outside the tissue are drawn again, a few times (rejection sampling): guidance overshoots,
    and cells are placed between the sides of a cavity.
    """
    head, sigmas = module.position_head, sampling_sigmas(settings.n_steps, settings.schedule)
    drawn = encoding.position.new_empty(len(chosen), encoding.position.shape[-1])
    again = torch.ones(len(chosen), dtype=torch.bool, device=drawn.device)  # (M,)
    for _ in range(TRIES):
        cells = chosen[again]
        mean = encoding.position[0, cells]
        condition = head.condition(encoding.tokens[0, cells])
        drawn[again] = sample(
            lambda z, sigma, condition=condition: head.guided(  # type: ignore[misc]
                z, sigma[None], condition
            ),
            mean,
            sigmas.to(mean),
            head.sigma_data,
            generator,
        )
        require_finite(drawn, "position head")
        if tissue is None:
            break
        again = ~tissue.contains(drawn)
        if not bool(again.any()):
            break
    return drawn


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
    incomplete = (~cells.gene_known[0]).any(-1)  # (N,)
    for chosen in _rounds(incomplete, settings.expression_rounds, generator):
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
        require_finite(deviation, "expression head")
        known = cells.gene_known[0, chosen]
        own_depth = depth[chosen].masked_fill(~known.any(-1), torch.nan)
        drawn = _measure(module, encoding.expression[0, chosen], deviation, own_depth, generator)
        logged[chosen] = torch.where(known, logged[chosen], drawn.logged)
        depth[chosen] = drawn.depth
        expression, gene_known = cells.expression.clone(), cells.gene_known.clone()
        standardized = transform.standardize(drawn.logged)
        expression[0, chosen] = torch.where(known, expression[0, chosen], standardized)
        gene_known[0, chosen] = True
        cells = cells._replace(expression=expression, gene_known=gene_known)
    return ExpressionValues(logged, depth)


def _measure(
    module: MaskedDiffusionModule,
    mean: Tensor,
    deviation: Tensor,
    own_depth: Tensor,
    generator: torch.Generator,
) -> ExpressionValues:
    """Draw what is measured of cells, given their mean ``(M, G)`` and the deviation from it.

    The donor of the most similar description ``(M, size)`` gives its measurement, changed by the
    ratio of the expression of both without noise (the difference, for values without counts).
    Genes that it lacks have the value without noise. Depths are ``own_depth`` ``(M,)``, or drawn
    where that is NaN.
    """
    transform, factors, donors = module.expression_transform, module.factors, module.donors
    description = module.estimated_factors(mean) + deviation
    has_own = ~own_depth.isnan()
    if factors.has_depth:
        depth = torch.where(has_own, factors.of_depth(own_depth), description[:, -1])
        description = torch.cat([description[:, :-1], depth[:, None]], dim=1)
    donor = donors.nearest(description, factors.weight)
    values, measured = (part.to(mean.device) for part in donors.measurement(donor))
    z = mean + factors.decode(deviation)  # (M, G)
    of_donor = factors.decode(donors.description[donor])
    if transform.values != "counts":
        logged = transform.inverse(transform(values, measured) + z - of_donor)
        depth = torch.ones_like(own_depth)
    else:
        rate, donor_rate, average = (
            transform.unlogged(transform.inverse(part)) for part in (z, of_donor, 0 * z[:1])
        )
        least = PSEUDORATE * average
        donor_rate = (donor_rate + least).clamp_min(1e-12)  # 0 where no training cell has counts
        ratio = ((rate + least) / donor_rate).clamp_max(MAX_RATIO)
        deeper = torch.where(has_own, own_depth / transform.depth(values, measured), 1.0)
        ratio = ratio * deeper[:, None]
        counts = adjusted_counts(values.cpu(), ratio.cpu(), generator).to(mean)
        depth = torch.where(has_own, own_depth, transform.depth(counts, measured))
        logged = transform.log_at_depth(counts, depth)
    return ExpressionValues(torch.where(measured, logged, transform.inverse(z)), depth)
