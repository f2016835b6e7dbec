"""Mixture of experts: router, experts, and the products of tokens sorted by expert."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag, gelu

from alphastomics.config import Architecture


class Routing(NamedTuple):
    """Distribution of the tokens of a batch over the experts of a block, without padding.

    Attributes
    ----------
    balance
        Load-balancing loss (Fedus et al. 2022, eq. 4): 1 when every expert gets as much, up to
        ``num_experts`` when one gets all.
    z
        Router z-loss (Zoph et al. 2022, eq. 5): keeps the logits small.
    utilization
        Share of the choices that fell on each expert, ``(E,)``.
    """

    balance: Tensor
    z: Tensor
    utilization: Tensor


class MixtureOfExperts(nn.Module):
    """Feed-forward of ``num_experts`` experts, of which each token chooses ``moe_top_k``.

    Token-choice routing (Shazeer et al. 2017; weights renormalized over the chosen ones, as in
    Mixtral). Tokens are sorted by expert and multiplied group by group, so that only what is chosen
    is computed.

    Parameters
    ----------
    size
        Widths, number of experts and of choices, router noise.
    """

    def __init__(self, size: Architecture) -> None:
        super().__init__()
        E, D, F = size.num_experts, size.d_model, size.d_expert
        self.num_experts, self.top_k, self.noise = E, size.moe_top_k, size.router_noise
        self.router = nn.Linear(D, E, bias=False)
        self.w_in, self.b_in = nn.Parameter(torch.empty(E, D, F)), nn.Parameter(torch.empty(E, F))
        self.w_out, self.b_out = nn.Parameter(torch.empty(E, F, D)), nn.Parameter(torch.empty(E, D))
        self.dropout = nn.Dropout(size.dropout)
        for weight, bias in ((self.w_in, self.b_in), (self.w_out, self.b_out)):
            bound = weight.shape[1] ** -0.5  # that of nn.Linear
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, x: Tensor, cell_mask: Tensor | None = None) -> tuple[Tensor, Routing]:
        """Transform tokens.

        Parameters
        ----------
        x
            ``(B, N, D)``.
        cell_mask
            True for real cells, ``(B, N)``; padding is not routed and comes back as 0.
        """
        tokens = x.flatten(0, 1) if cell_mask is None else x[cell_mask]  # (T, D)
        logits = self.router(tokens)  # (T, E)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        noisy = logits
        if self.training and self.noise > 0:
            noisy = logits + self.noise * torch.randn_like(logits)
        best, chosen = noisy.topk(self.top_k, dim=-1)  # each (T, K)
        counts = torch.bincount(chosen.flatten(), minlength=self.num_experts)  # (E,)
        y = self.dropout(self._dispatch(tokens, best.softmax(-1), chosen, counts)).to(x.dtype)
        routing = self._routing(logits, counts / counts.sum())
        if cell_mask is None:
            return y.view_as(x), routing
        return torch.zeros_like(x).masked_scatter(cell_mask[..., None], y), routing

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _dispatch(self, tokens: Tensor, weight: Tensor, chosen: Tensor, counts: Tensor) -> Tensor:
        """Sum of the chosen experts' outputs, weighted, ``(T, D)``."""
        order = chosen.flatten().argsort(stable=True)  # (T K,)
        source, places = order // self.top_k, order.argsort().view_as(chosen)
        expert, sizes = chosen.flatten()[order], counts.tolist()
        dtype, device = tokens.dtype, tokens.device.type
        if torch.is_autocast_enabled(device):  # autocast does not reach custom autograd functions
            dtype = torch.get_autocast_dtype(device)
        w_in, w_out = self.w_in.to(dtype), self.w_out.to(dtype)
        sent = to_groups(tokens.to(dtype), source, places)  # (T K, D)
        inner = grouped_product(sent, w_in, sizes) + self.b_in[expert]  # (T K, F)
        inner = (gelu(inner) * weight.flatten()[order, None]).to(dtype)
        y = from_groups(grouped_product(inner, w_out, sizes), source, places)
        of_expert = weight.new_zeros(len(tokens), self.num_experts)
        return y + of_expert.scatter(1, chosen, weight) @ self.b_out

    def _routing(self, logits: Tensor, share: Tensor) -> Routing:
        probability = logits.softmax(-1).mean(0)  # (E,)
        balance = self.num_experts * (share * probability).sum()
        return Routing(balance, logits.logsumexp(-1).square().mean(), share)


def to_groups(tokens: Tensor, source: Tensor, places: Tensor) -> Tensor:
    """Copy each of ``tokens`` ``(T, D)`` to its places among the sorted choices, ``(T K, D)``.

    Parameters
    ----------
    tokens
        ``(T, D)``.
    source
        Token of each sorted choice, ``(T K,)``.
    places
        Where the choices of each token lie, ``(T, K)``.
    """
    return cast(Tensor, _ToGroups.apply(tokens, source, places))  # type: ignore[no-untyped-call]


def from_groups(choices: Tensor, source: Tensor, places: Tensor) -> Tensor:
    """Sum the sorted ``choices`` ``(T K, D)`` of each token, ``(T, D)``; see :func:`to_groups`."""
    return cast(Tensor, _FromGroups.apply(choices, source, places))  # type: ignore[no-untyped-call]


def grouped_product(x: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
    """Multiply consecutive rows of ``x`` ``(T K, F)``, in groups of ``sizes``, each by its matrix.

    ``weight`` is ``(E, F, D)``, the result ``(T K, D)``.
    """
    return cast(Tensor, _GroupedProduct.apply(x, weight, sizes))  # type: ignore[no-untyped-call]


class _ToGroups(torch.autograd.Function):
    """Copy of tokens to their groups; its backward is :class:`_FromGroups`.

    Autograd's own backward of an index adds row by row, which takes longer than the products.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, source: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(source, places)
        return tokens.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        source, places = ctx.saved_tensors
        return from_groups(grad, source, places), None, None


class _FromGroups(torch.autograd.Function):
    """Sum of the choices of each token; its backward is :class:`_ToGroups`."""

    @staticmethod
    def forward(ctx: Any, choices: Tensor, source: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(source, places)
        return embedding_bag(places, choices, mode="sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        source, places = ctx.saved_tensors
        return to_groups(grad, source, places), None, None


class _GroupedProduct(torch.autograd.Function):
    """Products of groups of rows, written into one buffer forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = sizes
        y = x.new_empty(len(x), weight.shape[2])
        for rows, out, matrix in zip(
            torch.split(x, sizes), torch.split(y, sizes), weight, strict=True
        ):
            torch.mm(rows, matrix, out=out)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), torch.empty_like(weight)
        groups = (torch.split(part, ctx.sizes) for part in (x, grad, of_x))
        for rows, g, out, matrix, total in zip(*groups, weight, of_weight, strict=True):
            torch.mm(g, matrix.T, out=out)
            torch.mm(rows.T, g, out=total)
        return of_x, of_weight, None
