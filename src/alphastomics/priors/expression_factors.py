"""Expression in few dimensions: gene factors and depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_FACTORS, GENES_PER_FACTOR = 48, 4


class ExpressionFactors(nn.Module):
    """Description of cells by a few gene factors and, for counts, their depth.

    Standardized expression is ``z = A f + noise`` (Tipping & Bishop 1999) with factors ``f`` of
    unit variance; ``A`` holds the first principal directions, with the variance of noise
    subtracted.

    Parameters
    ----------
    num_genes
        Number of genes ``G``.
    has_depth
        Whether values are counts, whose depth is drawn too.

    Attributes
    ----------
    encoder
        From standardized expression of all genes to whitened factors, ``(G, K)``.
    decoder
        ``A^T``, ``(K, G)``; rows of 0 for factors that are not needed.
    """

    encoder: Tensor
    decoder: Tensor
    log_depth_mean: Tensor
    log_depth_std: Tensor

    def __init__(self, num_genes: int, *, has_depth: bool) -> None:
        super().__init__()
        self.has_depth = has_depth
        # More would describe the noise of measurement.
        self.n_factors = max(min(num_genes // GENES_PER_FACTOR, MAX_FACTORS), 1)
        self.register_buffer("encoder", torch.zeros(num_genes, self.n_factors))
        self.register_buffer("decoder", torch.zeros(self.n_factors, num_genes))
        self.register_buffer("log_depth_mean", torch.zeros(()))
        self.register_buffer("log_depth_std", torch.ones(()))

    @property
    def size(self) -> int:
        """Number of values that describe a cell: its factors and, for counts, its depth."""
        return self.n_factors + self.has_depth

    def encode(self, values: Tensor, known: Tensor, depth: Tensor) -> Tensor:
        """Describe cells by whitened factors and standardized log depth, ``(..., size)``.

        Parameters
        ----------
        values, known
            Standardized expression ``(..., G)`` and which of it was measured.
        depth
            Depth relative to the median of training, ``(...,)``.
        """
        factors = self.of_genes(values, known)
        if not self.has_depth:
            return factors
        return torch.cat([factors, self.of_depth(depth)[..., None]], dim=-1)

    def of_depth(self, depth: Tensor) -> Tensor:
        """Standardized log of depths."""
        return (depth.log() - self.log_depth_mean) / self.log_depth_std

    def of_genes(self, values: Tensor, known: Tensor) -> Tensor:
        """Whitened factors of cells, ``(..., K)``, see :meth:`encode`.

        Genes that were not measured count as average; the factors of the others are scaled up.
        """
        if bool(known.all()):
            return values @ self.encoder
        square = self.encoder.square()  # (G, K)
        share = (known.to(values) @ square) / square.sum(0).clamp_min(1e-12)
        return (values * known) @ self.encoder / share.clamp_min(0.1)

    def decode(self, description: Tensor) -> Tensor:
        """Standardized expression without noise, ``(..., G)``, of descriptions ``(..., size)``."""
        return description[..., : self.n_factors] @ self.decoder

    @property
    def weight(self) -> Tensor:
        """Standardized expression that a unit of each value makes, 1 for depth, ``(size,)``."""
        norm = self.decoder.norm(dim=1)
        return torch.cat([norm, norm.new_ones(int(self.has_depth))])

    @torch.no_grad()
    def fit(self, values: Tensor, depth: Tensor, seed: int) -> None:
        """Find the principal directions, the variance of noise and the moments of depth.

        Parameters
        ----------
        values
            Standardized cells of which all genes were measured, centered, ``(n, G)``.
        depth
            Depth of cells relative to the median of training, ``(n,)``.
        seed
            Of the randomized decomposition.
        """
        n, G = values.shape
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _, scale, direction = torch.svd_lowrank(values, q=min(self.n_factors, n), niter=4)
        variance = scale.square() / n  # (R,)
        total = values.square().sum() / n
        k = len(variance)
        noise = (total - variance.sum()).clamp_min(0) / max(G - k, 1)  # Tipping & Bishop eq. 8
        self.decoder[:k] = (direction * (variance - noise).clamp_min(0.0).sqrt()).T
        self.encoder[:, :k] = direction / variance.clamp_min(1e-6).sqrt()
        if self.has_depth:
            log_depth = depth.log()
            self.log_depth_mean.copy_(log_depth.mean())
            self.log_depth_std.copy_(log_depth.std().clamp_min(1e-3))
