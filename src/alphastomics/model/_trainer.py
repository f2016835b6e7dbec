"""Trainer of Lightning for a training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as L
import torch
from scvi.train import Trainer

from alphastomics._compat import epoch_logger, quiet
from alphastomics.model._distributed import (
    as_list,
    own_errors,
    plugins_for,
    require_script,
    strategy_for,
    world_size,
)
from alphastomics.model._step_progress import has_own_bar


def make_trainer(options: Mapping[str, Any], callbacks: Sequence[L.Callback]) -> Trainer:
    """Make a Trainer with these options, before any work: it refuses some of them."""
    options = {
        "accelerator": "auto",  # scvi-tools' None is refused where there is a GPU
        "log_every_n_steps": 1,
        "logger": epoch_logger(),  # else scvi-tools writes files where there are several processes
        **options,
        "enable_progress_bar": has_own_bar(options),
        "simple_progress_bar": False,
        "callbacks": [*as_list(options.get("callbacks")), *callbacks],
        "plugins": plugins_for(options),
        "reload_dataloaders_every_n_epochs": 1,
        "use_distributed_sampler": False,
        "strategy": strategy_for(options.get("strategy", "auto"), world_size(options)),
    }
    if options.get("devices", "auto") == "auto":
        options["devices"] = 1
        if options["accelerator"] == "auto" and not torch.cuda.is_available():
            options["accelerator"] = "cpu"  # MPS lacks operations, as scvi-tools has it
    with quiet_trainer(), own_errors(options):
        if not options.get("early_stopping"):  # scvi-tools warns that it is off in any case
            warnings.filterwarnings("ignore", message=".*early_stopping was automatically.*")
        trainer = Trainer(**options)
    require_script(trainer)
    return trainer


@contextmanager
def quiet_trainer() -> Iterator[None]:
    """Let a trainer neither draw global random numbers nor warn of what is harmless here."""
    with torch.random.fork_rng(), quiet("lightning.pytorch"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*treespec.*")
        for message in (
            ".*in eval mode.*",
            ".*dataloader is not resumable.*",
            ".*across ranks is zero.*",  # validation without sections to validate on
        ):
            warnings.filterwarnings("ignore", message=message, module="lightning")
        # Harmless warnings of torch.distributed: views of outputs, the gloo backend.
        for message in (".*returned a view.*", ".*_get_pg_default.*", ".*Multiple backends.*"):
            warnings.filterwarnings("ignore", message=message, module="torch.distributed")
        # Norms have weights in single precision, whatever the precision of their input.
        warnings.filterwarnings("ignore", message=".*Mismatch dtype between input and weight.*")
        yield
