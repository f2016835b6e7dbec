"""The command line: ``alphastomics``, or ``python -m alphastomics``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import find_checkpoint
from alphastomics.cli.compare import compare_configs_command
from alphastomics.cli.evaluate import evaluate_command
from alphastomics.cli.preprocess import preprocess_command
from alphastomics.cli.sample import sample_command
from alphastomics.cli.train import train_command, train_script

HELP = "Learn tissue architecture from spatial transcriptomics."


def _normalize_option(name: str) -> str:
    """Spelling of an option with ``_`` in place of ``-``."""
    return name.replace("-", "_")


def _new_app(**options: object) -> typer.Typer:
    return typer.Typer(
        help=HELP,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"token_normalize_func": _normalize_option},
        **options,  # type: ignore[arg-type]
    )


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
    from alphastomics.io._manifest import MANIFEST_FILE

    if not (path / MANIFEST_FILE).exists():
        from alphastomics.model import AlphaSTomics

        return repr(AlphaSTomics.load(find_checkpoint(path, config, "path")))
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


app = _new_app(no_args_is_help=True)
app.command("preprocess")(preprocess_command)
app.command("train")(train_command)
app.command("test")(evaluate_command)
app.command("sample")(sample_command)
app.command("info")(info_command)
for spelling, hidden in (("compare-configs", False), ("compare_configs", True)):
    app.command(spelling, hidden=hidden)(compare_configs_command)

train_app = _new_app()
train_app.command()(train_script)


if __name__ == "__main__":
    app()
