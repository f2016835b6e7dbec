"""Buffers whose size is that of the data stored in them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn


class DynamicBufferModule(nn.Module):
    """Module with buffers that take their size from the state dict that is loaded.

    Attributes
    ----------
    sized
        Names of those buffers.
    """

    sized: ClassVar[tuple[str, ...]] = ()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.sized:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args)
