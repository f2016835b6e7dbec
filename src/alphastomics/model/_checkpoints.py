"""Checkpoints: written during training, read to go on with it or to use the model."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from alphastomics._files import temporary, whole
from alphastomics.model._persistence import FORMAT_VERSION, earlier_network, plain, restore
from alphastomics.model._training_plan import CHECKPOINT_KEY

LAST, BEST = "last.ckpt", "best.ckpt"
INTERVAL = 60.0  # seconds between checkpoints
AVERAGE = "average.module."


class Checkpoints(L.Callback):
    """Writes ``last.ckpt`` every minute and ``best.ckpt`` when validation improves.

    Without validation both are the end of training. After Ctrl-C the running step is finished and
    saved before training stops.

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
        self.stopped = False
        self._before: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let Ctrl-C wait for the end of a step."""
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.written = time.monotonic()

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopped = True
            signal.signal(signal.SIGINT, self._before)

        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, stop)

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        """Write when a minute is over or the user wants to stop, but not before an epoch's end.

        What is logged of that epoch would be lost.
        """
        loop = trainer.fit_loop.epoch_loop
        ends = trainer.global_step >= trainer.max_steps > 0
        ends_epoch = trainer.is_last_batch and trainer.num_training_batches > 1
        if ends or ends_epoch or not loop._accumulated_batches_reached():
            return
        due = time.monotonic() - self.written >= self.interval
        stopped = _anyone(trainer, self.stopped)
        if stopped or _anyone(trainer, due):
            self._write(trainer, LAST)
        if stopped:
            raise KeyboardInterrupt

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

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give Ctrl-C its meaning back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def state_dict(self) -> dict[str, Any]:
        """Keep the best validation loss so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Invert :meth:`state_dict`."""
        self.best = float(state_dict["best"])

    def _write(self, trainer: L.Trainer, name: str) -> None:
        """Write a checkpoint: all processes take part, the first one writes."""
        if trainer.is_global_zero:
            with whole(self.folder / name) as part:
                trainer.save_checkpoint(part)
        else:
            trainer.save_checkpoint(temporary(self.folder / name))
        if name == LAST:
            self.written = time.monotonic()


def _anyone(trainer: L.Trainer, here: bool) -> bool:
    """Whether something holds in any of the processes."""
    return trainer.strategy.reduce_boolean_decision(here, all=False)


def to_checkpoint(payload: dict[str, Any]) -> str:
    """Write what makes the weights a model as text, so that reading it runs no code."""
    return json.dumps(plain({**payload, "format_version": FORMAT_VERSION}), sort_keys=True)


def replace_payload(path: Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint anew with another payload, whole or not at all."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    checkpoint[CHECKPOINT_KEY]["model"] = to_checkpoint(payload)
    with whole(path) as part:
        torch.save(checkpoint, part)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the averaged weights and the payload of a checkpoint; nothing in it is run.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a checkpoint of this package, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {str(path)!r}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        payload = json.loads(checkpoint[CHECKPOINT_KEY]["model"])
        weights = checkpoint["state_dict"]
    except Exception as error:
        raise ValueError(
            f"{path} is not a checkpoint that alphastomics wrote, or it is damaged: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from None
    if int(payload.get("format_version", 1)) < FORMAT_VERSION:
        raise earlier_network(path, payload.get("versions", {}).get("alphastomics", "0.1.0"))
    state = {
        name.removeprefix(AVERAGE): tensor
        for name, tensor in weights.items()
        if name.startswith(AVERAGE)
    }
    return state, restore(payload)


def progress_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Count the epochs that a checkpoint's trainer had ended, and the batches seen."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    return int(checkpoint["epoch"]), int(checkpoint[CHECKPOINT_KEY]["batches_seen"])
