"""What is hidden in a batch of sets, and how the rest is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics._choices import Frame, Schedule
from alphastomics.diffusion_model.geometry import centroid, random_orthogonal
from alphastomics.diffusion_model.interface import NoisyCells
from alphastomics.diffusion_model.levels import DIFFUSION_STEPS, KNOWN, UNKNOWN, sigma_from_level
from alphastomics.diffusion_model.masks import PANEL_SHARE, hide_genes
from alphastomics.diffusion_model.module import EXPRESSION_SIGMA_DATA, MaskedDiffusionModule
from alphastomics.diffusion_model.sets import CellSets


@dataclass(frozen=True)
class Objective:
    """What training hides, and the frame in which it asks for positions.

    Attributes
    ----------
    schedule, diffusion_steps
        How levels are drawn, see :func:`~alphastomics.diffusion_model.levels.draw_levels`.
    expression_mask_ratio
        Mean share of genes hidden; each set draws its own.
    expression_noise
        Mean standard deviation of noise on the standardised expression of cells that are to be
        placed; each set draws its own between 0 and twice that.
    frame
        See :func:`~alphastomics.diffusion_model.losses.denoising_loss`.
    allow_reflection
        Whether sections may be mirror images of each other.
    """

    schedule: Schedule = "edm"
    diffusion_steps: int = DIFFUSION_STEPS
    expression_mask_ratio: float = 0.4
    expression_noise: float = 0.4
    frame: Frame = "learned"
    allow_reflection: bool = True


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

    def take(self, chosen: Tensor) -> Targets:
        """Keep some of the sets, ``(B,)``."""
        return Targets(*(field[chosen] for field in self))


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


def noisy_cells(
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
