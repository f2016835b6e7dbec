"""Training plan: steps, optimizer and moving average of the network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from alphastomics.diffusion_model.batch import CellBatch
from alphastomics.diffusion_model.corruption import Objective
from alphastomics.diffusion_model.losses import training_losses, validation_error
from alphastomics.diffusion_model.module import MaskedDiffusionModule

EMA_DECAY = 0.995
WARMUP_STEPS = 50
FINAL_LR_SHARE = 0.05
FAST_LR = 3.0  # learning rate of the diffusion heads relative to that of the rest
BETAS = (0.9, 0.99)
CHECKPOINT_KEY = "alphastomics"


@torch.no_grad()
def _moving_average(
    average: tuple[Tensor, ...] | list[Tensor],
    new: tuple[Tensor, ...] | list[Tensor],
    n_averaged: Tensor | int,
) -> None:
    """Exponential moving average whose decay grows to ``EMA_DECAY`` as there is more to average."""
    n = float(n_averaged)
    torch._foreach_lerp_(average, new, 1 - min(EMA_DECAY, (1 + n) / (10 + n)))


def learning_rate_share(step: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to 5 % (Loshchilov & Hutter 2017)."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))
    return warm * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)


class DenoisingPlan(L.LightningModule):
    """Trains a :class:`MaskedDiffusionModule`, with an average of its weights.

    Parameters
    ----------
    module
        The network, with its transforms fitted.
    objective
        What is hidden in training.
    lr, weight_decay
        Of AdamW; biases, norms and tokens are not decayed.
    places_cells
        Whether to validate the placing of cells, or else of expression.
    total_steps
        Steps over which the learning rate falls.
    seed, first_batch
        Noise and dropout of batch ``i`` are drawn from generators of ``(seed, first_batch + i)``,
        so that they do not depend on what was drawn before. The batches of several processes count
        as if one had them all.
    saved
        What is kept in a checkpoint beside the weights, as plain values.
    """

    def __init__(
        self,
        module: MaskedDiffusionModule,
        objective: Objective,
        *,
        lr: float,
        weight_decay: float,
        places_cells: bool,
        total_steps: int,
        seed: int,
        first_batch: int,
        saved: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        super().__init__()
        self.module = module
        self.average = AveragedModel(module, multi_avg_fn=_moving_average).requires_grad_(False)
        self.objective = objective
        self.lr = lr
        self.weight_decay = weight_decay
        self.places_cells = places_cells
        self.total_steps = total_steps
        self.seed = seed
        self.first_batch = self.batches_seen = first_batch
        self.saved = saved
        self.pose_statistics = torch.zeros(())  # of the batches of a step

    def training_step(self, sets: CellBatch, batch_idx: int) -> Tensor:
        """Loss of a batch of sets."""
        number = self.batches_seen + self.global_rank  # of all batches of all processes
        entropy = np.random.SeedSequence([self.seed, number])
        noise, dropout = (int(state) for state in entropy.generate_state(2))
        generator = torch.Generator().manual_seed(noise)
        torch.manual_seed(dropout)
        losses = training_losses(self.module, sets, self.objective, generator)
        total = losses.total()
        self.pose_statistics = self.pose_statistics + losses.poses
        named = {f"train_loss_{name}": value for name, value in losses._asdict().items()}
        del named["train_loss_poses"]
        least_used = named.pop("train_loss_least_used")
        if self.module.architecture.num_experts:
            named["least_used_expert"] = least_used
        else:
            del named["train_loss_routing"]
        # The scale only learns from, and does not change, the other errors.
        named["train_loss"] = total.detach() - losses.scale.detach()
        for name, value in named.items():
            self.log(
                name,
                value,
                on_step=False,
                on_epoch=True,
                batch_size=len(sets.values),
                prog_bar=name == "train_loss",
                sync_dist=True,
            )
        self.batches_seen += self.trainer.world_size
        return total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, refresh the poses of sections, and take all into the average."""
        super().optimizer_step(*args, **kwargs)
        if len(self.module.poses):
            # All processes measure together, so that they keep one frame.
            self.module.poses.update(
                self.trainer.strategy.reduce(self.pose_statistics, reduce_op="sum")
            )
        self.pose_statistics = torch.zeros(())
        self.average.update_parameters(self.module)

    def validation_step(self, sets: CellBatch, batch_idx: int) -> None:
        """Error of placing held-out sections, or of their expression, with averaged weights."""
        self.average.eval()
        module = cast(MaskedDiffusionModule, self.average.module)
        error = validation_error(module, sets, self.objective, places_cells=self.places_cells)
        self.log(
            "validation_loss",
            error,
            on_epoch=True,
            batch_size=len(sets.values),
            prog_bar=True,
            sync_dist=True,  # the same sets everywhere, but all must agree on what is best
        )

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW (Loshchilov & Hutter 2019) with warm-up and cosine decay."""
        module, groups = self.module, []
        fast: list[torch.nn.Module] = [module.position_head, module.expression_head]
        if not self.places_cells:
            # The closed-form estimate is near the best: there is little to learn, and few steps.
            fast += [module.expression_embedding, module.expression_mean_head]
        is_fast = {id(p) for part in fast for p in part.parameters()}
        for of_fast, lr in ((False, self.lr), (True, FAST_LR * self.lr)):
            weights = [p for p in module.parameters() if (id(p) in is_fast) == of_fast]
            matrices = [p for p in weights if p.ndim > 1]
            vectors = [p for p in weights if p.ndim <= 1]
            groups.append({"params": matrices, "lr": lr, "weight_decay": self.weight_decay})
            groups.append({"params": vectors, "lr": lr, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(
            groups,
            lr=self.lr,
            betas=BETAS,
            # Lightning does not clip gradients that a fused optimiser unscales.
            fused=self.trainer.precision != "16-mixed",
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_share(step, self.total_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep how many batches were seen and what makes the weights a model."""
        checkpoint[CHECKPOINT_KEY] = {"batches_seen": self.batches_seen, **self.saved()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the batch after the last one seen."""
        self.batches_seen = int(checkpoint[CHECKPOINT_KEY]["batches_seen"])
        for state in checkpoint["optimizer_states"]:
            for group in state["param_groups"]:
                group["fused"] = self.trainer.precision != "16-mixed"

    def averaged_state(self) -> dict[str, Tensor]:
        """Averaged weights, to be used for inference."""
        return self.average.module.state_dict()
