"""Buffers whose size is that of the data stored in them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class DynamicBufferModule(nn.Module):
    """Module with buffers that take their size from the state dict that is loaded.

    Attributes
    ----------
    sized
        Names of those buffers.
    """

    sized: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_resize)  # type: ignore[no-untyped-call]

    @property
    def is_fitted(self) -> bool:
        """True if data are stored."""
        stored: Tensor = getattr(self, self.sized[0])
        return len(stored) > 0

    def is_consistent(self) -> bool:
        """True if the stored data fit each other; what was loaded may not."""
        return True


def _resize(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
    """Give the buffers the sizes of those to be loaded."""
    assert isinstance(module, DynamicBufferModule)
    for name in module.sized:
        if prefix + name in state_dict:
            setattr(module, name, torch.empty_like(state_dict[prefix + name]))
