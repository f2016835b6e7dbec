"""Progress of the steps of a training, in the place of the bar of Lightning."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ProgressBar

from alphastomics._progress import Progress
from alphastomics.diffusion_model.batch import CellBatch
from alphastomics.model._distributed import as_list


def has_own_bar(options: Mapping[str, Any]) -> bool:
    """True if a bar of Lightning is among the callbacks, which then takes the place of ours."""
    return any(isinstance(given, ProgressBar) for given in as_list(options.get("callbacks")))


class StepProgress(L.Callback):
    """Callback that shows the steps done, cells per second and the loss.

    Attributes
    ----------
    progress
        Where to show them, in steps.
    """

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self._cells, self._began = 0, 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {"progress": None, "_cells": 0, "_began": 0.0}  # a bar cannot be copied

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the steps of a checkpoint, if training was resumed."""
        self._cells, self._began = 0, time.monotonic()
        if self.progress is not None:
            self.progress.start_at(trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: CellBatch, batch_idx: int
    ) -> None:
        """Add the step, if the batch ended one."""
        progress = self.progress
        if progress is None:
            return
        self._cells += batch.values.shape[:2].numel() * trainer.world_size
        steps = trainer.global_step - progress.n
        if steps <= 0:
            return
        note = ""
        if progress.is_due:
            rate = self._cells / max(time.monotonic() - self._began, 1e-9)
            note = f"{rate:,.0f} cells/s, loss {float(pl_module.last_loss):.3g}"
        progress.update(steps, note)
