"""Training: its sections, its length, and one call of ``train``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import numpy as np
import pandas as pd

from alphastomics._progress import Reporter
from alphastomics.config import ModelConfig, TrainConfig
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._checkpoint import progress_of, read_checkpoint, to_checkpoint
from alphastomics.model._checkpoint_writer import Checkpoints
from alphastomics.model._data import CellTable, check_linked
from alphastomics.model._datamodule import SectionSets, SetDataModule, SetOptions
from alphastomics.model._distributed import world_size
from alphastomics.model._fitting import fit_places, fit_statistics
from alphastomics.model._plan import DenoisingPlan
from alphastomics.model._record import History, TrainingRecord, history_from_json, joined
from alphastomics.model._step_progress import StepProgress, has_own_bar
from alphastomics.model._stopping import Stopping, end
from alphastomics.model._trainer import make_trainer, quiet_trainer
from alphastomics.nn.transformer import SetTransformer

# Without a limit, training stops when every cell has been in a set about this often.
VISITS_PER_CELL = 100
LEAST_STEPS, MOST_STEPS = 250, 600
STAGE_2, TRAINING = "stage 2 of 2: network", "training"


def split_sections(
    data: CellTable, val_sections: list[str], trained_before: list[str]
) -> list[str]:
    """Names of the training sections: those with positions that are not validation sections."""
    positioned = sorted(pd.unique(data.section[data.has_position]))
    unknown = sorted(set(val_sections) - set(positioned))
    if unknown:
        raise ValueError(
            f"val_sections names {unknown}, but the sections with coordinates are {positioned}."
        )
    trained = sorted(set(val_sections) & set(trained_before))
    if trained:
        raise ValueError(
            f"val_sections names {trained}, on which the model was trained before: validate on "
            "other sections, or train a new model."
        )
    train = [
        str(section) for section in sorted(pd.unique(data.section)) if section not in val_sections
    ]
    if not set(train) & set(positioned):
        raise ValueError(
            f"val_sections holds all sections with coordinates ({positioned}): leave at least one "
            "to train on."
        )
    check_linked(data, np.isin(data.section, train))
    return train


class _Length(NamedTuple):
    """Limits of a trainer: steps, and epochs that suffice for them."""

    max_steps: int
    max_epochs: int


def _length(
    n_cells: int, n_sets: int, training: TrainConfig, trainer_options: Mapping[str, Any]
) -> _Length:
    """Length of a training of ``n_sets`` sets an epoch."""
    processes = world_size(trainer_options)
    batches_per_step = processes * trainer_options.get("accumulate_grad_batches", 1)
    steps_per_epoch = -(-n_sets // (training.batch_size * batches_per_step))
    max_steps, max_epochs = training.max_steps, training.max_epochs
    if max_steps is None and max_epochs is None:
        cells_per_step = training.batch_size * batches_per_step * training.set_size
        visits = round(VISITS_PER_CELL * n_cells / cells_per_step)
        max_steps = min(max(visits, LEAST_STEPS), MOST_STEPS)
    limits = [limit for limit in (max_steps, max_epochs and max_epochs * steps_per_epoch) if limit]
    return _Length(min(limits), -(-min(limits) // steps_per_epoch))


def _resumed(
    length: _Length,
    ckpt_path: str | os.PathLike[str],
    record: TrainingRecord,
    n_sets: int,
    training: TrainConfig,
    trainer_options: Mapping[str, Any],
) -> _Length:
    """Length of a training that continues from a checkpoint, whose trainer counts its epochs."""
    ended, seen = progress_of(ckpt_path)
    processes = world_size(trainer_options)
    batches_per_epoch = -(-n_sets // (training.batch_size * processes)) * processes
    # Two more: Lightning may count an epoch of which nothing is left, and cut the next one short.
    # The steps decide.
    epochs = length.max_epochs + 2 + ended - (seen - record.steps) // batches_per_epoch
    return length._replace(max_epochs=epochs)


def _training_sets(
    data: CellTable,
    sections: list[str],
    val_sections: list[str],
    config: ModelConfig,
    training: TrainConfig,
) -> tuple[SectionSets, SectionSets | None]:
    """Random sets of the training sections, and of the validation sections if there are any."""
    options = SetOptions(
        config.training_mode,
        config.position_mask_ratio,
        training.set_size,
        training.sets_per_section,
        config.seed,
    )
    train = SectionSets(data, sections, options)
    if not val_sections:
        return train, None
    few = replace(options, sets_per_section=2)
    return train, SectionSets(data, val_sections, few, numbered=False)


class Trained(NamedTuple):
    """Record and history of a training, over all calls, and the trainer of the last one."""

    record: TrainingRecord
    history: History
    trainer: L.Trainer
    stopped: signal.Signals | None  # the signal that ended it early

    def hand_on(self) -> None:
        """Raise KeyboardInterrupt or end the process if a signal ended the training."""
        end(self.stopped, self.trainer.global_step, self.trainer.max_steps)


@dataclass
class _Progress:
    """Record and history of a training that runs, continued from ``record`` and ``history``."""

    plan: DenoisingPlan
    loaders: SetDataModule
    data: CellTable
    sections: list[str]
    val_sections: list[str]
    record_before: TrainingRecord
    history_before: History
    resumes: bool

    def record(self) -> TrainingRecord:
        """Record of all steps so far."""
        trained = sorted({*self.record_before.train_sections, *self.sections})
        return TrainingRecord(
            epochs=self.loaders.epochs_begun,
            steps=self.record_before.steps + self.plan.trainer.global_step,
            n_cells=int(np.isin(self.data.section, trained).sum()),
            train_sections=trained,
            val_sections=self.val_sections,
        )

    def history(self) -> History:
        """Values logged so far; of a resumed epoch, those of its end."""
        trainer = self.plan.trainer
        logged = getattr(trainer.logger if trainer.is_global_zero else None, "history", {})
        return joined(self.history_before, logged, resumes=self.resumes)


def fit(
    module: MaskedDiffusionModule,
    data: CellTable,
    config: ModelConfig,
    training: TrainConfig,
    record: TrainingRecord,
    history: History,
    payload: Callable[[TrainingRecord, History], dict[str, Any]],
    *,
    val_sections: Sequence[str] = (),
    checkpoint_dir: str | os.PathLike[str] | None = None,
    ckpt_path: str | os.PathLike[str] | None = None,
    reporter: Reporter = Reporter(),  # noqa: B008  # frozen
    **trainer_options: Any,
) -> Trained:
    """Train a network, which gets the averaged weights, or its own again if that fails.

    Parameters
    ----------
    module, data
        Network and cells.
    config, training
        Options of the model and of training.
    record, history
        Of earlier calls.
    payload
        Content of a checkpoint other than the weights, given record and history.
    val_sections, checkpoint_dir, ckpt_path
        As in ``AlphaSTomics.train``.
    reporter
        Of the progress of both stages.
    **trainer_options
        Options of :class:`scvi.train.Trainer`.
    """
    if ckpt_path is not None and not os.path.isfile(ckpt_path):
        raise FileNotFoundError(f"ckpt_path: there is no checkpoint {os.fspath(ckpt_path)!r}.")
    val_sections, resumes = sorted(val_sections), ckpt_path is not None
    trainer_options |= training.model_dump(include={"accelerator", "devices", "precision"})
    sections = split_sections(data, val_sections, record.train_sections)
    train_sets, val_sets = _training_sets(data, sections, val_sections, config, training)
    n_cells = int(np.isin(data.section, sections).sum())
    length = _length(n_cells, len(train_sets), training, trainer_options)
    if ckpt_path is not None:
        history = history_from_json(read_checkpoint(ckpt_path)[1]["history"])
        length = _resumed(length, ckpt_path, record, len(train_sets), training, trainer_options)
    stopping, steps = Stopping(), StepProgress()
    written = [] if checkpoint_dir is None else [Checkpoints(Path(checkpoint_dir))]
    trainer_options.setdefault("check_val_every_n_epoch", 1 if val_sections else None)
    trainer = make_trainer({**trainer_options, **length._asdict()}, [*written, steps, stopping])
    stage = TRAINING if resumes or record.steps else STAGE_2
    if has_own_bar(trainer_options):
        reporter = Reporter()

    with _restored_on_error(module):
        if not resumes:
            _fit_priors(module, data, sections, config, record, length.max_steps, reporter)
        plan = DenoisingPlan(
            module, config, training, total_steps=length.max_steps, first_batch=record.steps
        )
        loaders = _loaders(plan, train_sets, val_sets, record)
        progress = _Progress(plan, loaders, data, sections, val_sections, record, history, resumes)
        plan.saved = lambda: {
            "model": to_checkpoint(payload(progress.record(), progress.history()))
        }
        with (
            _transformer_options(module.transformer, training),
            reporter.bar(stage, length.max_steps, "steps") as steps.progress,
            quiet_trainer(),
            stopping.handling(),
        ):
            trainer.fit(plan, loaders, ckpt_path=ckpt_path)
        if not trainer.global_step:
            end(stopping.received, 0, length.max_steps)
        module.load_state_dict(plan.averaged_state())
    module.to(trainer.strategy.root_device)
    return Trained(progress.record(), progress.history(), trainer, stopping.received)


def _loaders(
    plan: DenoisingPlan,
    train_sets: SectionSets,
    val_sets: SectionSets | None,
    record: TrainingRecord,
) -> SetDataModule:
    """Loaders of sets, which continue those of earlier calls."""
    return SetDataModule(
        train_sets,
        val_sets,
        plan.options.batch_size,
        first_epoch=record.epochs,
        batches_done=lambda: plan.batches_seen - plan.first_batch,
        num_workers=plan.options.num_workers,
    )


@contextmanager
def _transformer_options(transformer: SetTransformer, training: TrainConfig) -> Iterator[None]:
    """Context in which a transformer is compiled, or recomputes activations, by option."""
    with (
        transformer.compiled() if training.compile else nullcontext(),
        transformer.recomputing() if training.activation_checkpointing else nullcontext(),
    ):
        yield


def _fit_priors(
    module: MaskedDiffusionModule,
    data: CellTable,
    sections: list[str],
    config: ModelConfig,
    record: TrainingRecord,
    steps: int,
    reporter: Reporter,
) -> None:
    """Fit transforms and priors before the first training; new sections need new poses."""
    if not record.steps:
        home = module.device
        fit_statistics(module.cpu(), data, sections, config, steps, reporter)
        module.to(home)
    elif module.poses.is_fitted and sections != record.train_sections:
        module.poses.start(len(sections))  # found again within a few steps
        fit_places(module, data, sections, config.seed)


@contextmanager
def _restored_on_error(module: MaskedDiffusionModule) -> Iterator[None]:
    """Training mode of a network; its state is restored if training fails."""
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    try:
        module.train()
        yield
    except BaseException:
        module.load_state_dict(before)
        raise
    finally:
        module.eval()
