"""Raw data in, processed data out."""

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
