"""Baselines of placement and of sampled sections, scored like the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor

from alphastomics import _keys
from alphastomics._anndata import sections_of
from alphastomics._coordinates import point_set
from alphastomics._validate import check_integer, check_seed
from alphastomics.diffusion_model.transforms import ExpressionTransform
from alphastomics.metrics._arrays import Array, Labels
from alphastomics.model._data import Categories, CellTable, SetupArgs, read_query, read_training
from alphastomics.tl._coordinates import sections_if_named
from alphastomics.tl._draws import (
    Section,
    SectionReader,
    distribution_scores,
    draw_scores,
    shape_scores,
)
from alphastomics.tl._expression_baselines import choose_neighbors, similar_cells
from alphastomics.tl._score import (
    NO_LABEL,
    placement_scores,
    read_labels,
    score_table,
    scored_sections,
)

KNN = (1, 10, 50)
RIDGE_ALPHA = 1000.0
MLP_HIDDEN, MLP_ALPHA = (64,), 30.0

CLIP = 10.0  # standard deviations of a gene
N_ANGLES = 72
ALIGNED_CELLS = 500  # of each section, when rotations are compared
ALIGNED_TYPE_CELLS = 5  # of a type, among those


def _regressors(n_train: int, seed: int) -> dict[str, Any]:
    regressors: dict[str, Any] = {
        f"knn{k}": KNeighborsRegressor(k, metric="cosine", algorithm="brute")
        for k in KNN
        if k <= n_train
    }
    regressors["ridge"] = Ridge(RIDGE_ALPHA)
    regressors["mlp"] = MLPRegressor(
        hidden_layer_sizes=MLP_HIDDEN,
        alpha=MLP_ALPHA,
        early_stopping=True,
        max_iter=100,
        random_state=seed,
    )
    return regressors


def _shuffle_within(true: Array, labels: Labels, rng: np.random.Generator) -> Array:
    """Shuffle true positions among the cells of each type, and among those without one."""
    shuffled = true.copy()
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shuffled[members] = true[rng.permutation(members)]
    return shuffled


def _transformed_expression(transform: ExpressionTransform, table: CellTable) -> NDArray[Any]:
    """Expression ``(n, G)`` as the model receives it."""
    values = torch.from_numpy(table.expression[:].toarray()).float()
    measured = torch.from_numpy(table.measured(np.arange(len(table.names))))
    return (transform(values, measured) * measured).numpy()


def _placements(
    query: CellTable, train: CellTable, values: str, labels: Labels | None, seed: int
) -> Iterator[tuple[str, Array]]:
    """Name and coordinates ``(n, d)`` of every baseline of cells with true positions."""
    n_genes, n_dims = train.expression.shape[1], train.position.shape[1]
    transform = ExpressionTransform(n_genes, values)
    transform.fit([(train.expression, np.ones(n_genes, dtype=bool))])
    expression, train_expression = (_transformed_expression(transform, t) for t in (query, train))

    located = train.has_position
    sections = sorted(pd.unique(train.section[located]))
    centered = np.full_like(train.position, np.nan)
    for section in sections:
        members = located & (train.section == section)
        centered[members] = train.position[members] - train.position[members].mean(0)
    scale = np.sqrt(np.square(centered[located]).mean())  # of a coordinate

    rng = np.random.default_rng(seed)
    yield "random", rng.normal(size=(len(query.names), n_dims)) * scale
    if labels is not None:
        yield "shuffled within cell type", _shuffle_within(query.position, labels, rng)

    fits = {"pooled": sections}
    if len(sections) > 1:
        fits.update({section: [section] for section in sections})
    for fit_name, used in fits.items():
        members = located & np.isin(train.section, used)
        for name, regressor in _regressors(int(members.sum()), seed).items():
            with warnings.catch_warnings():  # a network of 100 iterations is what is compared with
                warnings.simplefilter("ignore", ConvergenceWarning)
                regressor.fit(train_expression[members], centered[members] / scale)
            yield f"{name} ({fit_name})", regressor.predict(expression) * scale


def placement_baselines(
    cells: AnnData,
    atlas: AnnData,
    *,
    layer: str | None = None,
    values: str = "counts",
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = _keys.SECTION,
    labels_key: str | None = None,
    align: bool = True,
    seed: int | None = None,
) -> pd.DataFrame:
    """Score baselines of placement.

    Random positions; true positions shuffled within cell type; and cosine k-nearest-neighbor
    regression (k = 1, 10, 50), ridge regression (alpha = 1000) and a small neural network (64
    hidden units, L2 penalty 30), each fitted to all sections of the atlas together and to each
    section alone, because sections are not registered to each other. Both penalties are strong,
    which was measured to be best on real sections. All use the expression that the model receives.

    Parameters
    ----------
    cells
        One section with true coordinates to place; rows of NaN are left out. Not changed.
    atlas
        Sections to fit the baselines to.
    layer, values, spatial_key, section_key, labels_key
        As in :meth:`alphastomics.AlphaSTomics.setup_anndata`.
    align
        As in :func:`score`: ``False`` where the atlas is the reference that the cells are placed
        into, in the frame of the cells.
    seed
        Of the random positions, the shuffling and the neural network; ``None`` for
        ``al.settings.seed``.

    Returns
    -------
    DataFrame
        A row per baseline, named by the method and the section it was fitted to, with the columns
        of :func:`score`.

    Examples
    --------
    >>> import alphastomics as al
    >>> tissue = al.datasets.simulate_tissue(n_sections=2, n_cells=100)
    >>> test = tissue.obs["section"] == "section_1"
    >>> atlas, cells = tissue[~test].copy(), tissue[test].copy()
    >>> baselines = al.tl.placement_baselines(cells, atlas)
    >>> bool(baselines.loc["knn10 (pooled)", "distance_spearman"] > 0.2)
    True
    """
    seed = check_seed(seed)
    true = point_set(cells, spatial_key, "spatial_key", where="cells")
    section = sections_if_named(cells, section_key)
    scored = scored_sections(true, section, f"cells.obsm[{spatial_key!r}]")
    if len(scored) > 1:
        names = [name for name, _ in scored]
        raise ValueError(
            f"cells holds {len(names)} sections, {names[:5]}, whose frames differ: pass one at a "
            f"time, such as cells[cells.obs[{section_key!r}] == {names[0]!r}].copy()."
        )
    (_, located), labels = scored[0], read_labels(cells, labels_key, "cells")
    setup = SetupArgs(layer, values, spatial_key, section_key, None)
    train = read_training(atlas, setup)
    n_dims = train.position.shape[1]
    query = read_query(cells, setup, Categories(), atlas.var_names, n_dims, "cells")
    if len(located) < len(true):
        query, true = query.subset(located), true[located]
        labels = None if labels is None else labels[located]
    rows = {
        name: placement_scores(true, predicted, labels, align=align, seed=seed)
        for name, predicted in _placements(query, train, values, labels, seed)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("baseline")


def _standardized(query: Array, training: Array) -> tuple[Array, Array]:
    """Both in standard deviations of the training cells; genes constant in those are 0."""
    mean, sd = training.mean(0), training.std(0)
    scale = np.where(sd > 0, sd, np.inf)
    z = [np.clip((X - mean) / scale, -CLIP, CLIP) for X in (query, training)]
    return z[0], z[1]


def _rotations(allow_reflection: bool) -> Iterator[Array]:
    for angle in np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES):
        c, s = np.cos(angle), np.sin(angle)
        for mirror in (1, -1) if allow_reflection else (1,):
            yield np.array([[mirror * c, mirror * s], [-s, c]])


def _align_sections(
    moving: Section, fixed: Section, allow_reflection: bool, rng: np.random.Generator
) -> Array:
    """Positions ``(n, 2)`` of another section, centered and turned onto ``fixed``."""
    center, moving_center = fixed.positions.mean(0), moving.positions.mean(0)
    M, F = (
        section.take(rng.choice(n, min(n, ALIGNED_CELLS), replace=False))
        for section, n in ((moving, len(moving.positions)), (fixed, len(fixed.positions)))
    )
    M_centered, F_centered = M.positions - moving_center, F.positions - center
    pairs = [(M_centered, F_centered)]
    if M.labels is not None and F.labels is not None:
        by_type = [
            (M_centered[M.labels == name], F_centered[F.labels == name])
            for name in np.intersect1d(M.labels, F.labels)
            if name != NO_LABEL
        ]
        pairs = [p for p in by_type if min(map(len, p)) >= ALIGNED_TYPE_CELLS] or pairs
    # Of the energy distance by type only this, the cross term, changes with the rotation.
    best = min(
        _rotations(allow_reflection),
        key=lambda R: np.mean([cdist(m @ R, f).mean() for m, f in pairs]),
    )
    return np.asarray((moving.positions - moving_center) @ best + center)


def _real_section_scores(
    true: Section, other: Section, allow_reflection: bool, seed: int
) -> dict[str, float]:
    """Scores of another real section, of other cells."""
    if true.positions.shape[1] != 2:
        scores = shape_scores(true, other, seed)
    else:
        moved = _align_sections(other, true, allow_reflection, np.random.default_rng(seed))
        scores = distribution_scores(true, replace(other, positions=moved), seed)
    return {**scores, "n_cells": len(other.positions)}


def _scored_draws(
    true: Section,
    training: Section,
    section_of: NDArray[np.str_],
    allow_reflection: bool,
    n_similar: int,
    seed: int,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Name and scores of every baseline of a section; ``section_of`` training cells ``(n,)``."""
    rng = np.random.default_rng(seed)
    sections = {name: section_of == name for name in sorted(pd.unique(section_of))}
    z, z_training = _standardized(true.expression, training.expression)
    for name, members in sections.items():
        chosen = choose_neighbors(similar_cells(z, z_training[members], n_similar), rng)
        drawn = training.positions[members][chosen]
        yield f"similar cells ({name})", draw_scores(true, drawn, allow_reflection, seed)
    if true.labels is not None:
        shuffled = _shuffle_within(true.positions, true.labels, rng)
        yield "shuffled within type", draw_scores(true, shuffled, allow_reflection, seed)
    half = np.random.default_rng(seed).permutation(len(true.positions)) % 2 == 0
    scores = distribution_scores(true.take(half), true.take(~half), seed)
    yield "halves of the truth", {**scores, "n_cells": int((~half).sum())}
    for name, members in sections.items():
        scores = _real_section_scores(true, training.take(members), allow_reflection, seed)
        yield f"real section ({name})", scores


def draw_baselines(
    adata: AnnData,
    atlas: AnnData,
    *,
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = _keys.SECTION,
    labels_key: str | None = None,
    layer: str | None = None,
    values: str = "counts",
    allow_reflection: bool = True,
    n_similar: int = 20,
    seed: int | None = None,
) -> pd.DataFrame:
    """Score baselines of sampled sections and real tissue, for comparison with :func:`score_draws`.

    - ``similar cells (<section>)``: every cell at the position of a random one of its 20 most
      similar cells in one training section, by cosine similarity of expression, standardized over
      all training cells.
    - ``shuffled within type``: the true positions, shuffled within each cell type.
    - ``halves of the truth``: one random half of the true cells against the other.
    - ``real section (<section>)``: a training section, not scaled. In 2D it is centered on the true
      section and rotated to the least energy distance by cell type among 72 rotations and their
      mirror images; in 3D it is not, and scores that need a common frame are NaN.

    The last two consist of other cells, so that scores of the position of a cell are NaN.

    Parameters
    ----------
    adata
        Sections to place, with true coordinates; rows of NaN are left out. Not changed.
    atlas
        Training sections. Genes are matched by name; those that both measure are used.
    spatial_key, section_key, labels_key, layer, values
        As in :func:`score_draws`, for both.
    allow_reflection
        Whether a section may be mirrored.
    n_similar
        Number of similar cells to choose from.
    seed
        Of choices, shuffling and halves; as in :func:`score_draws`.

    Returns
    -------
    DataFrame
        A row per baseline and section of ``adata``, with the index and the columns of
        :func:`score_draws`, so that the two can be concatenated.

    Examples
    --------
    >>> import alphastomics as al
    >>> tissue = al.datasets.simulate_tissue(n_sections=2, n_cells=100)
    >>> test = tissue.obs["section"] == "section_1"
    >>> atlas, cells = tissue[~test].copy(), tissue[test].copy()
    >>> baselines = al.tl.draw_baselines(cells, atlas)
    >>> baselines.index.get_level_values("key").tolist()
    ['similar cells (section_0)', 'halves of the truth', 'real section (section_0)']
    """
    n_similar, seed = check_integer("n_similar", n_similar, 1), check_seed(seed)
    positions = point_set(adata, spatial_key, "spatial_key")
    section = sections_of(adata, section_key)
    sections = scored_sections(positions, section, f"adata.obsm[{spatial_key!r}]")
    labels = read_labels(adata, labels_key)
    setup = SetupArgs(layer, values, spatial_key, section_key, None)
    training = read_training(atlas, setup)
    atlas_labels = read_labels(atlas, labels_key, "atlas")
    query = read_query(adata, setup, Categories(), atlas.var_names, positions.shape[1])
    genes = np.asarray(query.panels.all(0) & training.panels.all(0))
    located = np.flatnonzero(training.has_position)
    of_query, of_training = (
        SectionReader(table, types, values, genes)
        for table, types in ((query, labels), (training, atlas_labels))
    )
    rows = {}
    for name, cells in sections:
        depth = of_query.median_depth(cells)
        for baseline, scores in _scored_draws(
            of_query.read(cells, depth),
            of_training.read(located, depth),
            training.section[located],
            allow_reflection,
            n_similar,
            seed,
        ):
            rows[baseline, name] = scores
    return score_table(rows)
