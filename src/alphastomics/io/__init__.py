"""Raw data in, processed data out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alphastomics.io._files import DataError
    from alphastomics.io._manifest import Manifest, SectionEntry
    from alphastomics.io._processed import ProcessedData, ProcessedSection, open_data
    from alphastomics.io._raw import find_sections, read_sections
    from alphastomics.io._section import RawSection
    from alphastomics.io._spatialdata import add_positions, read_table
    from alphastomics.io._store import LazyRows, stack_rows

__all__ = [
    "DataError",
    "LazyRows",
    "Manifest",
    "ProcessedData",
    "ProcessedSection",
    "RawSection",
    "SectionEntry",
    "add_positions",
    "find_sections",
    "open_data",
    "read_sections",
    "read_table",
    "stack_rows",
]

# Imported at the first use of a name: `alphastomics info` reads a manifest without AnnData.
_MODULES = ("_files", "_manifest", "_processed", "_raw", "_section", "_spatialdata", "_store")


def __getattr__(name: str) -> Any:
    """Find a public name in the first module that has it."""
    if name in __all__:
        for module in _MODULES:
            found = importlib.import_module(f"alphastomics.io.{module}")
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"module 'alphastomics.io' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
