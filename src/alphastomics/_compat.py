"""Private names of other packages; ``tests/test_compat.py`` fails when they change."""

from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from scvi.train._logger import SimpleLogger

__all__ = ["SimpleLogger", "_MultiProcessingLauncher"]
