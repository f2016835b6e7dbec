"""The denoiser: one network for every pattern of known and unknown."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alphastomics.diffusion_model.levels import (
    KNOWN,
    UNKNOWN,
    noise_condition,
    precondition,
    signal_and_noise,
)
from alphastomics.diffusion_model.transforms import ExpressionTransform, PositionTransform
from alphastomics.nn.block import SetTransformer
from alphastomics.nn.embeddings import (
    FourierPositions,
    LevelEmbedding,
    ModalityEmbedding,
    OptionalEmbedding,
)
from alphastomics.nn.geometry import Geometry
from alphastomics.nn.neighborhood import Neighborhood
from alphastomics.nn.pointer import Pointer

EXPRESSION_SIGMA_DATA = 1.0  # expression is standardised per gene
SCOPES = ("section", "window")


class NoisyCells(NamedTuple):
    """A batch of sets in the standardised space, each value at its level.

    Attributes
    ----------
    expression
        ``(B, N, G)``; ignored at level 1.
    expression_level
        Level of every gene of every cell in [0, 1], ``(B, N, G)``.
    position
        ``(B, N, d)``; ignored at level 1.
    position_level
        ``(B, N)``.
    """

    expression: Tensor
    expression_level: Tensor
    position: Tensor
    position_level: Tensor


class Context(NamedTuple):
    """What else the network is told of a batch of sets; ``None`` for what it is not.

    Attributes
    ----------
    cell_mask
        True for real cells, False for padding, ``(B, N)``; ``None`` when all are real.
    scope
        Index into :data:`SCOPES`, ``(B,)``: a random part of a section, or a window of it.
    label, batch
        Category of each cell, numbered from 1, 0 where not given, ``(B, N)``.
    """

    cell_mask: Tensor | None = None
    scope: Tensor | None = None
    label: Tensor | None = None
    batch: Tensor | None = None


class Denoised(NamedTuple):
    """What the network makes of a set.

    Attributes
    ----------
    position
        Expected clean positions in the standardised space, ``(B, N, d)``.
    arrangement
        Positions whose distances follow the true ones, ``(B, N, d)``, in no frame or scale: made
        for sets without a known position at level 1.
    expression
        Expected clean expression in the standardised space, ``(B, N, G)``.
    log_scale
        Log of the expected error of ``position``, per coordinate, ``(B, N)``.
    tokens
        Token embeddings after the last block, ``(B, N, D)``.
    """

    position: Tensor
    arrangement: Tensor
    expression: Tensor
    log_scale: Tensor
    tokens: Tensor


def _state(level: Tensor) -> Tensor:
    """Known, noisy or unknown, as integers ``(B, N)``."""
    state = torch.full_like(level, LevelEmbedding.NOISY, dtype=torch.long)
    state[level <= KNOWN] = LevelEmbedding.KNOWN
    state[level >= UNKNOWN] = LevelEmbedding.UNKNOWN
    return state


def _cell_level(level: Tensor) -> Tensor:
    """Level of a cell's expression ``(B, N)`` from those of its genes ``(B, N, G)``.

    That of its noisy genes if it has any; else known if any gene is; else unknown.
    """
    noisy = torch.where(level < UNKNOWN, level, KNOWN).amax(-1)
    return torch.where((level >= UNKNOWN).all(-1), UNKNOWN, noisy)


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
    d_model, num_heads, num_layers, d_ff
        Width of a token, heads per block, blocks, inner width of the feed-forward.
    dropout
        Dropout probability in training.
    """

    def __init__(
        self,
        num_genes: int,
        position_dim: int = 2,
        *,
        values: str = "counts",
        num_labels: int = 0,
        num_batches: int = 0,
        d_model: int = 128,
        num_heads: int = 4,
        num_layers: int = 4,
        d_ff: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
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
        self.first_pointer = Pointer(d_model, num_heads)
        self.guess_embedding = nn.Linear(self.position_features.out_features + num_heads, d_model)
        self.last_pointer = Pointer(d_model, num_heads)
        self.neighborhood = Neighborhood(num_genes, d_model)
        self.scope = nn.Embedding(len(SCOPES), d_model)
        nn.init.zeros_(self.scope.weight)
        self.label = OptionalEmbedding(num_labels, d_model)
        self.batch = OptionalEmbedding(num_batches, d_model)
        self.transformer = SetTransformer(d_model, num_heads, num_layers, d_ff, dropout)
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
        """Denoise a batch of sets, in the standardised space."""
        context = context or Context()

        # 1. Embed each modality at its level, EDM eq. 7: the network sees c_in z and c_noise.
        # Standardised expression has a standard deviation of 1: c_in = cos, c_out = sin.
        cos, sin = signal_and_noise(cells.expression_level)  # each (B, N, G)
        z_e = torch.where(cells.expression_level >= UNKNOWN, 0.0, cells.expression)  # (B, N, G)
        p = precondition(cells.position_level, self.sigma_data)  # each (B, N)
        hidden = (cells.position_level >= UNKNOWN)[..., None]
        z_p = torch.where(hidden, 0.0, cells.position)  # (B, N, d)
        x = self._embed_expression(cos, cos * z_e, cells.expression_level)  # (B, N, D)
        real = torch.ones_like(hidden[..., 0])
        if context.cell_mask is not None:
            real = context.cell_mask  # (B, N)
        placed = (cells.position_level <= KNOWN) & real
        framed = bool(placed.any())
        if framed:
            x = x + self._guess_embedded(x, z_p, placed)
        features = self.position_features(p.c_in[..., None] * z_p)  # (B, N, F)
        x = x + self.position_embedding(features, _state(cells.position_level), p.c_noise)
        if context.scope is not None:
            x = x + self.scope(context.scope)[:, None]
        if context.label is not None:
            x = x + self.label(context.label)
        if context.batch is not None:
            x = x + self.batch(context.batch)

        # 2. Let the cells of a set see each other, near ones better where positions are known.
        geometry, guess = None, None
        if not hidden.all():
            geometry = Geometry(p.c_skip[..., None] * z_p, p.c_out.square(), p.c_skip)
            known = (cells.expression_level <= KNOWN) & real[..., None]  # (B, N, G)
            around, guess = self._surroundings(z_e, known, geometry, real)
            x = x + around
        tokens = self.transformer(x, context.cell_mask, geometry)  # (B, N, D)

        # 3. D(z) = c_skip z + c_out F: at level 0 the input itself, at level 1 the network alone.
        # The gates: what is known of a cell makes its noisy value count for less than c_skip says,
        # with a posterior of variance v < sigma_data^2 the factor is v / (v + sigma^2).
        scaled = p.c_in[..., None] * z_p  # (B, N, d)
        network = self.position_head(tokens) + self.position_gate(tokens) * scaled
        if framed:
            guess_p, _ = self.last_pointer(tokens, z_p, placed)
            network = network + p.c_out[..., None] / self.sigma_data**2 * guess_p
        position = p.c_skip[..., None] * z_p + p.c_out[..., None] * network
        # With a Gaussian prior of mean m the posterior mean is c_skip z + c_out^2 m.
        network = self.expression_head(tokens) + self.expression_gate(tokens) * cos * z_e
        if guess is not None:
            network = network + sin * guess
        expression = cos.square() * z_e + sin * network
        # The error scale is learned beside, not at the cost of, the position.
        log_scale = self.scale_head(tokens.detach()).squeeze(-1)  # (B, N)
        return Denoised(position, self.arrangement_head(tokens), expression, log_scale, tokens)

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

    def _guess_embedded(self, x: Tensor, position: Tensor, known: Tensor) -> Tensor:
        """Embed a first guess of the cells that are not placed yet, ``(B, N, D)``."""
        guess, variance = self.first_pointer(x, position, known)
        features = torch.cat([self.position_features(guess / self.sigma_data), variance], dim=-1)
        asked = known.any(1, keepdim=True) & ~known  # (B, N)
        return asked[..., None] * self.guess_embedding(features)

    def _embed_expression(self, cos: Tensor, scaled: Tensor, level: Tensor) -> Tensor:
        """Embed expression ``(B, N, G)`` as ``(B, N, D)``: each value and how much is signal."""
        cell_level = _cell_level(level)  # (B, N)
        return self.expression_embedding(
            torch.cat([scaled, cos.square()], dim=-1),  # (B, N, 2G)
            _state(cell_level),
            noise_condition(cell_level),
        )
