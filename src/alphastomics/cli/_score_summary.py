"""The scores that ``test`` prints: a table of each section, with the meaning of its columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Printed scores of each task, the first of which sorts the methods, with what they mean.
SHOWN = {
    "placement": {
        "distance_spearman": "rank correlation of distances between cells; 1 is best",
        "procrustes_rmse": "error after superposition and scaling, in RMS radii;\n"
        "    0 is best, 1 is no better than all cells in the center",
        "rigid_rmse_units": "error after superposition without scaling, in {units}; 0 is best",
        "spread": "RMS radius of the positions over the true one; 1 is best",
    },
    "expression": {
        "pcc": "Pearson correlation of a gene, median over genes; 1 is best",
        "ssim": "structural similarity of a gene, median over genes; 1 is best",
    },
}
UNITS = "_units"  # suffix of scores in the units of the coordinates
NO_UNIT = "units of the coordinates"


def summary(table: pd.DataFrame, units: str | None) -> str:
    """Main scores of each task and section, the best method first, and their meaning.

    Parameters
    ----------
    table
        A row for every section, task and method.
    units
        Unit of the coordinates, if known.
    """
    parts = []
    for task, meanings in SHOWN.items():
        rows = table[table["task"] == task]
        scores = [score for score in meanings if score in rows]
        parts += [
            f"{task.capitalize()}, {name}:\n{_lines(section, scores)}"
            for name, section in rows.groupby("section", sort=True)
        ]
        if len(rows):
            meaning = "\n".join(f"  {_title(s)}: {meanings[s]}" for s in scores)
            parts.append(meaning.format(units=units or NO_UNIT))
    return "\n\n".join(parts)


def _title(score: str) -> str:
    return score.removesuffix(UNITS)


def _lines(section: pd.DataFrame, scores: list[str]) -> str:
    """Table of the methods of a section, which fits a terminal of 80 columns."""
    rows = section.sort_values(scores[0], ascending=False)
    pairs = zip(rows["kind"], rows["method"], strict=True)
    names = [f"model: {method}" if kind == "model" else method for kind, method in pairs]
    columns = [_column("method", names, str.ljust)]
    columns += [_column(_title(score), _numbers(score, rows[score]), str.rjust) for score in scores]
    return "\n".join(" ".join(cells) for cells in zip(*columns, strict=True))


def _column(title: str, cells: list[str], pad: Callable[[str, int], str]) -> list[str]:
    """Title and cells of a column, all of one width."""
    width = max(map(len, [title, *cells]))
    return [pad(cell, width) for cell in (title, *cells)]


def _numbers(score: str, values: pd.Series) -> list[str]:
    """Values with three decimals; in units, with those that three digits of the largest need."""
    decimals = 3
    if score.endswith(UNITS):
        decimals = max(0, 3 - len(str(int(values.fillna(0).max()))))
    return [f"{value:.{decimals}f}" for value in values]
