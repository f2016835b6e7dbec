"""Figures."""

from alphastomics.pl._calibration import calibration
from alphastomics.pl._displacement import displacement
from alphastomics.pl._experts import experts
from alphastomics.pl._expression import expression
from alphastomics.pl._history import history
from alphastomics.pl._positions import positions
from alphastomics.pl._uncertainty import uncertainty

__all__ = [
    "calibration",
    "displacement",
    "experts",
    "expression",
    "history",
    "positions",
    "uncertainty",
]
