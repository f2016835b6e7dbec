"""Multi-head self-attention over the cells of a set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, pad, scaled_dot_product_attention

from alphastomics.config import Architecture
from alphastomics.nn.spatial_bias import KnownPositions, SpatialBias

CHUNK = 4096  # cells that linear attention takes at a time: what it computes stays in the cache


def linear_attention(
    q: Sequence[Tensor], k: Sequence[Tensor], v: Sequence[Tensor], real: Sequence[Tensor | None]
) -> Iterator[Tensor]:
    """Attention with a kernel instead of a softmax: linear in the number of cells.

    Katharopoulos et al. (2020), eqs. 4-6, with ``phi(x) = elu(x) + 1``:
    ``y_i = phi(q_i) S / (phi(q_i) s)`` with ``S = sum_j phi(k_j) v_j`` and ``s = sum_j phi(k_j)``.

    Parameters
    ----------
    q, k, v
        Chunks of the cells, each ``(B, nh, n, hs)``.
    real
        For each chunk, where a key may be attended to, ``(B, n)``; ``None`` for everywhere.

    Yields
    ------
    Tensor
        Each chunk's output, ``(B, nh, n, hs)``.
    """
    summed, total = torch.zeros(()).to(v[0]), torch.zeros(()).to(v[0])
    for key, value, mask in zip(k, v, real, strict=True):
        phi = elu(key) + 1
        if mask is not None:
            phi = phi * mask[:, None, :, None]
        summed = summed + phi.transpose(-1, -2) @ value  # (B, nh, hs, hs)
        total = total + phi.sum(-2).unsqueeze(-1)  # (B, nh, hs, 1)
    for query in q:
        phi = elu(query) + 1
        yield phi @ summed / (phi @ total).clamp_min(1e-6)


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

    Normalizing queries and keys bounds the logits, so that attention stays well behaved when a
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
        self, x: Tensor, cell_mask: Tensor | None = None, positions: KnownPositions | None = None
    ) -> Tensor:
        """Mix the tokens of each set.

        Parameters
        ----------
        x
            Tokens, ``(B, N, D)``.
        cell_mask
            True for real cells, ``(B, N)``; ``None`` when all are.
        positions
            Known positions; ``None`` when no position is known. Softmax attention looks near
            by it; linear attention has the positions in the tokens only.
        """
        if not self.is_linear:
            y = self._softmax(*self._heads(x), cell_mask, positions)
            return self._out(x, y)
        parts = torch.split(x, CHUNK, dim=1)
        real = [None] * len(parts) if cell_mask is None else torch.split(cell_mask, CHUNK, dim=1)
        q, k, v = zip(*map(self._heads, parts), strict=True)
        mixed = linear_attention(q, k, v, real)
        return torch.cat([self._out(part, y) for part, y in zip(parts, mixed, strict=True)], 1)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values, each ``(B, nh, N, hs)``."""
        B, N, D = x.shape
        qkv = self.qkv(x).view(B, N, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.query_norm(q), self.key_norm(k), v

    def _out(self, x: Tensor, y: Tensor) -> Tensor:
        """Gate and project the heads' outputs ``y`` ``(B, nh, N, hs)`` for tokens ``x``."""
        y = y.transpose(1, 2)  # (B, N, nh, hs)
        if self.gate is not None:
            y = self.gate(x, y)
        return self.dropout(self.out(y.reshape(x.shape)))

    def _softmax(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cell_mask: Tensor | None,
        positions: KnownPositions | None,
    ) -> Tensor:
        """Attend; with the spatial bias in full precision, also under autocast."""
        mask = None if cell_mask is None else cell_mask[:, None, None, :]  # (B, 1, 1, N)
        if positions is None or self.spatial_bias is None:
            return scaled_dot_product_attention(q, k, v, attn_mask=mask)
        size = q.shape[-1]
        with torch.autocast(q.device.type, enabled=False):
            query, key = self.spatial_bias(positions)  # (B, nh, N, d + 3)
            # One size for q, k and v, a multiple of 8: the fused kernels want it so.
            more = -(size + query.shape[-1]) % 8
            q = pad(torch.cat([q.float(), math.sqrt(size) * query], dim=-1), (0, more))
            k = pad(torch.cat([k.float(), key], dim=-1), (0, more))
            v = pad(v.float(), (0, q.shape[-1] - size))
            y = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1 / math.sqrt(size))
        return y[..., :size]
