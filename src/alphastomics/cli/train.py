"""The command ``train``: a model trained on processed data, in the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphastomics._files import whole, writing
from alphastomics.cli._errors import report_errors
from alphastomics.cli._loggers import choose_logger, is_first, loggers, wandb_id
from alphastomics.cli._new_run import begin, new_run
from alphastomics.cli._options import with_options
from alphastomics.cli._resume import check_data, check_resumable
from alphastomics.cli._run_folder import (
    BEST,
    CHECKPOINTS,
    FIGURE,
    HISTORY,
    LAST,
    check_folder,
    data_folder,
    effective_config,
    folder_of,
    overlap,
    relative,
    run_of,
)
from alphastomics.config import PRESETS, Config, ConfigError

if TYPE_CHECKING:
    from alphastomics.io import ProcessedData
    from alphastomics.model import AlphaSTomics


@dataclass(frozen=True)
class Start:
    """Start of training: from initial weights, or from a checkpoint and on which data."""

    checkpoint: Path | None = None
    allow_other_data: bool = False


NEW = Start()


def _train_command(*, timed: bool) -> Callable[..., None]:
    """Make the command; a ``timed`` one names its run by the time unless a name is given."""

    @with_options(Config)
    def train_command(
        config: Annotated[Path | None, typer.Option(help="YAML file, see config.yaml.")] = None,
        preset: Annotated[
            str | None,
            typer.Option(help=f"Named settings, which --config overrides: {', '.join(PRESETS)}."),
        ] = None,
        resume: Annotated[
            Path | None,
            typer.Option("--resume", "--resume_from", help="Checkpoint or run to resume from."),
        ] = None,
        allow_other_data: Annotated[
            bool,
            typer.Option("--allow_other_data", help="Resume on data other than those of the run."),
        ] = False,
        *,
        overrides: dict[str, Any],
    ) -> None:
        """Train a model on processed data.

        Options on the command line override the config file, which overrides the defaults.
        """
        _command(config, preset, Start(resume, allow_other_data), overrides, timed=timed)

    return train_command


train_command = _train_command(timed=False)
train_script = _train_command(timed=True)


def _command(
    path: Path | None,
    preset: str | None,
    start: Start,
    overrides: dict[str, Any],
    *,
    timed: bool,
) -> None:
    with report_errors("Nothing was written.") as report:
        resume = start.checkpoint
        if resume is not None and (resume / CHECKPOINTS / LAST).is_file():
            resume = resume / CHECKPOINTS / LAST
            start = replace(start, checkpoint=resume)
        if resume is not None and not resume.is_file():
            raise ConfigError(f"--resume: there is no checkpoint {str(resume)!r}.")
        if start.allow_other_data and resume is None:
            raise ConfigError("--allow_other_data has no effect without --resume: leave it out.")
        config = effective_config(path, overrides, preset, resume)
        if resume is not None and not {"exp_name", "output_dir"} & overrides.keys():
            folder = relative(run_of(resume))
        else:
            folder = folder_of(config, path, timed=timed)
        last = folder / CHECKPOINTS / LAST
        report.remedy = lambda: (
            f"Resume with --resume {last}."
            if os.path.exists(last)  # False for a name that is too long
            else "Start again."
        )
        train(config, folder, start)


def train(config: Config, folder: Path, start: Start = NEW) -> AlphaSTomics:
    """Train a model as configured, and write into the folder of a run.

    Parameters
    ----------
    config
        Model, data and training.
    folder
        Where to write ``config.yaml``, ``run.json``, ``checkpoints/``, ``history.csv`` and
        ``loss.png``.
    start
        Checkpoint to resume from, if any.

    Returns
    -------
    AlphaSTomics
        The model with its best weights; with several devices, only in the first process.

    Raises
    ------
    ConfigError, DataError
        If the configuration, the data and the checkpoint do not fit each other.

    Examples
    --------
    >>> from pathlib import Path
    >>> from alphastomics.config import load_config
    >>> config = load_config(Path("config.yaml"))  # doctest: +SKIP
    >>> model = train(config, Path("outputs/first"))  # doctest: +SKIP
    """
    data_dir = data_folder(config)  # before imports that take seconds

    from alphastomics._compat import epoch_logger
    from alphastomics.model._distributed import require_devices

    resume = start.checkpoint
    # In another folder than that of its run, a resumed run is a new one.
    resumes = resume is not None and folder.resolve() == run_of(resume)
    if is_first():
        _check_folders(folder, data_dir, resume, resumes=resumes)
    data = _open_data(data_dir, start)
    model = _new_model(data, config)
    val_sections = [section.name for section in data.sections("val")]
    options = _train_options(config, has_validation=bool(val_sections))
    require_devices(options)
    before = 0 if resume is None else check_resumable(resume, model)
    kind = choose_logger(config.training.logger)
    run_id = wandb_id(folder if resumes else None)
    logging = {"logger": kind} | ({"wandb_id": run_id} if kind == "wandb" else {})
    facts = _facts(config, data, model, logging)
    with _recorded(folder, config, facts, options["callbacks"], resumes=resumes):
        options["logger"] = [epoch_logger(), *loggers(kind, config, folder, run_id, before)]
        model.train(
            val_sections=val_sections,
            ckpt_path=resume,
            checkpoint_dir=folder / CHECKPOINTS,
            default_root_dir=str(folder),
            **options,
        )
    return _finish(model, folder, val_sections, start, before) if is_first() else model


def _check_folders(folder: Path, data: Path, resume: Path | None, *, resumes: bool) -> None:
    """Raise if the run would touch other files, or lie where its checkpoint is."""
    check_folder(folder, data, resumes=resumes)
    if resume is not None and not resumes and overlap(folder, resume):
        raise ConfigError(f"--resume: {resume} lies in {folder}: name another --output_dir.")


def _open_data(data_dir: Path, start: Start) -> ProcessedData:
    """Open and verify processed data; raise if a run would be resumed on others."""
    from alphastomics.io import open_data

    data = open_data(data_dir)
    sections = [*data.sections("train"), *data.sections("val")]
    data.verify(sections, progress_bar=None if is_first() else False)
    if start.checkpoint is not None and not start.allow_other_data:
        check_data(start.checkpoint, data.folder, data.manifest.provenance.fingerprint)
    return data


def _new_model(data: ProcessedData, config: Config) -> AlphaSTomics:
    """Model of the training cells, whose expression stays on disk."""
    from alphastomics.cli._processed import choose_genes, set_up, training_data
    from alphastomics.model import AlphaSTomics

    columns = choose_genes(data, config.data.num_genes, config.training.seed)
    cells, expression = set_up(data, columns)
    model = AlphaSTomics(cells, **config.model_arguments())
    model._table = training_data(model, data, cells, expression)
    return model


def _facts(
    config: Config, data: ProcessedData, model: AlphaSTomics, logging: dict[str, str]
) -> dict[str, Any]:
    """Facts of a run, for its ``run.json``."""
    from alphastomics.model._checkpoint import versions

    return {
        "seed": config.training.seed,
        "data": str(data.folder),
        "data_fingerprint": data.manifest.provenance.fingerprint,
        "genes": len(model.genes),
        "versions": versions(),
        **logging,
    }


def _recorded(
    folder: Path, config: Config, facts: dict[str, Any], callbacks: list[Any], *, resumes: bool
) -> AbstractContextManager[None]:
    """Write the folder of a new run now, and that of a resumed one at its first step."""
    from lightning.pytorch.callbacks import LambdaCallback

    if not is_first():
        return nullcontext()
    if not resumes:
        return new_run(folder, config, facts)
    # A run that cannot be resumed stays as it is.
    callbacks.append(LambdaCallback(on_train_start=lambda *_: begin(folder, config, facts)))
    return nullcontext()


def _report_no_steps(resume: Path | None, steps: int, folder: Path) -> None:
    """Report that no step was left; raise if the best weights are in another folder."""
    text = (
        f"{resume} has been trained for {steps} steps already: to train longer, raise --max_steps "
        "or --epochs."
    )
    if not (folder / CHECKPOINTS / BEST).exists():
        raise ConfigError(f"--resume: {text}")
    typer.echo(f"{text} Its losses and its calibration are written again.", err=True)


def _train_options(config: Config, *, has_validation: bool) -> dict[str, Any]:
    """Arguments of ``AlphaSTomics.train`` as the configuration says."""
    import lightning.pytorch as L

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
    return {**training.train_options(), "callbacks": callbacks}


def _finish(
    model: AlphaSTomics, folder: Path, val_sections: list[str], start: Start, before: int
) -> AlphaSTomics:
    """Write and report what a run has learned; the model with the best weights."""
    steps, path = model.training_record.steps, folder / CHECKPOINTS / BEST
    if steps == before:
        _report_no_steps(start.checkpoint, before, folder)
    _write_history(model, folder)
    if val_sections:
        typer.echo(f"Calibrating {path} on {', '.join(val_sections)}.", err=True)
    best = _calibrated(model, path, val_sections)
    if steps > before:
        resumed = f", resumed from step {before}" if before else ""
        step = best.training_record.steps
        which = "" if step == steps else f", weights of step {step}"
        typer.echo(f"Training finished: {path} ({steps} steps{resumed}{which}).")
    return best


def _write_history(model: AlphaSTomics, folder: Path) -> None:
    """Write the table and the figure of the losses."""
    import matplotlib.pyplot as plt
    import pandas as pd

    from alphastomics.pl import history

    table = pd.concat(model.history.values(), axis=1)
    with writing("--output_dir", folder):
        with whole(folder / HISTORY) as part:
            table.to_csv(part)
        with whole(folder / FIGURE) as part:
            plt.close(history(model, save=part).figure)


def _calibrated(model: AlphaSTomics, path: Path, val_sections: list[str]) -> AlphaSTomics:
    """Model with the best weights, calibrated on the validation sections, also in its file."""
    from alphastomics.model import AlphaSTomics
    from alphastomics.model._checkpoint import replace_payload

    best = AlphaSTomics.load(path)
    best._calibrate_on(model._training_cells(), val_sections)
    replace_payload(path, best._payload(best.training_record, best.history_ or {}))
    return best
