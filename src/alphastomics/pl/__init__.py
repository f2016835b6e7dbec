"""Figures."""

from alphastomics.pl._positions import positions

__all__ = ["positions"]
