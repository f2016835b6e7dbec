"""The command ``train``: a model trained on processed data, in the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphastomics import _keys
from alphastomics._files import whole, writing
from alphastomics.cli._errors import report_errors
from alphastomics.cli._loggers import choose_logger, is_first, loggers, wandb_id
from alphastomics.cli._options import with_options
from alphastomics.cli._run_folder import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    EARLIER,
    FIGURE,
    HISTORY,
    LAST,
    begin,
    check_data,
    check_folder,
    data_folder,
    earlier_run,
    effective_config,
    folder_of,
    move_aside,
    overlap,
    relative,
    run_of,
)
from alphastomics.config import PRESETS, Config, ConfigError

if TYPE_CHECKING:
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
            typer.Option("--resume", "--resume_from", help="Checkpoint to resume from."),
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
            if os.path.exists(last)
            else f"Start again.{earlier_run(folder)}"
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

    from lightning.pytorch.callbacks import LambdaCallback

    from alphastomics._compat import epoch_logger
    from alphastomics.cli._processed import choose_genes, set_up, training_data
    from alphastomics.io import open_data
    from alphastomics.model import AlphaSTomics
    from alphastomics.model._checkpoint import versions
    from alphastomics.model._distributed import require_devices

    resume = start.checkpoint
    # In another folder than that of its run, a resumed run is a new one.
    resumes = resume is not None and folder.resolve() == run_of(resume)
    if is_first():
        check_folder(folder, data_dir, resumes=resumes)
        if resume is not None and not resumes and overlap(folder, resume):
            raise ConfigError(f"--resume: {resume} lies in {folder}: name another --output_dir.")
    data = open_data(data_dir)
    data.verify(
        [*data.sections("train"), *data.sections("val")], progress_bar=None if is_first() else False
    )
    fingerprint = data.manifest.provenance.fingerprint
    if resume is not None and not start.allow_other_data:
        check_data(resume, data.folder, fingerprint)
    columns = choose_genes(data, config.data.num_genes, config.training.seed)
    cells, expression = set_up(data, columns)
    model = AlphaSTomics(cells, **config.model_arguments())
    val_sections = [section.name for section in data.sections("val")]
    options = _train_options(config, has_validation=bool(val_sections))
    require_devices(options)
    before = 0 if resume is None else _check_resumable(resume, model)
    kind = choose_logger(config.training.logger)
    run_id = wandb_id(folder if resumes else None)
    facts: dict[str, Any] = {
        "seed": config.training.seed,
        "data": str(data.folder),
        "data_fingerprint": fingerprint,
        "genes": len(columns),
        "logger": kind,
        "versions": versions(),
    }
    if kind == "wandb":
        facts["wandb_id"] = run_id
    model._table = training_data(model, data, cells, expression)
    if is_first():
        record = partial(begin, folder, config, facts)
        if resumes:  # a run that cannot be resumed stays as it is
            options["callbacks"].append(LambdaCallback(on_train_start=lambda *_: record()))
        else:
            facts[EARLIER] = move_aside(folder)
            record()
    options |= {
        "checkpoint_dir": folder / CHECKPOINTS,
        "logger": [epoch_logger(), *loggers(kind, config, folder, run_id, before)],
        "default_root_dir": str(folder),
    }
    model.train(val_sections=val_sections, ckpt_path=resume, **options)
    if not is_first():
        return model
    steps = model.training_record.steps
    if steps == before:
        _report_no_steps(resume, before, folder)
    best = _finish(model, folder, val_sections)
    if steps > before:
        resumed = f", resumed from step {before}" if before else ""
        typer.echo(f"Training finished: {folder / CHECKPOINTS / BEST} ({steps} steps{resumed}).")
    return best


def _report_no_steps(resume: Path | None, steps: int, folder: Path) -> None:
    """Report that no step was left; raise if the best weights are in another folder."""
    text = (
        f"{resume} has been trained for {steps} steps already: to train longer, raise --max_steps "
        "or --epochs."
    )
    if not (folder / CHECKPOINTS / BEST).exists():
        raise ConfigError(f"--resume: {text}")
    typer.echo(text, err=True)


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


def _check_resumable(checkpoint: Path, model: AlphaSTomics) -> int:
    """Raise unless a checkpoint is of the same model; the steps that it was trained."""
    from alphastomics.model._checkpoint import plain, read_checkpoint

    _, payload = read_checkpoint(checkpoint)
    mine, theirs = dict(model.config), payload["init_arguments"]
    different = [
        f"{name} is {theirs.get(name)!r} in the checkpoint and {value!r} now"
        for name, value in mine.items()
        if theirs.get(name) != value
    ]
    genes = payload["registry"]["field_registries"]["X"]["state_registry"]["column_names"]
    if list(genes) != list(model.genes):
        different.append(f"its {len(genes)} genes are not the {len(model.genes)} of the data")
    names = payload["registry"]["setup_args"]
    different += [
        f"{name} is {names.get(name)!r} in the checkpoint and {value!r} in the data"
        for name, value in model.registry_["setup_args"].items()
        if names.get(name) != value
    ]
    of = _keys.CATEGORIES_REGISTRY
    if plain(payload["registry"][of]) != plain(model.registry_[of]):
        different.append("the data have other cell types or batches")
    if different:
        written = run_of(checkpoint) / CONFIG
        lost = "" if written.is_file() else f" {written} is missing: pass --config."
        raise ConfigError(
            f"--resume: {checkpoint} has another configuration: {'; '.join(different)}. Resume "
            f"with the same, or train a new model.{lost}"
        )
    return int(payload["training"]["steps"])


def _finish(model: AlphaSTomics, folder: Path, val_sections: list[str]) -> AlphaSTomics:
    """Write the history; calibrate the best weights on the validation sections."""
    import matplotlib.pyplot as plt
    import pandas as pd

    from alphastomics.model import AlphaSTomics
    from alphastomics.model._checkpoint import replace_payload
    from alphastomics.pl import history

    table = pd.concat(model.history.values(), axis=1)
    with writing("--output_dir", folder):
        with whole(folder / HISTORY) as part:
            table.to_csv(part)
        with whole(folder / FIGURE) as part:
            plt.close(history(model, save=part).figure)
    path = folder / CHECKPOINTS / BEST
    best = AlphaSTomics.load(path)
    best._calibrate_on(model._training_cells(), val_sections)
    replace_payload(path, best._payload(best.training_record, best.history_ or {}))
    return best
