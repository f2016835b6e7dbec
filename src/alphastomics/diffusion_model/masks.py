"""What a training set shows and what it hides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.bool_]

# Task: which cells' positions are hidden, which cells' expression is.
TASKS = {
    "place": ("all", "none"),
    "express": ("none", "all"),
    "complete": ("none", "some"),
    "repair": ("some", "same"),
    "generate": ("all", "all"),
    "impute": ("none", "none"),  # only genes
}
TASK_SHARES: dict[str, dict[str, float]] = {
    "expr_to_pos": {"place": 1.0},
    "pos_to_expr": {"express": 0.15, "complete": 0.75, "impute": 0.1},
    "joint": {
        "place": 0.5,
        "express": 0.1,
        "complete": 0.25,
        "repair": 0.05,
        "generate": 0.05,
        "impute": 0.05,
    },
}
TRAINING_MODES = tuple(TASK_SHARES)
WINDOW_SHARE = 0.5  # of the sets whose positions are known
EXPRESSION_SHARE = 0.3  # mean share of cells whose expression is hidden where only some is
PANELS = 8
PANEL_SHARE = 0.25  # of the sets in which all cells lack the same genes


class Pattern(NamedTuple):
    """What is known of the cells of a set, each ``(N,)``."""

    position_known: Mask
    expression_known: Mask


def draw_task(
    training_mode: str, position_mask_ratio: float, rng: np.random.Generator, *, located: bool
) -> str:
    """Draw the task of one training set.

    Without positions only genes can be asked for; without a ``position_mask_ratio`` no set has
    only some of its positions hidden.
    """
    if not located:
        return "impute"
    shares = dict(TASK_SHARES[training_mode])
    if position_mask_ratio == 0:
        shares = {task: share for task, share in shares.items() if TASKS[task][0] != "some"}
    weights = np.array(list(shares.values()))
    return str(rng.choice(list(shares), p=weights / weights.sum()))


def hidden_share(mean: float, rng: np.random.Generator) -> float:
    """Draw a share from the widest uniform distribution in [0, 1] with that mean."""
    return float(rng.uniform(max(0.0, 2 * mean - 1), min(1.0, 2 * mean)))


def choose_some(
    share: float, position: NDArray[np.float64], candidates: Mask, rng: np.random.Generator
) -> Mask:
    """Hide a share of the candidates, at least one and not all: at random, or a contiguous block.

    Parameters
    ----------
    share
        Share to hide.
    position
        ``(N, d)``.
    candidates
        Cells that may be hidden, ``(N,)``; two at least.
    """
    cells = np.flatnonzero(candidates)
    n = int(np.clip(round(share * len(cells)), 1, len(cells) - 1))
    order = rng.permutation(cells)
    if rng.random() < 0.5:
        distance = np.square(position[cells] - position[order[0]]).sum(1)
        order = cells[np.argsort(distance, kind="stable")]
    hidden = np.zeros_like(candidates)
    hidden[order[:n]] = True
    return hidden


def draw_pattern(
    task: str,
    position: NDArray[np.float64],
    located: Mask,
    position_mask_ratio: float,
    rng: np.random.Generator,
) -> Pattern:
    """Draw what is known in one training set.

    Parameters
    ----------
    task
        One of :data:`TASKS`.
    position
        ``(N, d)``, anything where not ``located``.
    located
        Whether the position of a cell is there to be shown, ``(N,)``.
    position_mask_ratio
        Mean share of positions hidden where only some are.
    rng
        Source of randomness.
    """
    which_position, which_expression = TASKS[task]
    nothing = np.zeros_like(located)
    hidden_position = {"none": nothing, "all": nothing | True}.get(which_position)
    if hidden_position is None:
        share = hidden_share(position_mask_ratio, rng)
        hidden_position = choose_some(share, position, located, rng)
    hidden_expression = {
        "none": nothing,
        "all": nothing | True,
        "same": hidden_position,
    }.get(which_expression)
    if hidden_expression is None:
        share = hidden_share(EXPRESSION_SHARE, rng)
        hidden_expression = choose_some(share, position, located, rng)
    return Pattern(located & ~hidden_position, ~hidden_expression)


def hide_genes(
    measured: Tensor, ratio: Tensor, panel: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Hide a random share of the measured genes.

    Parameters
    ----------
    measured
        Boolean ``(B, N, G)``.
    ratio
        Probability of hiding a gene in each set, ``(B,)``.
    panel
        Whether all cells of a set lack the same genes, boolean ``(B,)``; else each cell has one of
        eight panels of its set.
    generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor
        Boolean ``(B, N, G)``, True for genes that stay visible.
    """
    B, N, G = measured.shape
    keep = torch.rand(B, PANELS, G, generator=generator) >= ratio.cpu()[:, None, None]
    which = torch.randint(PANELS, (B, N), generator=generator) * ~panel.cpu()[:, None]  # (B, N)
    keep = keep.gather(1, which[..., None].expand(B, N, G))
    return measured & keep.to(measured.device)
