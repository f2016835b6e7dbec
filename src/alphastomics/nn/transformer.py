"""Transformer over the cells of a set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alphastomics.config import Architecture
from alphastomics.nn.attention import SelfAttention
from alphastomics.nn.moe import MixtureOfExperts, Routing
from alphastomics.nn.spatial_bias import KnownPositions


class FeedForward(nn.Sequential):
    """Two linear maps with a GELU between, applied to every token alone."""

    def __init__(self, size: Architecture) -> None:
        super().__init__(
            nn.Linear(size.d_model, size.d_ff),
            nn.GELU(),
            nn.Linear(size.d_ff, size.d_model),
            nn.Dropout(size.dropout),
        )


class Block(nn.Module):
    """Pre-norm transformer block: attention across cells, then a feed-forward per cell."""

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size.d_model, bias=False)
        self.attention = SelfAttention(size)
        self.feed_forward_norm = nn.LayerNorm(size.d_model, bias=False)
        self.feed_forward = MixtureOfExperts(size) if size.num_experts else FeedForward(size)

    def forward(
        self, x: Tensor, cell_mask: Tensor | None = None, positions: KnownPositions | None = None
    ) -> tuple[Tensor, Routing | None]:
        """Transform tokens ``(B, N, D)``; the other arguments as in :class:`SelfAttention`."""
        x = x + self.attention(self.attention_norm(x), cell_mask, positions)  # (B, N, D)
        normed = self.feed_forward_norm(x)
        if isinstance(self.feed_forward, MixtureOfExperts):
            y, routing = self.feed_forward(normed, cell_mask)
            return x + y, routing
        return x + self.feed_forward(normed), None  # (B, N, D)


class SetTransformer(nn.Module):
    """A stack of blocks over a set of tokens; it has no notion of token order.

    Parameters
    ----------
    size
        Size and options.
    """

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.num_layers))
        self.norm = nn.LayerNorm(size.d_model, bias=False)
        self._recomputes = False

    def forward(
        self, x: Tensor, cell_mask: Tensor | None = None, positions: KnownPositions | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Transform tokens ``(B, N, D)``; ``cell_mask`` ``(B, N)`` is True for real cells."""
        routings = []
        for block in self.blocks:
            if self._recomputes and torch.is_grad_enabled():
                x, routing = checkpoint(block, x, cell_mask, positions, use_reentrant=False)
            else:
                x, routing = block(x, cell_mask, positions)
            if routing is not None:
                routings.append(routing)
        return self.norm(x), routings

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Keep only what goes into a block, and compute the rest again in the backward pass."""
        self._recomputes = True
        try:
            yield
        finally:
            self._recomputes = False

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Run through ``torch.compile`` for the while.

        Raises
        ------
        RuntimeError
            If the compiler fails, as it does where there is no C++ compiler.
        """
        self.compile(dynamic=True)
        try:
            yield
        except torch._dynamo.exc.TorchDynamoException as error:
            raise RuntimeError(
                f"compile=True: torch.compile failed: {str(error).strip().splitlines()[0]} It "
                "needs a C++ compiler, and an environment whose path has no space: train without "
                "compile else."
            ) from error
        finally:
            self._compiled_call_impl = None
