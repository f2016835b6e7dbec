"""How well coordinates in ``.obsm`` reproduce true ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from alphastomics import _keys, metrics
from alphastomics.metrics._alignment import Array

ONE_PERCENT = 0.01


def placement_scores(
    true: ArrayLike, predicted: ArrayLike, labels: ArrayLike | None = None, *, seed: int = 0
) -> dict[str, float]:
    """All placement metrics of one section, by name; ``n_cells`` with them."""
    n = len(np.asarray(true))
    per_cell = metrics.distance_spearman_per_cell(true, predicted, seed=seed)
    share = max(1, round(ONE_PERCENT * n))
    rssd = metrics.rssd(true, predicted)
    scores = {
        "distance_spearman": float(per_cell.mean()),
        "distance_spearman_median": float(np.median(per_cell)),
        "procrustes_rmse": metrics.procrustes_rmse(true, predicted),
        "procrustes_rmse_units": metrics.procrustes_rmse(true, predicted, relative=False),
        "rigid_rmse": metrics.procrustes_rmse(true, predicted, allow_scale=False),
        "rigid_rmse_units": metrics.procrustes_rmse(
            true, predicted, allow_scale=False, relative=False
        ),
        "neighbor_recall@20": metrics.neighbor_recall(true, predicted, min(20, n - 1), seed=seed),
        "neighbor_recall@1%": metrics.neighbor_recall(true, predicted, share, seed=seed),
        "contact_precision@1%": metrics.contact_precision(true, predicted, 0.01, seed=seed),
        "contact_precision@10%": metrics.contact_precision(true, predicted, 0.1, seed=seed),
        "rssd": rssd,
        "rssd/sqrt_n": rssd / np.sqrt(n),
        "spread": metrics.spread(true, predicted),
    }
    if labels is not None:
        scores["niche_cosine@20"] = metrics.niche_cosine(
            true, predicted, labels, min(20, n - 1), seed=seed
        )
    return {**scores, "n_cells": n}


def true_positions(adata: AnnData, spatial_key: str, keys: Sequence[str] = ()) -> Array:
    """Read true coordinates ``(n_cells, d)``; raise unless those of ``keys`` are there too."""
    for name in (spatial_key, *keys):
        if name not in adata.obsm:
            raise KeyError(
                f"{name!r} is not in adata.obsm, which holds {sorted(adata.obsm)}: run "
                "model.predict or model.sample first, or correct the key."
            )
    return np.asarray(adata.obsm[spatial_key], dtype=np.float64)


def scored_sections(
    adata: AnnData, true: Array, spatial_key: str, section_key: str | None, labels_key: str | None
) -> list[tuple[str, NDArray[np.int64]]]:
    """Name and cells with true coordinates ``(n_section,)`` of every section, after checks."""
    for column in (section_key, labels_key):
        if column is not None and column not in adata.obs:
            raise KeyError(f"{column!r} is not in adata.obs, which holds {list(adata.obs)}.")
    section = np.full(adata.n_obs, "all") if section_key is None else adata.obs[section_key]
    located = ~np.isnan(true).any(1)
    if not located.any():
        raise ValueError(f"adata.obsm[{spatial_key!r}] is NaN for every cell: nothing to score.")
    sections = []
    for name in map(str, pd.unique(np.asarray(section)[located].astype(str))):
        cells = np.flatnonzero(located & (np.asarray(section).astype(str) == name))
        if len(cells) < 3:
            raise ValueError(
                f"section {name!r} has {len(cells)} cells with true coordinates, but at least 3 "
                "are needed to score it: drop the section."
            )
        sections.append((name, cells))
    return sections


def score_table(rows: dict[tuple[str, str], dict[str, float]]) -> pd.DataFrame:
    """Table of scores with a row per key and section."""
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index = frame.index.set_names(["key", "section"])
    return frame


def score(
    adata: AnnData,
    key: str | Sequence[str] = _keys.PREDICTED,
    *,
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = _keys.SECTION,
    labels_key: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score generated coordinates against true ones, section by section.

    Parameters
    ----------
    adata
        Cells with true and generated coordinates.
    key
        Name in ``.obsm`` of the generated coordinates ``(n_cells, n_dims)``, or several names.
    spatial_key
        Name in ``.obsm`` of the true coordinates; rows of NaN are left out.
    section_key
        Name in ``.obs`` of the section; ``None`` when all cells are one section.
    labels_key
        Name in ``.obs`` of cell types, for ``niche_cosine@20``.
    seed
        Of the 2,000 cells that are scored of larger sections.

    Returns
    -------
    DataFrame
        A row per key and section, a column per metric of :mod:`alphastomics.metrics`.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=100)
    >>> cells.obsm["spatial_predicted"] = cells.obsm["spatial"] @ [[0, 1], [1, 0]]
    >>> float(al.tl.score(cells)["distance_spearman"].round(6).iloc[0])
    1.0
    """
    keys = [key] if isinstance(key, str) else list(key)
    true = true_positions(adata, spatial_key, keys)
    rows = {}
    for name, cells in scored_sections(adata, true, spatial_key, section_key, labels_key):
        labels = None if labels_key is None else adata.obs[labels_key].to_numpy()[cells]
        for generated in keys:
            predicted = np.asarray(adata.obsm[generated], dtype=np.float64)[cells]
            rows[generated, name] = placement_scores(true[cells], predicted, labels, seed=seed)
    return score_table(rows)
