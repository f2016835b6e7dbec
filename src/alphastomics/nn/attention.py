"""Multi-head self-attention over the cells of a set."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from alphastomics.nn.geometry import Geometry, SpatialBias


class SelfAttention(nn.Module):
    """Softmax self-attention with RMS-normed queries and keys.

    Normalising queries and keys bounds the logits, so that attention stays well behaved when a
    set at inference is much larger than the sets of training (Henry et al. 2020,
    arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442).

    Parameters
    ----------
    d_model
        Width of a token.
    num_heads
        Number of heads; must divide ``d_model``.
    dropout
        Dropout probability of the output in training.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if d_model % num_heads:
            raise ValueError(
                f"d_model={d_model} is not divisible by num_heads={num_heads}: choose a d_model "
                "that is a multiple of num_heads."
            )
        self.num_heads = num_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.query_norm = nn.RMSNorm(d_model // num_heads)
        self.key_norm = nn.RMSNorm(d_model // num_heads)
        self.spatial_bias = SpatialBias(num_heads)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, attention_mask: Tensor | None = None, geometry: Geometry | None = None
    ) -> Tensor:
        """Mix the tokens of each set.

        Parameters
        ----------
        x
            Tokens, shape ``(B, N, D)``.
        attention_mask
            Boolean, broadcastable to ``(B, 1, N, N)``, True where a key may be attended to;
            ``None`` when every token is a real cell.
        geometry
            Where the cells are; ``None`` when no position is known.
        """
        B, N, D = x.shape
        qkv = self.qkv(x).view(B, N, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, nh, N, hs)
        q, k = self.query_norm(q), self.key_norm(k)
        if geometry is None:
            y = scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)  # (B, nh, N, hs)
        else:
            y = self._near(q, k, v, attention_mask, geometry)
        y = y.transpose(1, 2).reshape(B, N, D)
        return self.dropout(self.out(y))

    def _near(
        self, q: Tensor, k: Tensor, v: Tensor, attention_mask: Tensor | None, geometry: Geometry
    ) -> Tensor:
        """Attend with the spatial bias, in full precision also under autocast."""
        size = q.shape[-1]
        with torch.autocast(q.device.type, enabled=False):
            query, key = self.spatial_bias(geometry)  # (B, nh, N, d + 3)
            # One size for q, k and v, a multiple of 8: the fused kernels want it so.
            more = -(size + query.shape[-1]) % 8
            q = pad(torch.cat([q.float(), math.sqrt(size) * query], dim=-1), (0, more))
            k = pad(torch.cat([k.float(), key], dim=-1), (0, more))
            v = pad(v.float(), (0, q.shape[-1] - size))
            y = scaled_dot_product_attention(
                q, k, v, attn_mask=attention_mask, scale=1 / math.sqrt(size)
            )
        return y[..., :size]
