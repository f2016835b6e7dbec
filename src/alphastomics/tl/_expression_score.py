"""How well predicted expression reproduces the true one, in one table row."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from alphastomics import metrics
from alphastomics.metrics._alignment import Array
from alphastomics.metrics._expression import centered, expression_pair

MORAN_NEIGHBORS = 6


def _moran_scores(true: Array, predicted: Array, positions: ArrayLike, k: int) -> dict[str, float]:
    k = min(k, len(true) - 1)
    moran, moran_hat = (metrics.morans_i(values, positions, k) for values in (true, predicted))
    return {
        "moran_concordance": metrics.lins_concordance(moran, moran_hat),
        "moran_difference": float(np.abs(moran - moran_hat).mean()),
        "moran_true": float(np.median(moran)),
        "moran_predicted": float(np.median(moran_hat)),
    }


def expression_scores(
    true: ArrayLike,
    predicted: ArrayLike,
    positions: ArrayLike | None = None,
    visible_mean: ArrayLike | None = None,
    *,
    moran_neighbors: int = MORAN_NEIGHBORS,
) -> dict[str, float]:
    """All expression metrics of one section, by name.

    Hand over the hidden cells (or the hidden genes) only: a section that is mostly known hides
    every difference. Genes that are constant in ``true`` have nothing to predict and are left out.

    Parameters
    ----------
    true, predicted
        Log-normalised expression of the same cells and genes, shape ``(n_cells, n_genes)``; for
        imputed genes, normalised on the visible genes only. ``true`` is not negative.
    positions
        Coordinates of the cells, shape ``(n_cells, n_dims)``, for Moran's I.
    visible_mean
        Mean of each cell's visible genes, shape ``(n_cells,)``, for the partial correlation.
    moran_neighbors
        Neighbours of a cell in Moran's I; all others where there are fewer.

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
        scores.update(_moran_scores(X, Y, positions, moran_neighbors))
    return {**scores, "n_cells": len(X), "n_genes": X.shape[1]}
