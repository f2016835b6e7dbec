"""What a training run is given, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import matplotlib.pyplot as plt
import pandas as pd

from alphastomics._compat import SimpleLogger
from alphastomics.cli._run_folder import CHECKPOINTS
from alphastomics.cli._tracking import loggers
from alphastomics.cli.train import FIGURE, HISTORY
from alphastomics.config import Config, ConfigError
from alphastomics.model import AlphaSTomics
from alphastomics.model._checkpoint import BEST, read_checkpoint, replace_payload
from alphastomics.pl import history


def trainer_options(config: Config, folder: Path, *, has_validation: bool) -> dict[str, Any]:
    """Arguments of ``AlphaSTomics.train`` as the configuration says."""
    training = config.training
    callbacks: list[L.Callback] = []
    if training.early_stopping is not None:
        if not has_validation:
            raise ConfigError(
                "training.early_stopping needs validation sections, and the data have none: run "
                "preprocess with --val_sections or --val_ratio."
            )
        callbacks.append(
            L.callbacks.EarlyStopping("validation_loss", patience=training.early_stopping)
        )
    return {
        "checkpoint_dir": folder / CHECKPOINTS,
        **training.train_options(),
        "callbacks": callbacks,
        "logger": [SimpleLogger(), *loggers(config, folder)],
        "default_root_dir": str(folder),
    }


def check_resumable(checkpoint: Path, model: AlphaSTomics) -> int:
    """Raise unless a checkpoint is one of the same model; count the steps it was trained."""
    _, payload = read_checkpoint(checkpoint)
    mine, theirs = dict(model.config), payload["init_arguments"]
    different = [
        f"{name} is {theirs.get(name)!r} in it and {value!r} now"
        for name, value in mine.items()
        if theirs.get(name) != value
    ]
    genes = payload["registry"]["field_registries"]["X"]["state_registry"]["column_names"]
    if list(genes) != list(model.genes):
        different.append(f"it has {len(genes)} genes and the data {len(model.genes)} others")
    if different:
        raise ConfigError(
            f"--resume: {checkpoint} is of another configuration: {'; '.join(different)}. Go on "
            "with the same, or train a new model."
        )
    return int(payload["training"]["steps"])


def finish(model: AlphaSTomics, folder: Path, val_sections: list[str]) -> AlphaSTomics:
    """Write the history; calibrate the best weights on the validation sections."""
    table = pd.concat(model.history.values(), axis=1)
    table.to_csv(folder / HISTORY)
    plt.close(history(model, save=folder / FIGURE).figure)
    path = folder / CHECKPOINTS / BEST
    best = AlphaSTomics.load(path)
    best._calibrate_on(model._training_cells(), val_sections)
    replace_payload(path, best._payload(best.training_record, best.history_ or {}))
    return best
