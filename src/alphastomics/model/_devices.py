"""Work on one device or on several."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from alphastomics._files import whole
from alphastomics._quiet import quiet
from alphastomics.model._validate import check_choice

Devices = Mapping[str, Any]  # options of a Trainer
Result = dict[str, NDArray[Any]]
FAILED = "failed"
OWN = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


# What the allocators of CPUs, cuBLAS and MPS say.
OUT_OF_MEMORY = ("allocate memory", "tried to allocate", "ALLOC_FAILED", "out of memory")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
PATIENCE = timedelta(days=7)  # that processes wait for each other


class OutOfMemoryError(MemoryError):
    """A device has not enough memory."""


@contextmanager
def telling_out_of_memory(device: torch.device) -> Iterator[None]:
    """Raise one kind of error, whatever the device."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(text in str(error) for text in OUT_OF_MEMORY):
            raise
        told = str(error)
    else:
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise OutOfMemoryError(f"The memory of {device} does not suffice: {told}")


class Work(Protocol):
    """Pieces that can be done in any order and by anyone, and what they give."""

    def __len__(self) -> int: ...
    def do(self, piece: int) -> None: ...
    def n_cells(self, piece: int) -> int: ...
    def result(self, piece: int) -> Result: ...
    def take(self, piece: int, result: Result) -> None: ...


def spread(
    work: Work, module: nn.Module, devices: Devices | None, progress: Callable[[int], object]
) -> None:
    """Do all pieces: here, or by a Trainer on several devices, each of which gets all results.

    Raises
    ------
    OutOfMemoryError
        If the memory of one of the devices does not suffice; then on all of them.
    """
    if devices is None:
        for piece in range(len(work)):
            work.do(piece)
            progress(work.n_cells(piece))
        return
    sharing = _Sharing(module, work, progress)
    home = next(module.parameters()).device
    devices = {"strategy": "auto", **devices}
    n_processes = world_size(devices)
    if n_processes > 1 and devices["strategy"] in ("auto", "ddp"):
        devices["strategy"] = DDPStrategy(timeout=PATIENCE)
    # Weights that are moved in inference mode could not be trained any more.
    with torch.inference_mode(False), quiet("lightning.pytorch"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = L.Trainer(**OWN, **devices)
        require_script(trainer)
        try:
            trainer.predict(sharing, return_predictions=False)
        finally:
            module.to(home)
    if trainer.world_size > 1:
        _exchange(trainer, sharing)
    if sharing.failure:
        raise OutOfMemoryError(sharing.failure)


class _Sharing(L.LightningModule):
    """Does every n-th piece, on the n-th device."""

    def __init__(self, module: nn.Module, work: Work, progress: Callable[[int], object]) -> None:
        super().__init__()
        self.module, self.work, self.progress = module, work, progress
        self.done: list[int] = []
        self.failure = ""
        self.folder: Path | None = None
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def predict_dataloader(self) -> DataLoader[int]:
        """Give the numbers of the pieces of this device, and a folder to all devices."""
        if self.trainer.world_size > 1:
            self.folder = _shared_folder(self.trainer)
        mine = range(self.trainer.global_rank, len(self.work), self.trainer.world_size)
        return DataLoader(mine, batch_size=None)  # type: ignore[arg-type]

    def predict_step(self, piece: int) -> None:
        """Do a piece, unless memory did not suffice for an earlier one, here or elsewhere."""
        if self.failure or (self.folder is not None and (self.folder / FAILED).exists()):
            return
        try:
            self.work.do(piece)
        except OutOfMemoryError as error:
            self.failure = str(error)
            if self.folder is not None:
                (self.folder / FAILED).touch()
        else:
            self.done.append(piece)
            self.progress(self.work.n_cells(piece))


def _shared_folder(trainer: L.Trainer) -> Path:
    """Make a folder that all processes know."""
    made = ""
    if trainer.is_global_zero:
        root = Path(trainer.default_root_dir)
        root.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(prefix=".alphastomics-", dir=root)
    return Path(trainer.strategy.broadcast(made))


def _exchange(trainer: L.Trainer, sharing: _Sharing) -> None:
    """Give every process the results of all, by files that are written whole."""
    folder = sharing.folder
    assert folder is not None
    results = {
        f"{piece} {name}": values
        for piece in sharing.done
        for name, values in sharing.work.result(piece).items()
    }
    with whole(folder / f"{trainer.global_rank}.npz") as part, part.open("wb") as file:
        np.savez(file, failure=np.asarray(sharing.failure), **results)  # type: ignore[arg-type]
    trainer.strategy.barrier("written")
    for rank in range(trainer.world_size):
        if rank != trainer.global_rank:
            _take_in(folder / f"{rank}.npz", sharing)
    trainer.strategy.barrier("read")
    if trainer.is_global_zero:
        shutil.rmtree(folder)


def _take_in(path: Path, sharing: _Sharing) -> None:
    pieces: dict[int, Result] = {}
    with np.load(path, allow_pickle=False) as shard:
        failure = str(shard["failure"])
        for key in shard.files:
            if key != "failure":
                piece, name = key.split()
                pieces.setdefault(int(piece), {})[name] = shard[key]
    for piece, result in pieces.items():
        sharing.work.take(piece, result)
    sharing.failure = sharing.failure or failure


def require_script(trainer: L.Trainer) -> None:
    """Raise if several processes would start as copies of this one: their results would be lost."""
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ValueError(
            "Several devices were asked for in a notebook, or by a strategy that starts copies of "
            "this process: put the lines in a script and run it, with strategy='auto' or 'ddp'."
        )


def world_size(options: Devices) -> int:
    """Count the processes of a Trainer with these options; for scvi-tools "auto" is one device."""
    devices, nodes = options.get("devices", "auto"), options.get("num_nodes", 1)
    if devices == "auto":
        return int(nodes)
    kind = options.get("accelerator", "auto")
    with quiet("lightning.pytorch"):
        probe = L.Trainer(**OWN, accelerator=kind, devices=devices, num_nodes=nodes)
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    if running and torch.distributed.get_world_size() != probe.world_size:
        raise ValueError(
            f"devices={devices!r} and num_nodes={nodes} make {probe.world_size} processes, but "
            f"{torch.distributed.get_world_size()} run this script: use the same number throughout."
        )
    return int(probe.world_size)


def strategy_for(strategy: str | Strategy, processes: int) -> str | Strategy:
    """Name the strategy by which processes train together; not every step asks for all weights.

    Raises
    ------
    ValueError
        For strategies that shard the weights: their moving average would not be sharded alike.
    """
    name = strategy if isinstance(strategy, str) else type(strategy).__name__.lower()
    if any(sharding in name for sharding in ("fsdp", "deepspeed", "modelparallel")):
        raise ValueError(
            f"strategy={name!r} shards the weights, but not their average alike: use 'ddp', as a "
            "network of this kind fits every device."
        )
    if strategy == "ddp" or (processes > 1 and strategy == "auto"):
        return "ddp_find_unused_parameters_true"
    return strategy


def check_devices(distributed: Devices | None) -> Devices | None:
    """Raise unless options of a Trainer are a dictionary without what is not the user's."""
    if distributed is None:
        return None
    if not isinstance(distributed, Mapping):
        raise TypeError(
            f"distributed must be a dictionary of options of lightning.pytorch.Trainer, such as "
            f"{{'devices': 2}}, found {distributed!r}."
        )
    taken = sorted(OWN.keys() & distributed.keys())
    if taken:
        raise ValueError(f"distributed holds {taken}, which cannot be chosen: leave them out.")
    check_choice("precision", distributed.get("precision", PRECISIONS[0]), PRECISIONS)
    strategy_for(distributed.get("strategy", "auto"), 1)
    return distributed
