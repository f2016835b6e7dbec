"""Loggers of the losses of a training run."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import typer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from alphastomics._compat import MissingExtraError, require
from alphastomics.config import Config

PROJECT = "alphastomics"


def loggers(config: Config, folder: Path) -> list[Logger]:
    """Make the logger of a run that is written to ``folder``."""
    kind = config.training.logger
    if kind == "wandb":
        try:
            require("wandb", "wandb", "Logging to Weights & Biases")
            return [_wandb_logger(config, folder)]
        except MissingExtraError as error:
            kind = "csv"
            _echo(f"{error} This run is logged to {folder / 'csv'}.")
    if kind == "csv":
        return [CSVLogger(folder, name="", version="csv")]
    if kind == "tensorboard":
        return [TensorBoardLogger(folder, name="", version="tensorboard")]
    return []


def _echo(text: str) -> None:
    """Print a line from the first of several processes."""
    if rank_zero_only.rank == 0:
        typer.echo(text, err=True)


def _wandb_logger(config: Config, folder: Path) -> Logger:
    """Log to Weights & Biases as ``WANDB_MODE`` says, else offline unless the user is logged in."""
    import wandb

    options: dict[str, Any] = {}
    if "WANDB_MODE" not in os.environ and not _logged_in():
        options = {"mode": "offline", "settings": wandb.Settings(silent=True)}
        _echo(
            f"Weights & Biases: not logged in, so the run is logged to {folder / 'wandb'}; "
            "`wandb login`, then `wandb sync` with that run's folder, uploads it."
        )
    if rank_zero_only.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(
        name=folder.name,
        project=PROJECT,
        save_dir=str(folder),
        config=config.model_dump(),
        **options,
    )
    # Lightning passes on what newer versions of wandb warn about.
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)
    return logger


def _logged_in() -> bool:
    """Whether Weights & Biases has credentials, without a prompt."""
    import wandb

    if "prompt" in inspect.signature(wandb.login).parameters:
        return bool(wandb.login(prompt=False, verify=False))
    return bool(wandb.api.api_key)  # older versions, whose login always prompts
