"""Which parts of a set to hide in training."""

from __future__ import annotations

import torch
from torch import Tensor


def hide_genes(visible: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide a random share of the visible genes of every cell.

    Parameters
    ----------
    visible
        Boolean ``(B, N, G)``.
    ratio
        Probability of hiding a gene of a cell.
    generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor
        Boolean ``(B, N, G)``, True for genes that stay visible.
    """
    keep = torch.rand(visible.shape, generator=generator) >= ratio
    return visible & keep.to(visible.device)
