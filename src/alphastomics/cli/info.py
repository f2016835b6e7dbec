"""Describe a checkpoint, a model or a folder of processed data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import find_checkpoint


def info_command(
    path: Annotated[Path, typer.Argument(help="Checkpoint, model or folder of processed data.")],
    config: Annotated[
        Path | None, typer.Option(help="Config of the run, to find its checkpoint by.")
    ] = None,
) -> None:
    """Describe a checkpoint, a model or a folder of processed data."""
    with report_errors("Nothing was written."):
        typer.echo(describe(path, config))


def describe(path: Path, config: Path | None = None) -> str:
    """Describe a checkpoint, a model or a folder of processed data in a few lines."""
    from alphastomics.io import open_data
    from alphastomics.io._processed import MANIFEST_FILE

    if not (path / MANIFEST_FILE).exists():
        from alphastomics.model import AlphaSTomics

        return repr(AlphaSTomics.load(find_checkpoint(path, config)))
    manifest = open_data(path).manifest
    lines = [
        f"{len(manifest.genes):,} genes ({manifest.values}), {manifest.n_dims}D, "
        f"{sum(section.n_cells for section in manifest.sections):,} cells of "
        f"{len(manifest.sections)} sections"
    ]
    for section in manifest.sections:
        where = "" if section.has_coordinates else ", no coordinates"
        lines.append(f"  {section.split:5} {section.name}: {section.n_cells:,} cells{where}")
    return "\n".join(lines)
