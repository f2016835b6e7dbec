"""Where the known cells are that resemble a cell."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

SHARPNESS = 10.0  # initial factor of the cosine similarity
WIDTH = 0.3  # initial standard deviation of the mixture's parts, in RMS radii of a section
MODE_WIDTH = 0.8  # smoothing at which the mode is looked for, in RMS radii
MAX_CANDIDATES = 512
SHIFTS = 4


class Pointed(NamedTuple):
    """A mixture over the places of known cells, for every cell.

    Attributes
    ----------
    log_weight
        Log of the weights, ``(B, N, K)``.
    place
        Where the ``K`` cells are, ``(B, K, d)``; 0 for those that do not count.
    told
        Whether there is anything to go by, boolean ``(B, N)``.
    """

    log_weight: Tensor
    place: Tensor
    told: Tensor

    def mean(self) -> Tensor:
        """Weighted mean place, ``(B, N, d)``."""
        return self.log_weight.exp() @ self.place

    def denoise(self, z: Tensor, variance: Tensor, width: Tensor) -> Tensor:
        """Posterior mean place given noisy ones, with Gaussian parts of that ``width``.

        The denoiser of a mixture in closed form; without any signal, its mean.

        Parameters
        ----------
        z
            ``(B, N, d)``; anything finite where the variance is infinite.
        variance
            Of the noise, ``(B, N)``.
        width
            Standard deviation of the parts.
        """
        precision = 1 / (variance + width.square())[..., None]  # (B, N, 1)
        square = torch.cdist(z, self.place).square()  # (B, N, K)
        weight = (self.log_weight - square * precision / 2).softmax(-1)
        part = weight @ self.place
        return part + width.square() * precision * (z - part)

    def variance(self) -> Tensor:
        """How widely the weights are spread in space, ``(B, N)``."""
        square = self.log_weight.exp() @ self.place.square().sum(-1, keepdim=True)
        return (square.squeeze(-1) - self.mean().square().sum(-1)).clamp_min(0.0)

    def log_likelihood(self, position: Tensor, width: Tensor) -> Tensor:
        """Log density of positions ``(B, N, d)`` with Gaussian parts of that ``width``, ``(B, N)``.

        Up to a constant (a mixture density, Bishop 1994).
        """
        square = torch.cdist(position, self.place).square()  # (B, N, K)
        exponent = self.log_weight - square / (2 * width.square())
        return exponent.logsumexp(-1) - position.shape[-1] * width.log()

    def mode(self, width: float = MODE_WIDTH) -> Tensor:
        """Likeliest place at a smoothing of ``width``, by mean shift (Cheng 1995).

        A mean of two distant places is a place between; this is one of the two, and the mean
        where the weights lie together. ``(B, N, d)``.
        """
        weight = self.log_weight.exp()
        every = -(-self.place.shape[1] // MAX_CANDIDATES)
        candidates = self.place[:, ::every]  # (B, C, d)
        density = weight @ _kernel(self.place, candidates, width)  # (B, N, C)
        best = density.argmax(-1, keepdim=True).expand(-1, -1, candidates.shape[-1])
        mode = candidates.gather(1, best)  # (B, N, d)
        for _ in range(SHIFTS):
            near = weight * _kernel(mode, self.place, width)
            mode = near @ self.place / near.sum(-1, keepdim=True).clamp_min(1e-12)
        return mode


def _kernel(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Gaussian of the distances between two sets of points, ``(B, M, K)``."""
    return torch.exp(-torch.cdist(a, b).square() / (2 * width**2))


class Pointer(nn.Module):
    """Points every cell to the known cells whose expression resembles its own.

    The natural first guess of where a cell sits among known ones: a nearest-neighbour regression
    whose distance is learned, with its weights trained as a mixture density. A mean of known
    positions turns, shifts and scales with their frame, which a linear map of tokens has to learn.
    It is fitted before the rest of the network and kept as it was fitted.

    Parameters
    ----------
    num_genes
        Number of values ``G`` of a cell.
    d_model
        Dimension of the space in which expression is compared.
    dropout
        Dropout probability while it is fitted.
    """

    def __init__(self, num_genes: int, d_model: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * num_genes, d_model, bias=False)
        self.network = nn.Sequential(
            nn.Linear(2 * num_genes, 2 * d_model),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * d_model, d_model),
        )
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        self.log_width = nn.Parameter(torch.tensor(math.log(WIDTH)))
        self.requires_grad_(False)

    def features(self, values: Tensor, known: Tensor) -> Tensor:
        """Directions ``(..., D)`` whose cosine is the similarity of cells.

        Parameters
        ----------
        values
            ``(..., G)``, standardised; anything where not known.
        known
            Which of them are known, boolean ``(..., G)``.
        """
        x = torch.cat([torch.where(known, values, 0.0), known.to(values)], dim=-1)
        return normalize((self.linear(x) + self.network(x)).float(), dim=-1)

    @property
    def width(self) -> Tensor:
        """Standard deviation of the parts of the mixture."""
        return self.log_width.exp()

    def forward(self, cells: Tensor, keys: Tensor, place: Tensor, known: Tensor) -> Pointed:
        """Point cells to known ones.

        Parameters
        ----------
        cells, keys
            Directions of the cells ``(B, N, D)`` and of those to point to ``(B, K, D)``.
        place
            Where the latter are, ``(B, K, d)``.
        known
            Which of them count, boolean ``(B, K)``.
        """
        with torch.autocast(cells.device.type, enabled=False):
            logits = self.log_sharpness.exp() * cells @ keys.transpose(1, 2)  # (B, N, K)
            logits = logits.masked_fill(~known[:, None], -1e9)
            place = torch.where(known[..., None], place, 0.0).float()
            told = known.any(1, keepdim=True).expand(logits.shape[:2])
            return Pointed(logits.log_softmax(-1), place, told)

    def negative_log_likelihood(
        self, cells: Tensor, keys: Tensor, position: Tensor, place: Tensor
    ) -> Tensor:
        """Mean over cells at ``position`` ``(N, d)``, given keys at ``place`` ``(K, d)``."""
        everyone = torch.ones_like(place[None, :, 0], dtype=torch.bool)
        pointed = self(cells[None], keys[None], place[None], everyone)
        return -pointed.log_likelihood(position[None], self.width).mean()
