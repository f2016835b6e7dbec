"""Metrics on plain arrays, with their formulas and sources."""

import warnings
from typing import Any

from alphastomics.metrics._alignment import (
    consensus,
    generalized_procrustes,
    medoid,
    mirror_ambiguity,
    rms_radius,
    superpose,
    superpose_by,
)
from alphastomics.metrics._distribution import (
    density_coverage,
    energy_distance,
    energy_distance_by_type,
    mmd2,
    moment_distance,
)
from alphastomics.metrics._expression import expression_rmse, jensen_shannon, partial_pcc, pcc, ssim
from alphastomics.metrics._pattern import (
    composition_distance,
    lins_concordance,
    morans_i,
    nearest_neighbor_scores,
    neighborhood_composition,
    pair_correlation,
    pair_correlation_distance,
)
from alphastomics.metrics._placement import (
    contact_precision,
    coverage,
    distance_spearman,
    distance_spearman_per_cell,
    neighbor_recall,
    niche_cosine,
    procrustes_rmse,
    radius_scores,
    rssd,
    spread,
)
from alphastomics.metrics._two_sample import surroundings, two_sample_auc

__all__ = [
    "composition_distance",
    "consensus",
    "contact_precision",
    "coverage",
    "density_coverage",
    "distance_spearman",
    "distance_spearman_per_cell",
    "energy_distance",
    "energy_distance_by_type",
    "expression_rmse",
    "generalized_procrustes",
    "jensen_shannon",
    "lins_concordance",
    "medoid",
    "mirror_ambiguity",
    "mmd2",
    "moment_distance",
    "morans_i",
    "nearest_neighbor_scores",
    "neighbor_recall",
    "neighborhood_composition",
    "niche_cosine",
    "pair_correlation",
    "pair_correlation_distance",
    "partial_pcc",
    "pcc",
    "procrustes_rmse",
    "radius_scores",
    "rms_radius",
    "rssd",
    "spread",
    "ssim",
    "superpose",
    "superpose_by",
    "surroundings",
    "two_sample_auc",
]


def __getattr__(name: str) -> Any:
    """Names of version 0.1."""
    if name == "generalised_procrustes":
        warnings.warn(f"al.metrics.{name} is now generalized_procrustes.", DeprecationWarning, 2)
        return generalized_procrustes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
