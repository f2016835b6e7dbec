"""Tools: scores and floors."""

from alphastomics.tl._expression_floors import (
    expression_floors,
    imputation_floors,
    leave_one_out_bandwidth,
)
from alphastomics.tl._expression_score import expression_scores
from alphastomics.tl._floors import placement_floors
from alphastomics.tl._score import score

__all__ = [
    "expression_floors",
    "expression_scores",
    "imputation_floors",
    "leave_one_out_bandwidth",
    "placement_floors",
    "score",
]
