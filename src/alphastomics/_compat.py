"""Other packages: extras, their private names that we need, and their log messages.

``tests/test_compat.py`` fails when the private names change.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


@contextmanager
def quiet(logger: str | logging.Logger) -> Iterator[None]:
    """Let only warnings and errors of ``logger`` through."""
    log = logging.getLogger(logger) if isinstance(logger, str) else logger
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def epoch_logger() -> Any:
    """Logger of scvi-tools that holds the values of every epoch in ``history``."""
    from scvi.train._logger import SimpleLogger

    return SimpleLogger()


def copies_process(trainer: Trainer) -> bool:
    """True if the processes of a trainer are copies of this one, as in notebooks."""
    from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def ends_step(trainer: Trainer) -> bool:
    """True if the last batch ends a step of accumulated gradients."""
    return trainer.fit_loop.epoch_loop._accumulated_batches_reached()


class MissingExtraError(ImportError):
    """Names the package and the extra that brings it."""


def require(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an extra, or say for what ``purpose`` to install it."""
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # there, but broken
            raise
        raise MissingExtraError(
            f"{purpose} needs {package}: pip install 'alphastomics[{extra}]'.", name=package
        ) from None
    return importlib.import_module(module)
