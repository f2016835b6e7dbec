"""Cells of training that are kept to compare new ones with."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from alphastomics.nn.kept import Kept
from alphastomics.nn.pointer import Pointer

MAX_SECTIONS, MAX_CELLS = 8, 2048


class Atlas(Kept):
    """What some cells of the training sections express, compressed, and where they sit.

    Holds the directions in which :class:`~alphastomics.nn.pointer.Pointer` compares cells, of at
    most 2,048 cells of each of at most 8 sections. Empty until it is filled.

    Parameters
    ----------
    position_dim
        Dimension of space.
    d_model
        Dimension of the directions.
    """

    sized: ClassVar[tuple[str, ...]] = ("features", "place", "known")
    features: Tensor
    place: Tensor
    known: Tensor

    def __init__(self, position_dim: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(0, 0, d_model))  # (S, M, D)
        self.register_buffer("place", torch.zeros(0, 0, position_dim))  # (S, M, d)
        self.register_buffer("known", torch.zeros(0, 0, dtype=torch.bool))  # (S, M)

    def fill(self, features: list[Tensor], place: list[Tensor]) -> None:
        """Take the directions ``(M_s, D)`` and places ``(M_s, d)`` of the cells of each section."""
        pad = nn.utils.rnn.pad_sequence
        self.features, self.place = pad(features, batch_first=True), pad(place, batch_first=True)
        ones = [torch.ones(len(part), dtype=torch.bool) for part in place]
        self.known = pad(ones, batch_first=True)

    def places(self, pointer: Pointer, cells: Tensor) -> list[Tensor]:
        """Likeliest places of cells ``(N, D)`` in each section, ``(N, d)``."""
        return [
            pointer(cells[None], features[None], place[None], known[None]).mode()[0]
            for features, place, known in zip(self.features, self.place, self.known, strict=True)
        ]
