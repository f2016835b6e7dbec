"""Probabilistic principal components of genes, for imputation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from alphastomics.nn.spatial_bias import KnownPositions
from alphastomics.priors import SectionSample
from alphastomics.priors.kernel_smoothing import KernelSmoother

MAX_RANK = 128
PANELS_AT_A_TIME, MAX_ENTRIES = 64, 2**21  # gene panels solved together, entries of their matrices
NOISE = 0.2  # variance of a standardized gene that the others do not share
FOLDS = 5
HASHES = 4  # sums of random numbers that tell panels of genes apart


class GeneFactorModel(nn.Module):
    """Gaussian of low rank over genes, ``z = W f + noise`` (Tipping & Bishop 1999).

    The factors ``f`` of a cell are inferred from the genes that are known, by ridge regression, and
    predict the others. Where positions are known, the predictions of the surroundings are mixed in:
    they share the tissue and not the noise. Fitted in closed form before the network and constant
    afterwards; the network learns what it misses.

    Parameters
    ----------
    num_genes
        Number of values ``G`` of a cell.
    num_widths
        Number of kernel widths ``H`` of the surroundings.

    Attributes
    ----------
    loading
        ``W``, ``(G, R)``, columns in falling order of variance.
    self_weight, smooth_weights
        Weights of the prediction from the cell itself and of those smoothed with each width, where
        positions are known, a scalar and ``(H,)``.
    lone_weight
        Weight of the prediction from the cell itself where they are not, a scalar.
    """

    loading: Tensor
    self_weight: Tensor
    smooth_weights: Tensor
    lone_weight: Tensor

    def __init__(self, num_genes: int, num_widths: int) -> None:
        super().__init__()
        self.register_buffer("loading", torch.zeros(num_genes, min(num_genes, MAX_RANK)))
        self.register_buffer("self_weight", torch.zeros(()))
        self.register_buffer("smooth_weights", torch.zeros(num_widths))
        self.register_buffer("lone_weight", torch.ones(()))

    @property
    def is_fitted(self) -> bool:
        """True if the loading was fitted."""
        return bool(self.loading.any())

    def forward(self, values: Tensor, known: Tensor) -> Tensor:
        """Predict all genes from those that are known, each cell by itself.

        Parameters
        ----------
        values
            ``(..., G)``, standardized; anything finite where not known.
        known
            Boolean ``(..., G)``. Fast where many cells share what is known of them.

        Returns
        -------
        Tensor
            ``(..., G)``; 0 for cells of which nothing is known.
        """
        return self.factors(values, known) @ self.loading.T

    def smoothed(
        self, values: Tensor, known: Tensor, where: KnownPositions | None, smoother: KernelSmoother
    ) -> Tensor:
        """Predict from each cell and, where positions are known, from the cells around it.

        Parameters
        ----------
        values, known
            ``(B, N, G)``, as in :meth:`forward`.
        where
            Positions of the cells; ``None`` if none is known.
        smoother
            Kernels of the surroundings.
        """
        alone = self.factors(values, known)  # (B, N, R): smoothing is linear, R is less than G
        factors = self.lone_weight * alone
        if where is not None:
            is_key = known.any(-1) & where.known  # (B, N)
            around = smoother.mixed(alone, is_key, where, self.smooth_weights[None])[:, 0]
            mixed = self.self_weight * alone + around
            factors = torch.where(is_key[..., None], mixed, factors)
        return factors @ self.loading.T

    def factors(self, values: Tensor, known: Tensor) -> Tensor:
        """Posterior mean of the factors given the known genes, ``(..., R)``."""
        with torch.autocast(values.device.type, enabled=False):
            inferred = self._factors(values.flatten(0, -2).float(), known.flatten(0, -2))
        return inferred.view(*values.shape[:-1], -1)

    def _factors(self, values: Tensor, panel: Tensor) -> Tensor:
        """Factors ``(M, R)`` of ``values`` and their known genes ``panel``, both ``(M, G)``."""
        mask = panel.to(values)
        projected = (values * mask) @ self.loading  # (M, R)
        factors = torch.zeros_like(projected)
        # Cells are grouped by panel: equal panels have equal sums of random numbers. These are
        # whole and small, so that the sums are exact.
        generator = torch.Generator().manual_seed(0)
        high = 2**24 // panel.shape[1]
        numbers = torch.randint(high, (panel.shape[1], HASHES), generator=generator).to(values)
        weights = torch.rand(HASHES, generator=generator).double().to(panel.device)
        key = (mask @ numbers).double() @ weights  # (M,)
        order = key.argsort()
        counts = torch.unique_consecutive(key[order], return_counts=True)[1].tolist()
        groups = torch.split(order, counts)
        at_a_time = max(1, min(PANELS_AT_A_TIME, MAX_ENTRIES // self.loading.numel()))
        for start in range(0, len(groups), at_a_time):
            batch = groups[start : start + at_a_time]
            first = torch.stack([members[0] for members in batch])  # (P,)
            visible = panel[first, :, None] * self.loading  # (P, G, R)
            precision = NOISE * torch.eye(visible.shape[-1]).to(visible)
            lu, pivots = torch.linalg.lu_factor(precision + visible.transpose(1, 2) @ visible)
            for i, members in enumerate(batch):
                factors[members] = torch.linalg.lu_solve(lu[i], pivots[i], projected[members].T).T
        return factors

    @torch.no_grad()
    def fit(self, sections: list[Tensor], seed: int) -> None:
        """Take the principal directions of genes.

        Parameters
        ----------
        sections
            Standardized cells of each section of which all genes are measured, ``(n_s, G)``.
        seed
            Of the randomized decomposition.
        """
        # Differences between sections (batches) are not relations of genes.
        values = torch.cat([z - z.mean(0) for z in sections])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            rank = min(self.loading.shape[1], len(values))
            _, scale, direction = torch.svd_lowrank(values, q=rank, niter=4)
        self.loading[:, :rank] = direction * scale / math.sqrt(len(values))

    @torch.no_grad()
    def fit_weights(
        self, sections: list[SectionSample], smoother: KernelSmoother, seed: int
    ) -> None:
        """Fit the weights of a cell and its surroundings, every gene hidden in turn."""
        n_features = 1 + len(self.smooth_weights)
        gram, product, n = torch.zeros(n_features, n_features).double(), torch.zeros(()).double(), 0
        generator = torch.Generator().manual_seed(seed)
        for section in sections:
            x, y = (part.double() for part in self._hidden_in_turn(section, smoother, generator))
            gram, product, n = gram + x.T @ x, product + x.T @ y, n + len(y)
        if n:
            weights = torch.linalg.solve(gram + 1e-3 * n * torch.eye(n_features), product)
            self.self_weight.copy_(weights[0])
            self.smooth_weights.copy_(weights[1:])
            self.lone_weight.copy_(product[0] / gram[0, 0].clamp_min(1e-12))

    def _hidden_in_turn(
        self, section: SectionSample, smoother: KernelSmoother, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Predict every measured gene by other genes, and smooth the predictions in space.

        Returns them, ``(n G, 1 + H)``, and the truth, ``(n G,)``, both centered.
        """
        z, known = section.values, section.known
        predicted = torch.zeros_like(z)
        for fold in torch.randperm(z.shape[1], generator=generator).tensor_split(FOLDS):
            visible = known.clone()
            visible[:, fold] = False
            predicted[:, fold] = self(z, visible)[:, fold]
        is_key = known.any(1)[None]
        where = KnownPositions(section.position[None], torch.ones_like(is_key))
        every_width = torch.eye(len(self.smooth_weights))
        around = smoother.mixed(predicted[None], is_key, where, every_width)[0]
        features = torch.cat([predicted[None], around])  # (1 + H, n, G)
        features, z = features - features.mean(1, keepdim=True), z - z.mean(0)
        return features[:, known].T, z[known]
