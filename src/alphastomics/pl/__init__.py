"""Figures."""

from alphastomics.pl._history import history
from alphastomics.pl._positions import positions

__all__ = ["history", "positions"]
