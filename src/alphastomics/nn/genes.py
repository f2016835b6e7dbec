"""What a cell's known genes tell of its unknown ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MAX_RANK = 128
PANELS, LARGEST = 64, 2**24  # panels solved at a time, and entries of their matrices
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
        with torch.autocast(values.device.type, enabled=False):
            found = self._factors(values.flatten(0, -2).float(), known.flatten(0, -2))
        return found.view(*values.shape[:-1], -1)

    def _factors(self, values: Tensor, panel: Tensor) -> Tensor:
        """Infer those of ``values`` and ``panel`` ``(M, G)``, ``(M, R)``."""
        projected = (values * panel) @ self.loading  # (M, R)
        factors = torch.zeros_like(projected)
        # Equal panels have equal sums of random numbers.
        weights = torch.rand(panel.shape[1], generator=torch.Generator().manual_seed(0))
        key = panel.double() @ weights.double().to(panel.device)
        order = key.argsort()
        counts = torch.unique_consecutive(key[order], return_counts=True)[1].tolist()
        groups = torch.split(order, counts)
        at_a_time = max(1, min(PANELS, LARGEST // self.loading.numel()))
        for start in range(0, len(groups), at_a_time):
            some = groups[start : start + at_a_time]
            first = torch.stack([members[0] for members in some])  # (P,)
            seen = panel[first, :, None] * self.loading  # (P, G, R)
            precision = NOISE * torch.eye(seen.shape[-1]).to(seen) + seen.transpose(1, 2) @ seen
            lu, pivots = torch.linalg.lu_factor(precision)
            for i, members in enumerate(some):
                factors[members] = torch.linalg.lu_solve(lu[i], pivots[i], projected[members].T).T
        return factors

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Take the main directions of standardised and centred genes ``(n, G)``."""
        _, scale, direction = torch.svd_lowrank(values, q=self.loading.shape[1], niter=4)
        self.loading.copy_(direction * scale / math.sqrt(len(values)))
