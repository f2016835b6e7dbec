"""Data sets to learn and test with."""

from alphastomics.datasets._simulate import simulate_tissue

__all__ = ["simulate_tissue"]
