"""Train on processed data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphastomics.cli._errors import told_plainly
from alphastomics.cli._options import with_config_options
from alphastomics.cli._run_folder import CHECKPOINTS, begin, effective_config, folder_of
from alphastomics.config import PRESETS, Config, ConfigError

if TYPE_CHECKING:
    from alphastomics.model import AlphaSTomics

HISTORY, FIGURE = "history.csv", "loss.png"


def _train_command(*, timed: bool) -> Callable[..., None]:
    """Make the command; a ``timed`` one names its run by the time if nothing else does."""

    @with_config_options
    def train_command(
        config: Annotated[Path | None, typer.Option(help="YAML file, see config.yaml.")] = None,
        preset: Annotated[
            str | None, typer.Option(help=f"Start from a recipe: {', '.join(PRESETS)}.")
        ] = None,
        resume: Annotated[
            Path | None,
            typer.Option("--resume", "--resume_from", help="Checkpoint to go on from."),
        ] = None,
        *,
        overrides: dict[str, Any],
    ) -> None:
        """Train a model on processed data; the command line wins over the config."""
        _command(config, preset, resume, overrides, timed=timed)

    return train_command


train_command = _train_command(timed=False)
train_script = _train_command(timed=True)


def _command(
    path: Path | None,
    preset: str | None,
    resume: Path | None,
    overrides: dict[str, Any],
    *,
    timed: bool,
) -> None:
    with told_plainly("Go on with --resume and the last checkpoint, if one was written."):
        if resume is not None and not resume.is_file():
            raise ConfigError(f"--resume: there is no checkpoint {str(resume)!r}.")
        config = effective_config(path, overrides, preset, resume)
        if resume is not None and not {"exp_name", "output_dir"} & overrides.keys():
            folder = resume.parent.parent if resume.parent.name == CHECKPOINTS else resume.parent
        else:
            folder = folder_of(config, path, timed=timed)
        train(config, folder, resume)
        if _is_first():
            typer.echo(f"{folder / CHECKPOINTS / 'best.ckpt'}: done.")


def _is_first() -> bool:
    """Whether this process writes files and talks, of several that train together."""
    from lightning.pytorch.utilities import rank_zero_only

    node = int(os.environ.get("NODE_RANK", "0"))
    return bool(getattr(rank_zero_only, "rank", 0) == 0 and node == 0)


def train(config: Config, folder: Path, resume: Path | None = None) -> AlphaSTomics:
    """Train a model as a configuration says, into the folder of a run.

    Parameters
    ----------
    config
        What to train, and on what.
    folder
        Where to write ``config.yaml``, ``run.json``, ``checkpoints/``, ``history.csv`` and
        ``loss.png``.
    resume
        Checkpoint to go on from.

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
    from alphastomics.cli._processed import choose_genes, set_up, training_data
    from alphastomics.cli._training_run import check_resumable, finish, trainer_options
    from alphastomics.io import open_data
    from alphastomics.model import AlphaSTomics
    from alphastomics.model._checkpoint import versions

    if config.data.processed_data_dir is None:
        raise ConfigError(
            "--data_dir is missing: name the folder that `alphastomics preprocess` wrote, or set "
            "data.processed_data_dir in the config."
        )
    data = open_data(config.data.processed_data_dir)
    columns = choose_genes(data, config.data.num_genes, config.training.seed)
    cells, expression = set_up(data, columns)
    model = AlphaSTomics(cells, **config.model_arguments())
    val_sections = [section.name for section in data.sections("val")]
    options = trainer_options(config, folder, has_validation=bool(val_sections))
    before = 0 if resume is None else check_resumable(resume, model)
    facts = {
        "seed": config.training.seed,
        "data": str(data.folder),
        "data_fingerprint": data.manifest.provenance.fingerprint,
        "genes": len(columns),
        "versions": versions(),
    }
    if _is_first():
        begin(folder, config, facts, resumes=resume is not None)
    model._table = training_data(model, data, cells, expression)
    model.train(val_sections=val_sections, ckpt_path=resume, **options)
    if not _is_first():
        return model
    if model.training_record.steps == before:
        typer.echo(
            f"{resume} had its {before} steps already: to train longer, give more --max_steps or "
            "--epochs.",
            err=True,
        )
    return finish(model, folder, val_sections)
