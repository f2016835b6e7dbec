"""The folder of a training run: what is in it, and finding it again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from alphastomics import _keys
from alphastomics._files import TEMPORARY, content, require_writable, whole, writing
from alphastomics._yaml import read_yaml
from alphastomics.config import Config, ConfigError, load_config, merge

OUTPUTS = Path("outputs")
CONFIG, RUN = "config.yaml", "run.json"
CHECKPOINTS = "checkpoints"
LAST, BEST = _keys.LAST_CHECKPOINT, _keys.BEST_CHECKPOINT
HISTORY, FIGURE = "history.csv", "loss.png"
LOGS, TEST = ("csv", "tensorboard", "wandb"), "test"
WRITTEN = {CONFIG, RUN, CHECKPOINTS, HISTORY, FIGURE, TEST, *LOGS}  # in the folder of a run
GENERATED, FILLED_SUFFIX = "generated.h5ad", "_filled.h5ad"  # outputs of sample
PREDICTED_SUFFIX, IMPUTED_SUFFIX = "_predicted.h5ad", "_imputed.h5ad"
MANIFEST = "manifest.json"  # of processed data
MODEL = "model.json"  # of a saved model
DEFAULT_CONFIG = Path("config.yaml")


def folder_of(config: Config, config_path: Path | None, *, timed: bool = False) -> Path:
    """Folder of a run: ``output_dir``, or ``outputs/`` and the name of the run or its config."""
    if config.output_dir is not None:
        return Path(config.output_dir)
    name = config.exp_name or (config_path or DEFAULT_CONFIG).stem
    if timed and config.exp_name is None:
        name += time.strftime("_%Y%m%d-%H%M%S")
    return OUTPUTS / name


def run_of(checkpoint: Path) -> Path:
    """Folder of the run that wrote a checkpoint."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == CHECKPOINTS else folder


def relative(path: Path) -> Path:
    """Path as it is printed: relative to the current folder if it lies in it."""
    whole = path.resolve()
    return whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole


def default_output(
    checkpoint: Path, input: Path | None, suffix: str, without_input: str = ""
) -> Path:
    """File in the folder of a run for the results of a command, named after its input."""
    name = without_input if input is None else f"{input.stem}{suffix}"
    return relative(run_of(checkpoint)) / name


def config_of_run(checkpoint: Path) -> Config:
    """Read the configuration that a checkpoint was trained with, the default if it is not there."""
    written = run_of(checkpoint) / CONFIG
    return load_config(written) if written.is_file() else Config()


def effective_config(
    path: Path | None, overrides: dict[str, Any], preset: str | None, resume: Path | None
) -> Config:
    """Combine a YAML file, the configuration of a resumed run and the command line.

    The configuration of a resumed run wins over the file. Otherwise every key of the repository's
    ``config.yaml`` would undo options that were given on the command line when the run started.
    """
    written = None if resume is None else run_of(resume) / CONFIG
    if written is None or not written.is_file():
        return load_config(path, overrides, preset)
    earlier = read_yaml(written)
    if path is not None:
        _warn_unused(load_config(path), load_config(written), overrides, path)
    return load_config(None, merge(earlier, overrides))


def _warn_unused(file: Config, run: Config, overrides: dict[str, Any], path: Path) -> None:
    """Report keys of a file that the run has otherwise, if nothing overrides them."""
    in_file, default, in_run = (flat(c.model_dump()) for c in (file, Config(), run))
    unused = [
        f"{key} is {value!r} there and {in_run[key]!r} in the run"
        for key, value in in_file.items()
        if value not in (default[key], in_run[key]) and key not in flat(overrides)
    ]
    if unused:
        typer.echo(
            f"{path}: {'; '.join(unused)}. The run is resumed with its own configuration, which "
            "options on the command line override.",
            err=True,
        )


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn ``{"a": {"b": 1}}`` into ``{"a.b": 1}``."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        inside = isinstance(value, dict)
        leaves |= flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return leaves


def overlap(first: Path, second: Path) -> bool:
    """True if two paths are the same, or one lies in the other."""
    here, there = first.resolve(), second.resolve()
    return here == there or here in there.parents or there in here.parents


def check_place(folder: Path, inputs: list[Path]) -> None:
    """Raise unless a folder can be written and does not overlap with the inputs."""
    with writing("--output_dir", folder):
        require_writable(folder)
    for path in inputs:
        if overlap(folder, path):
            raise ConfigError(
                f"--output_dir: {folder} and the input {path} overlap: choose another folder."
            )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output_dir: {folder} is a file: name a folder.")


def check_folder(folder: Path, data: Path, *, resumes: bool) -> None:
    """Raise if a run in ``folder`` would touch files that no run has written.

    Raises
    ------
    ConfigError
        If the folder holds other files, or the data, or lies among the data.
    """
    check_place(folder, [data])
    if resumes and not (folder / RUN).exists():
        raise ConfigError(
            f"--resume: {folder} is not the folder of a run, it has no {RUN}: put the checkpoint "
            f"back into the folder {CHECKPOINTS} of its run, or name another --output_dir and the "
            "--config of the run."
        )
    if resumes or not folder.exists():
        return
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if not _is_written_by_run(name)]
    if names and RUN not in names:
        foreign = foreign or names
    if foreign:
        raise ConfigError(
            f"--output_dir: {folder} holds {foreign[0]!r}, which no earlier run has written: "
            "choose another folder for the run by --exp_name or --output_dir, or move that file "
            "elsewhere."
        )


def _is_written_by_run(name: str) -> bool:
    """True for outputs of a run, and for the rest of a file whose writing was interrupted."""
    suffixes = (FILLED_SUFFIX, PREDICTED_SUFFIX, IMPUTED_SUFFIX)
    written = name in WRITTEN or name == GENERATED or name.endswith(suffixes)
    return written or name.startswith(TEMPORARY)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as part:
        part.write_text(text)


def find_checkpoint(
    checkpoint: Path, config_path: Path | None, option: str = "--checkpoint"
) -> Path:
    """Find a checkpoint: as it is named, else in the run of the config, else in the latest run.

    Of the folder of a run it is the best one. A choice is printed.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    best = checkpoint / CHECKPOINTS / BEST
    if (checkpoint / RUN).is_file():
        if not best.is_file():
            raise FileNotFoundError(f"{option}: the run in {checkpoint} has no {best} yet.")
        typer.echo(f"Using {best}.", err=True)
        return best
    if checkpoint.exists() and str(checkpoint) != BEST:
        _require_model(checkpoint, option)
        return checkpoint
    searched = _places(checkpoint, config_path)
    for folder, which in searched.items():
        if (folder / checkpoint).exists():
            by = "its path" if option == "path" else option
            typer.echo(f"Using {folder / checkpoint}, {which}. Name another by {by}.", err=True)
            return folder / checkpoint
    others = ", a saved model or processed data" if option == "path" else " or a saved model"
    places = ["the current folder", *(str(s) for s in searched if s != Path() and s.is_dir())]
    where = "" if checkpoint.is_absolute() else f" in {', '.join(places)}"
    raise FileNotFoundError(
        f"{option}: there is no {str(checkpoint)!r}{where}. "
        "Name the checkpoint that train wrote (outputs/<exp_name>/checkpoints/best.ckpt), the "
        f"folder of its run{others}."
    )


def _require_model(path: Path, option: str) -> None:
    """Raise if a folder is not that of a saved model."""
    if not path.is_dir() or (path / MODEL).is_file():
        return
    runs = sorted(str(run.parent) for run in path.glob(f"*/{RUN}"))
    kinds = {"a run": RUN, "a saved model": MODEL}
    kinds |= {"processed data": MANIFEST} if option == "path" else {}
    raise ConfigError(
        f"{option}: {path} {content(path)}, and is neither the folder of "
        f"{' nor of '.join(f'{kind} (no {name})' for kind, name in kinds.items())}: name one of "
        f"these{f', such as {runs[0]}' if runs else ''}, or a checkpoint (.ckpt)."
    )


def _places(checkpoint: Path, config_path: Path | None) -> dict[Path, str]:
    """Folders to search for a checkpoint that is named without one, and which they are."""
    if checkpoint.name != str(checkpoint):
        return {}
    places = {Path(): "in the current folder"}
    if config_path is not None:
        run = folder_of(load_config(config_path), config_path)
        places[run / CHECKPOINTS] = f"of the run of {config_path}"
    found = OUTPUTS.glob(f"*/{CHECKPOINTS}/{checkpoint.name}")
    latest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if latest is not None:
        places.setdefault(latest.parent, "of the latest run")
    return places


def data_folder(
    config: Config, data_dir: str | None = None, checkpoint: Path | None = None
) -> Path:
    """Folder of processed data: as given, of the config, or that a model was trained on."""
    from alphastomics.io import DataError
    from alphastomics.io._manifest import read_manifest

    folder = config.data.processed_data_dir if data_dir is None else data_dir
    if folder is None and checkpoint is not None:
        folder = config_of_run(checkpoint).data.processed_data_dir
    if folder is None:
        raise ConfigError(
            "--data_dir is missing: name the folder that `alphastomics preprocess` wrote, or set "
            "data.processed_data_dir in the config."
        )
    if Path(folder).is_file():
        raise ConfigError(
            f"--data_dir: {folder} is a file: name the folder that `alphastomics preprocess "
            f"--raw_dir {folder} --output_dir ...` writes."
        )
    try:
        read_manifest(Path(folder))  # before imports that take seconds
    except DataError as error:
        raise DataError(f"--data_dir: {error}") from None
    return Path(folder)
