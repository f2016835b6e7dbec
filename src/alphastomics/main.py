"""The command line: ``alphastomics``, or ``python -m alphastomics``."""

from __future__ import annotations

import typer

from alphastomics.cli.compare import compare_configs_command
from alphastomics.cli.evaluate import evaluate_command
from alphastomics.cli.info import info_command
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
