"""One call of ``AlphaSTomics.train``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi.train import Trainer, TrainRunner
from scvi.train._logger import SimpleLogger
from torch import Tensor

from alphastomics._quiet import quiet
from alphastomics._threads import limited_threads
from alphastomics.diffusion_model.corruption import Objective
from alphastomics.model._checkpoints import progress_of, read_checkpoint, to_checkpoint
from alphastomics.model._datamodule import SectionSets, SetDataModule, SetOptions
from alphastomics.model._devices import require_script, strategy_for, world_size
from alphastomics.model._fitting import fit_places, fit_statistics
from alphastomics.model._persistence import history_from_json
from alphastomics.model._tissue import TissueData
from alphastomics.model._training_plan import DenoisingPlan

if TYPE_CHECKING:
    from alphastomics.model._model import AlphaSTomics

# Without a limit, training stops when every cell has been in a set about this often.
VISITS_PER_CELL = 100
LEAST_STEPS, MOST_STEPS = 250, 600
BATCH_SIZE, SET_SIZE, SETS_PER_SECTION = 6, 256, 48
LR, WEIGHT_DECAY = 1e-3, 0.01
MATCHING_STEPS = 250


@dataclass(frozen=True)
class TrainingRecord:
    """Record of the training of a model, over all calls of ``train``."""

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


@limited_threads()
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
    num_workers: int = 0,
    compile: bool = False,
    activation_checkpointing: bool = False,
    ckpt_path: str | os.PathLike[str] | None = None,
    **trainer_kwargs: Any,
) -> None:
    """Train ``model`` on ``data``; the arguments are those of ``AlphaSTomics.train``."""
    init, record = model._init_arguments(), model.training_record
    val_sections = sorted(val_sections)
    sections = split_sections(data, val_sections, record.train_sections)
    options = SetOptions(
        init["training_mode"],
        init["position_mask_ratio"],
        set_size,
        sets_per_section,
        init["seed"],
    )
    train_sets = SectionSets(data, sections, options)
    few = replace(options, sets_per_section=2)
    val_sets = SectionSets(data, val_sections, few, numbered=False) if val_sections else None

    processes = world_size(trainer_kwargs)
    strategy = strategy_for(trainer_kwargs.get("strategy", "auto"), processes)
    batches_per_step = processes * trainer_kwargs.get("accumulate_grad_batches", 1)
    steps_per_epoch = -(-len(train_sets) // (batch_size * batches_per_step))
    n_cells = int(np.isin(data.section, sections).sum())
    if max_steps is None and max_epochs is None:
        max_steps = default_steps(n_cells, batch_size * batches_per_step * set_size)
    limits = [limit for limit in (max_steps, max_epochs and max_epochs * steps_per_epoch) if limit]

    epochs = -(-min(limits) // steps_per_epoch)
    if ckpt_path is not None:
        ended, seen = progress_of(ckpt_path)
        # Two more: Lightning may count an epoch of which nothing is left, and cut the next one
        # short. The steps decide.
        per_epoch = -(-len(train_sets) // (batch_size * processes)) * processes
        epochs += 2 + ended - (seen - record.steps) // per_epoch
    earlier = {} if ckpt_path is None else read_checkpoint(ckpt_path)[1]["history"]
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    if not model.is_trained_ and ckpt_path is None:
        home = model.module.device
        fit_statistics(
            model.module.cpu(),
            data,
            sections,
            training_mode=init["training_mode"],
            position_mask_ratio=init["position_mask_ratio"],
            learns_frame=init["frame"] == "learned" and init["training_mode"] != "pos_to_expr",
            matching_steps=matching_steps(min(limits)),
            seed=init["seed"],
            progress_bar=trainer_kwargs.get("enable_progress_bar", True),
        )
        model.module.to(home)

    elif ckpt_path is None and len(model.module.poses) and sections != record.train_sections:
        model.module.poses.start(len(sections))  # found again within a few steps
        fit_places(model.module, data, sections, init["seed"])

    def progress() -> tuple[TrainingRecord, dict[str, pd.DataFrame]]:
        logger = plan.trainer.logger if plan.trainer.is_global_zero else None
        return (
            _extended(record, plan.trainer, loaders.epochs_begun, data, sections, val_sections),
            # scvi-tools drops what is first logged in a later call.
            _joined(
                history_from_json(earlier),
                {**getattr(logger, "history", {}), **(model.history_ or {})},
            ),
        )

    plan = DenoisingPlan(
        model.module,
        Objective(**{f.name: init[f.name] for f in fields(Objective)}),
        lr=lr,
        weight_decay=weight_decay,
        places_cells=init["training_mode"] != "pos_to_expr",
        total_steps=min(limits),
        seed=init["seed"],
        first_batch=record.steps,
        saved=lambda: {"model": to_checkpoint(model._payload(*progress()))},
    )
    loaders = SetDataModule(
        train_sets,
        val_sets,
        batch_size,
        first_epoch=record.epochs,
        batches_done=lambda: plan.batches_seen - plan.first_batch,
        num_workers=num_workers,
    )
    trainer_kwargs = {
        "check_val_every_n_epoch": 1 if val_sections else None,
        "log_every_n_steps": 1,
        "logger": SimpleLogger(),  # else scvi-tools writes files where there are several processes
        **trainer_kwargs,
        "callbacks": list(trainer_kwargs.get("callbacks", [])),  # the trainer appends to it
        "reload_dataloaders_every_n_epochs": 1,
        "use_distributed_sampler": False,
        "strategy": strategy,
        "max_epochs": epochs,
        "max_steps": min(limits),
        "ckpt_path": ckpt_path,
    }
    transformer = model.module.transformer
    with (
        transformer.compiled() if compile else nullcontext(),
        transformer.recomputing() if activation_checkpointing else nullcontext(),
    ):
        _run(model, plan, loaders, trainer_kwargs, before)
    model.training_record, model.history_ = progress()


def matching_steps(steps: int) -> int:
    """Count the steps of the fit of the reference matching, fewer for a short training."""
    return min(MATCHING_STEPS, 20 + steps)


class _Runner(TrainRunner):
    """Runs a trainer, and lets errors through as they are."""

    def _run_training_core(self) -> None:
        self.trainer.fit(self.training_plan, self.data_splitter, ckpt_path=self.ckpt_path)
        self._update_history()
        self.model.is_trained_ = True
        self.model.to_device(self.trainer.strategy.root_device)
        self.model.trainer = self.trainer


def _run(
    model: AlphaSTomics,
    plan: DenoisingPlan,
    loaders: SetDataModule,
    options: dict[str, Any],
    before: dict[str, Tensor],
) -> None:
    """Train; the model gets the averaged weights, or those ``before`` if that failed."""
    try:
        model.module.train()
        with (
            torch.random.fork_rng(),
            quiet("lightning.pytorch"),
            warnings.catch_warnings(),
        ):
            for message in (".*treespec.*", ".*in eval mode.*", ".*dataloader is not resumable.*"):
                warnings.filterwarnings("ignore", message=message, module="lightning")
            # Of in-place operations on what the network gives, of which there are none; of gloo.
            for message in (".*returned a view.*", ".*_get_pg_default.*", ".*Multiple backends.*"):
                warnings.filterwarnings("ignore", message=message, module="torch.distributed")
            if not options.get("early_stopping"):  # scvi-tools tells that it is off in any case
                warnings.filterwarnings("ignore", message=".*early_stopping was automatically.*")
            runner = _Runner(model, training_plan=plan, data_splitter=loaders, **options)
            require_script(runner.trainer)
            runner()
        after = plan.averaged_state()
    except BaseException:
        after = before
        raise
    finally:
        model.module.load_state_dict(after)
        model.module.eval()


def _extended(
    record: TrainingRecord,
    trainer: Trainer,
    epochs: int,
    data: TissueData,
    sections: list[str],
    val_sections: list[str],
) -> TrainingRecord:
    """Add what a trainer has done so far."""
    trained = sorted({*record.train_sections, *sections})
    return TrainingRecord(
        epochs=epochs,
        steps=record.steps + trainer.global_step,
        n_cells=int(np.isin(data.section, trained).sum()),
        train_sections=trained,
        val_sections=val_sections,
    )


def _joined(
    first: dict[str, pd.DataFrame], then: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Put histories behind each other; an epoch that was gone on with counts as it ended."""
    joined = dict(first)
    for name, frame in then.items():
        both = pd.concat([first[name], frame]) if name in first else frame
        joined[name] = both[~both.index.duplicated(keep="last")]
    return joined
