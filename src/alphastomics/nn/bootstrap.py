"""New cells like those of training."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from alphastomics.nn.kept import Kept

MAX_CELLS = 4096


class Drawn(NamedTuple):
    """New cells: factors ``(N, R)`` and relative depth ``(N,)``."""

    factors: Tensor
    depth: Tensor


class Bootstrap(Kept):
    """Bootstrap of training cells (Efron 1979), with new noise.

    A new cell has the factors (:class:`~alphastomics.nn.genes.GeneGuess`) and the depth of a random
    training cell; they take part of its noise off, and whoever decodes them adds noise again. Means
    of similar cells were measured to be less like real ones. Empty until it is filled.

    Parameters
    ----------
    num_genes, num_factors
        Number of genes and of factors.

    Attributes
    ----------
    scale
        Mean value of each gene over that of decoded cells, ``(G,)``.
    noise
        Standard deviation of what factors do not tell of standardised genes, ``(G,)``.
    """

    sized: ClassVar[tuple[str, ...]] = ("factors", "depth", "label")
    factors: Tensor
    depth: Tensor
    label: Tensor
    scale: Tensor
    noise: Tensor

    def __init__(self, num_genes: int, num_factors: int) -> None:
        super().__init__()
        self.register_buffer("factors", torch.zeros(0, num_factors))  # (M, R)
        self.register_buffer("depth", torch.zeros(0))  # (M,)
        self.register_buffer("label", torch.zeros(0, dtype=torch.int64))  # (M,)
        self.register_buffer("scale", torch.ones(num_genes))
        self.register_buffer("noise", torch.zeros(num_genes))

    def fill(self, factors: Tensor, depth: Tensor, label: Tensor) -> None:
        """Keep cells: factors ``(M, R)``, relative depth and number of the type, each ``(M,)``."""
        self.factors, self.depth, self.label = factors, depth, label

    def draw(self, label: Tensor, generator: torch.Generator | None = None) -> Drawn:
        """Draw cells.

        Parameters
        ----------
        label
            Number of the type of each new cell, ``(N,)``; 0 for any.
        generator
            Source of randomness, on the CPU.

        Raises
        ------
        ValueError
            If no kept cell has an asked type.
        """
        kept = self.label.cpu()
        chosen = torch.empty(len(label), dtype=torch.int64)
        for kind in torch.unique(label):
            members = torch.arange(len(kept)) if kind == 0 else (kept == kind).nonzero()[:, 0]
            if not len(members):
                raise ValueError(f"no training cell of type number {int(kind)} was kept.")
            asked = label == kind
            one = torch.randint(len(members), (int(asked.sum()),), generator=generator)
            chosen[asked] = members[one]
        return Drawn(self.factors[chosen], self.depth[chosen])
