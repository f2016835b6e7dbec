"""Loggers of a training run: Weights & Biases, CSV or TensorBoard."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alphastomics.cli._run_folder import RUN
from alphastomics.config import Config

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

PROJECT = "alphastomics"  # of Weights & Biases
OFFLINE_MODES = ("offline", "dryrun")  # of WANDB_MODE


def is_first() -> bool:
    """True in the process that writes files and messages, of several that train together."""
    from lightning.pytorch.utilities import rank_zero_only

    node = int(os.environ.get("NODE_RANK", "0"))
    return bool(getattr(rank_zero_only, "rank", 0) == 0 and node == 0)


def choose_logger(kind: str) -> str:
    """Logger of a run: for ``"auto"``, Weights & Biases where it is installed and logged in.

    ``WANDB_MODE`` decides first: if offline, no login is needed; if disabled, it is not used.
    """
    installed = importlib.util.find_spec("wandb") is not None
    if kind == "wandb" and not installed:
        _echo("--logger wandb needs wandb: pip install 'alphastomics[wandb]'. Logging to CSV.")
        return "csv"
    if kind != "auto":
        return kind
    mode = os.environ.get("WANDB_MODE")
    uses_wandb = installed and mode != "disabled" and (mode in OFFLINE_MODES or _is_logged_in())
    return "wandb" if uses_wandb else "csv"


def wandb_id(resumed: Path | None) -> str:
    """Identifier of a run at Weights & Biases: that of the run in a folder, or a new one."""
    written = None if resumed is None else resumed / RUN
    facts = json.loads(written.read_text()) if written is not None and written.is_file() else {}
    return str(facts.get("wandb_id", secrets.token_hex(4)))


def loggers(
    kind: str, config: Config, folder: Path, run_id: str, steps_before: int = 0
) -> list[Logger]:
    """Make the logger of a run that is written to ``folder``.

    A run that is resumed after ``steps_before`` steps goes on as the same one at Weights & Biases,
    which ``run_id`` identifies, and in another part of ``csv/``: Lightning would delete the first.
    """
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    if kind == "wandb":
        return [_wandb_logger(config, folder, run_id, resumes=steps_before > 0)]
    if kind == "csv":
        part = f"csv/from_step_{steps_before}" if steps_before else "csv"
        return [CSVLogger(folder, name="", version=part)]
    if kind == "tensorboard":
        return [TensorBoardLogger(folder, name="", version="tensorboard")]
    return []


def _echo(text: str) -> None:
    """Print a line from the first of several processes."""
    if is_first():
        typer.echo(text, err=True)


def _wandb_logger(config: Config, folder: Path, run_id: str, *, resumes: bool) -> Logger:
    """Log to Weights & Biases as ``WANDB_MODE`` says, else offline unless the user is logged in."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    options: dict[str, Any] = {"id": run_id}
    mode = os.environ.get("WANDB_MODE")
    if mode is None and not _is_logged_in():
        options |= {"mode": "offline", "settings": wandb.Settings(silent=True)}
        _echo(
            f"Weights & Biases: not logged in, so the run is logged to {folder / 'wandb'}; "
            "`wandb login`, then `wandb sync` with that run's folder, uploads it."
        )
    elif resumes and mode not in OFFLINE_MODES:  # offline, it warns that it cannot
        options["resume"] = "allow"
    if is_first():
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


def _is_logged_in() -> bool:
    """True if Weights & Biases has credentials; it does not prompt."""
    import wandb

    if "prompt" in inspect.signature(wandb.login).parameters:
        return bool(wandb.login(prompt=False, verify=False))
    return bool(wandb.api.api_key)  # older versions, whose login always prompts
