"""Scores of sampled sections as distributions of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys, metrics
from alphastomics._anndata import Mask
from alphastomics._validate import check_seed
from alphastomics.metrics._arrays import Array, Labels
from alphastomics.metrics._two_sample import MIN_CELLS_OF_AUC
from alphastomics.model._data import Categories, CellTable, SetupArgs, read_query
from alphastomics.tl._score import NO_LABEL, niche_score, read_labels, read_scored, score_table

Cells = NDArray[np.int64]
DENSITY_NEIGHBORS = 5


@dataclass(frozen=True)
class Section:
    """Cells of one section: positions ``(n, d)``, expression ``(n, G)``, labels ``(n,)``.

    A label is :data:`~alphastomics.tl._score.NO_LABEL` where it is missing.
    """

    positions: Array
    expression: Array
    labels: Labels | None

    def take(self, cells: Mask | Cells) -> Section:
        """Section of the given cells."""
        labels = None if self.labels is None else self.labels[cells]
        return Section(self.positions[cells], self.expression[cells], labels)


@dataclass(frozen=True)
class SectionReader:
    """Reader of sections that log-normalizes their expression over the same ``genes (G,)``."""

    table: CellTable
    labels: Labels | None
    values: str
    genes: Mask

    def _depths(self, cells: Cells) -> Array:
        total = np.asarray(self.table.expression[cells][:, self.genes].sum(1), dtype=np.float64)
        return np.maximum(total.ravel(), 1)

    def median_depth(self, cells: Cells) -> float:
        """Median total of cells over the genes."""
        return float(np.median(self._depths(cells)))

    def read(self, cells: Cells, depth: float) -> Section:
        """Read cells; counts are taken per ``depth`` counts."""
        X = np.asarray(self.table.expression[cells][:, self.genes].toarray(), dtype=np.float64)
        if self.values == "counts":
            X *= (depth / self._depths(cells))[:, None]
        return Section(
            self.table.position[cells],
            X if self.values == "lognorm" else np.log1p(X),
            None if self.labels is None else self.labels[cells],
        )


def shape_scores(true: Section, drawn: Section, seed: int) -> dict[str, float]:
    """Scores that need no common frame."""
    auc = float("nan")
    if min(len(true.positions), len(drawn.positions)) >= MIN_CELLS_OF_AUC:
        auc = metrics.two_sample_auc(
            true.positions, true.expression, drawn.positions, drawn.expression, seed=seed
        )
    return {
        **metrics.nearest_neighbor_scores(true.positions, drawn.positions),
        "pair_correlation": metrics.pair_correlation_distance(true.positions, drawn.positions),
        "two_sample_auc": auc,
    }


def distribution_scores(true: Section, drawn: Section, seed: int) -> dict[str, float]:
    """Scores of sections in one frame, whose cells need not correspond."""
    P, Q = true.positions, drawn.positions
    scores = {"energy_distance": metrics.energy_distance(P, Q, seed=seed)}
    if true.labels is not None and drawn.labels is not None:
        typed, typed_drawn = true.labels != NO_LABEL, drawn.labels != NO_LABEL
        scores["energy_distance_by_type"] = float("nan")
        if typed.any() and typed_drawn.any():
            scores["energy_distance_by_type"] = metrics.energy_distance_by_type(
                P[typed], Q[typed_drawn], true.labels[typed], drawn.labels[typed_drawn], seed=seed
            )
    scores |= metrics.density_coverage(P, Q, min(DENSITY_NEIGHBORS, len(P) - 1))
    return {**scores, **shape_scores(true, drawn, seed)}


def draw_scores(
    true: Section, positions: Array, allow_reflection: bool, seed: int
) -> dict[str, float]:
    """All scores of positions ``(n, d)`` drawn for the cells of the true section."""
    moved = metrics.superpose(positions, true.positions, allow_reflection=allow_reflection)
    scores = distribution_scores(true, replace(true, positions=moved), seed)
    scores["distance_spearman"] = metrics.distance_spearman(true.positions, positions, seed=seed)
    scores["procrustes_rmse"] = metrics.procrustes_rmse(true.positions, positions)
    if true.labels is not None:
        scores |= niche_score(true.positions, positions, true.labels, seed)
    return {**scores, "n_cells": len(positions)}


def score_draws(
    adata: AnnData,
    key: str | Sequence[str] = _keys.SAMPLED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = _keys.SECTION,
    labels_key: str | None = None,
    layer: str | None = None,
    values: str = "counts",
    allow_reflection: bool = True,
    seed: int | None = None,
) -> pd.DataFrame:
    """Score sampled coordinates against true ones as distributions, section by section.

    Each sampled section is first superposed on the true one by shift, rotation and, by option,
    mirror image, without scaling. Compare the scores with those of :func:`draw_baselines`.

    Parameters
    ----------
    adata
        Cells with expression, true and sampled coordinates.
    key, spatial_key, section_key
        As in :func:`score`.
    labels_key
        Name in ``.obs`` of cell types, for ``energy_distance_by_type`` and ``niche_cosine@20``;
        cells without a type are left out of these.
    layer
        Layer with the expression values; ``None`` for ``.X``.
    values
        Kind of the values: ``"counts"`` (log1p of counts per median total of the section),
        ``"lognorm"`` (unchanged) or ``"intensity"`` (log1p).
    allow_reflection
        Whether a sampled section may be mirrored.
    seed
        Of the cells that are scored of larger sections, and of the classifier; ``None`` for
        ``al.settings.seed``.

    Returns
    -------
    DataFrame
        A row per key and section. Columns ``energy_distance``, ``energy_distance_by_type``,
        ``density`` and ``coverage`` (5 neighbors), ``nn_ratio``, ``nn_ks``, ``pair_correlation``,
        ``two_sample_auc`` (gradient boosting; NaN below 42 cells), ``distance_spearman``,
        ``procrustes_rmse`` and ``niche_cosine@20``, each named by its function in
        :mod:`alphastomics.metrics`; ``n_cells``.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=100)
    >>> cells.obsm["spatial_sampled"] = -cells.obsm["spatial"]
    >>> scores = al.tl.score_draws(cells, labels_key="cell_type").iloc[0]
    >>> float(scores["nn_ratio"].round(6)), float(scores["coverage"])
    (1.0, 1.0)
    """
    seed = check_seed(seed)
    true, scored = read_scored(adata, key, spatial_key, section_key)
    labels = read_labels(adata, labels_key)
    setup = SetupArgs(layer, values, spatial_key, section_key, None)
    table = read_query(adata, setup, Categories(), adata.var_names, true.shape[1])
    reader = SectionReader(table, labels, values, np.asarray(table.panels.all(0)))
    rows = {}
    for name, drawn, cells, points in scored:
        section = reader.read(cells, reader.median_depth(cells))
        rows[drawn, name] = draw_scores(section, points, allow_reflection, seed)
    return score_table(rows)
