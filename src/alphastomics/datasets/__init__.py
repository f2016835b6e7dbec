"""Data sets for examples and tests."""

from alphastomics.datasets._public import merfish, seqfish, slideseqv2, visium_hne
from alphastomics.datasets._simulate import simulate_tissue

__all__ = ["merfish", "seqfish", "simulate_tissue", "slideseqv2", "visium_hne"]
