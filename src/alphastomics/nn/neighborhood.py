"""What the known cells around a cell express, on several scales."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from alphastomics.nn.geometry import Geometry

WIDEST, NARROWEST = 0.3, 0.03  # initial kernel widths, in RMS radii of a section
ROWS = 1024  # rows of the distance matrix that are held at a time


class Neighborhood(nn.Module):
    """Gaussian kernel means of the known values around every cell (Nadaraya 1964, Watson 1964).

    A smoother of one width is the natural first guess of what a cell at a place expresses. The
    network starts from several, of learned width, and learns what they miss.

    Parameters
    ----------
    num_genes
        Number of values ``G`` of a cell.
    d_model
        Width of a token.
    num_widths
        Number of kernel widths ``H``.
    """

    def __init__(self, num_genes: int, d_model: int, num_widths: int = 4) -> None:
        super().__init__()
        widths = torch.logspace(math.log10(WIDEST), math.log10(NARROWEST), num_widths)
        self.log_width = nn.Parameter(widths.log())
        self.share = nn.Parameter(torch.full((num_widths, num_genes), 1 / num_widths))
        self.embedding = nn.Linear(num_widths * (num_genes + 1), d_model)

    def forward(self, values: Tensor, known: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """Describe the surroundings of every cell.

        Parameters
        ----------
        values
            ``(B, N, G)``.
        known
            1 where a value is known, else 0, ``(B, N, G)``.
        geometry
            Where the cells are.

        Returns
        -------
        token, guess : Tensor
            ``(B, N, D)`` for the network, and the mean over widths as a guess of the values,
            ``(B, N, G)``. Both are 0 for cells of unknown position.
        """
        content = torch.cat([values * known, known], dim=-1)  # (B, N, 2G)
        is_key = known.any(-1) & (geometry.certainty > 0)  # (B, N)
        rows = [
            self._smooth(content, is_key, geometry, slice(start, start + ROWS))
            for start in range(0, values.shape[1], ROWS)
        ]
        mean = torch.cat([m for m, _ in rows], dim=2)  # (B, H, N, G)
        density = torch.cat([s for _, s in rows], dim=2)  # (B, H, N)
        reached = (geometry.certainty * is_key.any(1, keepdim=True))[..., None]  # (B, N, 1)
        features = torch.cat([mean, density[..., None]], dim=-1).transpose(1, 2).flatten(2)
        guess = torch.einsum("bhng,hg->bng", mean, self.share)
        return reached * self.embedding(features), reached * guess

    def _smooth(
        self, content: Tensor, is_key: Tensor, geometry: Geometry, rows: slice
    ) -> tuple[Tensor, Tensor]:
        """Means ``(B, H, R, G)`` and log density of known cells ``(B, H, R)`` at some cells."""
        at, G = geometry.position[:, rows], content.shape[-1] // 2
        with torch.autocast(at.device.type, enabled=False):
            square = torch.cdist(at.float(), geometry.position.float()).square()[:, None]
            variance = self.log_width.exp().square()[:, None, None]  # (H, 1, 1)
            variance = variance + geometry.variance[:, None, rows, None]  # (B, H, R, 1)
            logits = -square / (2 * variance)  # (B, H, R, N)
            logits = logits.masked_fill(~is_key[:, None, None, :], -1e9)
            density = logits.logsumexp(-1).clamp_min(-10.0)
            total = torch.einsum("bhrn,bng->bhrg", logits.softmax(-1), content.float())
        mean = total[..., :G] / total[..., G:].clamp_min(1e-6)
        return torch.where(total[..., G:] > 1e-6, mean, 0.0), density
