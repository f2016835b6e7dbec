"""Tools: frames, neighbors, uncertainty, importance of genes, scores and baselines."""

import warnings
from typing import Any

from alphastomics.tl._baselines import draw_baselines, placement_baselines
from alphastomics.tl._coordinates import neighbors, superpose, uncertainty
from alphastomics.tl._draws import score_draws
from alphastomics.tl._expression_baselines import (
    expression_baselines,
    imputation_baselines,
    leave_one_out_bandwidth,
)
from alphastomics.tl._importance import gene_importance
from alphastomics.tl._score import expression_scores, score

__all__ = [
    "draw_baselines",
    "expression_baselines",
    "expression_scores",
    "gene_importance",
    "imputation_baselines",
    "leave_one_out_bandwidth",
    "neighbors",
    "placement_baselines",
    "score",
    "score_draws",
    "superpose",
    "uncertainty",
]


def __getattr__(name: str) -> Any:
    """Names of version 0.1, ``*_floors``."""
    new = name.replace("_floors", "_baselines")
    if new == name or new not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"al.tl.{name} is now al.tl.{new}.", DeprecationWarning, stacklevel=2)
    return globals()[new]
