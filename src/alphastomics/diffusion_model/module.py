"""The network: a transformer over cells, and heads for what is unknown of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alphastomics.config import Architecture, Frame
from alphastomics.diffusion_model.alignment import SectionPoses, procrustes
from alphastomics.diffusion_model.arrangement import refine, smooth
from alphastomics.diffusion_model.batch import SCOPES, StandardizedCells
from alphastomics.diffusion_model.heads import DiffusionHead
from alphastomics.diffusion_model.transforms import ExpressionTransform, PositionTransform
from alphastomics.nn.embeddings import ExpressionEmbedding, OptionalEmbedding, PositionEmbedding
from alphastomics.nn.moe import Routing
from alphastomics.nn.spatial_bias import KnownPositions
from alphastomics.nn.transformer import SetTransformer
from alphastomics.priors.autocorrelation import AutocorrelationPrior
from alphastomics.priors.donors import DonorCells
from alphastomics.priors.expression_factors import ExpressionFactors
from alphastomics.priors.gene_factors import GeneFactorModel
from alphastomics.priors.kernel_smoothing import KernelSmoother
from alphastomics.priors.reference_matching import (
    PositionMixture,
    ReferenceMatcher,
    StoredReference,
)
from alphastomics.priors.spacing import SpacingPrior
from alphastomics.priors.support import Support, TissueSupport


class Prior(NamedTuple):
    """Estimates of the priors.

    Attributes
    ----------
    token
        Description of the surroundings of each cell, ``(B, N, D)``.
    expression
        Estimate of unknown expression, ``(B, N, G)``.
    """

    token: Tensor
    expression: Tensor


class Encoding(NamedTuple):
    """Context vectors of the cells of a set and the estimates read off them.

    Attributes
    ----------
    tokens
        Context vectors, ``(B, N, D)``.
    position
        Conditional mean of positions in RMS radii, ``(B, N, d)``; known ones as they are.
    arrangement
        Positions whose distances rank as the true ones, ``(B, N, d)``, in no frame or scale.
    log_scale
        Log of the expected error of ``position``, a coordinate, ``(B, N)``.
    expression
        Conditional mean of standardized expression, ``(B, N, G)``; known values as they are.
    routing
        How each block spread the tokens over its experts; empty without experts.
    """

    tokens: Tensor
    position: Tensor
    arrangement: Tensor
    log_scale: Tensor
    expression: Tensor
    routing: Sequence[Routing] = ()


class MaskedDiffusionModule(nn.Module):
    """Masked transformer over the cells of a set, with a diffusion head for each modality.

    Each value is known or unknown, and a learned *unknown* token stands for what is missing. The
    transformer gives every cell a context vector; from it come the conditional mean and, by the
    diffusion heads, draws of positions and expression (masked autoregressive diffusion, Li et al.
    2024, arXiv:2406.11838). Noisy values never enter the transformer.

    Parameters
    ----------
    num_genes
        Number of genes ``G``.
    position_dim
        Dimension ``d`` of space, 2 or 3.
    values
        Kind of expression values, see
        :class:`~alphastomics.diffusion_model.transforms.ExpressionTransform`.
    num_labels, num_batches
        Number of cell types and of batches that may be given as a condition.
    frame
        ``"learned"``: training sections are superposed on what the mean head predicts (AlphaFold 3,
        Abramson et al. 2024, algorithm 28), which settles on one frame for all of them.
        ``"registered"``: coordinates are taken as they are.
    allow_reflection
        Whether sections may be mirror images of each other.
    **architecture
        Size and options of the transformer, the fields of
        :class:`~alphastomics.config.Architecture`.

    Examples
    --------
    >>> import torch
    >>> from alphastomics.diffusion_model.batch import StandardizedCells
    >>> module = MaskedDiffusionModule(num_genes=20, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    >>> genes, positions = torch.randn(1, 5, 20), torch.zeros(1, 5, 2)
    >>> known, unknown = torch.ones(1, 5, 20).bool(), torch.zeros(1, 5).bool()
    >>> cells = StandardizedCells(genes, known, positions, unknown)
    >>> module.eval()(cells).position.shape
    torch.Size([1, 5, 2])
    """

    def __init__(
        self,
        num_genes: int,
        position_dim: int = 2,
        *,
        values: str = "counts",
        num_labels: int = 0,
        num_batches: int = 0,
        frame: Frame = "learned",
        allow_reflection: bool = True,
        **architecture: Any,
    ) -> None:
        super().__init__()
        self.architecture = Architecture(**architecture)
        d_model = self.architecture.d_model
        self.num_genes = num_genes
        self.position_dim = position_dim
        self.frame, self.allow_reflection = frame, allow_reflection
        self.expression_transform = ExpressionTransform(num_genes, values)
        self.position_transform = PositionTransform()
        self.poses = SectionPoses(position_dim)

        # Priors: fitted before the network and constant afterwards, so that few steps suffice.
        self.matcher = ReferenceMatcher(num_genes, d_model)
        self.reference = StoredReference(position_dim, d_model)
        self.smoother = KernelSmoother(num_genes, d_model)
        self.genes = GeneFactorModel(num_genes, len(self.smoother.width))
        self.factors = ExpressionFactors(num_genes, has_depth=values == "counts")
        self.donors = DonorCells(num_genes, self.factors.size)
        self.examples = DonorCells(num_genes, 0)  # more of them, which genes are imputed by
        self.spacing = SpacingPrior()
        self.support = TissueSupport(position_dim)
        self.autocorrelation = AutocorrelationPrior(self.factors.n_factors)

        self.expression_embedding = ExpressionEmbedding(num_genes, d_model)
        self.position_embedding = PositionEmbedding(position_dim, d_model)
        self.scope = nn.Embedding(len(SCOPES), d_model)
        self.unregistered = nn.Parameter(torch.zeros(d_model))
        self.label = OptionalEmbedding(num_labels, d_model)
        self.batch = OptionalEmbedding(num_batches, d_model)
        self.transformer = SetTransformer(self.architecture)

        self.mean_head = nn.Linear(d_model, position_dim)
        self.arrangement_head = nn.Linear(d_model, position_dim)
        self.expression_mean_head = nn.Linear(d_model, num_genes)
        self.scale_head = nn.Sequential(
            nn.Linear(d_model, d_model), nn.SiLU(), nn.Linear(d_model, 1)
        )
        # The RMS radius is 1, so the standard deviation of a coordinate is 1 / sqrt(d).
        self.position_head = DiffusionHead(position_dim, d_model, 1 / math.sqrt(position_dim))
        self.expression_head = DiffusionHead(
            self.factors.size, d_model + self.factors.size, 1.0, num_frequencies=0
        )
        # The first estimate is that of the priors, and the center of the section.
        for weight in (
            self.scope.weight,
            self.mean_head.weight,
            self.mean_head.bias,
            self.expression_mean_head.weight,
            self.expression_mean_head.bias,
        ):
            nn.init.zeros_(weight)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.mean_head.weight.device

    def forward(self, cells: StandardizedCells, *, by_genes: bool = True) -> Encoding:
        """Read a batch of sets and estimate what is unknown.

        Parameters
        ----------
        cells
            Standardized values and what of them is known; the support set is left out.
        by_genes
            Whether unknown genes are estimated from known ones, which positions do not need and
            which takes long where every cell has a panel of its own.

        Returns
        -------
        Encoding
            Context vectors and conditional means; the estimates of the network alone, see
            :meth:`match` for positions among known cells.
        """
        cells, _ = cells.split()  # the support set is for matching only, and may be large
        where = cells.where()
        known = cells.gene_known & cells.real[..., None]  # (B, N, G)
        values = torch.where(known, cells.expression, 0.0)
        prior = self._priors(values, known, cells, where, by_genes=by_genes)
        x = self._embed(values, known, cells) + prior.token  # (B, N, D)
        tokens, routing = self.transformer(x, cells.cell_mask, where)  # (B, N, D)

        position_known = cells.position_known[..., None]  # (B, N, 1)
        estimate = prior.expression + self.expression_mean_head(tokens)  # (B, N, G)
        return Encoding(
            tokens=tokens,
            position=torch.where(position_known, cells.position, self.mean_head(tokens)),
            arrangement=self.arrangement_head(tokens),
            # Detached: the loss of the error scale must not change the tokens.
            log_scale=self.scale_head(tokens.detach()).squeeze(-1),
            expression=torch.where(cells.gene_known, cells.expression, estimate),
            routing=routing,
        )

    def _embed(self, values: Tensor, known: Tensor, cells: StandardizedCells) -> Tensor:
        """Sum of the embeddings of both modalities and of the conditions, ``(B, N, D)``."""
        x = self.expression_embedding(values, known)
        position = torch.where(cells.position_known[..., None], cells.position, 0.0)
        x = x + self.position_embedding(position, cells.position_known)
        if cells.scope is not None:
            x = x + self.scope(cells.scope)[:, None]
        if cells.registered is not None:
            x = x + self.unregistered * (~cells.registered)[:, None, None]
        if cells.label is not None:
            x = x + self.label(cells.label)
        if cells.batch is not None:
            x = x + self.batch(cells.batch)
        return x

    def _priors(
        self,
        values: Tensor,
        known: Tensor,
        cells: StandardizedCells,
        where: KnownPositions | None,
        *,
        by_genes: bool,
    ) -> Prior:
        """Combine the priors of expression: the only place where they enter the network.

        Cells without a known gene are estimated from the cells around them, those with some genes
        by the gene factors, smoothed over the cells around them.
        """
        token = values.new_zeros(*values.shape[:2], self.architecture.d_model)
        estimate = torch.zeros_like(values)
        if where is not None:
            # Sets in which cells are still to be placed have no surroundings to smooth over.
            placed = (where.known | ~cells.real).all(1)  # (B,)
            if bool(placed.any()):
                there = KnownPositions(where.position[placed], where.known[placed])
                around = self.smoother(values[placed], known[placed], there)
                token = token.index_put((placed,), around[0].to(token))
                estimate[placed] = around[1].to(estimate)
        partly = known.any(-1) & ~known.all(-1)  # (B, N)
        if by_genes and self.genes.is_fitted and bool(partly.any()):
            smoothed = self.genes.smoothed(values, known, where, self.smoother)
            estimate = torch.where(partly[..., None], smoothed, estimate)
        return Prior(token, estimate)

    def match(self, cells: StandardizedCells) -> PositionMixture | None:
        """Match the cells to place with the known cells of their set and of its support.

        Returns
        -------
        PositionMixture or None
            Valid for cells of unknown position and known expression in sets with known cells of
            known expression; ``None`` if there are no such cells.
        """
        n = cells.position.shape[1] - cells.n_support
        expressed = cells.gene_known.any(-1) & cells.real  # (B, N + M)
        known = expressed & cells.position_known
        to_place = (expressed & ~known)[:, :n] & known.any(1, keepdim=True)  # (B, N)
        if not bool(to_place.any()):
            return None
        features = self.matcher.features(cells.expression, cells.gene_known)
        mixture = self.matcher(features[:, :n], features, cells.position, known)
        return mixture._replace(valid=to_place)

    def place_unframed(
        self, cells: StandardizedCells, encoding: Encoding, *, arrange: bool
    ) -> Tensor:
        """Positions ``(1, N, d)`` of one set without a known position.

        The mean, or the arrangement superposed on it, both smoothed over cells of similar
        expression; the arrangement is first refined by the places in the training sections.
        """
        mean, arrangement = encoding.position.clone(), encoding.arrangement.clone()
        expressed = cells.gene_known.any(-1)  # (1, N)
        if self.reference.is_fitted and int(expressed.sum()) > 1:
            features = self.matcher.features(
                cells.expression[expressed], cells.gene_known[expressed]
            )
            mean[expressed] = smooth(mean[expressed], features)
            if arrange:
                places = self.reference.places(self.matcher, features)
                refined = refine(arrangement[expressed], places)
                arrangement[expressed] = smooth(refined, features)
        if not arrange:
            return mean
        return procrustes(arrangement, mean, allow_reflection=self.allow_reflection)

    def tissue_radius(self, level: float) -> float:
        """Distance from its center, in measured units, within which a share of a section lies."""
        if not self.support.is_fitted:
            return math.nan
        radius = torch.linalg.vector_norm(self.support.place, dim=-1).quantile(level)
        return float(self.position_transform.inverse(radius))

    def tissue(self) -> Support | None:
        """Support of the tissue in the frame of the model; ``None`` if it was not fitted."""
        place = self.support.place  # (P, d)
        if self.poses.is_fitted:
            pose = self.poses.pose(self.support.section, allow_reflection=self.allow_reflection)
            place = pose.apply(place[:, None])[:, 0]
        return self.support.region(place)

    def estimated_factors(self, expression: Tensor) -> Tensor:
        """Conditional mean of the description of cells, ``(..., size)``; the head draws the rest.

        Factors are linear in expression, so their mean is that of the mean expression ``(..., G)``.
        """
        factors = expression.detach() @ self.factors.encoder  # (..., K)
        return nn.functional.pad(factors, (0, self.factors.size - factors.shape[-1]))

    def expression_context(self, encoding: Encoding) -> Tensor:
        """Context of the expression head, ``(B, N, D + size)``: tokens and estimated factors."""
        return torch.cat([encoding.tokens, self.estimated_factors(encoding.expression)], dim=-1)

    def measured_expression(self, donor: Tensor) -> Tensor:
        """Expression of donors as measured, ``(n, G)``, the mean of training for missing genes."""
        values, measured = self.donors.measurement(donor)
        transform = self.expression_transform
        mean = transform.unlog(transform.inverse(torch.zeros_like(transform.mean)))
        return torch.where(measured, values, mean.cpu())

    @property
    def has_no_negative_values(self) -> bool:
        """True if no training cell had a value below zero, so that no estimate has."""
        return self.expression_transform.values != "lognorm" or not bool(
            (self.donors.value < 0).any()
        )

    @property
    def lowest_value(self) -> float:
        """The lowest log-normalized value there can be, ``-inf`` if there is none."""
        return 0.0 if self.has_no_negative_values else -math.inf
