"""Gaussian-kernel smoother of expression over known neighbors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from alphastomics.nn.spatial_bias import KnownPositions
from alphastomics.priors import SectionSample

WIDEST, NARROWEST = 0.28, 0.035  # kernel widths, in RMS radii of a section
MAX_ENTRIES = 1 << 19  # entries of the distance matrix in memory at a time
MAX_RANK = 128
PRIOR = 1.0  # kernel means are shrunk to the mean of all cells as if by that many cells more
PENALTY_SHARE = 0.06  # ridge penalty per training cell; 1,000 for 17,000 cells


class KernelSmoother(nn.Module):
    """Gaussian kernel means of the known values around every cell (Nadaraya 1964, Watson 1964).

    A ridge regression on the means of several widths, fitted in closed form by :meth:`fit` and
    constant afterwards, predicts the expression at a place; the network learns what it misses.

    Parameters
    ----------
    num_genes
        Number of values ``G`` of a cell.
    d_model
        Width of a token.
    num_widths
        Number of kernel widths ``H``.
    """

    width: Tensor
    basis: Tensor
    weight: Tensor

    def __init__(self, num_genes: int, d_model: int, num_widths: int = 4) -> None:
        super().__init__()
        rank = min(num_genes, MAX_RANK)
        widths = torch.logspace(math.log10(WIDEST), math.log10(NARROWEST), num_widths)
        self.register_buffer("width", widths)
        self.register_buffer("basis", torch.eye(num_genes, rank))  # (G, R)
        self.register_buffer("weight", torch.zeros(num_widths, rank, num_genes))  # (H, R, G)
        self.embedding = nn.Linear(num_widths * (rank + 1), d_model)

    def forward(
        self, values: Tensor, known: Tensor, where: KnownPositions
    ) -> tuple[Tensor, Tensor]:
        """Describe the surroundings of every cell.

        Parameters
        ----------
        values
            ``(B, N, G)``, standardized.
        known
            Which of them are known, boolean ``(B, N, G)``.
        where
            Positions of the cells.

        Returns
        -------
        token, estimate : Tensor
            ``(B, N, D)`` for the network, and estimated values, ``(B, N, G)``. Both are 0 for
            cells of unknown position and where nothing is known.
        """
        mean, density = self.means(values, known, where)  # (B, H, N, R), (B, H, N)
        is_key = known.any(-1) & where.known  # (B, N)
        reached = (where.known & is_key.any(1, keepdim=True))[..., None]  # (B, N, 1)
        features = torch.cat([mean, density[..., None]], dim=-1).transpose(1, 2).flatten(2)
        estimate = torch.einsum("bhnr,hrg->bng", mean, self.weight)
        return reached * self.embedding(features), reached * estimate

    def means(
        self, values: Tensor, known: Tensor, where: KnownPositions, *, without_self: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Shrunk kernel means in the basis ``(B, H, N, R)``, log density of cells ``(B, H, N)``."""
        has_genes, genes = known.any(-1), known.any(1)  # (B, N), (B, G)
        is_key = has_genes & where.known  # (B, N)
        content = values * known.to(values)  # (B, N, G)
        # With the same genes of all cells, the projection may come before the sum over cells.
        n_alike = has_genes.sum(1) * genes.sum(1)
        alike = bool((known.count_nonzero((1, 2)) == n_alike).all())
        if alike:
            content, known = content @ self.basis, has_genes[..., None]  # (B, N, R), (B, N, 1)
        size = content.shape[-1]
        content = torch.cat([content, known.to(content)], dim=-1).float()
        rows = []
        for weight, density in self._weights(is_key, where, without_self=without_self):
            mean = torch.einsum("bhrn,bnc->bhrc", weight, content)
            # The kernel's sums are softmax means times their total weight, exp(density).
            cells = density.exp()[..., None]
            shrunk = mean[..., :size] * cells / (mean[..., size:] * cells + PRIOR)
            rows.append((shrunk if alike else shrunk @ self.basis, density))
        return torch.cat([m for m, _ in rows], dim=2), torch.cat([s for _, s in rows], dim=2)

    def mixed(self, content: Tensor, is_key: Tensor, where: KnownPositions, mix: Tensor) -> Tensor:
        """Kernel means of ``content`` ``(B, N, C)``, mixed over widths by ``mix`` ``(K, H)``.

        Returns ``(B, K, N, C)``.
        """
        rows = [
            torch.einsum("kh,bhrn->bkrn", mix, weight) @ content[:, None].float()
            for weight, _ in self._weights(is_key, where)
        ]
        return torch.cat(rows, dim=2)

    def _weights(
        self, is_key: Tensor, where: KnownPositions, *, without_self: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights ``(B, H, R, N)`` of sum 1 and log densities ``(B, H, R)``, R at a time."""
        hidden = ~is_key[:, None, None, :]
        N = is_key.shape[1]
        n_rows = max(1, MAX_ENTRIES // N)
        for start in range(0, N, n_rows):
            rows = slice(start, start + n_rows)
            at = where.position[:, rows]
            with torch.autocast(at.device.type, enabled=False):
                square = torch.cdist(at.float(), where.position.float()).square()[:, None]
                variance = self.width.square()[:, None, None]  # (H, 1, 1)
                logits = (-square / (2 * variance)).masked_fill(hidden, -1e9)  # (B, H, R, N)
                if without_self:
                    row = torch.arange(at.shape[1], device=at.device)
                    logits[:, :, row, start + row] = -1e9
                nearest = logits.amax(-1, keepdim=True)  # (B, H, R, 1)
                weight = logits.sub_(nearest).exp_()
                total = weight.sum(-1, keepdim=True)
                yield weight.div_(total), (nearest + total.log()).squeeze(-1).clamp_min(-10.0)

    @torch.no_grad()
    def fit(self, sections: list[SectionSample]) -> None:
        """Fit the linear map by ridge regression (Hoerl & Kennard 1970), cells themselves left out.

        Genes that a section lacks get no estimate.

        Parameters
        ----------
        sections
            Dense patches of the training sections.
        """
        centered = torch.cat([s.values - s.values.mean(0) for s in sections])
        rank = min(self.basis.shape[1], len(centered))  # fewer cells than genes: the rest is zero
        _, _, directions = torch.svd_lowrank(centered, q=rank, niter=4)
        self.basis.zero_()
        self.basis[:, :rank] = directions
        everywhere = torch.stack([s.known.all(0) for s in sections]).all(0)  # (G,)
        gram, product = torch.zeros(()).double(), torch.zeros(()).double()
        for section in sections:
            values, known, position = (field[None] for field in section)
            where = KnownPositions(position, torch.ones_like(known[..., 0]))
            mean, _ = self.means(values, known, where, without_self=True)
            features = mean[0].transpose(0, 1).flatten(1).double()  # (n, H R)
            features = features - features.mean(0)
            gram = gram + features.T @ features
            product = product + features.T @ (values[0] - values[0].mean(0)).double()
        ridge = gram + PENALTY_SHARE * len(centered) * torch.eye(len(gram), dtype=gram.dtype)
        self.weight.copy_(torch.linalg.solve(ridge, product * everywhere).view_as(self.weight))
