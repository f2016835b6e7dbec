"""What goes into the network and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alphastomics.diffusion_model.levels import KNOWN, UNKNOWN
from alphastomics.nn.embeddings import LevelEmbedding
from alphastomics.nn.experts import Routing
from alphastomics.nn.pointer import Pointed

SCOPES = ("section", "window")


class NoisyCells(NamedTuple):
    """A batch of sets in the standardised space, each value at its level.

    Attributes
    ----------
    expression
        ``(B, N, G)``; ignored at level 1.
    expression_level
        Level of every gene of every cell in [0, 1], ``(B, N, G)``.
    position
        ``(B, N, d)``; ignored at level 1.
    position_level
        ``(B, N)``.
    """

    expression: Tensor
    expression_level: Tensor
    position: Tensor
    position_level: Tensor

    def split(self, n_bank: int) -> tuple[NoisyCells, NoisyCells]:
        """Part the cells of the sets from the last ``n_bank``."""
        n = self.position.shape[1] - n_bank
        return NoisyCells(*(f[:, :n] for f in self)), NoisyCells(*(f[:, n:] for f in self))


class Context(NamedTuple):
    """What else the network is told of a batch of sets; ``None`` for what it is not.

    Attributes
    ----------
    cell_mask
        True for real cells, False for padding, ``(B, N)``; ``None`` when all are real.
    scope
        Index into :data:`SCOPES`, ``(B,)``: a random part of a section, or a window of it.
    label, batch
        Category of each cell, numbered from 1, 0 where not given, ``(B, N)``.
    n_bank
        How many of the last cells of the sets are a bank of known cells that the others are
        compared with, and nothing else: nothing is made of them.
    embedded, pointed
        Those of an earlier pass over the same sets: of the same expression at the same levels, and
        of the same known values. They are not computed again.
    """

    cell_mask: Tensor | None = None
    scope: Tensor | None = None
    label: Tensor | None = None
    batch: Tensor | None = None
    n_bank: int = 0
    embedded: Tensor | None = None
    pointed: Pointed | None = None


class Denoised(NamedTuple):
    """What the network makes of a set, its bank left out.

    Attributes
    ----------
    position
        Expected clean positions in the standardised space, ``(B, N, d)``.
    arrangement
        Positions whose distances follow the true ones, ``(B, N, d)``, in no frame or scale: made
        for sets without a known position at level 1.
    expression
        Expected clean expression in the standardised space, ``(B, N, G)``.
    log_scale
        Log of the expected error of ``position``, per coordinate, ``(B, N)``.
    tokens
        Token embeddings after the last block, ``(B, N, D)``.
    embedded
        Embedded expression, ``(B, N, D)``.
    pointed
        Known cells that resemble each cell; ``None`` where no position is both known and asked for.
    routing
        How each block spread the tokens over its experts; empty without experts.
    """

    position: Tensor
    arrangement: Tensor
    expression: Tensor
    log_scale: Tensor
    tokens: Tensor
    embedded: Tensor
    pointed: Pointed | None = None
    routing: Sequence[Routing] = ()


def state_of(level: Tensor) -> Tensor:
    """Known, noisy or unknown, as integers ``(B, N)``."""
    state = torch.full_like(level, LevelEmbedding.NOISY, dtype=torch.long)
    state[level <= KNOWN] = LevelEmbedding.KNOWN
    state[level >= UNKNOWN] = LevelEmbedding.UNKNOWN
    return state


def cell_level(level: Tensor) -> Tensor:
    """Level of a cell's expression ``(B, N)`` from those of its genes ``(B, N, G)``.

    That of its noisy genes if it has any; else known if any gene is; else unknown.
    """
    noisy = torch.where(level < UNKNOWN, level, KNOWN).amax(-1)
    return torch.where((level >= UNKNOWN).all(-1), UNKNOWN, noisy)
