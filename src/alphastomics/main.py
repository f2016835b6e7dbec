"""The command line: ``alphastomics``, or ``python -m alphastomics``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from alphastomics import __version__
from alphastomics.cli._help import Command, normalize_option
from alphastomics.cli.calibrate import calibrate_command
from alphastomics.cli.compare import compare_configs_command
from alphastomics.cli.evaluate import evaluate_command
from alphastomics.cli.impute import impute_command
from alphastomics.cli.info import info_command
from alphastomics.cli.predict import predict_command
from alphastomics.cli.preprocess import preprocess_command
from alphastomics.cli.sample import sample_command
from alphastomics.cli.train import train_command, train_script

HELP = "Learn tissue architecture from spatial transcriptomics."
COMMANDS: dict[str, Callable[..., None]] = {
    "preprocess": preprocess_command,
    "train": train_command,
    "test": evaluate_command,
    "predict": predict_command,
    "sample": sample_command,
    "impute": impute_command,
    "calibrate": calibrate_command,
    "info": info_command,
    "compare-configs": compare_configs_command,
}


def _new_app(**options: Any) -> typer.Typer:
    return typer.Typer(
        help=HELP,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={
            "token_normalize_func": normalize_option,
            "help_option_names": ["-h", "--help"],
        },
        **options,
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alphastomics {__version__}")
        raise typer.Exit


app = _new_app(no_args_is_help=True)
for name, command in COMMANDS.items():
    app.command(name, cls=Command)(command)
app.command("compare_configs", cls=Command, hidden=True)(compare_configs_command)


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Learn tissue architecture from spatial transcriptomics."""


train_app = _new_app()
train_app.command(cls=Command)(train_script)


if __name__ == "__main__":
    app()
