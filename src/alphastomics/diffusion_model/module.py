"""The denoiser: one network for every pattern of known and unknown."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from alphastomics.diffusion_model.levels import KNOWN, UNKNOWN, precondition
from alphastomics.nn.block import SetTransformer
from alphastomics.nn.embeddings import LevelEmbedding, ModalityEmbedding


def _state(level: Tensor) -> Tensor:
    """Known, noisy or unknown, ``(B, N)`` integers, from levels."""
    noisy = (level > KNOWN).long() * LevelEmbedding.NOISY
    return torch.where(level >= UNKNOWN, LevelEmbedding.UNKNOWN, noisy)


class MaskedDiffusionModule(nn.Module):
    def __init__(self, num_genes, position_dim=2, d_model=128, num_heads=4, num_layers=4, d_ff=256, dropout=0.0, expr_hidden=None):
        super().__init__()
        self.position_dim = position_dim
        self.sigma_data = 1.0 / math.sqrt(position_dim)
        self.expression_embedding = ModalityEmbedding(2 * num_genes, d_model, expr_hidden)
        self.position_embedding = ModalityEmbedding(position_dim, d_model, hidden=d_model)
        self.transformer = SetTransformer(d_model, num_heads, num_layers, d_ff, dropout)
        self.position_head = nn.Linear(d_model, position_dim)
        self.gene_head = nn.Linear(d_model, num_genes)
        nn.init.zeros_(self.position_head.weight); nn.init.zeros_(self.position_head.bias)

    def forward(self, expression, visible, expression_level, position, position_level, cell_mask=None):
        e = self.expression_embedding(torch.cat([expression, visible.to(expression)], -1), _state(expression_level), torch.zeros_like(expression_level))
        c = precondition(position_level, self.sigma_data)
        z = torch.where((position_level >= UNKNOWN)[..., None], 0.0, position)
        p = self.position_embedding(c.c_in[..., None] * z, _state(position_level), c.c_noise)
        h = self.transformer(e + p, cell_mask)
        F = self.position_head(h)
        return self.gene_head(h), c.c_skip[..., None] * z + c.c_out[..., None] * F, h
