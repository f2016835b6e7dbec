"""How commands warn and end: what is wrong in one line, and an exit code."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from alphastomics._files import FULL
from alphastomics._optional import MissingExtraError

WRONG, INTERRUPTED = 2, 130
PACKAGE = Path(__file__).parents[1]

# Warnings of other packages that a user of the commands can do nothing about.
BESIDE_THE_POINT = (
    "'(n_jobs|show_progress_bar)' is not a valid key",  # squidpy's documentation
    "No data for colormapping",  # squidpy's points of one colour
    "Stochastic Optimizer: Maximum iterations",  # the small network among the floors
)


@contextmanager
def told_plainly(if_interrupted: str) -> Iterator[None]:
    """Turn errors of what a user gave into one line and exit code 2, Ctrl-C into 130."""
    try:
        with warned_plainly():
            yield
    except (ValueError, KeyError, OSError, MissingExtraError) as error:
        typer.echo(f"Error: {_text(error, if_interrupted)}", err=True)
        raise typer.Exit(WRONG) from None
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. {if_interrupted}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except SystemExit as stop:
        # Lightning ends with this after Ctrl-C.
        if isinstance(stop.__context__, KeyboardInterrupt):
            typer.echo(f"Interrupted. {if_interrupted}", err=True)
            raise typer.Exit(INTERRUPTED) from None
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "wandb":
            raise
        why = " ".join(str(error).split())
        typer.echo(
            f"Error: Weights & Biases: {why} (WANDB_MODE=offline logs to the folder of the run, "
            "--logger csv without Weights & Biases.)",
            err=True,
        )
        raise typer.Exit(WRONG) from None


def _text(error: Exception, if_interrupted: str) -> str:
    """Say what is wrong; of a full disk also how to go on."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" ({error.filename})" if error.filename else ""
        return f"the disk is full{where}: free some space. {if_interrupted}"
    return str(error)


@contextmanager
def warned_plainly() -> Iterator[None]:
    """Print warnings of ours as one line, without the source they come from."""
    usual = warnings.formatwarning

    def plain(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        # Ours are told where they are raised, or at the caller, which is typer.
        ours = PACKAGE in Path(filename).parents or "typer" in Path(filename).parts
        if issubclass(category, UserWarning) and ours:
            return f"Warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    with warnings.catch_warnings():
        for start in BESIDE_THE_POINT:
            warnings.filterwarnings("ignore", message=start)
        warnings.formatwarning = plain
        try:
            yield
        finally:
            warnings.formatwarning = usual
