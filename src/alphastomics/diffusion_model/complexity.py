"""Cost of a network: parameters, active parameters per cell, and operations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.nn.moe import MixtureOfExperts
from alphastomics.nn.transformer import FeedForward


@dataclass(frozen=True)
class Account:
    """Cost of a network.

    Attributes
    ----------
    parameters, active_parameters
        Number of trainable parameters, and of those that one cell goes through.
    feed_forward_parameters, active_feed_forward_parameters
        The same of the feed-forwards, dense or of experts with their router.
    flops
        Floating-point operations of one forward pass, two for each multiply-add.
    feed_forward_flops
        Those of the feed-forwards.
    n_cells
        Cells in that pass.
    """

    parameters: int
    active_parameters: int
    feed_forward_parameters: int
    active_feed_forward_parameters: int
    flops: int
    feed_forward_flops: int
    n_cells: int

    @property
    def active_share(self) -> float:
        """Share of all parameters that a cell goes through."""
        return self.active_parameters / self.parameters

    @property
    def feed_forward_share(self) -> float:
        """Share of the experts' parameters, without router, that a cell goes through."""
        return self.active_feed_forward_parameters / max(self.feed_forward_parameters, 1)

    def to_dict(self) -> dict[str, float]:
        """All numbers by name."""
        shares = {"active_share": self.active_share, "feed_forward_share": self.feed_forward_share}
        return {**asdict(self), **shares}


def account(module: MaskedDiffusionModule, n_cells: int = 256) -> Account:
    """Count the cost of placing a set of ``n_cells`` cells.

    Parameters
    ----------
    module
        The network. Operations of the priors and of the diffusion heads are not counted.
    n_cells
        Cells in the set.

    Returns
    -------
    Account
        Parameters, those that a cell goes through, and floating-point operations.

    Examples
    --------
    >>> from alphastomics.diffusion_model import MaskedDiffusionModule
    >>> module = MaskedDiffusionModule(100, d_model=32, num_experts=4, moe_top_k=2)
    >>> account(module).feed_forward_share
    0.5
    """
    total = _parameters(module)
    experts = [part for part in module.modules() if isinstance(part, MixtureOfExperts)]
    in_experts = sum(_parameters(part) - _parameters(part.router) for part in experts)
    active_in_experts = sum(
        (_parameters(part) - _parameters(part.router)) * part.top_k // part.num_experts
        for part in experts
    )
    dense = sum(_parameters(part) for part in module.modules() if isinstance(part, FeedForward))
    idle = in_experts - active_in_experts
    flops, in_feed_forward = _flops(module, n_cells)
    return Account(
        parameters=total,
        active_parameters=total - idle,
        feed_forward_parameters=dense + in_experts,
        active_feed_forward_parameters=dense + active_in_experts,
        flops=flops,
        feed_forward_flops=in_feed_forward,
        n_cells=n_cells,
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    """Count fused attention on the CPU, which torch does not."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def random_set(module: MaskedDiffusionModule, n_cells: int) -> StandardizedCells:
    """Set of cells of random expression and unknown position, on the device of a module."""
    device, generator = module.device, torch.Generator().manual_seed(0)
    expression = torch.randn(1, n_cells, module.num_genes, generator=generator).to(device)
    return StandardizedCells(
        expression=expression,
        gene_known=torch.ones_like(expression, dtype=torch.bool),
        position=torch.zeros(1, n_cells, module.position_dim, device=device),
        position_known=torch.zeros(1, n_cells, dtype=torch.bool, device=device),
    )


@torch.no_grad()
def _flops(module: MaskedDiffusionModule, n_cells: int) -> tuple[int, int]:
    """Operations of the whole network and of its feed-forwards: matrix products and attention."""
    cells = random_set(module, n_cells)
    was_training = module.training
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={attention: _attention_flops})
    with counter:
        module.eval()(cells)
    module.train(was_training)
    counts = counter.get_flop_counts()
    feed_forward = sum(
        sum(by_operation.values())
        for name, by_operation in counts.items()
        if name.endswith(".feed_forward")
    )
    return int(counter.get_total_flops()), int(feed_forward)
