"""Scores of a model on held-out sections, beside simple methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics.io import ProcessedData, ProcessedSection
from alphastomics.metrics import radius_scores
from alphastomics.model import AlphaSTomics
from alphastomics.tl import expression_floors, expression_scores, placement_floors
from alphastomics.tl._score import placement_scores

ATLAS_CELLS = 20_000  # that the simple methods are fitted on
HIDDEN_SHARE = 0.2  # of the cells whose expression is predicted

Row = dict[str, Any]


def read_section(section: ProcessedSection, genes: pd.Index) -> ad.AnnData:
    """Read a section with its expression, the genes that the model reads."""
    cells = ad.AnnData(
        section.expression[:], obs=section.obs.copy(), var=pd.DataFrame(index=section.genes)
    )
    if section.position is not None:
        cells.obsm[_keys.SPATIAL] = section.position
    cells.obs[_keys.SECTION] = section.name
    measured = section.genes[section.measured]
    return cells[:, genes[genes.isin(measured)]].copy()


def read_atlas(data: ProcessedData, genes: pd.Index) -> ad.AnnData:
    """Read training sections, until there are enough cells for simple methods."""
    parts: list[ad.AnnData] = []
    for section in data.sections("train"):
        if sum(part.n_obs for part in parts) >= ATLAS_CELLS and parts:
            break
        if section.entry.has_coordinates and section.measured.all():
            parts.append(read_section(section, genes))
    atlas = ad.concat(parts, index_unique="-", keys=[str(i) for i in range(len(parts))])
    return atlas[:, genes].copy()


def score_placement(
    model: AlphaSTomics, cells: ad.AnnData, atlas: ad.AnnData, *, labels_key: str | None, seed: int
) -> list[Row]:
    """Place the cells of a section without their coordinates, and score where they come to lie.

    Writes the placed coordinates into ``cells``.
    """
    true = np.asarray(cells.obsm[_keys.SPATIAL], dtype=np.float64)
    query = cells.copy()
    del query.obsm[_keys.SPATIAL]
    model.predict(query, progress_bar=False)
    model.sample(query, seed=seed, progress_bar=False)
    labels = None if labels_key is None else cells.obs[labels_key].to_numpy()
    rows = []
    for method, key in (("predict", _keys.PREDICTED), ("sample", _keys.SAMPLED)):
        cells.obsm[key] = query.obsm[key]
        scores = placement_scores(true, query.obsm[key], labels, seed=seed)
        radius = key + _keys.RADIUS_SUFFIX
        if radius in query.obs:
            cells.obs[radius] = query.obs[radius]
            scores |= radius_scores(true, query.obsm[key], query.obs[radius])
        rows.append({"task": "placement", "kind": "model", "method": method, **scores})
    if not atlas.n_obs:
        return rows
    floors = placement_floors(
        cells, atlas, values=model._setup.values, labels_key=labels_key, seed=seed
    )
    rows += [
        {"task": "placement", "kind": "floor", "method": str(method), **scores}
        for method, scores in floors.iterrows()
    ]
    return rows


def score_expression(model: AlphaSTomics, cells: ad.AnnData, *, seed: int) -> list[Row]:
    """Hide the expression of some cells of a section and score what is filled in for them."""
    hidden = np.random.default_rng(seed).random(cells.n_obs) < HIDDEN_SHARE
    transform = model.module.expression_transform.cpu()
    values = torch.from_numpy(np.asarray(cells.X.toarray(), dtype=np.float32))
    true = transform.log(values, torch.ones_like(values, dtype=torch.bool)).numpy()
    query = cells.copy()
    query.X = cells.X.multiply(~hidden[:, None]).tocsr()
    query.obs[_keys.EXPRESSION_KNOWN] = ~hidden
    model.predict(query, progress_bar=False)
    model.sample(query, seed=seed, progress_bar=False)
    place = np.asarray(cells.obsm[_keys.SPATIAL], dtype=np.float64)

    def estimates() -> Iterator[tuple[str, str, NDArray[np.float64]]]:
        layers = (("predict", _keys.EXPRESSION_PREDICTED), ("sample", _keys.EXPRESSION_SAMPLED))
        for method, layer in layers:
            yield "model", method, np.asarray(query.layers[layer])[hidden]
        floors = expression_floors(place[~hidden], true[~hidden], place[hidden], seed=seed)
        for method, filled in floors:
            yield "floor", method, filled

    return [
        {
            "task": "expression",
            "kind": kind,
            "method": method,
            **expression_scores(true[hidden], filled, place[hidden]),
        }
        for kind, method, filled in estimates()
    ]
