"""The command ``calibrate``: the accuracy of estimates, by cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alphastomics.cli._cells import Checkpoint
from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import (
    BEST,
    config_of_run,
    data_folder,
    find_checkpoint,
    relative,
)
from alphastomics.config import Config, ConfigError, load_config

LENGTH = ("max_steps", "max_epochs")  # of training, which calibrate takes from the model


def calibrate_command(
    checkpoint: Checkpoint = Path(BEST),
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with the options of training; by default those of the run.",
            rich_help_panel="Model",
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(
            "--data_dir",
            help="Processed data that the model was trained on; by default those of the run.",
            rich_help_panel="Data",
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            "--max_steps",
            min=1,
            help="Steps of each training; by default as many as the model had. With fewer, the "
            "radius fits a less trained model.",
            rich_help_panel="Data",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace an earlier calibration.", rich_help_panel="Output"
        ),
    ] = False,
) -> None:
    """Calibrate the uncertainty of estimates.

    Gives the 90 % radius of positions and the 90 % intervals of expression by cross-validation:
    each training section in turn (four at most) is left out, and a model is trained on the others,
    which takes about as long as training, times the number of sections. Models that were trained
    with validation sections are calibrated on these already. The calibration is added to the model,
    whose weights do not change.
    """
    with report_errors("The model is as it was."):
        found = find_checkpoint(checkpoint, config)
        settings = load_config(config) if config is not None else config_of_run(found)
        folder = data_folder(settings, data_dir, found)
        calibrate(found, folder, settings, max_steps=max_steps, overwrite=overwrite)
        typer.echo(f"{relative(found)}: calibrated.")


def calibrate(
    checkpoint: Path,
    data_dir: Path,
    config: Config,
    *,
    max_steps: int | None = None,
    overwrite: bool = False,
) -> None:
    """Calibrate a model on the processed data of its training, and write that into its file.

    Parameters
    ----------
    checkpoint
        Checkpoint or folder of a model.
    data_dir
        Folder of processed data.
    config
        Options of training.
    max_steps
        Steps of each training.
    overwrite
        Whether an earlier calibration may be replaced.

    Raises
    ------
    ConfigError
        If the model is calibrated already, or the data lack genes of the model.

    Examples
    --------
    >>> best, data = Path("outputs/first/checkpoints/best.ckpt"), Path("processed")
    >>> calibrate(best, data, Config())  # doctest: +SKIP
    """
    from alphastomics.cli._processed import columns_of, set_up, training_data
    from alphastomics.io import open_data
    from alphastomics.model import AlphaSTomics
    from alphastomics.model._checkpoint import replace_payload

    data = open_data(data_dir)
    model = AlphaSTomics.load(checkpoint)
    record = model.training_record
    if (record.calibration or record.intervals) and not overwrite:
        raise ConfigError(
            f"--checkpoint: {relative(checkpoint)} is calibrated already: pass --overwrite to "
            "calibrate it again by cross-validation."
        )
    missing = set(record.train_sections) - {entry.name for entry in data.manifest.sections}
    if missing:
        raise ConfigError(
            f"--data_dir: {data_dir} lacks section {min(missing)!r}, which the model was trained "
            "on: name the data of its training."
        )
    columns = columns_of(data, model.genes)
    data.verify([*data.sections("train"), *data.sections("val")], progress_bar=None)
    cells, expression = set_up(data, columns)
    model._table = training_data(model, data, cells, expression)
    options: dict[str, Any] = config.training.train_options()
    options = {name: value for name, value in options.items() if name not in LENGTH}
    model.calibrate(max_steps=max_steps, **options)
    if checkpoint.is_dir():
        model.save(checkpoint, overwrite=True)
    else:
        replace_payload(checkpoint, model._payload(model.training_record, model.history_ or {}))
