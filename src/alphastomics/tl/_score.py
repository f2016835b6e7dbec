"""Scores of predicted coordinates and of predicted expression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from alphastomics import _keys, metrics
from alphastomics._anndata import as_names, name_list, obs_column, sections_of
from alphastomics._compat import warn
from alphastomics._coordinates import SMALLEST, Points, is_known, point_set
from alphastomics._validate import check_integer, check_seed
from alphastomics.metrics._arrays import Labels, label_text
from alphastomics.metrics._expression import centered, expression_pair
from alphastomics.tl._coordinates import read_placed

MORAN_NEIGHBORS, NICHE_NEIGHBORS = 6, 20
NO_LABEL = ""  # of a cell whose type is missing
LEAST = 3  # cells of a section that can be scored


def placement_scores(
    true: ArrayLike,
    predicted: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    align: bool = True,
    seed: int = 0,
) -> dict[str, float]:
    """All placement metrics of one section, by name, and ``n_cells``.

    ``labels`` are as of :func:`read_labels`; ``align`` is as of :func:`score`.
    """
    n = len(np.asarray(true))
    per_cell = metrics.distance_spearman_per_cell(true, predicted, seed=seed)
    near, share = min(NICHE_NEIGHBORS, n - 1), max(1, round(0.01 * n))
    rssd = metrics.rssd(true, predicted)
    scores = {
        "distance_spearman": float(per_cell.mean()),
        "distance_spearman_median": float(np.median(per_cell)),
        **(superposed_errors(true, predicted) if align else errors_in_frame(true, predicted)),
        "neighbor_recall@20": metrics.neighbor_recall(true, predicted, near, seed=seed),
        "neighbor_recall@1%": metrics.neighbor_recall(true, predicted, share, seed=seed),
        "contact_precision@1%": metrics.contact_precision(true, predicted, 0.01, seed=seed),
        "contact_precision@10%": metrics.contact_precision(true, predicted, 0.1, seed=seed),
        "rssd": rssd,
        "rssd/sqrt_n": rssd / np.sqrt(n),
        "spread": metrics.spread(true, predicted),
    }
    if labels is not None:
        scores |= niche_score(true, predicted, labels, seed)
    return {**scores, "n_cells": n}


def superposed_errors(true: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Root mean squared errors after superposition, with a scale and without."""
    return {
        "procrustes_rmse": metrics.procrustes_rmse(true, predicted),
        "procrustes_rmse_units": metrics.procrustes_rmse(true, predicted, relative=False),
        "rigid_rmse": metrics.procrustes_rmse(true, predicted, allow_scale=False),
        "rigid_rmse_units": metrics.procrustes_rmse(
            true, predicted, allow_scale=False, relative=False
        ),
    }


def errors_in_frame(true: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Errors of positions as they are, relative to the RMS radius of the section and in units."""
    T, P = (np.asarray(points, dtype=np.float64) for points in (true, predicted))
    distance = np.linalg.norm(P - T, axis=1)
    rmse = float(np.sqrt(np.square(distance).mean()))
    return {
        "rmse": rmse / metrics.rms_radius(T),
        "rmse_units": rmse,
        "median_error_units": float(np.median(distance)),
    }


def niche_score(
    true: ArrayLike, predicted: ArrayLike, labels: ArrayLike, seed: int
) -> dict[str, float]:
    """Agreement of the types around cells that have one; NaN where fewer than two have."""
    types = label_text(labels)
    T, P = (np.asarray(points)[types != NO_LABEL] for points in (true, predicted))
    score, k = float("nan"), min(NICHE_NEIGHBORS, len(T) - 1)
    if k > 0:
        score = metrics.niche_cosine(T, P, types[types != NO_LABEL], k, seed=seed)
    return {f"niche_cosine@{NICHE_NEIGHBORS}": score}


def read_labels(adata: AnnData, labels_key: str | None, where: str = "adata") -> Labels | None:
    """Type of each cell as text ``(n_cells,)``, :data:`NO_LABEL` where it is missing."""
    if labels_key is None:
        return None
    column = obs_column(adata, labels_key, "labels_key", where=where)
    return np.where(column.isna(), NO_LABEL, as_names(column)).astype(str)


def scored_sections(
    true: Points, section: NDArray[np.str_], where: str
) -> list[tuple[str, NDArray[np.int64]]]:
    """Name and cells with true coordinates ``(n_section,)`` of every section.

    Parameters
    ----------
    true, section
        Coordinates ``(n_cells, n_dims)``, NaN rows where missing, and sections ``(n_cells,)``.
    where
        Where the coordinates are, for messages.
    """
    located = is_known(true)
    if not located.any():
        raise ValueError(f"{where} is NaN for every cell: nothing to score.")
    sections = []
    for name in map(str, pd.unique(section[located])):
        cells = np.flatnonzero(located & (section == name))
        if len(cells) < LEAST:
            raise ValueError(
                f"section {name!r} has {len(cells)} cells with true coordinates, but at least "
                f"{LEAST} are needed to score it: drop the section."
            )
        if np.ptp(true[cells], axis=0).max() < SMALLEST:
            raise ValueError(
                f"{where} is the same for all {len(cells)} cells of section {name!r}: there is no "
                "size to measure by."
            )
        sections.append((name, cells))
    return sections


def read_scored(
    adata: AnnData, key: str | Sequence[str], spatial_key: str, section_key: str | None
) -> tuple[Points, list[tuple[str, str, NDArray[np.int64], Points]]]:
    """True coordinates; and section, key, cells and generated coordinates of each score.

    Cells that were not placed are left out with a warning.
    """
    true = point_set(adata, spatial_key, "spatial_key")
    section = sections_of(adata, section_key)
    keys = name_list("key", key)
    if not keys:
        raise ValueError("key is empty: name the coordinates to score.")
    placed = {name: read_placed(adata, name, true, spatial_key) for name in keys}
    scored = []
    for name, cells in scored_sections(true, section, f"adata.obsm[{spatial_key!r}]"):
        for generated, points in placed.items():
            known = cells[is_known(points)[cells]]
            if len(known) < LEAST:
                raise ValueError(
                    f"adata.obsm[{generated!r}] has a position of {len(known)} of {len(cells)} "
                    f"cells of section {name!r}, but at least {LEAST} are needed to score it."
                )
            if len(known) < len(cells):
                warn(
                    f"{len(cells) - len(known)} of {len(cells)} cells of section {name!r} have no "
                    f"position in adata.obsm[{generated!r}] and are left out."
                )
            scored.append((name, generated, known, points[known]))
    return true, scored


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
    align: bool = True,
    seed: int | None = None,
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
        Name in ``.obs`` of cell types, for ``niche_cosine@20``; cells without a type are left out.
    align
        Whether to superpose the generated coordinates on the true ones for the squared errors, as
        for cells that were placed without a frame. ``False`` for cells that were placed into a
        reference: columns ``rmse`` (in RMS radii of the section), ``rmse_units`` and
        ``median_error_units`` replace ``procrustes_rmse``, ``rigid_rmse`` and their ``_units``. All
        other columns are the same in every frame.
    seed
        Of the 2,000 cells that are scored of larger sections; ``None`` for ``al.settings.seed``.

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
    seed = check_seed(seed)
    true, scored = read_scored(adata, key, spatial_key, section_key)
    labels = read_labels(adata, labels_key)
    rows = {}
    for name, generated, cells, points in scored:
        types = None if labels is None else labels[cells]
        rows[generated, name] = placement_scores(true[cells], points, types, align=align, seed=seed)
    return score_table(rows)


def expression_scores(
    true: ArrayLike,
    predicted: ArrayLike,
    positions: ArrayLike | None = None,
    visible_mean: ArrayLike | None = None,
    *,
    moran_neighbors: int = MORAN_NEIGHBORS,
) -> dict[str, float]:
    """Expression metrics of one section, by name.

    Pass the hidden cells or the hidden genes only: known values would hide the differences between
    methods. Genes that are constant in ``true`` are left out.

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
    check_integer("moran_neighbors", moran_neighbors, 1)
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
