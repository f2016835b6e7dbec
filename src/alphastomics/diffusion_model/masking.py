"""Masks of training: which positions, cells and genes of a set are hidden."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.bool_]


class Task(NamedTuple):
    """Hidden positions and hidden expression of one kind of training set.

    ``"some"`` hides a random or contiguous share of the cells, ``"random"`` a random one of any
    size, ``"same"`` the cells whose positions are hidden.
    """

    position: Literal["none", "some", "random", "all"]
    expression: Literal["none", "some", "same", "all"]


TASKS = {
    "place": Task("all", "none"),
    "place_among": Task("random", "none"),  # as in the rounds of a draw
    "express": Task("none", "all"),
    "complete": Task("none", "some"),
    "repair": Task("some", "same"),
    "outline": Task("random", "all"),
    "impute": Task("none", "none"),  # only genes are hidden
}
# Measured (docs/placement-notes.md, expression-notes.md): placing takes most of the training.
TASK_SHARES: dict[str, dict[str, float]] = {
    "expr_to_pos": {"place": 0.8, "place_among": 0.2},
    "pos_to_expr": {"express": 0.15, "complete": 0.75, "impute": 0.1},
    "joint": {
        "place": 0.45,
        "place_among": 0.1,
        "express": 0.08,
        "complete": 0.22,
        "repair": 0.05,
        "outline": 0.05,
        "impute": 0.05,
    },
}
WINDOW_SHARE = 0.5  # of the sets whose positions are known
EXPRESSION_SHARE = 0.3  # mean share of cells whose expression is hidden where only some is
PANELS = 8
PANEL_SHARE = 0.25  # of the sets in which all cells lack the same genes


class Pattern(NamedTuple):
    """Masks of the cells of a set with known position and expression, each ``(N,)``."""

    position_known: Mask
    expression_known: Mask


def draw_task(
    training_mode: str, position_mask_ratio: float, rng: np.random.Generator, *, located: bool
) -> str:
    """Draw the task of one training set.

    Without positions only genes can be hidden; without a ``position_mask_ratio`` no set has only
    some of its positions hidden.
    """
    if not located:
        return "impute"
    shares = dict(TASK_SHARES[training_mode])
    if position_mask_ratio == 0:
        partly = ("some", "random")
        shares = {
            task: share for task, share in shares.items() if TASKS[task].position not in partly
        }
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
        ``(N, d)``, ignored where not ``located``.
    located
        Whether the position of a cell was measured, ``(N,)``.
    position_mask_ratio
        Mean share of positions hidden where ``"some"`` are.
    rng
        Source of randomness.
    """
    of_position, of_expression = TASKS[task]
    nothing = np.zeros_like(located)
    if of_position == "some":
        share = hidden_share(position_mask_ratio, rng)
        hidden_position = choose_some(share, position, located, rng)
    elif of_position == "random":
        hidden_position = rng.random(len(located)) < rng.random()
        if not (hidden_position & located).any():
            hidden_position[rng.choice(np.flatnonzero(located))] = True
    else:
        hidden_position = nothing if of_position == "none" else ~nothing
    if of_expression == "some":
        hidden_expression = choose_some(hidden_share(EXPRESSION_SHARE, rng), position, located, rng)
    elif of_expression == "same":
        hidden_expression = hidden_position
    else:
        hidden_expression = nothing if of_expression == "none" else ~nothing
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
    visible = torch.rand(B, PANELS, G, generator=generator) >= ratio.cpu()[:, None, None]
    which = torch.randint(PANELS, (B, N), generator=generator) * ~panel.cpu()[:, None]  # (B, N)
    sets = torch.arange(B)[:, None]
    return measured & visible[sets, which].to(measured.device)
