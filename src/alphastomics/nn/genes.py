"""What a cell's known genes tell of its unknown ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MAX_RANK = 128
NOISE = 0.2  # variance of a standardised gene that the others do not share


class GeneGuess(nn.Module):
    """Conditional mean of unknown genes under a Gaussian of low rank (Tipping & Bishop 1999).

    A cell is ``z = W f + noise``: factors are inferred from the genes that are known, by ridge
    regression, and give the others. Where positions are known, the guesses of the surroundings are
    mixed in: they share the tissue and not the noise. It is fitted in closed form and kept; the
    network learns what it misses.

    Parameters
    ----------
    num_genes
        Number of values ``G`` of a cell.
    num_widths
        Number of kernel widths ``H`` of the surroundings.
    """

    loading: Tensor
    mix: Tensor
    alone: Tensor

    def __init__(self, num_genes: int, num_widths: int) -> None:
        super().__init__()
        self.register_buffer("loading", torch.zeros(num_genes, min(num_genes, MAX_RANK)))  # (G, R)
        self.register_buffer("mix", torch.zeros(num_widths + 1))
        self.register_buffer("alone", torch.ones(()))

    @property
    def is_fitted(self) -> bool:
        """Whether there is anything to guess from."""
        return bool(self.loading.any())

    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        """Guess from each cell alone.

        Parameters
        ----------
        values
            ``(..., G)``, standardised; anything finite where not known.
        known
            Boolean ``(..., G)``. Fast where many cells share what is known of them.

        Returns
        -------
        Tensor
            ``(..., G)``; 0 for cells of which nothing is known.
        """
        return self.factors(values, known) @ self.loading.T

    def factors(self, values: Tensor, known: Tensor) -> Tensor:
        """Infer the factors ``(..., R)`` of cells from the genes that are known."""
        z, panel = values.flatten(0, -2) * known.flatten(0, -2), known.flatten(0, -2)
        factors = torch.zeros(len(z), self.loading.shape[1], dtype=z.dtype, device=z.device)
        projected = z @ self.loading  # (M, R)
        # Equal panels have equal sums of random numbers.
        weights = torch.rand(panel.shape[1], generator=torch.Generator().manual_seed(0))
        key = panel.double() @ weights.double().to(z.device)
        for value in torch.unique(key):
            if value == 0:
                continue
            members = key == value
            seen = self.loading[panel[int(members.to(torch.uint8).argmax())]]  # (V, R)
            precision = NOISE * torch.eye(seen.shape[1]).to(seen) + seen.T @ seen
            factors[members] = torch.linalg.solve(precision, projected[members].T).T
        return factors.view(*values.shape[:-1], -1)

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Take the main directions of standardised and centred genes ``(n, G)``."""
        _, scale, direction = torch.svd_lowrank(values, q=self.loading.shape[1], niter=4)
        self.loading.copy_(direction * scale / math.sqrt(len(values)))
