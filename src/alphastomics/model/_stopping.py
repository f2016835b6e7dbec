"""Ctrl-C and SIGTERM in training: the running step is finished, and its weights stay."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as L

from alphastomics._compat import ends_step, warn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(Exception):
    """Ends the training of Lightning after a signal."""


def in_any_process(trainer: L.Trainer, here: bool) -> bool:
    """True if a condition holds in any of the processes."""
    return trainer.strategy.reduce_boolean_decision(here, all=False)


def amid_epoch(trainer: L.Trainer) -> bool:
    """True after a step that ends neither training nor an epoch of several.

    What is logged of an epoch would be lost at its end.
    """
    ends = trainer.global_step >= trainer.max_steps > 0
    ends_epoch = trainer.is_last_batch and trainer.num_training_batches > 1
    return not (ends or ends_epoch) and ends_step(trainer)


class Stopping(L.Callback):
    """Ends training after the step in which a signal came; a second Ctrl-C ends it at once.

    Attributes
    ----------
    received
        The signal, if any came; of several processes, to any of them.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the place of Lightning's handlers."""
        for number in self._before:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(number, self._before[self.received])

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        """Stop all processes after the same step."""
        if not amid_epoch(trainer):
            return
        if in_any_process(trainer, self.received is not None):
            self.received = self.received or signal.SIGTERM
            raise StoppedError

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Context of a training; it ends without an error when training was stopped.

        Also when Ctrl-C came at once: Lightning turns it into ``SystemExit``. Handlers are
        restored.
        """
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            # Not where the signal is ignored, as in a background job, or handled outside Python.
            self._before = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}
        try:
            yield
        except StoppedError:
            pass
        except (KeyboardInterrupt, SystemExit) as error:
            if KeyboardInterrupt not in (type(error), type(error.__context__)):
                raise
            self.received = signal.SIGINT
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)


def end(received: signal.Signals | None, steps: int, of: int) -> None:
    """Hand on a signal that stopped a training of which so many steps are done."""
    if received is None:
        return
    if steps:
        warn(
            f"Training was stopped by {received.name} after {steps} of {of} steps. The model has "
            "the averaged weights of these steps."
        )
    if received == signal.SIGINT:
        raise KeyboardInterrupt
    signal.raise_signal(received)
