"""Tools: frames, neighbours, uncertainty, scores and floors."""

from alphastomics.tl._draws import draw_baselines, score_draws
from alphastomics.tl._expression_floors import (
    expression_floors,
    imputation_floors,
    leave_one_out_bandwidth,
)
from alphastomics.tl._expression_score import expression_scores
from alphastomics.tl._floors import placement_floors
from alphastomics.tl._neighbors import neighbors
from alphastomics.tl._score import score
from alphastomics.tl._superpose import superpose
from alphastomics.tl._uncertainty import uncertainty

__all__ = [
    "draw_baselines",
    "expression_floors",
    "expression_scores",
    "imputation_floors",
    "leave_one_out_bandwidth",
    "neighbors",
    "placement_floors",
    "score",
    "score_draws",
    "superpose",
    "uncertainty",
]
