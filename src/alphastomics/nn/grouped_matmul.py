"""Products of sorted rows, group by group, and the way there and back."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag


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
    """Its backward is :class:`_FromGroups`.

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
    """Its backward is :class:`_ToGroups`."""

    @staticmethod
    def forward(ctx: Any, choices: Tensor, source: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(source, places)
        return embedding_bag(places, choices, mode="sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        source, places = ctx.saved_tensors
        return to_groups(grad, source, places), None, None


class _GroupedProduct(torch.autograd.Function):
    """Writes into one buffer, forward and backward."""

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
