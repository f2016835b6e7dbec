"""Training with weights that are sharded over devices (FSDP; Zhao et al. 2023)."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
import torch.distributed.fsdp
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from alphastomics.diffusion_model.module import MaskedDiffusionModule


def sharding_strategy(processes: int) -> ModelParallelStrategy:
    """Shard over all processes; checkpoints are gathered, and are those of one process.

    Raises
    ------
    RuntimeError
        If this version of torch cannot shard weights that only some processes use in a step.
    """
    sharded_module = getattr(torch.distributed.fsdp, "FSDPModule", None)
    if not hasattr(sharded_module, "set_reduce_scatter_unused_params"):
        raise RuntimeError(
            f"strategy='fsdp' needs torch 2.13 or newer, found {torch.__version__}: update torch, "
            "or use 'ddp'."
        )
    return ModelParallelStrategy(
        data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def sharded(module: MaskedDiffusionModule, mesh: DeviceMesh) -> MaskedDiffusionModule:
    """Copy a network, its blocks sharded one by one and the rest together.

    What was fitted before training is not learned, and every device keeps all of it.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    module = deepcopy(module)
    fitted = set(module.pointer.parameters())
    for part in (*module.transformer.blocks, module):
        shard = cast(FSDPModule, fully_shard(part, mesh=mesh, ignored_params=fitted))
        # Not every step of every process asks for all weights.
        shard.set_reduce_scatter_unused_params(True, recurse=False)
        # gloo calls a sum an average (pytorch issue 162338).
        shard.set_force_sum_reduction_for_comms(True)
    return module


def is_sharded(module: nn.Module) -> bool:
    """Whether :func:`sharded` made a module."""
    return hasattr(module, "reshard")


def local(tensor: Tensor) -> Tensor:
    """Give the part of a tensor that is here."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def whole(tensor: Tensor) -> Tensor:
    """Give all of a tensor; of a sharded one, all processes must ask together."""
    everything: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return everything
