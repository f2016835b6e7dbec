"""Standardising the genes of a query by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.transforms import CHUNK, LEAST_STD
from alphastomics.model._request import Request


@torch.no_grad()
def standardize_query(module: MaskedDiffusionModule, request: Request) -> Request:
    """Have the genes of the query standardised by themselves."""
    if request.fill_expression:
        raise ValueError(
            "standardize='query' is for placing cells: expression comes back in the scale of "
            "training. Pass mode='expr_to_pos', or standardize='training'."
        )
    data, G = request.data, module.num_genes
    cells = np.flatnonzero(request.expression_known[: request.n_query])
    total, square, n = torch.zeros(3, G, dtype=torch.float64)
    for some in np.array_split(cells, -(-len(cells) // CHUNK)):
        measured = torch.from_numpy(data.measured(some))
        values = torch.from_numpy(data.expression[some].toarray().astype(np.float32))
        z = module.expression_transform(values.to(module.device), measured.to(module.device))
        z = torch.where(measured, z.cpu().double(), 0.0)
        total, square, n = total + z.sum(0), square + z.square().sum(0), n + measured.sum(0)
    mean = total / n.clamp_min(1)
    std = (square / n.clamp_min(1) - mean.square()).clamp_min(0).sqrt()
    std = torch.where(std < LEAST_STD, torch.inf, std)
    return replace(request, query_shift=mean.float().numpy(), query_scale=std.float().numpy())
