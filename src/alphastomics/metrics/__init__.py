"""Metrics on plain arrays; formulas and sources are in the docstrings."""

from alphastomics.metrics._alignment import (
    consensus,
    generalised_procrustes,
    medoid,
    rms_radius,
    superpose,
    superpose_by,
)
from alphastomics.metrics._distribution import (
    mmd2,
    moment_distance,
)
from alphastomics.metrics._expression import (
    expression_rmse,
    jensen_shannon,
    partial_pcc,
    pcc,
    ssim,
)
from alphastomics.metrics._mirror import mirror_ambiguity
from alphastomics.metrics._pattern import (
    composition_distance,
    lins_concordance,
    morans_i,
    neighborhood_composition,
)
from alphastomics.metrics._placement import (
    contact_precision,
    distance_spearman,
    distance_spearman_per_cell,
    neighbor_recall,
    niche_cosine,
    procrustes_rmse,
    rssd,
    spread,
)
from alphastomics.metrics._radius import (
    coverage,
    radius_scores,
)

__all__ = [
    "composition_distance",
    "consensus",
    "contact_precision",
    "coverage",
    "distance_spearman",
    "distance_spearman_per_cell",
    "expression_rmse",
    "generalised_procrustes",
    "jensen_shannon",
    "lins_concordance",
    "medoid",
    "mirror_ambiguity",
    "mmd2",
    "moment_distance",
    "morans_i",
    "neighbor_recall",
    "neighborhood_composition",
    "niche_cosine",
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
]
