"""Columns of ``obs`` that look like cell types, for hints."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

# Names of cell types, in small letters without "_", "-", " " and "."; the most specific one first.
LABELS = (
    *("celltype", "celltypes", "celltypeannotation", "cellclass", "cellsubclass", "subclass"),
    *("annotation", "annotations", "annot", "class", "cluster", "clusters", "clustername"),
    *("clusterlabel", "leiden", "louvain", "labels", "label"),
)
BLANKS = str.maketrans("", "", "_-. ")


def label_column(columns: Iterable[str]) -> str | None:
    """Column that looks like cell types, if there is one."""
    by_name = {column.lower().translate(BLANKS): column for column in columns}
    return next((by_name[name] for name in LABELS if name in by_name), None)


def label_hint(columns: Iterable[str]) -> str:
    """Hint how to name the cell types; empty if no column looks like them."""
    column = label_column(columns)
    if column is None:
        return ""
    option = f"--labels_key {shlex.quote(column)}"
    return f"Column {column!r} of obs looks like cell types: name it by {option}"
