"""The denoiser: one network for every pattern of known and unknown."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alphastomics.diffusion_model.levels import KNOWN, UNKNOWN, precondition
from alphastomics.diffusion_model.transforms import ExpressionTransform, PositionTransform
from alphastomics.nn.block import SetTransformer
from alphastomics.nn.embeddings import LevelEmbedding, ModalityEmbedding

EXPRESSION_SIGMA_DATA = 1.0  # standardised per gene


class Denoised(NamedTuple):
    """What the network makes of a set.

    Attributes
    ----------
    position
        Expected clean positions in the standardised space, ``(B, N, d)``.
    tokens
        Token embeddings after the last block, ``(B, N, D)``.
    """

    position: Tensor
    tokens: Tensor


def _state(level: Tensor) -> Tensor:
    """Known, noisy or unknown, as integers ``(B, N)``."""
    state = torch.full_like(level, LevelEmbedding.NOISY, dtype=torch.long)
    state[level <= KNOWN] = LevelEmbedding.KNOWN
    state[level >= UNKNOWN] = LevelEmbedding.UNKNOWN
    return state


class MaskedDiffusionModule(nn.Module):
    """A transformer over the cells of a set that denoises what is not known of them.

    Every cell has its own noise level per modality (:mod:`~alphastomics.diffusion_model.levels`):
    at level 0 its value is known and comes back as it is, at level 1 it is replaced by a learned
    *unknown* token. At level 1 the output is the conditional mean of what is missing given what is
    known (the denoiser that minimises the squared error is the posterior mean; Karras et al. 2022,
    eq. 2).

    Parameters
    ----------
    num_genes
        Number of genes ``G``.
    position_dim
        Dimension ``d`` of space, 2 or 3.
    values
        Kind of expression values, see
        :class:`~alphastomics.diffusion_model.transforms.ExpressionTransform`.
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
        self.position_embedding = ModalityEmbedding(position_dim, d_model, hidden=d_model)
        self.transformer = SetTransformer(d_model, num_heads, num_layers, d_ff, dropout)
        self.position_head = nn.Linear(d_model, position_dim)
        nn.init.zeros_(self.position_head.weight)
        nn.init.zeros_(self.position_head.bias)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.position_head.weight.device

    def forward(
        self,
        expression: Tensor,
        visible: Tensor,
        expression_level: Tensor,
        position: Tensor,
        position_level: Tensor,
        cell_mask: Tensor | None = None,
    ) -> Denoised:
        """Denoise a batch of sets, in the standardised space.

        Parameters
        ----------
        expression
            Standardised expression, noisy by its level, ``(B, N, G)``.
        visible
            Whether a gene of a cell is known, boolean ``(B, N, G)``.
        expression_level, position_level
            Level of each cell and modality in [0, 1], ``(B, N)``.
        position
            Standardised positions, noisy by their level, ``(B, N, d)``; ignored at level 1.
        cell_mask
            True for real cells, False for padding, ``(B, N)``; ``None`` when all are real.
        """
        # 1. Embed each modality at its level, EDM eq. 7: the network sees c_in z and c_noise.
        e = precondition(expression_level, EXPRESSION_SIGMA_DATA)
        genes = torch.where(visible, e.c_in[..., None] * expression, 0.0)  # (B, N, G)
        genes = torch.cat([genes, visible.to(genes)], dim=-1)  # (B, N, 2G)
        p = precondition(position_level, self.sigma_data)
        hidden = (position_level >= UNKNOWN)[..., None]
        z = torch.where(hidden, 0.0, position)  # (B, N, d)
        x = self.expression_embedding(genes, _state(expression_level), e.c_noise)
        x = x + self.position_embedding(
            p.c_in[..., None] * z, _state(position_level), p.c_noise
        )  # (B, N, D)

        # 2. Let the cells of a set see each other.
        tokens = self.transformer(x, cell_mask)  # (B, N, D)

        # 3. D(z) = c_skip z + c_out F: at level 0 the input itself, at level 1 the network alone.
        network = self.position_head(tokens)  # (B, N, d)
        denoised = p.c_skip[..., None] * z + p.c_out[..., None] * network
        return Denoised(denoised, tokens)

    def place(self, expression: Tensor, visible: Tensor, cell_mask: Tensor | None = None) -> Tensor:
        """Conditional mean of the positions given expression alone, ``(B, N, d)``."""
        B, N, _ = expression.shape
        known, unknown = expression.new_full((B, N), KNOWN), expression.new_full((B, N), UNKNOWN)
        nowhere = expression.new_zeros(B, N, self.position_dim)
        return self(expression, visible, known, nowhere, unknown, cell_mask).position
