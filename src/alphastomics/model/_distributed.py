"""Work on one device or on several, and the options of a Trainer."""

from __future__ import annotations

import inspect
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from scvi.train import Trainer
from torch import nn
from torch.utils.data import DataLoader

from alphastomics._compat import copies_process, quiet
from alphastomics._files import TEMPORARY, whole
from alphastomics._options import nearest_name
from alphastomics._validate import check_choice, short
from alphastomics.config import Precision

Devices = Mapping[str, Any]  # options of a Trainer
Result = dict[str, NDArray[Any]]
FAILED = "failed"
FIXED_OPTIONS = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}
DEVICE_OPTIONS = ("accelerator", "devices", "num_nodes")
# Texts of the allocators of CPUs, cuBLAS and MPS.
OUT_OF_MEMORY = ("allocate memory", "tried to allocate", "ALLOC_FAILED", "out of memory")
PRECISIONS: tuple[str, ...] = get_args(Precision)
TIMEOUT = timedelta(days=7)  # of processes that wait for each other


class OutOfMemoryError(MemoryError):
    """A device has not enough memory."""


@contextmanager
def uniform_out_of_memory(device: torch.device) -> Iterator[None]:
    """Raise :class:`OutOfMemoryError` whatever the device."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(text in str(error) for text in OUT_OF_MEMORY):
            raise
        message = str(error)
    else:
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise OutOfMemoryError(f"The memory of {device} does not suffice: {message}")


def map_on_devices(
    work: Callable[[int], Result],
    sizes: Sequence[int],
    module: nn.Module,
    devices: Devices | None,
    progress: Callable[[int], object],
) -> Iterator[tuple[int, Result]]:
    """Numbers and results of independent work items, on one device or by a Trainer on several.

    Parameters
    ----------
    work
        Gives the result of an item by its number.
    sizes
        Size of every item, for ``progress``.
    module
        Network that ``work`` uses.
    devices
        Options of the Trainer, of which every process has all results; ``None`` for the device of
        the module.
    progress
        Receives the size of an item that is done.

    Raises
    ------
    OutOfMemoryError
        If the memory of one of the devices does not suffice; then on all of them.
    """
    if devices is None:
        for item, size in enumerate(sizes):
            result = work(item)
            progress(size)
            yield item, result
        return
    predictor = _ItemPredictor(module, work, sizes, progress)
    home = next(module.parameters()).device
    devices = {"strategy": "auto", **devices}
    if world_size(devices) > 1 and devices["strategy"] in ("auto", "ddp"):
        devices["strategy"] = DDPStrategy(timeout=TIMEOUT)
    # Weights that are moved in inference mode could not be trained any more.
    with torch.inference_mode(False), quiet("lightning.pytorch"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        with own_errors(devices):
            trainer = L.Trainer(**{**FIXED_OPTIONS, **devices})
        require_script(trainer)
        try:
            trainer.predict(predictor, return_predictions=False)
        finally:
            module.to(home)
    if predictor.exchange is not None:
        predictor.exchange.share(predictor)
    if predictor.failure:
        raise OutOfMemoryError(predictor.failure)
    yield from predictor.results.items()


class _ItemPredictor(L.LightningModule):
    """Every n-th work item, on the n-th device."""

    def __init__(
        self,
        module: nn.Module,
        work: Callable[[int], Result],
        sizes: Sequence[int],
        progress: Callable[[int], object],
    ) -> None:
        super().__init__()
        self.module, self.work, self.sizes, self.progress = module, work, sizes, progress
        self.results: dict[int, Result] = {}
        self.failure = ""
        self.exchange: _Exchange | None = None
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def predict_dataloader(self) -> DataLoader[int]:
        """Numbers of the items of this device."""
        if self.trainer.world_size > 1:
            self.exchange = _Exchange(self.trainer)
        items = range(self.trainer.global_rank, len(self.sizes), self.trainer.world_size)
        return DataLoader(items, batch_size=None)  # type: ignore[arg-type]

    def predict_step(self, item: int) -> None:
        """Do an item, unless memory did not suffice for an earlier one on any device."""
        if self.failure or (self.exchange is not None and self.exchange.has_failed):
            return
        try:
            self.results[item] = self.work(item)
        except OutOfMemoryError as error:
            self.failure = str(error)
            if self.exchange is not None:
                self.exchange.fail()
        else:
            self.progress(self.sizes[item])


class _Exchange:
    """Exchange of results between processes, by a file of each in a folder that all can read.

    Not a ``BasePredictionWriter``, which a process without items would not call.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        self.trainer = trainer
        name = ""
        if trainer.is_global_zero:
            root = Path(trainer.default_root_dir)
            root.mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(prefix=TEMPORARY, dir=root)
        self.folder = Path(trainer.strategy.broadcast(name))

    @property
    def has_failed(self) -> bool:
        """True if any process has failed."""
        return (self.folder / FAILED).exists()

    def fail(self) -> None:
        """Let the other processes stop."""
        (self.folder / FAILED).touch()

    def share(self, predictor: _ItemPredictor) -> None:
        """Write the results of this process, and read those of all others."""
        trainer = self.trainer
        arrays = {
            f"{item} {name}": array
            for item, result in predictor.results.items()
            for name, array in result.items()
        }
        path = self.folder / f"{trainer.global_rank}.npz"
        with whole(path) as part, part.open("wb") as file:
            np.savez(file, failure=np.asarray(predictor.failure), **arrays)  # type: ignore[arg-type]
        trainer.strategy.barrier("written")
        for rank in range(trainer.world_size):
            if rank == trainer.global_rank:
                continue
            with np.load(self.folder / f"{rank}.npz", allow_pickle=False) as shard:
                predictor.failure = predictor.failure or str(shard["failure"])
                for key in set(shard.files) - {"failure"}:
                    item, name = key.split()
                    predictor.results.setdefault(int(item), {})[name] = shard[key]
        trainer.strategy.barrier("read")
        if trainer.is_global_zero:
            shutil.rmtree(self.folder)


# Options of a Trainer that training decides, and the option to use instead.
DECIDED = {
    "enable_progress_bar": "progress_bar",
    "reload_dataloaders_every_n_epochs": "sets_per_section",
    "use_distributed_sampler": "devices",
}
COUNTS = {"accumulate_grad_batches", "num_nodes"}


def check_trainer_options(options: Devices, ours: Sequence[str]) -> None:
    """Raise if options that go to a Trainer are not its own, before any work.

    Parameters
    ----------
    options
        By name.
    ours
        Names of the other options of the call, for a hint.
    """
    if options.get("enable_checkpointing"):
        instead = "pass checkpoint_dir= instead" if "checkpoint_dir" in ours else "leave it out"
        raise ValueError(f"enable_checkpointing is not used: {instead}.")
    signatures = [inspect.signature(trainer).parameters for trainer in (Trainer, L.Trainer)]
    known = {name for parameters in signatures for name in parameters} - {"kwargs"}
    for name in options:
        if name not in known:
            hint = nearest_name(name, [*ours, *sorted(known)])
            raise TypeError(
                f"there is no option {name!r}.{hint} Options are {', '.join(ours)}, and those of "
                "lightning.pytorch.Trainer."
            )
        if name in DECIDED:
            raise ValueError(f"{name} is not used: pass {DECIDED[name]}= instead.")
    for callback in as_list(options.get("callbacks")):
        if not isinstance(callback, L.Callback):
            raise TypeError(f"callbacks must be callbacks of Lightning, found {short(callback)}.")
    for name in COUNTS & options.keys():
        if type(options[name]) is not int or options[name] < 1:
            raise ValueError(
                f"{name} must be a whole number of at least 1, found {options[name]!r}."
            )


@contextmanager
def own_errors(options: Devices) -> Iterator[None]:
    """Name the options that a Trainer refuses, for instance as this machine lacks the devices."""
    try:
        yield
    except (MisconfigurationException, TypeError, ValueError, AssertionError) as error:
        names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
        given = ", ".join(f"{n}={options[n]!r}" for n in names if n in options)
        why = " ".join(str(error).split()) or "of wrong type"
        raise ValueError(
            f"this machine, or the trainer, cannot use these options ({given}): {why} "
            "accelerator='auto' and devices='auto' fit every machine."
        ) from error


def require_devices(options: Devices) -> None:
    """Raise if this machine does not have the devices that a Trainer is to use."""
    chosen = {name: options[name] for name in DEVICE_OPTIONS if name in options}
    if chosen.get("devices") == "auto":
        chosen["devices"] = 1  # as scvi-tools has it
    with quiet("lightning.pytorch"), warnings.catch_warnings(), own_errors(chosen):
        warnings.filterwarnings("ignore", module="lightning")
        L.Trainer(**FIXED_OPTIONS, **chosen)


def as_list(given: Any) -> list[Any]:
    """Callbacks or plugins of a Trainer as a list: none, one or several."""
    given = [] if given is None else given
    return list(given) if isinstance(given, Sequence) else [given]


def plugins_for(options: Devices) -> list[Any]:
    """Plugins of a Trainer; on SLURM an environment that does not requeue the job by default.

    Lightning's requeueing writes checkpoints of its own into the folder of a run.
    """
    plugins = as_list(options.get("plugins"))
    chosen = any(isinstance(plugin, ClusterEnvironment) for plugin in plugins)
    if chosen or not SLURMEnvironment.detect():
        return plugins
    return [*plugins, SLURMEnvironment(auto_requeue=False)]


def require_script(trainer: L.Trainer) -> None:
    """Raise if several processes would be copies of this one, whose results would be lost."""
    if copies_process(trainer):
        raise ValueError(
            "Several devices were requested in a notebook, or by a strategy that starts copies of "
            "this process: put the lines in a script and run it, with strategy='auto' or 'ddp'."
        )


def world_size(options: Devices) -> int:
    """Number of processes of a Trainer with these options; for scvi-tools "auto" is one device."""
    devices, nodes = options.get("devices", "auto"), options.get("num_nodes", 1)
    if devices == "auto":
        return int(nodes)
    kind = options.get("accelerator", "auto")
    with quiet("lightning.pytorch"), own_errors(options):
        probe = L.Trainer(**FIXED_OPTIONS, accelerator=kind, devices=devices, num_nodes=nodes)
    running = torch.distributed.is_available() and torch.distributed.is_initialized()
    if running and torch.distributed.get_world_size() != probe.world_size:
        raise ValueError(
            f"devices={devices!r} and num_nodes={nodes} make {probe.world_size} processes, but "
            f"{torch.distributed.get_world_size()} run this script: use the same number throughout."
        )
    return int(probe.world_size)


def strategy_for(strategy: str | Strategy, processes: int) -> str | Strategy:
    """Strategy by which processes train together; a step may leave some weights without a gradient.

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
    """Validate options of a Trainer."""
    if distributed is None:
        return None
    if not isinstance(distributed, Mapping):
        raise TypeError(
            f"distributed must be a dictionary of options of lightning.pytorch.Trainer, such as "
            f"{{'devices': 2}}, found {distributed!r}."
        )
    taken = sorted(FIXED_OPTIONS.keys() & distributed.keys())
    if taken:
        raise ValueError(f"distributed holds {taken}, which cannot be chosen: leave them out.")
    check_choice("precision", distributed.get("precision", PRECISIONS[0]), PRECISIONS)
    strategy_for(distributed.get("strategy", "auto"), 1)
    return distributed
