"""Description of an AnnData file: its sections, its keys, and the command to go on with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from alphastomics.cli._labels import label_column
from alphastomics.io import find_sections
from alphastomics.io._anndata_files import keys_of

if TYPE_CHECKING:
    from alphastomics.io import RawSection

NAMED = 10  # sections, and keys of a kind


def describe_cells(path: Path) -> str:
    """Describe an AnnData file in a few lines, without reading its expression."""
    sections = find_sections(path)
    genes = {gene for section in sections for gene in section.genes}
    n_cells = sum(section.n_cells for section in sections)
    noun = "section" if len(sections) == 1 else "sections"
    lines = [f"AnnData: {n_cells:,} cells, {len(genes):,} genes, {len(sections):,} {noun}"]
    lines += [_line(section) for section in sections[:NAMED]]
    lines += [f"  ... and {len(sections) - NAMED:,} more"] * (len(sections) > NAMED)
    keys = {"obs": list(sections[0].columns), **keys_of(path)}
    lines += [f"  {kind}: {_names(found)}" for kind, found in keys.items() if found]
    return "\n".join([*lines, f"Next: {_next_command(path, sections)}"])


def _line(section: RawSection) -> str:
    unit = f" in {section.units}" if section.units else ""
    where = "no coordinates" if section.n_dims is None else f"{section.n_dims}D{unit}"
    return f"  {section.name}: {section.n_cells:,} cells, {where}"


def _names(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _next_command(path: Path, sections: list[RawSection]) -> str:
    """Command that takes the file: preprocessing where cells have coordinates, else prediction."""
    file = shlex.quote(str(path))
    if all(section.n_dims is None for section in sections):
        return f"alphastomics predict --checkpoint outputs/NAME --input {file}"
    label = label_column(sections[0].columns)
    labels = "" if label is None else f" --labels_key {shlex.quote(label)}"
    return f"alphastomics preprocess --raw_dir {file} --output_dir processed_data{labels}"
