"""Warnings and errors of commands: one line of text, and an exit code."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from alphastomics._compat import MissingExtraError
from alphastomics._files import FULL

WRONG, INTERRUPTED = 2, 130
PACKAGE = Path(__file__).parents[1]

# Warnings of other packages that a user of the commands can do nothing about.
IGNORED_WARNINGS = (
    "'(n_jobs|show_progress_bar)' is not a valid key",  # squidpy's documentation
    "No data for colormapping",  # squidpy's points of one color
    "Stochastic Optimizer: Maximum iterations",  # the small network among the baselines
)


@contextmanager
def report_errors(if_interrupted: str) -> Iterator[None]:
    """Turn errors in the input of a user into one line and exit code 2, Ctrl-C into 130."""
    text, code = "", WRONG
    try:
        with format_warnings():
            yield
        return
    except (ValueError, KeyError, OSError, FloatingPointError, MissingExtraError) as error:
        text = f"Error: {_describe(error, if_interrupted)}"
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns Ctrl-C into SystemExit.
        if KeyboardInterrupt not in (type(error), type(error.__context__)):
            raise
        text, code = f"Interrupted. {if_interrupted}", INTERRUPTED
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "wandb":
            raise
        text = (
            f"Error: Weights & Biases: {' '.join(str(error).split())} (WANDB_MODE=offline logs to "
            "the folder of the run, --logger csv without Weights & Biases.)"
        )
    typer.echo(text, err=True)
    raise typer.Exit(code)


def _describe(error: Exception, if_interrupted: str) -> str:
    """Text of an error; of a full disk also how to go on."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" ({error.filename})" if error.filename else ""
        return f"the disk is full{where}: free some space. {if_interrupted}"
    return str(error)


@contextmanager
def format_warnings() -> Iterator[None]:
    """Print warnings of this package as one line, without the source they come from."""
    usual = warnings.formatwarning

    def format_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        # Warnings of this package name the file that raises them, or its caller, which is typer.
        ours = PACKAGE in Path(filename).parents or "typer" in Path(filename).parts
        if issubclass(category, UserWarning) and ours:
            return f"Warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    with warnings.catch_warnings():
        for start in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=start)
        warnings.formatwarning = format_warning
        try:
            yield
        finally:
            warnings.formatwarning = usual
