"""Conformal calibration on held-out cells: the radius of positions, intervals of expression."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alphastomics._anndata import Mask
from alphastomics.config import N_STEPS, ModelConfig
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.rounds import DrawSettings
from alphastomics.metrics import superpose
from alphastomics.model._data import CellTable
from alphastomics.model._draws import draw_missing, draw_settings
from alphastomics.model._hidden_expression import estimates_of_hidden
from alphastomics.model._inference import Array, Execution, predict_missing
from alphastomics.model._intervals import LEVEL, Intervals, Pattern, Scored
from alphastomics.model._record import TrainingRecord
from alphastomics.model._task import MAX_SET, InferenceTask

REFERENCE_SHARE = 0.5

Ratios = dict[tuple[str, str], list[Array]]  # (pattern, method) -> an array for each section
Calibration = dict[str, dict[str, float]]


def conformal_quantile(ratios: list[Array], level: float = LEVEL) -> float:
    """Quantile of error ÷ scale that holds ``level`` of the cells, each section counting the same.

    Split conformal prediction (Vovk et al. 2005; Lei et al. 2018, JASA 113, 1094) with a
    normalized score: if a new section is like those held out, a share ``level`` of its cells has
    an error below the quantile times its scale.
    """
    values = np.concatenate(ratios)
    weight = np.concatenate([np.full(len(r), 1 / len(r)) for r in ratios]) / len(ratios)
    order = np.argsort(values)
    n = min(len(r) for r in ratios)
    wanted = min(level * (n + 1) / n, 1.0)
    reached = int(np.searchsorted(np.cumsum(weight[order]), wanted))
    return float(values[order[min(reached, len(values) - 1)]])


def _tasks(data: CellTable, seed: int) -> Iterator[tuple[str, InferenceTask]]:
    """Placing of a section with nothing known, and given a random half of it."""
    rng = np.random.default_rng(seed)
    n = len(data.names)
    half = data.has_position & (rng.permutation(n) < round(REFERENCE_SHARE * n))
    for pattern, known in (("unframed", np.zeros(n, dtype=bool)), ("framed", half)):
        yield (
            pattern,
            InferenceTask(
                data,
                n,
                position_known=known,
                expression_known=data.expression_known,
                fill_position=True,
                fill_expression=False,
            ),
        )


def section_ratios(
    module: MaskedDiffusionModule,
    data: CellTable,
    patterns: tuple[str, ...],
    settings: DrawSettings,
    seed: int,
) -> Ratios:
    """Error ÷ scale of the cells of a held-out section, of the mean and of a draw."""
    ratios: Ratios = {}
    for pattern, task in _tasks(data, seed):
        if pattern not in patterns:
            continue
        (draw,) = draw_missing(module, task, settings, Execution(MAX_SET), seed=seed)
        mean = predict_missing(module, task, Execution(MAX_SET), arrange=True)
        for method, estimates in (("predict", mean), ("sample", draw)):
            scored = data.has_position & ~task.position_known
            true, placed = data.position[scored], estimates.position[scored]
            if pattern == "unframed":
                placed = superpose(placed, true, allow_reflection=module.allow_reflection)
            error = np.linalg.norm(placed - true, axis=1)
            ratios[pattern, method] = [error / estimates.scale[scored]]
    return ratios


def _quantiles(all_ratios: list[Ratios]) -> Calibration:
    """Quantile of each pattern and method, of all sections together."""
    result: Calibration = {}
    for pattern, method in {key: None for ratios in all_ratios for key in ratios}:
        pooled = [a for r in all_ratios for a in r.get((pattern, method), [])]
        result.setdefault(pattern, {})[method] = conformal_quantile(pooled)
    return result


@dataclass
class Calibrator:
    """Calibration of a model on hidden values of sections that were not in training.

    Attributes
    ----------
    module
        Network of the model that is calibrated, which gives the units.
    settings, seed
        Of draws and of what is hidden.
    radius, expression
        Whether the model places cells, and whether it estimates expression.
    """

    module: MaskedDiffusionModule
    settings: DrawSettings
    seed: int
    radius: bool
    expression: bool
    _ratios: list[Ratios] = field(default_factory=list)
    _scored: list[dict[Pattern, Scored]] = field(default_factory=list)

    def add(
        self,
        module: MaskedDiffusionModule,
        section: CellTable,
        patterns: tuple[str, ...] = ("unframed", "framed"),
        trained: Mask | None = None,
        on_part: Callable[[], object] | None = None,
    ) -> None:
        """Hide values of a section from a network that was not trained on it.

        Parameters
        ----------
        module
            The network, that of the model or one like it.
        section
            Cells of a section.
        patterns
            Patterns of placing that are calibrated.
        trained
            Cells that it was trained on, ``(n,)``, if only some of them are new.
        on_part
            Called after each of :attr:`n_parts`.
        """
        on_part = on_part or (lambda: None)
        if self.radius:
            ratios = section_ratios(module, section, patterns, self.settings, self.seed)
            self._ratios.append(ratios)
            on_part()
        if self.expression:
            if trained is None:
                trained = np.zeros(len(section.names), dtype=bool)
            units = self.module.expression_transform
            found = estimates_of_hidden(module, section, trained, units, self.seed)
            self._scored.append(found)
            on_part()

    @classmethod
    def of(cls, module: MaskedDiffusionModule, config: ModelConfig) -> Self:
        """Calibrator of a model."""
        return cls(
            module,
            draw_settings(config.schedule, N_STEPS),
            config.seed,
            radius=config.places_cells,
            expression=config.training_mode != "expr_to_pos",
        )

    def added_to(self, record: TrainingRecord) -> TrainingRecord:
        """Record of a training with what was learned."""
        return replace(record, calibration=self.calibration(), intervals=self.intervals())

    @property
    def n_parts(self) -> int:
        """Number of parts of :meth:`add`: radius and expression."""
        return self.radius + self.expression

    def calibration(self) -> Calibration:
        """Quantiles of the radius, by pattern and method."""
        return _quantiles(self._ratios)

    def summary(self) -> str:
        """Line that says what was learned."""
        names = {"unframed": "without a reference", "framed": "among known cells"}
        radius = ", ".join(
            f"{quantiles['predict']:.2f} times its error scale {names[pattern]}"
            for pattern, quantiles in self.calibration().items()
        )
        parts = [f"90 % radius of a cell: {radius}"] if radius else []
        if self._scored:
            parts.append(f"90 % intervals of {self.module.num_genes} genes")
        return "; ".join(parts)

    def intervals(self) -> dict[str, dict[str, list[Any]]]:
        """Intervals of expression by pattern, as they are saved."""
        units = self.module.expression_transform
        result: dict[str, dict[str, list[Any]]] = {}
        for pattern in {key: None for scored in self._scored for key in scored}:
            intervals = Intervals.fit(
                [scored[pattern] for scored in self._scored if pattern in scored],
                units.mean.cpu().numpy(),
                units.std.cpu().numpy(),
                self.module.lowest_value,
            )
            if intervals is not None:
                result[pattern] = intervals.to_json()
        return result


def on_sections(calibrator: Calibrator, data: CellTable, sections: list[str]) -> None:
    """Calibrate on sections that were not in training."""
    names: NDArray[np.str_] = pd.unique(np.asarray(sections, dtype=object))
    for name in names:
        calibrator.add(calibrator.module, data.subset(data.cells_of(name)))
