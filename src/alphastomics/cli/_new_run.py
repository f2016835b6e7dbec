"""Start of a training run in its folder, which a run without a checkpoint does not leave behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from alphastomics._files import TEMPORARY, remove_folder, writing
from alphastomics.cli._run_folder import BEST, CHECKPOINTS, CONFIG, LAST, RUN, write_text
from alphastomics.config import Config

# Files that are written before the first step, in the folder of a run and of its logs.
AT_START = (CONFIG, RUN, "hparams.yaml")


@contextmanager
def new_run(folder: Path, config: Config, facts: dict[str, Any]) -> Iterator[None]:
    """Make the folder of a new run, and remove it if the run ends without a checkpoint.

    An earlier run of the same name is renamed; its name is restored if the new one is removed,
    which is a note of the error by which the run ended.
    """
    earlier = move_aside(folder)
    try:
        begin(folder, config, facts)
        yield
    except BaseException as error:
        if not any((folder / CHECKPOINTS / name).is_file() for name in (LAST, BEST)):
            remove_folder(folder)
            if earlier is not None:
                os.replace(earlier, folder)
            outcome = f"{folder} was removed" if earlier is None else f"{folder} is the earlier run"
            error.add_note(f"There was no checkpoint yet, so {outcome}: start again.")
        raise


def begin(folder: Path, config: Config, facts: dict[str, Any]) -> None:
    """Make the folder of a run and write its configuration and facts."""
    with writing("--output_dir", folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CONFIG, config.to_yaml())
        write_text(folder / RUN, json.dumps(facts, indent=1) + "\n")


def move_aside(folder: Path) -> Path | None:
    """Rename the folder of an earlier run, if a new run has the same name; the new name.

    The folder of a run that was killed before its first checkpoint holds nothing to keep.
    """
    if not (folder / RUN).exists():
        return None
    if _is_only_started(folder):
        remove_folder(folder)
        return None
    aside = _free_name(folder)
    os.replace(folder, aside)
    typer.echo(f"The earlier run in {folder} was moved to {aside}.", err=True)
    return aside


def _is_only_started(folder: Path) -> bool:
    """True if a run has written nothing after its start."""
    return all(
        path.is_dir() or path.name in AT_START or path.name.startswith(TEMPORARY)
        for path in folder.rglob("*")
    )


def _free_name(folder: Path) -> Path:
    written = datetime.fromtimestamp((folder / RUN).stat().st_mtime, UTC)
    name = f"{folder.name}_{written:%Y%m%d-%H%M%S}"
    taken = [folder.with_name(name), *(folder.with_name(f"{name}-{i}") for i in range(2, 100))]
    return next(path for path in taken if not path.exists())
