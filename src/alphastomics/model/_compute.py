"""Device of a call: that of the model, another one for its duration, or several."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as L
import torch

from alphastomics._compat import quiet
from alphastomics._options import check_devices_option
from alphastomics._validate import check_choice
from alphastomics.config import ACCELERATORS, Accelerator
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._distributed import (
    FIXED_OPTIONS,
    Devices,
    check_devices,
    own_errors,
    world_size,
)

DeviceNumbers = int | list[int] | str


@contextmanager
def computing_on(
    module: MaskedDiffusionModule,
    accelerator: Accelerator,
    devices: DeviceNumbers,
    distributed: Devices | None = None,
    *,
    shares: bool = False,
) -> Iterator[Devices | None]:
    """Context in which a network is on the device of a call; afterwards it is where it was.

    Parameters
    ----------
    module
        The network.
    accelerator, devices
        As in :class:`lightning.pytorch.Trainer`; ``"auto"`` and ``"auto"`` for the device on which
        the network is.
    distributed
        Further options of a Trainer that shares the work between devices.
    shares
        Whether the work can be shared between several devices.

    Yields
    ------
    dict or None
        Options of a Trainer; ``None`` if the work is done on the device of the network.

    Raises
    ------
    ValueError
        If this machine lacks the device, or there are several and the work cannot be shared.
    """
    check_choice("accelerator", accelerator, ACCELERATORS)
    check_devices_option(devices)
    check_devices(distributed)
    options: dict[str, object] = {}
    if accelerator != "auto":
        options["accelerator"] = accelerator
    if devices != "auto":
        options["devices"] = devices
    if not options or distributed is not None:
        both = sorted(options.keys() & (distributed or {}).keys())
        if both:
            raise ValueError(f"{both[0]} is given twice, in distributed= too: leave out one.")
        yield None if distributed is None else {**options, **distributed}
        return
    if world_size(options) > 1:
        if not shares:
            raise ValueError(
                f"devices={devices!r} are several, but this method computes on one: pass devices=1 "
                "or the number of a device in a list, such as devices=[0]."
            )
        yield options
        return
    home, there = module.device, _device(options)
    module.to(there)
    try:
        yield None
    finally:
        module.to(home)


def _device(options: dict[str, object]) -> torch.device:
    """Find the one device that a Trainer would use."""
    chosen = {"devices": 1, **options}
    if "accelerator" not in chosen and not torch.cuda.is_available():
        chosen["accelerator"] = "cpu"  # MPS lacks operations
    with quiet("lightning.pytorch"), warnings.catch_warnings(), own_errors(chosen):
        warnings.filterwarnings("ignore", module="lightning")
        trainer = L.Trainer(**{**FIXED_OPTIONS, **chosen})
    return torch.device(trainer.strategy.root_device)
