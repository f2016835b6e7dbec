"""Warnings and errors of commands: one line of text, and an exit code."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import typer

from alphastomics._compat import MissingExtraError
from alphastomics._files import FULL

WRONG, INTERRUPTED, TERMINATED = 2, 130, 143
RETRY = 0.01  # seconds
OFFLINE = (
    "(WANDB_MODE=offline logs to the folder of the run, --logger csv without Weights & Biases.)"
)
USER_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    OSError,
    MemoryError,
    FloatingPointError,
    MissingExtraError,
)
PACKAGE = Path(__file__).parents[1]

# Warnings that a user of the commands can do nothing about.
IGNORED_WARNINGS = (
    "Training was stopped by",  # ours, for notebooks: the command says how to resume
    "'(n_jobs|show_progress_bar)' is not a valid key",  # squidpy's documentation
    "No data for colormapping",  # squidpy's points of one color
    "Stochastic Optimizer: Maximum iterations",  # the small network among the baselines
)

# Arguments in messages of the package, and the options that they come from.
OPTIONS = {
    " cells of adata are also in reference,": " cells of --input are also in --reference,",
    " are missing from adata ": " are missing from --input ",
}
ARGUMENT = re.compile(
    r"(?<![\w.(-])(reference|standardize|mode|estimate|values|layer)=(?:'(\w+)')?"
)


@dataclass
class Report:
    """Text at the end of a command if something goes wrong."""

    remedy: Callable[[], str]  # how to resume


@contextmanager
def report_errors(remedy: str) -> Iterator[Report]:
    """Turn errors in the input of a user into one line and exit code 2, signals into 130 and 143.

    The remedy, which may be changed meanwhile, is what to do after a signal or with a full disk.
    """
    report = Report(lambda: remedy)
    try:
        with format_warnings(), _exit_at_sigterm():
            yield report
        return
    except USER_ERRORS as error:
        text = f"Error: {_in_options(_describe(error, _remedy(error, report)))}"
        code = WRONG
    except KeyboardInterrupt as error:
        text, code = f"Interrupted. {_remedy(error, report)}", INTERRUPTED
    except SystemExit as error:
        if error.code != TERMINATED:
            raise
        text, code = f"Stopped by SIGTERM. {_remedy(error, report)}", TERMINATED
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "wandb":
            raise
        text, code = f"Error: Weights & Biases: {' '.join(str(error).split())} {OFFLINE}", WRONG
    typer.echo(text, err=True)
    raise typer.Exit(code)


def _in_options(text: str) -> str:
    """Message with arguments of functions in the spelling of options."""
    for argument, option in OPTIONS.items():
        text = text.replace(argument, option)
    return ARGUMENT.sub(lambda found: f"--{found[1]}" + (f" {found[2]}" if found[2] else ""), text)


def _remedy(error: BaseException, report: Report) -> str:
    """Remedy after an error: its notes, or else the remedy of the command."""
    return " ".join(getattr(error, "__notes__", [])) or report.remedy()


@contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that nothing is left half-written."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    def send_again(unraisable: sys.UnraisableHookArgs) -> None:
        # Raised where Python ignores exceptions, such as in a destructor.
        if unraisable.exc_type is SystemExit:
            threading.Timer(RETRY, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            hook(unraisable)

    usual, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    if usual != signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = send_again
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)
        sys.unraisablehook = hook


def _describe(error: Exception, remedy: str) -> str:
    """Text of an error; for a full disk also how to resume."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    text = str(error)
    if error.strerror:  # not one of ours
        where = f"{error.filename}: " if error.filename else ""
        full = "the disk is full: free some space." if error.errno in FULL else error.strerror
        text = f"{where}{full}"
    return f"{text} {remedy}" if error.errno in FULL else text


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
            return f"Warning: {_in_options(str(message))}\n"
        return usual(message, category, filename, lineno, line)

    with warnings.catch_warnings():
        for start in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=start)
        warnings.formatwarning = format_warning
        try:
            yield
        finally:
            warnings.formatwarning = usual
