"""Estimators that are fitted to the training cells before the network is trained."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SectionSample(NamedTuple):
    """Standardized cells of one section.

    Attributes
    ----------
    values
        Standardized expression, ``(n, G)``; 0 where not measured.
    known
        Whether a gene of a cell was measured, boolean ``(n, G)``.
    position
        Coordinates in RMS radii, ``(n, d)``.
    """

    values: Tensor
    known: Tensor
    position: Tensor
