"""Writing of checkpoints during training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L

from alphastomics import _keys
from alphastomics._files import temporary, whole, writing
from alphastomics.model._stopping import StoppedError, amid_epoch, in_any_process

LAST, BEST = _keys.LAST_CHECKPOINT, _keys.BEST_CHECKPOINT
INTERVAL = 60.0  # seconds between checkpoints


class Checkpoints(L.Callback):
    """Writes ``last.ckpt`` every minute and ``best.ckpt`` when validation improves.

    Without validation both are the end of training. When training is stopped by a signal, the state
    is written first.

    Parameters
    ----------
    folder
        Where to write.
    interval
        Seconds between two checkpoints.
    """

    def __init__(self, folder: Path, interval: float = INTERVAL) -> None:
        self.folder = folder
        self.interval = interval
        self.best = float("inf")
        self.written = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the folder."""
        if trainer.is_global_zero:
            with writing("checkpoint_dir", self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
        self.written = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        """Write when a minute is over, but not before an epoch's end."""
        due = time.monotonic() - self.written >= self.interval
        if amid_epoch(trainer) and in_any_process(trainer, due):
            self._write(trainer, LAST)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Write when training is stopped."""
        if isinstance(exception, StoppedError):
            self._write(trainer, LAST)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the best weights so far."""
        loss = trainer.callback_metrics.get("validation_loss")
        if loss is not None and float(loss) < self.best:
            self.best = float(loss)
            self._write(trainer, BEST)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the end of training."""
        self._write(trainer, LAST)
        if self.best == float("inf"):
            self._write(trainer, BEST)

    def state_dict(self) -> dict[str, Any]:
        """Keep the best validation loss so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Invert :meth:`state_dict`."""
        self.best = float(state_dict["best"])

    def _write(self, trainer: L.Trainer, name: str) -> None:
        """Write a checkpoint: all processes take part, the first one writes."""
        if trainer.is_global_zero:
            path = self.folder / name
            with writing("checkpoint_dir", path), whole(path) as part:
                trainer.save_checkpoint(part)
        else:
            trainer.save_checkpoint(temporary(self.folder / name))
        if name == LAST:
            self.written = time.monotonic()
