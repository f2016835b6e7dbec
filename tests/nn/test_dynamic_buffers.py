"""Buffers that take their size from the state dict that is loaded."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from alphastomics.nn.dynamic_buffers import DynamicBufferModule


class Store(DynamicBufferModule):
    sized: ClassVar[tuple[str, ...]] = ("stored",)

    def __init__(self, n):
        super().__init__()
        self.register_buffer("stored", torch.arange(float(n)))
        self.register_buffer("fixed", torch.zeros(3))


def test_stored_data_of_any_size_can_be_loaded_into_a_part_of_a_network():
    full, empty = (nn.ModuleDict({"store": Store(n)}) for n in (5, 0))
    empty.load_state_dict(full.state_dict())
    assert empty["store"].stored.tolist() == [0, 1, 2, 3, 4]
    full["store"].stored.zero_()
    assert empty["store"].stored[4] == 4


def test_all_other_sizes_must_agree():
    other = Store(5)
    other.fixed = torch.zeros(4)
    with pytest.raises(RuntimeError, match="size mismatch for fixed"):
        Store(0).load_state_dict(other.state_dict())
