"""Training cells stored with the model, as a reference for the arrangement of new cells."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from alphastomics.nn.dynamic_buffers import DynamicBufferModule
from alphastomics.priors.reference_matching import ReferenceMatcher
from alphastomics.priors.samples import SectionSample

MAX_SECTIONS, MAX_CELLS = 8, 2048


class StoredReference(DynamicBufferModule):
    """Features and positions of training cells, at most 2,048 of each of at most 8 sections.

    Empty until it is filled.

    Parameters
    ----------
    position_dim
        Dimension of space.
    d_model
        Dimension of the features of the reference matching.
    """

    sized: ClassVar[tuple[str, ...]] = ("features", "place", "valid")
    features: Tensor
    place: Tensor
    valid: Tensor

    def __init__(self, position_dim: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(0, 0, d_model))  # (S, M, D)
        self.register_buffer("place", torch.zeros(0, 0, position_dim))  # (S, M, d)
        self.register_buffer("valid", torch.zeros(0, 0, dtype=torch.bool))  # (S, M)

    def __len__(self) -> int:
        return len(self.features)

    @torch.no_grad()
    def fill(self, matcher: ReferenceMatcher, sections: list[SectionSample]) -> None:
        """Store cells of sections; the matcher must be fitted."""
        pad = nn.utils.rnn.pad_sequence
        self.features = pad(
            [matcher.features(s.values, s.known) for s in sections], batch_first=True
        )
        self.place = pad([s.position for s in sections], batch_first=True)
        ones = [torch.ones(len(s.values), dtype=torch.bool) for s in sections]
        self.valid = pad(ones, batch_first=True)

    def places(self, matcher: ReferenceMatcher, cells: Tensor) -> list[Tensor]:
        """Likeliest places of cells with features ``(N, D)`` in each section, ``(N, d)``."""
        return [
            matcher(cells[None], features[None], place[None], valid[None]).mode()[0]
            for features, place, valid in zip(self.features, self.place, self.valid, strict=True)
        ]
