"""Help of the commands: plain text in groups, which fits a terminal of 80 columns."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

# Types as they are shown.
TYPES = {"<int range>": "<int>", "<list[str]>": "<str>"}


class Command(TyperCommand):
    """Command whose help lists its options in groups, with their names in full.

    The tables of rich cut names off in a terminal of 80 columns, so that they cannot be copied.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group of options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                names, text = record
                for found, shown in TYPES.items():
                    names = names.replace(found, shown)
                row = names, text
                groups.setdefault(_group(parameter), []).append(row)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _group(parameter: Any) -> str:
    """Title of the group of a parameter."""
    default = "Arguments" if parameter.param_type_name == "argument" else "Options"
    return getattr(parameter, "rich_help_panel", None) or default


def normalize_option(name: str) -> str:
    """Spelling of an option with ``_`` in place of ``-``."""
    return name.replace("-", "_")
