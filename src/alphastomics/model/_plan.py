"""Steps of training: losses, optimizer, and moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alphastomics.config import ModelConfig, TrainConfig
from alphastomics.diffusion_model.batch import CellBatch
from alphastomics.diffusion_model.losses import Losses, training_losses, validation_error
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._checkpoint import CHECKPOINT_KEY

EMA_DECAY = 0.995  # of weights; averages place better than the last ones
WARMUP_STEPS = 50
FINAL_LR_SHARE = 0.05
FAST_LR = 3.0  # learning rate of the diffusion heads relative to that of the rest
BETAS = (0.9, 0.99)  # a training has hundreds of steps, too few for .999


@torch.no_grad()
def _moving_average(
    average: tuple[Tensor, ...] | list[Tensor],
    new: tuple[Tensor, ...] | list[Tensor],
    n_averaged: Tensor | int,
) -> None:
    """Exponential moving average whose decay grows to ``EMA_DECAY`` with the number of steps."""
    n = float(n_averaged)
    decay = min(EMA_DECAY, (1 + n) / (10 + n))
    get_ema_multi_avg_fn(decay)(average, new, n_averaged)  # type: ignore[no-untyped-call]


def learning_rate_share(step: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to 5 % (Loshchilov & Hutter 2017)."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))
    return warm * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)


class DenoisingPlan(L.LightningModule):
    """Training of a :class:`MaskedDiffusionModule`, with an average of its weights.

    Parameters
    ----------
    module
        Network with fitted transforms.
    config, training
        Options of the model and of training. Biases, norms and tokens have no weight decay.
    total_steps
        Steps over which the learning rate falls.
    first_batch
        Noise and dropout of batch ``i`` are drawn from generators of ``(seed, first_batch + i)``,
        so that they do not depend on earlier draws. The batches of several processes count as
        those of a single one.

    Attributes
    ----------
    saved
        Returns the content of a checkpoint other than the weights, as plain values.
    """

    def __init__(
        self,
        module: MaskedDiffusionModule,
        config: ModelConfig,
        training: TrainConfig,
        *,
        total_steps: int,
        first_batch: int,
    ) -> None:
        super().__init__()
        self.module = module
        self.average = AveragedModel(module, multi_avg_fn=_moving_average).requires_grad_(False)
        self.config, self.options = config, training
        self.total_steps = total_steps
        self.first_batch = self.batches_seen = first_batch
        self.saved: Callable[[], dict[str, Any]] = dict
        self.pose_statistics = torch.zeros(())  # of the batches of a step
        self.last_loss = torch.zeros(())

    def training_step(self, sets: CellBatch, batch_idx: int) -> Tensor:
        """Loss of a batch of sets."""
        number = self.batches_seen + self.global_rank  # of all batches of all processes
        entropy = np.random.SeedSequence([self.config.seed, number])
        noise, dropout = (int(state) for state in entropy.generate_state(2))
        generator = torch.Generator().manual_seed(noise)
        torch.manual_seed(dropout)
        try:
            losses = training_losses(self.module, sets, self.config, generator)
        except LinAlgError:
            raise self._diverged("positions that are superposed") from None
        total = losses.total()
        if not bool(torch.isfinite(total)):
            self._check_losses(losses)
        self.pose_statistics = self.pose_statistics + losses.poses
        named = {f"train_loss_{name}": value for name, value in losses.named().items()}
        if self.module.architecture.num_experts:
            named["least_used_expert"] = losses.least_used
        else:
            del named["train_loss_routing"]
        # The scale only learns from, and does not change, the other errors.
        named["train_loss"] = total.detach() - losses.scale.detach()
        self.last_loss = named["train_loss"]
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

    def _check_losses(self, losses: Losses) -> None:
        """Raise as one is not finite, unless the scaler of 16-mixed skips such a step."""
        weights = self.module.parameters()
        if self.trainer.precision == "16-mixed" and all(torch.isfinite(w).all() for w in weights):
            return
        wrong = [name for name, loss in losses.named().items() if not torch.isfinite(loss).all()]
        raise self._diverged(f"loss of {' and '.join(wrong)}")

    def _diverged(self, what: str) -> FloatingPointError:
        """Error that says what is not finite, when, and what to change."""
        return FloatingPointError(
            f"training diverged: the {what} is not finite in step {self.global_step + 1} of "
            f"{self.total_steps}. Train a new model with a lower learning rate (it is "
            f"lr={self.options.lr:g}) or precision='32-true' (it is "
            f"{self.options.precision!r}), and check the data for extreme values."
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, refresh the poses of sections, and update the average."""
        super().optimizer_step(*args, **kwargs)
        if self.module.poses.is_fitted:
            # All processes measure together, so that they keep one frame.
            self.module.poses.update(
                self.trainer.strategy.reduce(self.pose_statistics, reduce_op="sum")
            )
        self.pose_statistics = torch.zeros(())
        self.average.update_parameters(self.module)

    def validation_step(self, sets: CellBatch, batch_idx: int) -> None:
        """Error of placing held-out sections, or of their expression, with averaged weights."""
        self.average.eval()
        module: Any = self.average.module
        error = validation_error(module, sets, self.config, places_cells=self.config.places_cells)
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
        if not self.config.places_cells:
            # The closed-form estimate is near the best: there is little to learn, and few steps.
            fast += [module.expression_embedding, module.expression_mean_head]
        is_fast = {id(p) for part in fast for p in part.parameters()}
        for of_fast, lr in ((False, self.options.lr), (True, FAST_LR * self.options.lr)):
            weights = [p for p in module.parameters() if (id(p) in is_fast) == of_fast]
            matrices = [p for p in weights if p.ndim > 1]
            vectors = [p for p in weights if p.ndim <= 1]
            groups.append({"params": matrices, "lr": lr, "weight_decay": self.options.weight_decay})
            groups.append({"params": vectors, "lr": lr, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(
            groups,
            lr=self.options.lr,
            betas=BETAS,
            # Lightning does not clip gradients that a fused optimizer unscales.
            fused=self.trainer.precision != "16-mixed",
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_share(step, self.total_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the number of batches and the payload of the model."""
        checkpoint[CHECKPOINT_KEY] = {"batches_seen": self.batches_seen, **self.saved()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with the batch after the last one."""
        self.batches_seen = int(checkpoint[CHECKPOINT_KEY]["batches_seen"])
        for state in checkpoint["optimizer_states"]:
            for group in state["param_groups"]:
                group["fused"] = self.trainer.precision != "16-mixed"

    def averaged_state(self) -> dict[str, Tensor]:
        """Averaged weights, to be used for inference."""
        if not all(bool(torch.isfinite(weight).all()) for weight in self.average.parameters()):
            raise self._diverged("average of the weights")
        return self.average.module.state_dict()
