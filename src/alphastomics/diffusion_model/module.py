"""The denoiser: one network for every pattern of known and unknown."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from alphastomics.diffusion_model.interface import (
    SCOPES,
    Context,
    Denoised,
    NoisyCells,
    cell_level,
    state_of,
)
from alphastomics.diffusion_model.levels import (
    KNOWN,
    UNKNOWN,
    noise_condition,
    precondition,
    sigma_from_level,
    signal_and_noise,
)
from alphastomics.diffusion_model.transforms import ExpressionTransform, PositionTransform
from alphastomics.nn.architecture import Architecture
from alphastomics.nn.atlas import Atlas
from alphastomics.nn.block import SetTransformer
from alphastomics.nn.bootstrap import Bootstrap
from alphastomics.nn.embeddings import (
    FourierPositions,
    ModalityEmbedding,
    OptionalEmbedding,
)
from alphastomics.nn.genes import GeneGuess
from alphastomics.nn.geometry import Geometry
from alphastomics.nn.neighborhood import Neighborhood
from alphastomics.nn.pointer import Pointed, Pointer

EXPRESSION_SIGMA_DATA = 1.0  # expression is standardised per gene


class MaskedDiffusionModule(nn.Module):
    """A transformer over the cells of a set that denoises what is not known of them.

    Every value has its own noise level (:mod:`~alphastomics.diffusion_model.levels`): at level 0
    it is known and comes back as it is, at level 1 a learned *unknown* token takes its place. At
    level 1 the output is the conditional mean of what is missing given what is known (the denoiser
    that minimises the squared error is the posterior mean; Karras et al. 2022, eq. 2).

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
    **architecture
        Size and options of the transformer, the fields of
        :class:`~alphastomics.nn.architecture.Architecture`.

    Examples
    --------
    >>> import torch
    >>> from alphastomics.diffusion_model.interface import NoisyCells
    >>> module = MaskedDiffusionModule(num_genes=20, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    >>> known, unknown = torch.zeros(1, 5, 20), torch.ones(1, 5)  # levels
    >>> cells = NoisyCells(torch.randn(1, 5, 20), known, torch.zeros(1, 5, 2), unknown)
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
        **architecture: Any,
    ) -> None:
        super().__init__()
        self.architecture = Architecture(**architecture)
        d_model = self.architecture.d_model
        self.num_genes = num_genes
        self.position_dim = position_dim
        self.sigma_data = 1 / math.sqrt(position_dim)  # the RMS radius is 1
        self.expression_transform = ExpressionTransform(num_genes, values)
        self.position_transform = PositionTransform()
        self.expression_embedding = ModalityEmbedding(2 * num_genes, d_model)
        self.position_features = FourierPositions(position_dim)
        self.position_embedding = ModalityEmbedding(
            self.position_features.out_features, d_model, hidden=d_model
        )
        self.pointer = Pointer(num_genes, d_model)
        self.atlas = Atlas(position_dim, d_model)
        self.neighborhood = Neighborhood(num_genes, d_model)
        self.genes = GeneGuess(num_genes, len(self.neighborhood.width))
        self.bootstrap = Bootstrap(num_genes, self.genes.loading.shape[1])
        self.scope = nn.Embedding(len(SCOPES), d_model)
        nn.init.zeros_(self.scope.weight)
        self.label = OptionalEmbedding(num_labels, d_model)
        self.batch = OptionalEmbedding(num_batches, d_model)
        self.transformer = SetTransformer(self.architecture)
        self.position_head = nn.Linear(d_model, position_dim)
        self.arrangement_head = nn.Linear(d_model, position_dim)
        self.expression_head = nn.Linear(d_model, num_genes)
        self.scale_head = nn.Sequential(
            nn.Linear(d_model, d_model), nn.SiLU(), nn.Linear(d_model, 1)
        )
        self.position_gate = nn.Linear(d_model, 1)
        self.expression_gate = nn.Linear(d_model, num_genes)
        for head in (
            self.position_head,
            self.expression_head,
            self.position_gate,
            self.expression_gate,
        ):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.position_head.weight.device

    def forward(self, cells: NoisyCells, context: Context | None = None) -> Denoised:
        """Denoise a batch of sets, in the standardised space.

        Parameters
        ----------
        cells
            Standardised values: expression ``(B, N, G)``, position ``(B, N, d)``. Their levels,
            between 0 (known) and 1 (unknown): ``(B, N, G)`` and ``(B, N)``.
        context
            Padding ``(B, N)``, scope ``(B,)``, labels ``(B, N)``, bank; see
            :class:`~alphastomics.diffusion_model.interface.Context`.

        Returns
        -------
        Denoised
            Expected clean position ``(B, N, d)`` and expression ``(B, N, G)``, without the bank,
            and what else the network tells.
        """
        context = context or Context()
        cells, bank = cells.split(context.n_bank)
        N = cells.position.shape[1]
        everyone = context.cell_mask
        cell_mask = None if everyone is None else everyone[:, :N]

        # 1. Embed each modality at its level, EDM eq. 7: the network sees c_in z and c_noise.
        # Standardised expression has a standard deviation of 1: c_in = cos, c_out = sin.
        cos, sin = signal_and_noise(cells.expression_level)  # each (B, N, G)
        z_e = torch.where(cells.expression_level >= UNKNOWN, 0.0, cells.expression)  # (B, N, G)
        p = precondition(cells.position_level, self.sigma_data)  # each (B, N)
        hidden = (cells.position_level >= UNKNOWN)[..., None]
        z_p = torch.where(hidden, 0.0, cells.position)  # (B, N, d)
        embedded = context.embedded
        if embedded is None:
            embedded = self._embed_expression(cells.expression, cells.expression_level)
        real = torch.ones_like(hidden[..., 0]) if cell_mask is None else cell_mask  # (B, N)
        features = self.position_features(p.c_in[..., None] * z_p)  # (B, N, F)
        x = embedded + self.position_embedding(features, state_of(cells.position_level), p.c_noise)
        if context.scope is not None:
            x = x + self.scope(context.scope)[:, None]
        if context.label is not None:
            x = x + self.label(context.label[:, :N])
        if context.batch is not None:
            x = x + self.batch(context.batch[:, :N])

        # 2. Let the cells of a set see each other, near ones better where positions are known.
        geometry = None
        known = (cells.expression_level <= KNOWN) & real[..., None]  # (B, N, G)
        guess = torch.zeros_like(z_e)
        if not hidden.all():
            geometry = Geometry(p.c_skip[..., None] * z_p, p.c_out.square(), p.c_skip)
            around, guess = self._surroundings(z_e, known, geometry, real)
            x = x + around
        partly = known.any(-1, keepdim=True) & ~known  # (B, N, G)
        if self.genes.is_fitted and bool(partly.any()):
            guess = torch.where(partly, self._gene_guess(z_e, known, geometry), guess)
        tokens, routing = self.transformer(x, cell_mask, geometry)  # (B, N, D)

        # 3. D(z) = c_skip z + c_out F: at level 0 the input itself, at level 1 the network alone.
        # The gates: what is known of a cell makes its noisy value count for less than c_skip says,
        # with a posterior of variance v < sigma_data^2 the factor is v / (v + sigma^2).
        scaled = p.c_in[..., None] * z_p  # (B, N, d)
        network = self.position_head(tokens) + self.position_gate(tokens) * scaled
        position = p.c_skip[..., None] * z_p + p.c_out[..., None] * network
        # The error scale is learned beside, not at the cost of, the position.
        log_scale = self.scale_head(tokens.detach()).squeeze(-1)  # (B, N)
        # What a cell expresses tells where it sits among known cells, and they do not err.
        pointed = context.pointed
        if pointed is None:
            pointed = self._point(z_p, cells, bank, everyone)
        if pointed is not None:
            noise = sigma_from_level(cells.position_level, self.sigma_data).square()
            place = pointed.denoise(z_p, noise, self.pointer.width)  # (B, N, d)
            position = torch.where(pointed.told[..., None], place, position)
            variance = pointed.variance() / self.position_dim + self.pointer.width.square()
            log_scale = torch.where(pointed.told, variance.log() / 2, log_scale)
        # With a Gaussian prior of mean m the posterior mean is c_skip z + c_out^2 m.
        network = self.expression_head(tokens) + self.expression_gate(tokens) * cos * z_e
        expression = cos.square() * z_e + sin * (network + sin * guess)
        arrangement = self.arrangement_head(tokens)
        return Denoised(
            position, arrangement, expression, log_scale, tokens, embedded, pointed, routing
        )

    def _surroundings(
        self, z: Tensor, known: Tensor, geometry: Geometry, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Describe the surroundings of the cells in sets whose positions are all known or noisy.

        Where cells are still to be placed, expression is not what is asked for.
        """
        some = ((geometry.certainty > 0) | ~real).all(1)  # (B,)
        B, N, _ = z.shape
        around, guess = z.new_zeros(B, N, self.scope.embedding_dim), torch.zeros_like(z)
        if bool(some.any()):
            where = Geometry(*(field[some] for field in geometry))
            found = self.neighborhood(z[some], known[some].to(z), where)
            around, guess = around.index_put((some,), found[0]), guess.index_put((some,), found[1])
        return around, guess

    def _point(
        self, z: Tensor, cells: NoisyCells, bank: NoisyCells, everyone: Tensor | None
    ) -> Pointed | None:
        """Point to the known cells of a set and of its bank, in sets that ask for positions."""
        level = torch.cat([cells.position_level, bank.position_level], dim=1)  # (B, N + M)
        gene_known = [part.expression_level <= KNOWN for part in (cells, bank)]
        expressed = torch.cat([part.any(-1) for part in gene_known], dim=1)  # (B, N + M)
        if everyone is not None:
            expressed = expressed & everyone
        known = expressed & (level <= KNOWN)
        N = cells.position_level.shape[1]
        told = (expressed & ~known)[:, :N] & known.any(1, keepdim=True)  # (B, N)
        if not bool(told.any()):
            return None
        own, others = (
            self.pointer.features(part.expression, genes)
            for part, genes in zip((cells, bank), gene_known, strict=True)
        )
        place = torch.cat([z, bank.position], dim=1)
        return self.pointer(own, torch.cat([own, others], dim=1), place, known)._replace(told=told)

    def _gene_guess(self, z: Tensor, known: Tensor, geometry: Geometry | None) -> Tensor:
        """Guess the unknown genes of cells by their known ones and those of cells around."""
        guess = self.genes(z, known)
        if geometry is None:
            return self.genes.alone * guess
        placed = known.any(-1) & (geometry.certainty > 0)  # (B, N)
        mix = self.genes.mix
        around = self.neighborhood.mixed(guess, placed, geometry, mix[None, 1:])[:, 0]
        return torch.where(placed[..., None], mix[0] * guess + around, self.genes.alone * guess)

    def _embed_expression(self, z: Tensor, level: Tensor) -> Tensor:
        """Embed expression ``(B, N, G)`` as ``(B, N, D)``: each value and how much is signal."""
        of_cell = cell_level(level)  # (B, N)
        cos, _ = signal_and_noise(level)  # (B, N, G)
        z = torch.where(level >= UNKNOWN, 0.0, z)
        return self.expression_embedding(
            torch.cat([cos * z, cos.square()], dim=-1),  # (B, N, 2G)
            state_of(of_cell),
            noise_condition(of_cell),
        )
