"""Expression in few dimensions: gene factors, and observations drawn given them."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from alphastomics.nn.dynamic_buffers import DynamicBufferModule

MAX_FACTORS, GENES_PER_FACTOR = 48, 4
BISECTIONS = 30
MAX_DISPERSION = 10.0
GENES_AT_A_TIME = 256


class ExpressionDraw(NamedTuple):
    """State of drawn cells: whitened factors ``(..., K)`` and depth ``(...,)``, 1 at the median."""

    factors: Tensor
    depth: Tensor


class ExpressionFactors(DynamicBufferModule):
    """Denoised expression of few dimensions, with the noise of measurement apart.

    Standardized expression is ``z = A f + noise`` (Tipping & Bishop 1999) with factors ``f`` of
    unit variance; ``A`` holds the first principal directions, with the variance of noise
    subtracted. Counts are drawn from a
    negative binomial whose mean is the decoded rate times the depth of a cell, other values with
    Gaussian noise. Cells of training are stored for :meth:`bootstrap`.

    Parameters
    ----------
    num_genes
        Number of genes ``G``.
    has_depth
        Whether values are counts, whose depth is drawn too.

    Attributes
    ----------
    decoder
        ``A^T``, ``(K, G)``; rows of 0 for factors that are not needed.
    encoder
        From standardized expression of all genes to whitened factors, ``(G, K)``.
    gene_scale, dispersion
        Ratio of observed to decoded means and negative-binomial dispersion of each gene, ``(G,)``.
    noise
        Standard deviation of standardized genes around their decoded value, ``(G,)``.
    """

    sized: ClassVar[tuple[str, ...]] = ("stored_factors", "stored_depth", "stored_label")
    decoder: Tensor
    encoder: Tensor
    gene_scale: Tensor
    dispersion: Tensor
    noise: Tensor
    log_depth_mean: Tensor
    log_depth_std: Tensor
    stored_factors: Tensor
    stored_depth: Tensor
    stored_label: Tensor

    def __init__(self, num_genes: int, *, has_depth: bool) -> None:
        super().__init__()
        self.has_depth = has_depth
        # More would decode the noise of measurement, which is drawn again.
        self.n_factors = max(min(num_genes // GENES_PER_FACTOR, MAX_FACTORS), 1)
        self.register_buffer("decoder", torch.zeros(self.n_factors, num_genes))
        self.register_buffer("encoder", torch.zeros(num_genes, self.n_factors))
        self.register_buffer("gene_scale", torch.ones(num_genes))
        self.register_buffer("dispersion", torch.zeros(num_genes))
        self.register_buffer("noise", torch.zeros(num_genes))
        self.register_buffer("log_depth_mean", torch.zeros(()))
        self.register_buffer("log_depth_std", torch.ones(()))
        self.register_buffer("stored_factors", torch.zeros(0, self.n_factors))  # (M, K)
        self.register_buffer("stored_depth", torch.zeros(0))  # (M,)
        self.register_buffer("stored_label", torch.zeros(0, dtype=torch.int64))  # (M,)

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
        # Genes that were not measured count as average; the factors of the others are scaled up.
        share = (known.to(values) @ self.encoder.square()) / self.encoder.square().sum(0).clamp_min(
            1e-12
        )
        factors = (values * known) @ self.encoder / share.clamp_min(0.1)
        if not self.has_depth:
            return factors
        log_depth = (depth.log() - self.log_depth_mean) / self.log_depth_std
        return torch.cat([factors, log_depth[..., None]], dim=-1)

    def split(self, described: Tensor) -> ExpressionDraw:
        """Invert the description of cells by :meth:`encode`, ``(..., size)``."""
        if not self.has_depth:
            return ExpressionDraw(described, torch.ones_like(described[..., 0]))
        log_depth = described[..., -1] * self.log_depth_std + self.log_depth_mean
        return ExpressionDraw(described[..., :-1], log_depth.exp())

    def decode(self, factors: Tensor) -> Tensor:
        """Denoised standardized expression ``(..., G)``."""
        return factors @ self.decoder

    def draw_counts(
        self, rate: Tensor, depth: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw counts ``(n, G)`` given decoded rates ``(n, G)`` and depths ``(n,)``, on the CPU.

        A gamma mixture of Poisson distributions, with variance ``m + dispersion m^2``.
        """
        mean = (rate * self.gene_scale * depth[:, None]).cpu()
        shape = 1 / self.dispersion.cpu().clamp_min(1e-6).expand_as(mean)
        # torch's gamma sampler takes no generator: its global state is set for the while.
        with torch.random.fork_rng(devices=[]):
            seed = torch.randint(2**62, (), generator=generator)
            torch.manual_seed(int(seed))
            spread = torch.distributions.Gamma(shape, shape).sample()
            spread = torch.where(self.dispersion.cpu() > 0, spread, 1.0)
            return torch.poisson(mean * spread)

    def bootstrap(self, label: Tensor, generator: torch.Generator | None = None) -> ExpressionDraw:
        """Draw stored cells of training with replacement (Efron 1979).

        Parameters
        ----------
        label
            Number of the type of each cell to draw, ``(N,)``; 0 for any.
        generator
            Source of randomness, on the CPU.

        Raises
        ------
        ValueError
            If no stored cell has one of the types.
        """
        stored = self.stored_label.cpu()
        chosen = torch.empty(len(label), dtype=torch.int64)
        for kind in torch.unique(label):
            members = torch.arange(len(stored)) if kind == 0 else (stored == kind).nonzero()[:, 0]
            if not len(members):
                raise ValueError(f"no training cell of type number {int(kind)} was stored.")
            drawn = label == kind
            random = torch.randint(len(members), (int(drawn.sum()),), generator=generator)
            chosen[drawn] = members[random]
        chosen = chosen.to(self.stored_depth.device)
        return ExpressionDraw(self.stored_factors[chosen], self.stored_depth[chosen])

    @torch.no_grad()
    def fit(self, values: Tensor, seed: int) -> None:
        """Find the principal directions and the variance of noise.

        Parameters
        ----------
        values
            Standardized cells of which all genes were measured, centered, ``(n, G)``.
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
        signal = (variance - noise).clamp_min(1e-6)
        self.decoder[:k] = (direction * signal.sqrt()).T
        self.encoder[:, :k] = direction / variance.clamp_min(1e-6).sqrt()

    @torch.no_grad()
    def fit_observations(
        self, values: Tensor, rate: Tensor, counts: Tensor | None, depth: Tensor, label: Tensor
    ) -> None:
        """Fit the noise of measurement, and store cells.

        Parameters
        ----------
        values
            Standardized expression of training cells, ``(M, G)``.
        rate
            Their decoded rates at depth 1, ``(M, G)``; not used without counts.
        counts
            What was counted, ``(M, G)``; ``None`` for other values.
        depth, label
            Depth and number of the type of each cell, ``(M,)``.
        """
        everything = torch.ones_like(values, dtype=torch.bool)
        described = self.encode(values, everything, depth)
        self.stored_depth, self.stored_label = depth, label
        if self.has_depth:
            log_depth = depth.log()
            self.log_depth_mean.copy_(log_depth.mean())
            self.log_depth_std.copy_(log_depth.std().clamp_min(1e-3))
            described = described[:, :-1]
        self.stored_factors = described
        self.noise.copy_((values - self.decode(described)).square().mean(0).sqrt())
        if counts is None:
            return
        expected = rate * depth[:, None]
        self.gene_scale.copy_(counts.mean(0) / expected.mean(0).clamp_min(1e-6))
        expected = expected * self.gene_scale
        for genes in torch.split(torch.arange(counts.shape[1]), GENES_AT_A_TIME):
            zeros = (counts[:, genes] == 0).float().mean(0)
            self.dispersion[genes] = _dispersion(expected[:, genes], zeros)


def _dispersion(mean: Tensor, zeros: Tensor) -> Tensor:
    """Negative-binomial dispersion at which means ``(M, G)`` give a share of zeros ``(G,)``.

    ``P(0) = (1 + dispersion m)^(-1 / dispersion)`` grows with the dispersion; 0 where the Poisson
    distribution has as many.
    """
    low, high = torch.full_like(zeros, 1e-4), torch.full_like(zeros, MAX_DISPERSION)
    poisson = torch.exp(-mean).mean(0)
    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        share = torch.exp(-torch.log1p(middle * mean) / middle).mean(0)
        low, high = (
            torch.where(share < zeros, middle, low),
            torch.where(share < zeros, high, middle),
        )
    return torch.where(poisson >= zeros, 0.0, (low * high).sqrt())
