"""Where the known cells are that resemble a cell."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad, scaled_dot_product_attention

SHARPNESS = 10.0  # initial factor of the cosine similarity


class Pointer(nn.Module):
    """Means of the known positions, weighted by the similarity of tokens.

    The natural first guess of where a cell sits among known ones: a learned nearest-neighbour
    regression. A mean of known positions turns, shifts and scales with their frame, which a
    linear map of tokens has to learn.

    Parameters
    ----------
    d_model
        Width of a token.
    num_heads
        Number of similarities.
    """

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(d_model, bias=False)
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight)  # at first, similar means near
        self.log_sharpness = nn.Parameter(torch.full((num_heads,), math.log(SHARPNESS)))
        self.share = nn.Parameter(torch.zeros(num_heads))

    def forward(self, tokens: Tensor, position: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Guess positions.

        Parameters
        ----------
        tokens
            ``(B, N, D)``.
        position
            ``(B, N, d)``.
        known
            Whose position counts, boolean ``(B, N)``.

        Returns
        -------
        guess, variance : Tensor
            ``(B, N, d)``, and how widely each head's weights are spread in space,
            ``(B, N, num_heads)``. Both 0 in sets without a known position.
        """
        B, N, D = tokens.shape
        H, d = self.num_heads, position.shape[-1]
        framed = known.any(1)[:, None, None]  # (B, 1, 1)
        x = self.norm(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            q, k = (
                normalize(project(x).float().view(B, N, H, D // H), dim=-1).transpose(1, 2)
                for project in (self.query, self.key)
            )  # each (B, H, N, D / H)
            q = q * self.log_sharpness.exp()[:, None, None]
            value = torch.cat([position, position.square().sum(-1, keepdim=True)], dim=-1).float()
            value = pad(torch.where(known[..., None], value, 0.0), (0, max(0, D // H - d - 1)))
            k = pad(k, (0, value.shape[-1] - k.shape[-1]))
            q = pad(q, (0, value.shape[-1] - q.shape[-1]))
            value = value[:, None].expand(B, H, N, -1)
            mask = (known | ~framed[:, 0])[:, None, None, :]  # a softmax over nothing is NaN
            mean = scaled_dot_product_attention(q, k, value, attn_mask=mask, scale=1.0)
        mean = torch.where(framed[..., None], mean, 0.0)  # (B, H, N, .)
        guess, square = mean[..., :d], mean[..., d]
        variance = (square - guess.square().sum(-1)).clamp_min(0.0).transpose(1, 2)
        share = self.share.softmax(0)
        return torch.einsum("bhnd,h->bnd", guess, share), variance
