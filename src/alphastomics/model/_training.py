"""One call of ``AlphaSTomics.train``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi.train import TrainRunner

from alphastomics._quiet import quiet
from alphastomics.diffusion_model.targets import Objective
from alphastomics.model._datamodule import SectionSets, SetDataModule, SetOptions
from alphastomics.model._fitting import (
    fill_atlas,
    fit_genes,
    fit_neighborhood,
    fit_pointer,
    fit_transforms,
)
from alphastomics.model._tissue import TissueData
from alphastomics.model._training_plan import DenoisingPlan

if TYPE_CHECKING:
    from alphastomics.model._model import AlphaSTomics

# Without a limit, training stops when every cell has been in a set about this often.
VISITS_PER_CELL = 100
LEAST_STEPS, MOST_STEPS = 250, 600
BATCH_SIZE, SET_SIZE, SETS_PER_SECTION = 6, 256, 48
LR, WEIGHT_DECAY = 1e-3, 0.01


@dataclass(frozen=True)
class TrainingRecord:
    """What a model was trained on, over all calls of ``train``."""

    epochs: int = 0
    steps: int = 0
    n_cells: int = 0
    train_sections: list[str] = field(default_factory=list)
    val_sections: list[str] = field(default_factory=list)
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary; ``TrainingRecord(**d)`` is the inverse."""
        return asdict(self)


def split_sections(
    data: TissueData, val_sections: list[str], trained_before: list[str]
) -> list[str]:
    """Names of the training sections: those with positions that are not validation sections."""
    positioned = sorted(pd.unique(data.section[data.has_position]))
    unknown = sorted(set(val_sections) - set(positioned))
    if unknown:
        raise ValueError(
            f"val_sections names {unknown}, but the sections with coordinates are {positioned}."
        )
    seen = sorted(set(val_sections) & set(trained_before))
    if seen:
        raise ValueError(
            f"val_sections names {seen}, on which the model was trained before: validate on other "
            "sections, or train a new model."
        )
    train = [
        str(section) for section in sorted(pd.unique(data.section)) if section not in val_sections
    ]
    if not set(train) & set(positioned):
        raise ValueError(
            f"val_sections holds all sections with coordinates ({positioned}): leave at least one "
            "to train on."
        )
    return train


def default_steps(n_cells: int, cells_per_step: int) -> int:
    """Count steps until each of ``n_cells`` was seen about 100 times, 250 to 600."""
    return min(max(round(VISITS_PER_CELL * n_cells / cells_per_step), LEAST_STEPS), MOST_STEPS)


def fit(
    model: AlphaSTomics,
    data: TissueData,
    *,
    max_epochs: int | None = None,
    max_steps: int | None = None,
    val_sections: Sequence[str] = (),
    batch_size: int = BATCH_SIZE,
    set_size: int = SET_SIZE,
    sets_per_section: int = SETS_PER_SECTION,
    lr: float = LR,
    weight_decay: float = WEIGHT_DECAY,
    **trainer_kwargs: Any,
) -> None:
    """Train ``model`` on ``data``; the arguments are those of ``AlphaSTomics.train``."""
    val_sections = list(val_sections)
    init = model._init_arguments()
    record, seed = model.training_record, init["seed"]
    sections = split_sections(data, val_sections, record.train_sections)
    set_options = SetOptions(
        init["training_mode"], init["position_mask_ratio"], set_size, sets_per_section, seed
    )
    train_sets = SectionSets(data, sections, set_options)
    val_options = replace(set_options, sets_per_section=2)
    val_sets = SectionSets(data, val_sections, val_options) if val_sections else None

    batches_per_step = trainer_kwargs.get("accumulate_grad_batches", 1)
    steps_per_epoch = -(-len(train_sets) // (batch_size * batches_per_step))
    n_cells = int(np.isin(data.section, sections).sum())
    if max_steps is None and max_epochs is None:
        max_steps = default_steps(n_cells, batch_size * batches_per_step * set_size)
    limits = [limit for limit in (max_steps, max_epochs and max_epochs * steps_per_epoch) if limit]
    total_steps = min(limits)

    if not model.is_trained_:
        fit_transforms(model.module, data, sections)
        if init["training_mode"] != "expr_to_pos":
            fit_neighborhood(model.module, data, sections, seed)
            fit_genes(model.module, data, sections, seed)
        if init["training_mode"] != "pos_to_expr":
            fit_pointer(
                model.module,
                data,
                sections,
                init["position_mask_ratio"],
                seed,
                progress_bar=trainer_kwargs.get("enable_progress_bar", True),
            )
            fill_atlas(model.module, data, sections, seed)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    objective = Objective(**{f.name: init[f.name] for f in fields(Objective)})
    options = {
        "check_val_every_n_epoch": 1 if val_sections else None,
        "log_every_n_steps": 1,
        **trainer_kwargs,
        "callbacks": list(trainer_kwargs.get("callbacks", [])),  # the trainer appends to it
        "reload_dataloaders_every_n_epochs": 1,
    }
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed + record.steps)
            plan = DenoisingPlan(
                model.module.train(),
                objective,
                lr=lr,
                weight_decay=weight_decay,
                places_cells=init["training_mode"] != "pos_to_expr",
                total_steps=total_steps,
                seed=seed,
                first_step=record.steps,
            )
            with quiet("lightning.pytorch"), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*treespec.*", module="lightning")
                runner = TrainRunner(
                    model,
                    training_plan=plan,
                    data_splitter=SetDataModule(train_sets, val_sets, batch_size, record.epochs),
                    max_epochs=-(-total_steps // steps_per_epoch),
                    max_steps=total_steps,
                    **options,
                )
                runner()
        after = plan.averaged_state()
    except BaseException:
        after = before
        raise
    finally:
        model.module.load_state_dict(after)
        model.module.eval()
    # scvi-tools drops what is first logged in a later call.
    model.history_ = {**getattr(runner.trainer.logger, "history", {}), **(model.history_ or {})}
    trained = sorted({*record.train_sections, *sections})
    model.training_record = TrainingRecord(
        epochs=record.epochs + runner.trainer.current_epoch,
        steps=record.steps + runner.trainer.global_step,
        n_cells=int(np.isin(data.section, trained).sum()),
        train_sections=trained,
        val_sections=sorted(val_sections),
    )
