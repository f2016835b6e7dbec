"""Scores of drawn sections as distributions, and of the references to read them against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from alphastomics import _keys, metrics
from alphastomics._anndata import Mask
from alphastomics._validate import check_at_least
from alphastomics.metrics._alignment import Array
from alphastomics.metrics._draws import MIN_CELLS_OF_AUC
from alphastomics.model._data import Categories, CellTable, SetupArgs, read_query, read_training
from alphastomics.tl._floors import _shuffle_within
from alphastomics.tl._score import score_table, scored_sections, true_positions

Cells = NDArray[np.int64]

DENSITY_NEIGHBORS, NICHE_NEIGHBORS = 5, 20
CLIP = 10.0  # standard deviations of a gene
N_ANGLES = 72
ALIGNED_CELLS = 500  # of each section, when rotations are compared
ALIGNED_TYPE_CELLS = 5  # of a type, among those


@dataclass(frozen=True)
class _Section:
    """Cells of one section: positions ``(n, d)``, expression ``(n, G)``, labels ``(n,)``."""

    positions: Array
    expression: Array
    labels: NDArray[np.str_] | None

    def take(self, cells: Mask | Cells) -> _Section:
        """Section of some of the cells."""
        labels = None if self.labels is None else self.labels[cells]
        return _Section(self.positions[cells], self.expression[cells], labels)


def _depths(data: CellTable, cells: Cells, genes: Mask) -> Array:
    """Total counts of cells over genes, at least 1, ``(n,)``."""
    total = np.asarray(data.expression[cells][:, genes].sum(1), dtype=np.float64)
    return np.maximum(total.ravel(), 1)


def _read_section(
    data: CellTable,
    cells: Cells,
    genes: Mask,
    values: str,
    depth: float,
    labels: pd.Series | None,
) -> _Section:
    """Positions, labels and log-normalized expression of cells; counts per ``depth`` counts."""
    X = np.asarray(data.expression[cells][:, genes].toarray(), dtype=np.float64)
    if values == "counts":
        X *= (depth / _depths(data, cells, genes))[:, None]
    return _Section(
        data.position[cells],
        X if values == "lognorm" else np.log1p(X),
        None if labels is None else labels.to_numpy()[cells].astype(str),
    )


def _shape_scores(true: _Section, drawn: _Section, seed: int) -> dict[str, float]:
    """Scores that need no common frame."""
    enough = min(len(true.positions), len(drawn.positions)) >= MIN_CELLS_OF_AUC
    auc = (
        metrics.two_sample_auc(
            true.positions, true.expression, drawn.positions, drawn.expression, seed=seed
        )
        if enough
        else float("nan")
    )
    return {
        **metrics.nearest_neighbor_scores(true.positions, drawn.positions),
        "pair_correlation": metrics.pair_correlation_distance(true.positions, drawn.positions),
        "two_sample_auc": auc,
    }


def _frame_scores(true: _Section, drawn: _Section, seed: int) -> dict[str, float]:
    """Scores of sections in one frame."""
    scores = {
        "energy_distance": metrics.energy_distance(true.positions, drawn.positions, seed=seed)
    }
    if true.labels is not None and drawn.labels is not None:
        scores["energy_distance_by_type"] = metrics.energy_distance_by_type(
            true.positions, drawn.positions, true.labels, drawn.labels, seed=seed
        )
    k = min(DENSITY_NEIGHBORS, len(true.positions) - 1)
    return {**scores, **metrics.density_coverage(true.positions, drawn.positions, k)}


def _distribution_scores(true: _Section, drawn: _Section, seed: int) -> dict[str, float]:
    return {**_frame_scores(true, drawn, seed), **_shape_scores(true, drawn, seed)}


def _draw_scores(
    true: _Section, positions: Array, allow_reflection: bool, seed: int
) -> dict[str, float]:
    """All scores of positions ``(n, d)`` drawn for the cells of the true section."""
    moved = metrics.superpose(positions, true.positions, allow_reflection=allow_reflection)
    scores = _distribution_scores(true, replace(true, positions=moved), seed)
    scores["distance_spearman"] = metrics.distance_spearman(true.positions, positions, seed=seed)
    scores["procrustes_rmse"] = metrics.procrustes_rmse(true.positions, positions)
    if true.labels is not None:
        k = min(NICHE_NEIGHBORS, len(positions) - 1)
        scores[f"niche_cosine@{NICHE_NEIGHBORS}"] = metrics.niche_cosine(
            true.positions, positions, true.labels, k, seed=seed
        )
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
    seed: int = 0,
) -> pd.DataFrame:
    """Score drawn coordinates against true ones as distributions, section by section.

    Each drawn section is first superposed on the true one by shift, rotation and, by option, mirror
    image, but not scale. Read the scores beside those of :func:`draw_baselines`.

    Parameters
    ----------
    adata
        Cells with expression, true and drawn coordinates.
    key
        Name in ``.obsm`` of one draw's coordinates ``(n_cells, n_dims)``, or several names.
    spatial_key
        Name in ``.obsm`` of the true coordinates; rows of NaN are left out.
    section_key
        Name in ``.obs`` of the section; ``None`` when all cells are one section.
    labels_key
        Name in ``.obs`` of cell types, for ``energy_distance_by_type`` and ``niche_cosine@20``.
    layer
        Layer with the expression values; ``None`` for ``.X``.
    values
        What they are: ``"counts"`` (taken at log1p of counts per median total of the section),
        ``"lognorm"`` (as they are) or ``"intensity"`` (at log1p).
    allow_reflection
        Whether a drawn section may be mirrored.
    seed
        Of the cells that are scored of larger sections, and of the classifier.

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
    keys = [key] if isinstance(key, str) else list(key)
    positions = true_positions(adata, spatial_key, keys)
    sections = scored_sections(adata, positions, spatial_key, section_key, labels_key)
    setup = SetupArgs(layer, values, spatial_key, section_key, None)
    data = read_query(adata, setup, Categories(), adata.var_names, positions.shape[1])
    genes = np.asarray(data.panels.all(0))
    labels = None if labels_key is None else adata.obs[labels_key]
    rows = {}
    for name, cells in sections:
        depth = float(np.median(_depths(data, cells, genes)))
        true = _read_section(data, cells, genes, values, depth, labels)
        for drawn_key in keys:
            drawn = np.asarray(adata.obsm[drawn_key], dtype=np.float64)[cells]
            rows[drawn_key, name] = _draw_scores(true, drawn, allow_reflection, seed)
    return score_table(rows)


def _standardized(query: Array, training: Array) -> tuple[Array, Array]:
    """Both in standard deviations of the training cells; genes constant in those are 0."""
    mean, sd = training.mean(0), training.std(0)
    scale = np.where(sd > 0, sd, np.inf)
    z = [np.clip((X - mean) / scale, -CLIP, CLIP) for X in (query, training)]
    return z[0], z[1]


def _choose_similar(
    query: Array, candidates: Array, n_similar: int, rng: np.random.Generator
) -> Cells:
    """For each query cell a random one of its most similar candidates by cosine, ``(n,)``."""
    search = NearestNeighbors(
        n_neighbors=min(n_similar, len(candidates)), metric="cosine", algorithm="brute"
    )
    near = search.fit(candidates).kneighbors(query, return_distance=False)
    return np.asarray(near[np.arange(len(near)), rng.integers(near.shape[1], size=len(near))])


def _rotations(allow_reflection: bool) -> Iterator[Array]:
    for angle in np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES):
        c, s = np.cos(angle), np.sin(angle)
        for mirror in (1, -1) if allow_reflection else (1,):
            yield np.array([[mirror * c, mirror * s], [-s, c]])


def _align_sections(
    moving: _Section, fixed: _Section, allow_reflection: bool, rng: np.random.Generator
) -> Array:
    """Positions ``(n, 2)`` of another section in the frame of ``fixed``.

    The centers coincide, and the rotation is the one of 72 (and their mirror images) with the least
    energy distance by type. Only its cross term changes with the rotation.
    """
    center = fixed.positions.mean(0)
    M, F = (
        section.take(rng.choice(n, min(n, ALIGNED_CELLS), replace=False))
        for section, n in ((moving, len(moving.positions)), (fixed, len(fixed.positions)))
    )
    M_centered, F_centered = M.positions - moving.positions.mean(0), F.positions - center
    pairs = [(M_centered, F_centered)]
    if M.labels is not None and F.labels is not None:
        by_type = [
            (M_centered[M.labels == name], F_centered[F.labels == name])
            for name in np.intersect1d(M.labels, F.labels)
        ]
        pairs = [p for p in by_type if min(map(len, p)) >= ALIGNED_TYPE_CELLS] or pairs
    best = min(
        _rotations(allow_reflection),
        key=lambda R: np.mean([cdist(m @ R, f).mean() for m, f in pairs]),
    )
    return np.asarray((moving.positions - moving.positions.mean(0)) @ best + center)


def _real_section_scores(
    true: _Section, other: _Section, allow_reflection: bool, seed: int
) -> dict[str, float]:
    """Scores of another real section, whose cells are others."""
    if true.positions.shape[1] != 2:
        scores = _shape_scores(true, other, seed)
    else:
        rng = np.random.default_rng(seed)
        moved = _align_sections(other, true, allow_reflection, rng)
        scores = _distribution_scores(true, replace(other, positions=moved), seed)
    return {**scores, "n_cells": len(other.positions)}


def _half_scores(true: _Section, seed: int) -> dict[str, float]:
    """Scores of a random half of the true cells against the other half."""
    half = np.random.default_rng(seed).permutation(len(true.positions)) % 2 == 0
    scores = _distribution_scores(true.take(half), true.take(~half), seed)
    return {**scores, "n_cells": int((~half).sum())}


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
    seed: int = 0,
) -> pd.DataFrame:
    """Score what simple draws and real tissue reach, to read :func:`score_draws` against.

    - ``similar cells (<section>)``: every cell at the place of a random one of its 20 most similar
      cells in one training section, by cosine of expression, standardized over all training cells.
    - ``shuffled within type``: the true positions, shuffled within each cell type.
    - ``halves of the truth``: one random half of the true cells against the other.
    - ``real section (<section>)``: a training section as it is, not scaled. In 2D its center is put
      on the true one and it is turned to the least energy distance by cell type among 72 rotations
      and their mirror images; in 3D it is not, and scores that need a common frame are NaN.

    The last two hold other cells, so that scores of a cell's own place are NaN.

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
        Similar cells to choose from.
    seed
        Of choices, shuffling, halves, and as in :func:`score_draws`.

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
    check_at_least("n_similar", n_similar, 1)
    positions = true_positions(adata, spatial_key)
    sections = scored_sections(adata, positions, spatial_key, section_key, labels_key)
    if labels_key is not None and labels_key not in atlas.obs:
        raise KeyError(f"{labels_key!r} is not in atlas.obs, which holds {list(atlas.obs)}.")
    setup = SetupArgs(layer, values, spatial_key, section_key, None)
    training = read_training(atlas, setup)
    query = read_query(adata, setup, Categories(), atlas.var_names, positions.shape[1])
    genes = np.asarray(query.panels.all(0) & training.panels.all(0))
    located = np.flatnonzero(training.has_position)
    labels, atlas_labels = (
        None if labels_key is None else data.obs[labels_key] for data in (adata, atlas)
    )
    rows = {}
    for name, cells in sections:
        depth = float(np.median(_depths(query, cells, genes)))
        true = _read_section(query, cells, genes, values, depth, labels)
        reference = _read_section(training, located, genes, values, depth, atlas_labels)
        for baseline, scores in _baseline_scores(
            true, reference, training.section[located], allow_reflection, n_similar, seed
        ):
            rows[baseline, name] = scores
    return score_table(rows)


def _baseline_scores(
    true: _Section,
    reference: _Section,
    reference_section: NDArray[np.str_],
    allow_reflection: bool,
    n_similar: int,
    seed: int,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Name and scores of every baseline of one section."""
    rng = np.random.default_rng(seed)
    sections = {name: reference_section == name for name in sorted(pd.unique(reference_section))}
    z, z_reference = _standardized(true.expression, reference.expression)
    for name, members in sections.items():
        chosen = _choose_similar(z, z_reference[members], n_similar, rng)
        drawn = reference.positions[members][chosen]
        yield f"similar cells ({name})", _draw_scores(true, drawn, allow_reflection, seed)
    if true.labels is not None:
        shuffled = _shuffle_within(true.positions, true.labels, rng)
        yield "shuffled within type", _draw_scores(true, shuffled, allow_reflection, seed)
    yield "halves of the truth", _half_scores(true, seed)
    for name, members in sections.items():
        scores = _real_section_scores(true, reference.take(members), allow_reflection, seed)
        yield f"real section ({name})", scores
