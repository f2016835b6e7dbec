"""Choices of options that are needed without importing torch."""

from __future__ import annotations

from typing import Literal

Schedule = Literal["edm", "cosine"]
SCHEDULES: tuple[Schedule, ...] = ("edm", "cosine")
Frame = Literal["learned", "registered"]
FRAMES: tuple[Frame, ...] = ("learned", "registered")
