"""Silence for the notes that other packages log about their own workings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


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
