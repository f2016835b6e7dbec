"""Multi-head self-attention over the cells of a set."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, pad, scaled_dot_product_attention

from alphastomics.nn.architecture import Architecture
from alphastomics.nn.geometry import Geometry, SpatialBias


def linear_attention(q: Tensor, k: Tensor, v: Tensor, cell_mask: Tensor | None = None) -> Tensor:
    """Attention with a kernel instead of a softmax: linear in the number of cells.

    Katharopoulos et al. (2020), eqs. 4-6, with ``phi(x) = elu(x) + 1``:
    ``y_i = phi(q_i) S / (phi(q_i) s)`` with ``S = sum_j phi(k_j) v_j`` and ``s = sum_j phi(k_j)``.

    Parameters
    ----------
    q, k, v
        Each ``(B, nh, N, hs)``.
    cell_mask
        True where a key may be attended to, ``(B, N)``.
    """
    q, k = elu(q) + 1, elu(k) + 1
    if cell_mask is not None:
        k = k * cell_mask[:, None, :, None]
    summed = k.transpose(-1, -2) @ v  # (B, nh, hs, hs)
    total = q @ k.sum(-2, keepdim=True).transpose(-1, -2)  # (B, nh, N, 1)
    return q @ summed / total.clamp_min(1e-6)


class Gate(nn.Module):
    """A sigmoid of a projection of the block's input, on the output of attention.

    It lets a token ignore what it attended to (Qiu et al. 2025, arXiv:2505.06708).

    Parameters
    ----------
    d_model, num_heads
        Width of a token, heads of the attention.
    gate_type
        ``"headwise"``: a number for each head of a token; ``"elementwise"``: for each entry.
    """

    def __init__(self, d_model: int, num_heads: int, gate_type: str) -> None:
        super().__init__()
        self.project = nn.Linear(d_model, num_heads if gate_type == "headwise" else d_model)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Gate the heads' outputs ``y`` ``(B, N, nh, hs)`` by the input ``x`` ``(B, N, D)``."""
        B, N, nh, _ = y.shape
        return y * torch.sigmoid(self.project(x)).view(B, N, nh, -1)


class SelfAttention(nn.Module):
    """Self-attention with RMS-normed queries and keys.

    Normalising queries and keys bounds the logits, so that attention stays well behaved when a
    set at inference is much larger than the sets of training (Henry et al. 2020,
    arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442).

    Parameters
    ----------
    size
        Width, heads, kernel and gate.
    """

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        d_model, self.num_heads = size.d_model, size.num_heads
        self.is_linear = size.attention == "linear"
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.query_norm = nn.RMSNorm(d_model // size.num_heads)
        self.key_norm = nn.RMSNorm(d_model // size.num_heads)
        self.spatial_bias = None if self.is_linear else SpatialBias(size.num_heads)
        self.gate = None
        if size.gate_type != "none":
            self.gate = Gate(d_model, size.num_heads, size.gate_type)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.dropout = nn.Dropout(size.dropout)

    def forward(
        self, x: Tensor, cell_mask: Tensor | None = None, geometry: Geometry | None = None
    ) -> Tensor:
        """Mix the tokens of each set.

        Parameters
        ----------
        x
            Tokens, ``(B, N, D)``.
        cell_mask
            True for real cells, ``(B, N)``; ``None`` when all are.
        geometry
            Where the cells are; ``None`` when no position is known. Softmax attention looks near
            by it; linear attention has the positions in the tokens only.
        """
        B, N, D = x.shape
        qkv = self.qkv(x).view(B, N, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, nh, N, hs)
        q, k = self.query_norm(q), self.key_norm(k)
        if self.is_linear:
            y = linear_attention(q, k, v, cell_mask)  # (B, nh, N, hs)
        else:
            y = self._softmax(q, k, v, cell_mask, geometry)
        y = y.transpose(1, 2)  # (B, N, nh, hs)
        if self.gate is not None:
            y = self.gate(x, y)
        return self.dropout(self.out(y.reshape(B, N, D)))

    def _softmax(
        self, q: Tensor, k: Tensor, v: Tensor, cell_mask: Tensor | None, geometry: Geometry | None
    ) -> Tensor:
        """Attend; with the spatial bias in full precision, also under autocast."""
        mask = None if cell_mask is None else cell_mask[:, None, None, :]  # (B, 1, 1, N)
        if geometry is None or self.spatial_bias is None:
            return scaled_dot_product_attention(q, k, v, attn_mask=mask)
        size = q.shape[-1]
        with torch.autocast(q.device.type, enabled=False):
            query, key = self.spatial_bias(geometry)  # (B, nh, N, d + 3)
            # One size for q, k and v, a multiple of 8: the fused kernels want it so.
            more = -(size + query.shape[-1]) % 8
            q = pad(torch.cat([q.float(), math.sqrt(size) * query], dim=-1), (0, more))
            k = pad(torch.cat([k.float(), key], dim=-1), (0, more))
            v = pad(v.float(), (0, q.shape[-1] - size))
            y = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1 / math.sqrt(size))
        return y[..., :size]
