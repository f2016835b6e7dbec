"""The checks of user input, which :mod:`alphastomics._validate` shares with all rooms."""

from alphastomics._validate import (
    MIN_CELLS,
    VALUES,
    check_adata,
    check_at_least,
    check_choice,
    check_position_rows,
    check_positions,
    check_section,
    check_share,
    check_values,
)

__all__ = [
    "MIN_CELLS",
    "VALUES",
    "check_adata",
    "check_at_least",
    "check_choice",
    "check_position_rows",
    "check_positions",
    "check_section",
    "check_share",
    "check_values",
]
