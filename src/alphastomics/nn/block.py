"""A transformer block and the stack of them."""

from __future__ import annotations

from torch import Tensor, nn

from alphastomics.nn.attention import SelfAttention
from alphastomics.nn.geometry import Geometry


class FeedForward(nn.Sequential):
    """Two linear maps with a GELU between, applied to every token alone."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(d_model, d_ff), nn.GELU(), nn.Linear(d_ff, d_model), nn.Dropout(dropout)
        )


class Block(nn.Module):
    """Pre-norm transformer block: attention across cells, then a feed-forward per cell."""

    def __init__(self, d_model: int, num_heads: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model, bias=False)
        self.attention = SelfAttention(d_model, num_heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(d_model, bias=False)
        self.feed_forward = FeedForward(d_model, d_ff, dropout)

    def forward(
        self, x: Tensor, attention_mask: Tensor | None = None, geometry: Geometry | None = None
    ) -> Tensor:
        """Transform tokens ``(B, N, D)``; the other arguments as in :class:`SelfAttention`."""
        x = x + self.attention(self.attention_norm(x), attention_mask, geometry)  # (B, N, D)
        return x + self.feed_forward(self.feed_forward_norm(x))  # (B, N, D)


class SetTransformer(nn.Module):
    """A stack of blocks over a set of tokens; it has no notion of token order.

    Parameters
    ----------
    d_model, num_heads, num_layers, d_ff, dropout
        Width, heads per block, number of blocks, inner width of the feed-forward, dropout.
    """

    def __init__(
        self, d_model: int, num_heads: int, num_layers: int, d_ff: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(d_model, num_heads, d_ff, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model, bias=False)

    def forward(
        self, x: Tensor, cell_mask: Tensor | None = None, geometry: Geometry | None = None
    ) -> Tensor:
        """Transform tokens ``(B, N, D)``; ``cell_mask`` ``(B, N)`` is True for real cells."""
        attention_mask = None if cell_mask is None else cell_mask[:, None, None, :]  # (B, 1, 1, N)
        for block in self.blocks:
            x = block(x, attention_mask, geometry)
        return self.norm(x)
