"""Metrics on plain arrays; formulas and sources are in the docstrings."""

from alphastomics.metrics._alignment import (
    consensus,
    generalised_procrustes,
    medoid,
    rms_radius,
    superpose,
    superpose_by,
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

__all__ = [
    "consensus",
    "contact_precision",
    "distance_spearman",
    "distance_spearman_per_cell",
    "generalised_procrustes",
    "medoid",
    "neighbor_recall",
    "niche_cosine",
    "procrustes_rmse",
    "rms_radius",
    "rssd",
    "spread",
    "superpose",
    "superpose_by",
]
