"""What simple methods reach on the same task: the floors of every table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor

from alphastomics import _keys
from alphastomics.diffusion_model.transforms import ExpressionTransform
from alphastomics.model._data import (
    SetupArgs,
    read_categories,
    read_query,
    read_training,
)
from alphastomics.tl._score import placement_scores

Array = NDArray[np.float64]

KNN = (1, 10, 50)
RIDGE_ALPHA = 1000.0
MLP_HIDDEN, MLP_ALPHA = (64,), 30.0


def _regressors(n_train: int, seed: int) -> dict[str, Any]:
    knn = {
        f"knn{k}": KNeighborsRegressor(k, metric="cosine", algorithm="brute")
        for k in KNN
        if k <= n_train
    }
    mlp = MLPRegressor(
        hidden_layer_sizes=MLP_HIDDEN,
        alpha=MLP_ALPHA,
        early_stopping=True,
        max_iter=100,
        random_state=seed,
    )
    return {**knn, "ridge": Ridge(RIDGE_ALPHA), "mlp": mlp}


def _shuffle_within(true: Array, labels: NDArray[np.str_], rng: np.random.Generator) -> Array:
    """Deal true positions anew among the cells of each type."""
    shuffled = true.copy()
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shuffled[members] = true[rng.permutation(members)]
    return shuffled


def floor_positions(
    cells: AnnData, atlas: AnnData, setup: SetupArgs, seed: int
) -> Iterator[tuple[str, Array]]:
    """Name and coordinates ``(n, d)`` of every floor."""
    train = read_training(atlas, setup)
    n_dims = train.position.shape[1]
    categories = read_categories(atlas, setup)
    query = read_query(cells, setup, categories, atlas.var_names, n_dims)
    transform = ExpressionTransform(atlas.n_vars, setup.values)
    transform.fit([(train.expression, np.ones(atlas.n_vars, dtype=bool))])
    expression = {}
    for name, data in (("query", query), ("train", train)):
        values = torch.from_numpy(data.expression[:].toarray()).float()
        visible = torch.from_numpy(data.measured(np.arange(len(data.names))))
        expression[name] = (transform(values, visible) * visible).numpy()

    located = train.has_position
    sections = sorted(pd.unique(train.section[located]))
    centred = np.full_like(train.position, np.nan)
    for section in sections:
        members = located & (train.section == section)
        centred[members] = train.position[members] - train.position[members].mean(0)
    scale = np.sqrt(np.square(centred[located]).mean())  # of a coordinate

    rng = np.random.default_rng(seed)
    yield "random", rng.normal(size=(cells.n_obs, n_dims)) * scale
    if setup.labels_key is not None and query.has_position.any():
        labels = cells.obs[setup.labels_key].astype(str).to_numpy()
        yield "shuffled within cell type", _shuffle_within(query.position, labels, rng)

    fits = {"pooled": sections}
    if len(sections) > 1:
        fits.update({section: [section] for section in sections})
    for fit_name, used in fits.items():
        members = located & np.isin(train.section, used)
        for name, regressor in _regressors(int(members.sum()), seed).items():
            regressor.fit(expression["train"][members], centred[members] / scale)
            yield f"{name} ({fit_name})", regressor.predict(expression["query"]) * scale


def placement_floors(
    cells: AnnData,
    atlas: AnnData,
    *,
    layer: str | None = None,
    values: str = "counts",
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = _keys.SECTION,
    labels_key: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score what simple methods reach when they place cells.

    Random positions; true positions shuffled within cell type; and cosine k-nearest-neighbour
    (k = 1, 10, 50), ridge (alpha = 1000) and a small neural network (64 hidden units, L2 penalty
    30), each fitted on all sections of the atlas pooled and on every one alone, because sections
    that are not registered to each other handicap pooling. Both penalties are strong because that
    makes the floors higher on real sections.
    All see expression as the model does.

    Parameters
    ----------
    cells
        One section with true coordinates, to be placed. It is not changed.
    atlas
        Sections to fit on.
    layer, values, spatial_key, section_key, labels_key
        As in :meth:`alphastomics.AlphaSTomics.setup_anndata`.
    seed
        Of the random positions, the shuffling and the neural network.

    Returns
    -------
    DataFrame
        A row per floor, named by the method and the section it was fitted on, with the columns of
        :func:`score`.

    Examples
    --------
    >>> import alphastomics as al
    >>> tissue = al.datasets.simulate_tissue(n_sections=2, n_cells=100)
    >>> test = tissue.obs["section"] == "section_1"
    >>> atlas, cells = tissue[~test].copy(), tissue[test].copy()
    >>> floors = al.tl.placement_floors(cells, atlas)
    >>> bool(floors.loc["knn10 (pooled)", "distance_spearman"] > 0.2)
    True
    """
    setup = SetupArgs(layer, values, spatial_key, section_key, labels_key)
    true = np.asarray(cells.obsm[spatial_key], dtype=np.float64)
    labels = None if labels_key is None else cells.obs[labels_key].to_numpy()
    rows = {
        name: placement_scores(true, predicted, labels, seed=seed)
        for name, predicted in floor_positions(cells, atlas, setup, seed)
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "floor"
    return frame
