"""Figures."""

from alphastomics.pl._calibration import calibration
from alphastomics.pl._colors import PALETTE as PALETTE
from alphastomics.pl._expression import expression
from alphastomics.pl._importance import gene_importance
from alphastomics.pl._placement import displacement, uncertainty
from alphastomics.pl._positions import positions
from alphastomics.pl._reliability import reliability
from alphastomics.pl._training import history

__all__ = [
    "calibration",
    "displacement",
    "expression",
    "gene_importance",
    "history",
    "positions",
    "reliability",
    "uncertainty",
]
