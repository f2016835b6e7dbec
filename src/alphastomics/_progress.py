"""Progress of long calls: a bar in terminals and notebooks, a few lines in a log."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alphastomics._settings import logger, settings

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}, {remaining} left"
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
REFRESH = 0.5  # seconds between two states of a bar, in a browser or over a network
STEPS = "steps"  # unit of training, whose stages are named in a log
LINES, LEAST_PAUSE = 10, 10.0  # of a log, at most; seconds between two of them


@dataclass(frozen=True)
class Reporter:
    """Maker of progress bars for the parts of a call.

    Attributes
    ----------
    shown
        Whether there are any.
    prefix
        Beginning of their descriptions, such as ``"Fold 1 of 4, "``.
    """

    shown: bool = False
    prefix: str = ""

    @classmethod
    def of(cls, progress_bar: bool | None, prefix: str = "") -> Reporter:
        """Reporter of a call with the option ``progress_bar``; of several processes, the first."""
        shown = settings.progress_bar if progress_bar is None else bool(progress_bar)
        is_first = all(os.environ.get(rank, "0") in ("", "0") for rank in RANKS)
        return cls(shown and is_first, prefix)

    @contextmanager
    def bar(
        self, description: str, total: int, unit: str = "cells", delay: float = 0.0
    ) -> Iterator[Progress]:
        """Progress through ``total`` units, closed at the end, also by an error.

        A bar is shown after a ``delay`` in seconds.
        """
        description = (self.prefix + description)[:1].upper() + (self.prefix + description)[1:]
        progress: Progress
        if not self.shown:
            progress = Progress(description, total, unit)
        elif _is_interactive():
            progress = _Bar(description, total, unit, delay)
        else:
            progress = _Lines(description, total, unit)
        try:
            yield progress
        finally:
            progress.close()


def _is_interactive() -> bool:
    """True if a line can be written again: in a terminal, or in a notebook."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    kernel = sys.modules.get("IPython")
    shell = kernel.get_ipython() if kernel is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Progress:
    """Progress that is not shown.

    Attributes
    ----------
    description, total, unit
        What is done, how much of it, and in which units.
    n
        Units done.
    is_due
        Whether a new state will be shown, so that a note is worth its computation.
    """

    is_due = False

    def __init__(self, description: str, total: int, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.n = self.first = 0
        self.note = ""

    def start_at(self, n: int) -> None:
        """Begin with units that an earlier call has done."""
        self.n = self.first = n
        if n:
            self.description += f" resumed from {self.unit.removesuffix('s')} {n:,}"

    def update(self, n: int = 1, note: str = "") -> None:
        """Add units, with a note such as a loss."""
        self.n, self.note = self.n + n, note or self.note

    def close(self) -> None:
        """End, complete or not."""


class _Bar(Progress):
    """Bar of tqdm, of widgets where a notebook has them."""

    def __init__(self, description: str, total: int, unit: str, delay: float) -> None:
        super().__init__(description, total, unit)
        from alphastomics._compat import tqdm

        # A terminal without a size has 0 columns, in which tqdm writes nothing.
        columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
        rate = ", {rate_noinv_fmt}" if unit == "cells" else ""
        self.bar: Any = tqdm()(
            total=total,
            desc=description,
            unit=f" {unit}",
            bar_format=BAR.replace("{unit}", unit) + rate + "{postfix}",
            mininterval=REFRESH,
            miniters=1,
            delay=delay,
            ncols=columns,
            nrows=columns and LINES,
        )
        self._shown = time.monotonic()

    @property
    def is_due(self) -> bool:  # type: ignore[override]
        """True if the last state was shown some time ago."""
        return time.monotonic() - self._shown >= REFRESH or self.n + 1 >= self.total

    def start_at(self, n: int) -> None:
        super().start_at(n)
        self.bar.set_description_str(self.description, refresh=False)
        self.bar.n = self.bar.initial = self.bar.last_print_n = n

    def update(self, n: int = 1, note: str = "") -> None:
        super().update(n, note)
        if note:
            self.bar.set_postfix_str(note, refresh=False)
            self._shown = time.monotonic()
        self.bar.update(n)

    def close(self) -> None:
        self.bar.close()


class _Lines(Progress):
    """Lines of the logger, at most ten; for what ends within seconds only the name of a stage."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        super().__init__(description, total, unit)
        self.began = self._shown = time.monotonic()
        self._next = 0.0

    @property
    def is_due(self) -> bool:  # type: ignore[override]
        """True if enough time and enough units have passed since the last line."""
        return time.monotonic() - self._shown >= LEAST_PAUSE and self.n + 1 >= self._next

    def update(self, n: int = 1, note: str = "") -> None:
        if self.n == self.first and self.unit == STEPS:
            self._log_stage()
        super().update(n, note)
        now = time.monotonic()
        if now - self._shown < LEAST_PAUSE or self.n < self._next or self.n >= self.total:
            return
        self._shown, self._next = now, self.n + self.total / LINES
        left = (now - self.began) / max(self.n - self.first, 1) * (self.total - self.n)
        self._log(f"{100 * self.n / self.total:.0f} %, {duration(left)} left")

    def close(self) -> None:
        taken = time.monotonic() - self.began
        if taken >= LEAST_PAUSE:
            self._log(duration(taken))

    def _log_stage(self) -> None:
        """Log the beginning of a stage of training."""
        logger.info("%s: %s", self.description, self._units(f"{self.total:,}"))

    def _log(self, state: str) -> None:
        done = self._units(f"{self.n:,} of {self.total:,}")
        note = f", {self.note}" if self.note else ""
        logger.info("%s: %s, %s%s", self.description, done, state, note)

    def _units(self, done: str) -> str:
        """Units of this call, without those of an earlier one."""
        if self.first:
            return f"{self.unit} {self.first + 1:,} to {done}"
        return f"{done} {self.unit}"


def duration(seconds: float) -> str:
    """Time as people write it, such as ``"3 min 20 s"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
