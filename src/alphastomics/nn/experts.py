"""Mixture of experts: every token goes through a few of many small feed-forwards."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, one_hot

from alphastomics.nn.architecture import Architecture


class Routing(NamedTuple):
    """How the tokens of a batch were spread over the experts of a block, padding left out.

    Attributes
    ----------
    balance
        Load-balancing loss (Fedus et al. 2022, eq. 4): 1 when every expert gets as much, up to
        ``num_experts`` when one gets all.
    z
        Router z-loss (Zoph et al. 2022, eq. 5): keeps the logits small.
    utilisation
        Share of the choices that fell on each expert, ``(E,)``.
    """

    balance: Tensor
    z: Tensor
    utilisation: Tensor


class Experts(nn.Module):
    """Feed-forward of ``num_experts`` experts, of which each token chooses ``moe_top_k``.

    Token-choice routing (Shazeer et al. 2017; weights renormalised over the chosen ones, as in
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
        real = torch.ones_like(x[..., 0], dtype=torch.bool) if cell_mask is None else cell_mask
        tokens = x[real]  # (T, D)
        logits = self.router(tokens)  # (T, E)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        noisy = logits
        if self.training and self.noise > 0:
            noisy = logits + self.noise * torch.randn_like(logits)
        best, chosen = noisy.topk(self.top_k, dim=-1)  # each (T, K)
        y = self._dispatch(tokens, best.softmax(-1).to(x.dtype), chosen)
        out = torch.zeros_like(x).masked_scatter(real[..., None], self.dropout(y).to(x.dtype))
        return out, self._routing(logits, chosen)

    def _dispatch(self, tokens: Tensor, weight: Tensor, chosen: Tensor) -> Tensor:
        """Sum of the chosen experts' outputs, weighted, ``(T, D)``."""
        order = chosen.flatten().argsort(stable=True)  # (T K,)
        source = order // self.top_k
        sizes = torch.bincount(chosen.flatten(), minlength=self.num_experts).tolist()
        groups = torch.split(tokens[source], sizes)
        done = []
        for e, group in enumerate(groups):
            inner = gelu(torch.addmm(self.b_in[e], group, self.w_in[e]))  # (T_e, F)
            done.append(torch.addmm(self.b_out[e], inner, self.w_out[e]))
        y = torch.cat(done) * weight.flatten()[order, None]
        return torch.zeros_like(tokens).index_add(0, source, y.to(tokens.dtype))

    def _routing(self, logits: Tensor, chosen: Tensor) -> Routing:
        share = one_hot(chosen, self.num_experts).float().mean((0, 1))  # (E,)
        probability = logits.softmax(-1).mean(0)  # (E,)
        balance = self.num_experts * (share * probability).sum()
        return Routing(balance, logits.logsumexp(-1).square().mean(), share)
