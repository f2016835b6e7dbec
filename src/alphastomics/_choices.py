"""What options may be, where several rooms need it and none should import torch for it."""

from __future__ import annotations

from typing import Literal

Schedule = Literal["edm", "cosine"]
SCHEDULES: tuple[Schedule, ...] = ("edm", "cosine")
Frame = Literal["learned", "registered"]
FRAMES: tuple[Frame, ...] = ("learned", "registered")
