"""Preprocessing of sections; the layer that the model reads is never normalized."""

from alphastomics.pp._filter_cells import filter_cells
from alphastomics.pp._highly_variable_genes import highly_variable_genes
from alphastomics.pp._intersect_genes import intersect_genes
from alphastomics.pp._normalize_positions import normalize_positions
from alphastomics.pp._split_sections import split_sections

__all__ = [
    "filter_cells",
    "highly_variable_genes",
    "intersect_genes",
    "normalize_positions",
    "split_sections",
]
