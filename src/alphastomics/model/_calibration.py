"""From an error scale to a radius that holds 90 % of the cells: conformal calibration."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alphastomics.metrics import superpose
from alphastomics.model._filling import Array
from alphastomics.model._prediction import predict_missing
from alphastomics.model._request import Request
from alphastomics.model._sampling import N_STEPS, draw_missing
from alphastomics.model._tissue import TissueData
from alphastomics.model._training import TrainingRecord

if TYPE_CHECKING:
    from alphastomics.model._model import AlphaSTomics

LEVEL = 0.9
MAX_FOLDS = 4
REFERENCE_SHARE = 0.5
MAX_SET = 2048

Ratios = dict[tuple[str, str], list[Array]]  # (pattern, method) -> one array a section


def conformal_quantile(ratios: list[Array], level: float = LEVEL) -> float:
    """Quantile of error ÷ scale that holds ``level`` of the cells, each section counting the same.

    Split conformal prediction (Vovk et al. 2005; Lei et al. 2018, JASA 113, 1094) with a
    normalised score: if a new section is like those held out, a share ``level`` of its cells has
    an error below the quantile times its scale.
    """
    values = np.concatenate(ratios)
    weight = np.concatenate([np.full(len(r), 1 / len(r)) for r in ratios]) / len(ratios)
    order = np.argsort(values)
    n = min(len(r) for r in ratios)
    wanted = min(level * (n + 1) / n, 1.0)
    reached = int(np.searchsorted(np.cumsum(weight[order]), wanted))
    return float(values[order[min(reached, len(values) - 1)]])


def _requests(data: TissueData, seed: int) -> Iterator[tuple[str, Request]]:
    """One section to be placed: with nothing known, and given a random half of itself."""
    rng = np.random.default_rng(seed)
    n = len(data.names)
    half = data.has_position & (rng.permutation(n) < round(REFERENCE_SHARE * n))
    for pattern, known in (("unframed", np.zeros(n, dtype=bool)), ("framed", half)):
        yield pattern, Request(data, n, known, data.expression_known, True, False)


def section_ratios(model: AlphaSTomics, data: TissueData, patterns: tuple[str, ...]) -> Ratios:
    """Error ÷ scale of every cell of one held-out section, for a mean and for a draw."""
    init = model._init_arguments()
    options = model._draw_options(1, N_STEPS, init["seed"])
    ratios: Ratios = {}
    for pattern, request in _requests(data, init["seed"]):
        if pattern not in patterns:
            continue
        quiet: dict[str, Any] = {"max_set": MAX_SET, "progress_bar": False}
        (draw,) = draw_missing(model.module, request, options, **quiet)
        mean = predict_missing(model.module, request, arrange=True, **quiet)
        for method, filled in (("predict", mean), ("sample", draw)):
            scored = data.has_position & ~request.position_known
            assert data.position is not None
            true, placed = data.position[scored], filled.position[scored]
            if pattern == "unframed":
                placed = superpose(placed, true, allow_reflection=init["allow_reflection"])
            error = np.linalg.norm(placed - true, axis=1)
            ratios[pattern, method] = [error / filled.scale[scored]]
    return ratios


def quantiles(all_ratios: list[Ratios]) -> dict[str, dict[str, float]]:
    """Pool sections: the quantile of each pattern and method."""
    result: dict[str, dict[str, float]] = {}
    for pattern, method in {key: None for ratios in all_ratios for key in ratios}:
        pooled = [a for r in all_ratios for a in r.get((pattern, method), [])]
        result.setdefault(pattern, {})[method] = conformal_quantile(pooled)
    return result


def _folds(
    data: TissueData, sections: list[str], seed: int
) -> Iterator[tuple[TissueData, TissueData, tuple[str, ...]]]:
    """Cells to train on, a section to score, and with what known.

    One section at a time is left out. A single one is halved at random; half of it says nothing
    about a section never seen, so only placing into a reference is calibrated.
    """
    located = [s for s in sections if data.has_position[data.cells_of(s)].any()]
    if len(located) > 1:
        for left_out in located[:MAX_FOLDS]:
            rest = np.isin(data.section, sections) & (data.section != left_out)
            held_out = data.take(data.cells_of(left_out))
            yield data.take(np.flatnonzero(rest)), held_out, ("unframed", "framed")
        return
    cells = np.random.default_rng(seed).permutation(data.cells_of(located[0]))
    seen = np.isin(data.section, sections)
    seen[cells[len(cells) // 2 :]] = False
    yield data.take(np.flatnonzero(seen)), data.take(data.cells_of(located[0])), ("framed",)


def cross_validate(
    model: AlphaSTomics, data: TissueData, train: Any
) -> dict[str, dict[str, float]]:
    """Train on all but one section at a time and calibrate on the one left out.

    ``train`` is called with a fresh model and the cells to train it on.
    """
    ratios = []
    seed = model._init_arguments()["seed"]
    for training, held_out, patterns in _folds(data, model.training_record.train_sections, seed):
        fold = copy.copy(model)
        fold.module = model._new_module()
        fold.is_trained_, fold.history_, fold.training_record = False, None, TrainingRecord()
        train(fold, training)
        ratios.append(section_ratios(fold, held_out, patterns))
    return quantiles(ratios)


def on_sections(
    model: AlphaSTomics, data: TissueData, sections: list[str]
) -> dict[str, dict[str, float]]:
    """Calibrate on sections the model was not trained on."""
    names: NDArray[np.str_] = pd.unique(np.asarray(sections, dtype=object))
    return quantiles(
        [section_ratios(model, data.take(data.cells_of(s)), ("unframed", "framed")) for s in names]
    )
