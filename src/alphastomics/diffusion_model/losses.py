"""The training objective: what is hidden is what the loss asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alphastomics.diffusion_model.arrangement import distance_correlation
from alphastomics.diffusion_model.geometry import centroid, kabsch, random_orthogonal
from alphastomics.diffusion_model.levels import (
    KNOWN,
    UNKNOWN,
    Schedule,
    draw_levels,
    precondition,
    sigma_from_level,
)
from alphastomics.diffusion_model.masks import PANEL_SHARE, hide_genes
from alphastomics.diffusion_model.module import (
    EXPRESSION_SIGMA_DATA,
    Denoised,
    MaskedDiffusionModule,
    NoisyCells,
)
from alphastomics.diffusion_model.sets import CellSets

Frame = Literal["learned", "invariant", "registered"]
FRAMES: tuple[Frame, ...] = ("learned", "invariant", "registered")

ARRANGEMENT_WEIGHT = 4.0


@dataclass(frozen=True)
class Objective:
    """What training hides, and the frame in which it asks for positions.

    Attributes
    ----------
    schedule
        How levels are drawn, see :func:`~alphastomics.diffusion_model.levels.draw_levels`.
    expression_mask_ratio
        Mean share of genes hidden; each set draws its own.
    expression_noise
        Mean standard deviation of noise on the standardised expression of cells that are to be
        placed; each set draws its own between 0 and twice that.
    frame
        See :func:`denoising_loss`.
    allow_reflection
        Whether sections may be mirror images of each other.
    """

    schedule: Schedule = "edm"
    expression_mask_ratio: float = 0.4
    expression_noise: float = 0.4
    frame: Frame = "learned"
    allow_reflection: bool = True


class Losses(NamedTuple):
    """Mean squared errors in units of the data's variance, and the likelihood of the error scale.

    ``position`` and ``expression`` are those of the conditional mean at level 1, the ``noisy_``
    ones those at a level between; ``arrangement`` is one minus the correlation of distances.
    """

    position: Tensor
    expression: Tensor
    noisy_position: Tensor
    noisy_expression: Tensor
    arrangement: Tensor
    scale: Tensor

    def total(self) -> Tensor:
        """Sum them up, the arrangement with its weight: what is minimised."""
        return sum(self, torch.zeros_like(self.scale)) + (ARRANGEMENT_WEIGHT - 1) * self.arrangement


class Targets(NamedTuple):
    """The truth of a batch in the standardised space, and what of it is asked for.

    Attributes
    ----------
    expression, position
        ``(B, N, G)`` and ``(B, N, d)``.
    seen
        Expression as the network is given it, with noise, ``(B, N, G)``.
    gene_hidden
        Measured but hidden, boolean ``(B, N, G)``.
    gene_visible
        Boolean ``(B, N, G)``.
    position_hidden
        Measured but hidden, boolean ``(B, N)``.
    placing
        Sets that ask for positions given expression, boolean ``(B,)``.
    framed
        Sets with a known position, which fixes the frame, boolean ``(B,)``.
    """

    expression: Tensor
    position: Tensor
    seen: Tensor
    gene_hidden: Tensor
    gene_visible: Tensor
    position_hidden: Tensor
    placing: Tensor
    framed: Tensor


def mean_square_per_set(error: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``error**2`` ``(B, N, F)`` over the entries of weight 1, not 0, for every set."""
    total = weight.expand_as(error).sum((1, 2)).clamp_min(1e-12)  # (B,)
    return (weight * error).square().sum((1, 2)) / total


def standard_positions(module: MaskedDiffusionModule, sets: CellSets) -> Tensor:
    """Standardised positions ``(B, N, d)``, centred on the known cells, or on all if none is."""
    framed = sets.position_known.any(1, keepdim=True)  # (B, 1)
    centred_on = torch.where(framed, sets.position_known, sets.located)
    position = module.position_transform(torch.where(sets.located[..., None], sets.position, 0.0))
    position = position - centroid(position, centred_on.to(position))
    return torch.where(sets.located[..., None], position, 0.0)


def make_targets(
    module: MaskedDiffusionModule,
    sets: CellSets,
    objective: Objective,
    generator: torch.Generator | None = None,
) -> Targets:
    """Hide genes, add noise to what is seen, and turn sections at random."""
    known = sets.expression_known[..., None] & sets.measured  # (B, N, G)
    panel, ratio, strength = torch.rand(3, len(known), generator=generator).to(sets.values)
    mean = objective.expression_mask_ratio
    ratio = mean + (2 * ratio - 1) * min(mean, 1 - mean)
    # Where whole cells are asked for, what the others express is given as it is.
    ratio = ratio * (sets.expression_known | ~sets.located).all(1)
    visible = hide_genes(known, ratio, panel < PANEL_SHARE, generator)
    counted = torch.where(sets.expression_known[..., None], visible, sets.measured)
    expression = module.expression_transform(sets.values, counted)  # (B, N, G)

    position = standard_positions(module, sets)  # (B, N, d)
    framed = sets.position_known.any(1)  # (B,)
    turned = framed if objective.frame == "learned" else torch.ones_like(framed)
    if objective.frame != "registered":
        B, _, d = position.shape
        rotation = random_orthogonal((B, d), generator, reflect=objective.allow_reflection)
        identity = torch.eye(d).expand(B, d, d)
        rotation = torch.where(turned.cpu()[:, None, None], rotation, identity)
        position = position @ rotation.to(position)

    hidden = sets.located & ~sets.position_known
    real = torch.ones_like(sets.located) if sets.cell_mask is None else sets.cell_mask
    placing = hidden.any(1) & (sets.expression_known | ~real).all(1)
    noise = torch.randn(expression.shape, generator=generator).to(expression)
    strength = 2 * objective.expression_noise * strength * placing  # (B,)
    return Targets(
        expression=expression,
        position=position,
        seen=expression + strength[:, None, None] * noise,
        gene_hidden=sets.measured & ~visible & real[..., None],
        gene_visible=visible,
        position_hidden=hidden,
        placing=placing,
        framed=framed,
    )


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


def _noisy(
    sets: CellSets,
    targets: Targets,
    position: Tensor,
    level: Tensor,
    sigma_data: float,
    generator: torch.Generator | None,
) -> NoisyCells:
    """Add noise of a level ``(B,)`` to what is hidden; everything hidden is unknown at level 1.

    Genes hidden from cells that are to be placed stay unknown, as genes a query lacks do.
    """
    gene_level = torch.where(targets.placing, UNKNOWN, level)[:, None, None]
    expression_level = torch.where(targets.gene_hidden, gene_level, UNKNOWN)
    expression_level = torch.where(targets.gene_visible, KNOWN, expression_level)  # (B, N, G)
    position_level = torch.where(targets.position_hidden, level[:, None], UNKNOWN)
    position_level = torch.where(sets.position_known, KNOWN, position_level)  # (B, N)
    if bool((level >= UNKNOWN).all()):
        return NoisyCells(targets.seen, expression_level, position, position_level)

    def add_noise(clean: Tensor, hidden: Tensor, scale: float) -> Tensor:
        sigma = sigma_from_level(level, scale)[:, None, None]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        return clean + sigma * noise * hidden

    expression = torch.where(targets.gene_visible, targets.seen, targets.expression)
    return NoisyCells(
        add_noise(expression, targets.gene_hidden, EXPRESSION_SIGMA_DATA),
        expression_level,
        add_noise(position, targets.position_hidden[..., None], sigma_data),
        position_level,
    )


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
    sigma_data, context = module.sigma_data, sets.context()
    B = len(sets.values)

    unknown = targets.position.new_full((B,), UNKNOWN)
    cells = _noisy(sets, targets, targets.position, unknown, sigma_data, generator)
    mean = module(cells, context)
    position = _frame_of(mean.position, targets, objective)
    at_unknown = _errors(mean, position, targets, unknown, sigma_data)
    scale = scale_loss(mean, position, targets.position_hidden)

    arrangement = arrangement_loss(mean, targets)

    again = ~targets.placing | (torch.arange(B, device=unknown.device) % 2 == 0)  # (B,)
    sets, targets = sets.take(again), Targets(*(field[again] for field in targets))
    position, context = position[again], sets.context()
    level = draw_levels((len(position),), objective.schedule, generator).to(unknown)
    start = targets.position if objective.frame == "invariant" else position
    denoised = module(_noisy(sets, targets, start, level, sigma_data, generator), context)
    if objective.frame == "invariant":
        position = _frame_of(denoised.position, targets, objective)
    at_noise = _errors(denoised, position, targets, level, sigma_data)
    return Losses(*at_unknown, *at_noise, arrangement, scale)


def arrangement_loss(mean: Denoised, targets: Targets) -> Tensor:
    """One minus the correlation of distances, where no position is known; 0 in other sets."""
    asked = targets.placing & ~targets.framed  # (B,)
    if not bool(asked.any()):
        return mean.arrangement.sum() * 0.0
    correlation = distance_correlation(
        mean.arrangement[asked].float(), targets.position[asked], targets.position_hidden[asked]
    )
    return (1 - correlation).sum() / len(asked)


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
    cells = _noisy(sets, targets, targets.position, unknown, module.sigma_data, None)
    mean = module(cells, sets.context())
    position = _frame_of(mean.position, targets, plain)
    return _errors(mean, position, targets, unknown, module.sigma_data)


def placement_error(module: MaskedDiffusionModule, sets: CellSets, objective: Objective) -> Tensor:
    """Mean squared error of placing sets with no position known and all expression known."""
    nothing, everything = torch.zeros_like(sets.located), torch.ones_like(sets.located)
    sets = sets._replace(position_known=nothing, expression_known=everything)
    return unknown_error(module, sets, objective)[0]
