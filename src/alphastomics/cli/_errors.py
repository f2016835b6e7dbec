"""How commands end: what went wrong in one line, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

WRONG, INTERRUPTED = 2, 130


@contextmanager
def told_plainly(if_interrupted: str) -> Iterator[None]:
    """Turn errors of what a user gave into one line and exit code 2, Ctrl-C into 130."""
    try:
        yield
    except (ValueError, KeyError, OSError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        typer.echo(f"Error: {text}", err=True)
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
