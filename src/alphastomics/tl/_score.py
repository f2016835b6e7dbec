"""Scores of predicted coordinates and of predicted expression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from alphastomics import _keys, metrics
from alphastomics._anndata import sections_of
from alphastomics.metrics._arrays import Array
from alphastomics.metrics._expression import centered, expression_pair
from alphastomics.tl._coordinates import read_coordinates

MORAN_NEIGHBORS = 6


def placement_scores(
    true: ArrayLike, predicted: ArrayLike, labels: ArrayLike | None = None, *, seed: int = 0
) -> dict[str, float]:
    """All placement metrics of one section, by name; ``n_cells`` with them."""
    n = len(np.asarray(true))
    per_cell = metrics.distance_spearman_per_cell(true, predicted, seed=seed)
    near, share = min(20, n - 1), max(1, round(0.01 * n))
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
        "neighbor_recall@20": metrics.neighbor_recall(true, predicted, near, seed=seed),
        "neighbor_recall@1%": metrics.neighbor_recall(true, predicted, share, seed=seed),
        "contact_precision@1%": metrics.contact_precision(true, predicted, 0.01, seed=seed),
        "contact_precision@10%": metrics.contact_precision(true, predicted, 0.1, seed=seed),
        "rssd": rssd,
        "rssd/sqrt_n": rssd / np.sqrt(n),
        "spread": metrics.spread(true, predicted),
    }
    if labels is not None:
        scores["niche_cosine@20"] = metrics.niche_cosine(true, predicted, labels, near, seed=seed)
    return {**scores, "n_cells": n}


def scored_sections(
    adata: AnnData, true: Array, spatial_key: str, section_key: str | None, labels_key: str | None
) -> list[tuple[str, NDArray[np.int64]]]:
    """Name and cells with true coordinates ``(n_section,)`` of every section, after checks."""
    section = sections_of(adata, section_key)
    if labels_key is not None and labels_key not in adata.obs:
        raise KeyError(f"{labels_key!r} is not in adata.obs, which holds {list(adata.obs)}.")
    located = ~np.isnan(true).any(1)
    if not located.any():
        raise ValueError(f"adata.obsm[{spatial_key!r}] is NaN for every cell: nothing to score.")
    sections = []
    for name in map(str, pd.unique(section[located])):
        cells = np.flatnonzero(located & (section == name))
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
    true = read_coordinates(adata, spatial_key, "spatial_key")
    keys = [key] if isinstance(key, str) else list(key)
    predicted = {name: read_coordinates(adata, name) for name in keys}
    rows = {}
    for name, cells in scored_sections(adata, true, spatial_key, section_key, labels_key):
        labels = None if labels_key is None else adata.obs[labels_key].to_numpy()[cells]
        for generated, points in predicted.items():
            rows[generated, name] = placement_scores(true[cells], points[cells], labels, seed=seed)
    return score_table(rows)


def expression_scores(
    true: ArrayLike,
    predicted: ArrayLike,
    positions: ArrayLike | None = None,
    visible_mean: ArrayLike | None = None,
    *,
    moran_neighbors: int = MORAN_NEIGHBORS,
) -> dict[str, float]:
    """All expression metrics of one section, by name.

    Pass the hidden cells (or the hidden genes) only: a section that is mostly known hides every
    difference. Genes that are constant in ``true`` have nothing to predict and are left out.

    Parameters
    ----------
    true, predicted
        Log-normalized expression of the same cells and genes, shape ``(n_cells, n_genes)``; for
        imputed genes, normalized on the visible genes only. ``true`` is not negative.
    positions
        Coordinates of the cells, shape ``(n_cells, n_dims)``, for Moran's I.
    visible_mean
        Mean of each cell's visible genes, shape ``(n_cells,)``, for the partial correlation.
    moran_neighbors
        Neighbors of a cell in Moran's I; all others where there are fewer.

    Returns
    -------
    dict
        Medians over genes ``"pcc"``, ``"ssim"``, ``"rmse"``, ``"js"``, with ``"pcc_mean"``, the
        mean; with ``visible_mean`` also ``"partial_pcc"`` and ``"partial_pcc_mean"``; with
        ``positions`` also ``"moran_concordance"`` (Lin's, over genes), ``"moran_difference"``
        (mean absolute) and the medians ``"moran_true"`` and ``"moran_predicted"``; ``"n_cells"``
        and ``"n_genes"``.

    Examples
    --------
    >>> import numpy as np
    >>> true = np.random.default_rng(0).poisson(2, size=(100, 5))
    >>> scores = expression_scores(true, true + 1)
    >>> round(scores["pcc"], 6), scores["n_genes"]
    (1.0, 5)
    """
    X, Y = expression_pair(true, predicted)
    varies = centered(X).any(0)
    if not varies.any():
        raise ValueError("true is constant in every gene: there is nothing to score.")
    X, Y = X[:, varies], Y[:, varies]
    pcc = metrics.pcc(X, Y)
    scores = {
        "pcc": float(np.median(pcc)),
        "pcc_mean": float(pcc.mean()),
        "ssim": float(np.median(metrics.ssim(X, Y))),
        "rmse": float(np.median(metrics.expression_rmse(X, Y))),
        "js": float(np.median(metrics.jensen_shannon(X, Y))),
    }
    if visible_mean is not None:
        partial = metrics.partial_pcc(X, Y, visible_mean)
        scores["partial_pcc"] = float(np.median(partial))
        scores["partial_pcc_mean"] = float(partial.mean())
    if positions is not None:
        k = min(moran_neighbors, len(X) - 1)
        moran, moran_hat = (metrics.morans_i(values, positions, k) for values in (X, Y))
        scores["moran_concordance"] = metrics.lins_concordance(moran, moran_hat)
        scores["moran_difference"] = float(np.abs(moran - moran_hat).mean())
        scores["moran_true"] = float(np.median(moran))
        scores["moran_predicted"] = float(np.median(moran_hat))
    return {**scores, "n_cells": len(X), "n_genes": X.shape[1]}
