"""Calibration by networks that are trained on all but a part of the training cells."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from alphastomics._anndata import Mask
from alphastomics._progress import Reporter, duration
from alphastomics._settings import logger
from alphastomics._validate import MIN_CELLS
from alphastomics.config import ModelConfig, TrainConfig
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._calibration import Calibrator
from alphastomics.model._data import CellTable
from alphastomics.model._distributed import check_trainer_options
from alphastomics.model._fitting import placed_cells
from alphastomics.model._record import History, TrainingRecord
from alphastomics.model._requests import warn_of_short_folds
from alphastomics.model._scvi import stopping_options
from alphastomics.model._training import fit

MAX_FOLDS = 4


class _Fold(NamedTuple):
    """Cells to train on, a section to score, and with what known."""

    training: CellTable
    held_out: CellTable
    patterns: tuple[str, ...]
    trained: Mask | None = None  # cells of the section that are trained on


def _located_sections(data: CellTable, sections: list[str]) -> list[str]:
    """Sections with enough cells of known position and expression."""
    return [s for s in sections if len(placed_cells(data, s)) >= MIN_CELLS]


def _folds(data: CellTable, sections: list[str], seed: int) -> Iterator[_Fold]:
    """Folds that leave out a section each, or half of a single section.

    Half of a section is not a new section, so only placement into a reference is calibrated.
    """
    located = _located_sections(data, sections)
    if len(located) > 1:
        for left_out in located[:MAX_FOLDS]:
            rest = np.isin(data.section, sections) & (data.section != left_out)
            held_out = data.subset(data.cells_of(left_out))
            yield _Fold(data.subset(np.flatnonzero(rest)), held_out, ("unframed", "framed"))
        return
    cells = np.random.default_rng(seed).permutation(data.cells_of(located[0]))
    seen = np.isin(data.section, sections)
    seen[cells[len(cells) // 2 :]] = False
    n_left = len(placed_cells(data.subset(np.flatnonzero(seen)), located[0]))
    if n_left < MIN_CELLS:
        raise ValueError(
            f"half of the single section with coordinates, {located[0]!r}, has {n_left} cells with "
            f"position and expression, but calibration trains on at least {MIN_CELLS}: calibrate a "
            "model of more cells or sections."
        )
    own = data.cells_of(located[0])
    yield _Fold(data.subset(np.flatnonzero(seen)), data.subset(own), ("framed",), seen[own])


@dataclass(frozen=True)
class Retraining:
    """Training of new networks like that of a model, on fewer cells.

    Attributes
    ----------
    new_module
        Makes a network with initial weights.
    config, training, trainer_options
        Options of the model, of training, and of its trainer.
    record
        Of the training of the model.
    payload
        As in :func:`~alphastomics.model._training.fit`.
    """

    new_module: Callable[[], MaskedDiffusionModule]
    config: ModelConfig
    training: TrainConfig
    trainer_options: dict[str, Any]
    record: TrainingRecord
    payload: Callable[[TrainingRecord, History], dict[str, Any]]

    @classmethod
    def of_options(
        cls,
        options: dict[str, Any],
        max_steps: int | None,
        config: ModelConfig,
        record: TrainingRecord,
        new_module: Callable[[], MaskedDiffusionModule],
        payload: Callable[[TrainingRecord, History], dict[str, Any]],
    ) -> Self:
        """Training by options that may be those of ``train`` or of its trainer, checked."""
        options, names = stopping_options(options, validates=False), TrainConfig.model_fields
        ours = {name: options[name] for name in names if name in options}
        training = TrainConfig(**ours, max_steps=max_steps)
        of_trainer = {name: value for name, value in options.items() if name not in names}
        check_trainer_options(of_trainer, sorted({*names, "progress_bar"}))
        return cls(new_module, config, training, of_trainer, record, payload)

    def steps(self, n_cells: int) -> int:
        """Number of steps that corresponds to that of the model, for as many cells."""
        return max(1, round(self.record.steps * n_cells / self.record.n_cells))

    def __call__(self, cells: CellTable, reporter: Reporter) -> MaskedDiffusionModule:
        """Train a new network."""
        module, steps = self.new_module(), self.steps(len(cells.names))
        fit(
            module,
            cells,
            self.config,
            self.training.replace(max_steps=self.training.max_steps or steps),
            TrainingRecord(),
            {},
            self.payload,
            reporter=reporter,
            **self.trainer_options,
        ).hand_on()
        return module


def cross_validate(
    calibrator: Calibrator,
    data: CellTable,
    retraining: Retraining,
    progress_bar: bool | None = None,
) -> None:
    """Train on all but one section at a time and calibrate on the one left out."""
    began, sections = time.monotonic(), retraining.record.train_sections
    n_folds = min(len(_located_sections(data, sections)), MAX_FOLDS)
    for number, fold in enumerate(_folds(data, sections, calibrator.seed), 1):
        reporter = Reporter.of(progress_bar, f"fold {number} of {n_folds}, ")
        if number == 1:
            steps = retraining.steps(len(fold.training.names))
            warn_of_short_folds(retraining.training.max_steps, steps)
        network = retraining(fold.training, reporter)
        with reporter.bar("evaluation", calibrator.n_parts, "parts") as progress:
            calibrator.add(
                network, fold.held_out, fold.patterns, fold.trained, on_part=progress.update
            )
    taken = duration(time.monotonic() - began)
    logger.info(f"calibrate: {calibrator.summary()} (folds: {n_folds}, {taken})")
