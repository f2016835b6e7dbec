"""Corruption of training sets: hidden genes, noise and frames, and the targets to estimate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics.config import Objective
from alphastomics.diffusion_model.alignment import centroid, random_orthogonal
from alphastomics.diffusion_model.batch import CellBatch, StandardizedCells
from alphastomics.diffusion_model.masking import PANEL_SHARE, hide_genes
from alphastomics.diffusion_model.module import MaskedDiffusionModule


class Targets(NamedTuple):
    """Truth of a batch in the standardized space, and what of it is hidden.

    Attributes
    ----------
    expression, position
        ``(B, N, G)`` and, in the frame of the set, ``(B, N, d)``.
    gene_hidden
        Measured but hidden, boolean ``(B, N, G)``.
    position_hidden
        Measured but hidden, boolean ``(B, N)``.
    depth
        Depth of cells relative to the median of training, ``(B, N)``.
    placing
        Sets with all expression known and hidden positions, boolean ``(B,)``.
    free
        Sets that are placing and have no known position, boolean ``(B,)``.
    """

    expression: Tensor
    position: Tensor
    gene_hidden: Tensor
    position_hidden: Tensor
    depth: Tensor
    placing: Tensor
    free: Tensor


def centered_positions(module: MaskedDiffusionModule, batch: CellBatch) -> Tensor:
    """Positions in RMS radii ``(B, N, d)``, centered on the known cells, or without any on all."""
    any_known = batch.position_known.any(1, keepdim=True)  # (B, 1)
    centered_on = torch.where(any_known, batch.position_known, batch.located)
    position = module.position_transform(torch.where(batch.located[..., None], batch.position, 0.0))
    return position - centroid(position, centered_on.to(position))


def framed_positions(
    module: MaskedDiffusionModule,
    batch: CellBatch,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Positions in the frame that is shown to the network, and whether it is the common one.

    Known cells with expression can be registered to the common frame, as those of a query are. Sets
    without any are turned at random, half of them: expression may be predicted in both.

    Returns
    -------
    position, registered
        ``(B, N, d)``, and boolean ``(B,)``.
    """
    centered = centered_positions(module, batch)
    everything = torch.ones_like(batch.section, dtype=torch.bool)
    if module.frame == "registered":
        return centered, everything
    B, _, d = centered.shape
    turns = random_orthogonal((B, d), generator, reflect=module.allow_reflection).to(centered)
    # Expression may be predicted in frames that are not known, too.
    half = torch.rand(len(centered), generator=generator).to(centered) < 0.5
    if not module.poses.is_fitted:
        return centered @ turns, ~everything
    pose = module.poses.pose(batch.section, allow_reflection=module.allow_reflection)
    section = module.position_transform(torch.where(batch.located[..., None], batch.position, 0.0))
    shown = pose.apply(section)  # (B, N, d)
    can_register = (batch.position_known & batch.expression_known).any(1)
    none_known = ~batch.position_known.any(1)
    registered = can_register | none_known | half
    registered = registered & (batch.section >= 0)
    return torch.where(registered[:, None, None], shown, centered @ turns), registered


def make_targets(
    module: MaskedDiffusionModule,
    batch: CellBatch,
    objective: Objective,
    generator: torch.Generator | None = None,
) -> tuple[Targets, StandardizedCells]:
    """Hide genes, add noise to visible expression, and bring sections into their frame."""
    real = batch.real
    known = batch.expression_known[..., None] & batch.measured  # (B, N, G)
    panel, ratio, strength = torch.rand(3, len(known), generator=generator).to(batch.values)
    mean = objective.expression_mask_ratio
    ratio = mean + (2 * ratio - 1) * min(mean, 1 - mean)
    # Where whole cells are hidden, the expression of the others is given as it is.
    ratio = ratio * (batch.expression_known | ~batch.located).all(1)
    visible = hide_genes(known, ratio, panel < PANEL_SHARE, generator)
    counted = torch.where(batch.expression_known[..., None], visible, batch.measured)
    transform = module.expression_transform
    depth = transform.depth(batch.values, counted)  # (B, N)
    expression = transform.standardize(transform.log_at_depth(batch.values, depth))  # (B, N, G)

    position, registered = framed_positions(module, batch, generator)
    hidden = batch.located & ~batch.position_known
    placing = hidden.any(1) & (batch.expression_known | ~real).all(1)
    noisy = _as_elsewhere(expression, placing, strength, objective, generator)
    targets = Targets(
        expression=expression,
        position=torch.where(batch.located[..., None], position, 0.0),
        gene_hidden=batch.measured & ~visible & real[..., None],
        position_hidden=hidden,
        depth=depth,
        placing=placing,
        free=placing & ~batch.position_known.any(1),
    )
    cells = StandardizedCells(
        expression=noisy,
        gene_known=visible,
        position=targets.position,
        position_known=batch.position_known,
        registered=registered,
        cell_mask=batch.cell_mask,
        scope=batch.scope,
        label=batch.label_condition(),
        batch=batch.batch,
    )
    return targets, cells


def _as_elsewhere(
    expression: Tensor,
    placing: Tensor,
    strength: Tensor,
    objective: Objective,
    generator: torch.Generator | None,
) -> Tensor:
    """Expression ``(B, N, G)`` of the sets that are placed with noise and a shift of each gene.

    Cells to place come from other animals and platforms: exact values must not identify a place,
    and all cells of a section differ from those of another in common. The noise of a set has a
    ``strength`` ``(B,)`` between 0 and 1, its shift a strength of its own.
    """
    if not bool(placing.any()):
        return expression
    B, _, G = expression.shape
    noisy = expression
    if objective.expression_noise:
        noise = torch.randn(expression.shape, generator=generator).to(expression)
        scale = 2 * objective.expression_noise * strength * placing  # (B,)
        noisy = noise.mul_(scale[:, None, None]).add_(expression)
    if objective.expression_shift:
        shift = torch.randn(B, 1, G, generator=generator).to(expression)
        strength = torch.rand(B, generator=generator).to(expression)
        scale = 2 * objective.expression_shift * strength * placing  # (B,)
        noisy = noisy + shift * scale[:, None, None]
    return noisy
