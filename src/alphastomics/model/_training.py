"""Training: steps, optimizer, moving average of the weights, and one call of ``train``."""

from __future__ import annotations

import math
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import lightning.pytorch as L
import numpy as np
import pandas as pd
import torch
from scvi.train import Trainer
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alphastomics._compat import epoch_logger, quiet
from alphastomics._progress import Reporter
from alphastomics.config import ModelConfig, TrainConfig
from alphastomics.diffusion_model.batch import CellBatch
from alphastomics.diffusion_model.losses import Losses, training_losses, validation_error
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._checkpoint import (
    CHECKPOINT_KEY,
    history_from_json,
    progress_of,
    read_checkpoint,
    to_checkpoint,
)
from alphastomics.model._data import CellTable, check_linked
from alphastomics.model._datamodule import SectionSets, SetDataModule, SetOptions
from alphastomics.model._distributed import (
    own_errors,
    plugins_for,
    require_script,
    strategy_for,
    world_size,
)
from alphastomics.model._fitting import fit_places, fit_statistics
from alphastomics.model._step_progress import StepProgress, has_own_bar
from alphastomics.model._stopping import Stopping, end

EMA_DECAY = 0.995  # of weights; averages place better than the last ones
WARMUP_STEPS = 50
FINAL_LR_SHARE = 0.05
FAST_LR = 3.0  # learning rate of the diffusion heads relative to that of the rest
BETAS = (0.9, 0.99)  # a training has hundreds of steps, too few for .999
# Without a limit, training stops when every cell has been in a set about this often.
VISITS_PER_CELL = 100
LEAST_STEPS, MOST_STEPS = 250, 600
MATCHING_STEPS = 250
STAGE_2, TRAINING = "stage 2 of 2: network", "training"

History = dict[str, pd.DataFrame]


@torch.no_grad()
def _moving_average(
    average: tuple[Tensor, ...] | list[Tensor],
    new: tuple[Tensor, ...] | list[Tensor],
    n_averaged: Tensor | int,
) -> None:
    """Exponential moving average whose decay grows to ``EMA_DECAY`` with the number of steps."""
    n = float(n_averaged)
    decay = min(EMA_DECAY, (1 + n) / (10 + n))
    get_ema_multi_avg_fn(decay)(average, new, n_averaged)  # type: ignore[no-untyped-call]


def learning_rate_share(step: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to 5 % (Loshchilov & Hutter 2017)."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))
    return warm * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)


class DenoisingPlan(L.LightningModule):
    """Training of a :class:`MaskedDiffusionModule`, with an average of its weights.

    Parameters
    ----------
    module
        Network with fitted transforms.
    config, training
        Options of the model and of training. Biases, norms and tokens have no weight decay.
    total_steps
        Steps over which the learning rate falls.
    first_batch
        Noise and dropout of batch ``i`` are drawn from generators of ``(seed, first_batch + i)``,
        so that they do not depend on earlier draws. The batches of several processes count as
        those of a single one.

    Attributes
    ----------
    saved
        Returns the content of a checkpoint other than the weights, as plain values.
    """

    def __init__(
        self,
        module: MaskedDiffusionModule,
        config: ModelConfig,
        training: TrainConfig,
        *,
        total_steps: int,
        first_batch: int,
    ) -> None:
        super().__init__()
        self.module = module
        self.average = AveragedModel(module, multi_avg_fn=_moving_average).requires_grad_(False)
        self.config, self.options = config, training
        self.total_steps = total_steps
        self.first_batch = self.batches_seen = first_batch
        self.saved: Callable[[], dict[str, Any]] = dict
        self.pose_statistics = torch.zeros(())  # of the batches of a step
        self.last_loss = torch.zeros(())

    def training_step(self, sets: CellBatch, batch_idx: int) -> Tensor:
        """Loss of a batch of sets."""
        number = self.batches_seen + self.global_rank  # of all batches of all processes
        entropy = np.random.SeedSequence([self.config.seed, number])
        noise, dropout = (int(state) for state in entropy.generate_state(2))
        generator = torch.Generator().manual_seed(noise)
        torch.manual_seed(dropout)
        try:
            losses = training_losses(self.module, sets, self.config, generator)
        except LinAlgError:
            raise self._diverged("positions that are superposed") from None
        total = losses.total()
        if not bool(torch.isfinite(total)):
            self._check_losses(losses)
        self.pose_statistics = self.pose_statistics + losses.poses
        named = {f"train_loss_{name}": value for name, value in losses.named().items()}
        if self.module.architecture.num_experts:
            named["least_used_expert"] = losses.least_used
        else:
            del named["train_loss_routing"]
        # The scale only learns from, and does not change, the other errors.
        named["train_loss"] = total.detach() - losses.scale.detach()
        self.last_loss = named["train_loss"]
        for name, value in named.items():
            self.log(
                name,
                value,
                on_step=False,
                on_epoch=True,
                batch_size=len(sets.values),
                prog_bar=name == "train_loss",
                sync_dist=True,
            )
        self.batches_seen += self.trainer.world_size
        return total

    def _check_losses(self, losses: Losses) -> None:
        """Raise as one is not finite, unless the scaler of 16-mixed skips such a step."""
        weights = self.module.parameters()
        if self.trainer.precision == "16-mixed" and all(torch.isfinite(w).all() for w in weights):
            return
        wrong = [name for name, loss in losses.named().items() if not torch.isfinite(loss).all()]
        raise self._diverged(f"loss of {' and '.join(wrong)}")

    def _diverged(self, what: str) -> FloatingPointError:
        """Error that says what is not finite, when, and what to change."""
        return FloatingPointError(
            f"training diverged: the {what} is not finite in step {self.global_step + 1} of "
            f"{self.total_steps}. Train a new model with a lower learning rate (it is "
            f"lr={self.options.lr:g}) or precision='32-true' (it is "
            f"{self.options.precision!r}), and check the data for extreme values."
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, refresh the poses of sections, and update the average."""
        super().optimizer_step(*args, **kwargs)
        if self.module.poses.is_fitted:
            # All processes measure together, so that they keep one frame.
            self.module.poses.update(
                self.trainer.strategy.reduce(self.pose_statistics, reduce_op="sum")
            )
        self.pose_statistics = torch.zeros(())
        self.average.update_parameters(self.module)

    def validation_step(self, sets: CellBatch, batch_idx: int) -> None:
        """Error of placing held-out sections, or of their expression, with averaged weights."""
        self.average.eval()
        module: Any = self.average.module
        error = validation_error(module, sets, self.config, places_cells=self.config.places_cells)
        self.log(
            "validation_loss",
            error,
            on_epoch=True,
            batch_size=len(sets.values),
            prog_bar=True,
            sync_dist=True,  # the same sets everywhere, but all must agree on what is best
        )

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW (Loshchilov & Hutter 2019) with warm-up and cosine decay."""
        module, groups = self.module, []
        fast: list[torch.nn.Module] = [module.position_head, module.expression_head]
        if not self.config.places_cells:
            # The closed-form estimate is near the best: there is little to learn, and few steps.
            fast += [module.expression_embedding, module.expression_mean_head]
        is_fast = {id(p) for part in fast for p in part.parameters()}
        for of_fast, lr in ((False, self.options.lr), (True, FAST_LR * self.options.lr)):
            weights = [p for p in module.parameters() if (id(p) in is_fast) == of_fast]
            matrices = [p for p in weights if p.ndim > 1]
            vectors = [p for p in weights if p.ndim <= 1]
            groups.append({"params": matrices, "lr": lr, "weight_decay": self.options.weight_decay})
            groups.append({"params": vectors, "lr": lr, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(
            groups,
            lr=self.options.lr,
            betas=BETAS,
            # Lightning does not clip gradients that a fused optimizer unscales.
            fused=self.trainer.precision != "16-mixed",
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_share(step, self.total_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the number of batches and the payload of the model."""
        checkpoint[CHECKPOINT_KEY] = {"batches_seen": self.batches_seen, **self.saved()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with the batch after the last one."""
        self.batches_seen = int(checkpoint[CHECKPOINT_KEY]["batches_seen"])
        for state in checkpoint["optimizer_states"]:
            for group in state["param_groups"]:
                group["fused"] = self.trainer.precision != "16-mixed"

    def averaged_state(self) -> dict[str, Tensor]:
        """Averaged weights, to be used for inference."""
        if not all(bool(torch.isfinite(weight).all()) for weight in self.average.parameters()):
            raise self._diverged("average of the weights")
        return self.average.module.state_dict()


@dataclass(frozen=True)
class TrainingRecord:
    """Record of the training of a model, over all calls of ``train``."""

    epochs: int = 0
    steps: int = 0
    n_cells: int = 0
    train_sections: list[str] = field(default_factory=list)
    val_sections: list[str] = field(default_factory=list)
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)
    intervals: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary; ``TrainingRecord(**d)`` is the inverse."""
        return asdict(self)


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


def default_steps(n_cells: int, cells_per_step: int) -> int:
    """Number of steps in which each of ``n_cells`` is in about 100 sets, 250 to 600."""
    return min(max(round(VISITS_PER_CELL * n_cells / cells_per_step), LEAST_STEPS), MOST_STEPS)


def matching_steps(steps: int) -> int:
    """Number of steps of the fit of the reference matching, fewer for a short training."""
    return min(MATCHING_STEPS, 20 + steps)


class _Length(NamedTuple):
    """Limits of a trainer: steps, and epochs that suffice for them."""

    steps: int
    epochs: int


def _length(
    n_cells: int,
    n_sets: int,
    training: TrainConfig,
    trainer_options: Mapping[str, Any],
) -> _Length:
    """Length of a training of ``n_sets`` sets an epoch."""
    processes = world_size(trainer_options)
    batches_per_step = processes * trainer_options.get("accumulate_grad_batches", 1)
    steps_per_epoch = -(-n_sets // (training.batch_size * batches_per_step))
    max_steps, max_epochs = training.max_steps, training.max_epochs
    if max_steps is None and max_epochs is None:
        cells_per_step = training.batch_size * batches_per_step * training.set_size
        max_steps = default_steps(n_cells, cells_per_step)
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
    epochs = length.epochs + 2 + ended - (seen - record.steps) // batches_per_epoch
    return length._replace(epochs=epochs)


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
        joined = dict(self.history_before)
        for name, frame in logged.items():
            if name not in joined:
                joined[name] = frame
                continue
            first = joined[name]
            if not self.resumes:  # the trainer counts from 0 again
                index = range(len(first), len(first) + len(frame))
                frame = frame.set_axis(pd.Index(index, name=first.index.name))
            both = pd.concat([first, frame])
            joined[name] = both[~both.index.duplicated(keep="last")]
        return joined


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
    val_sections, ckpt_path
        As in ``AlphaSTomics.train``.
    reporter
        Of the progress of both stages.
    **trainer_options
        Options of :class:`scvi.train.Trainer`.
    """
    if ckpt_path is not None and not os.path.isfile(ckpt_path):
        raise FileNotFoundError(f"ckpt_path: there is no checkpoint {os.fspath(ckpt_path)!r}.")
    val_sections = sorted(val_sections)
    trainer_options |= {"accelerator": training.accelerator, "devices": training.devices}
    sections = split_sections(data, val_sections, record.train_sections)
    train_sets, val_sets = _training_sets(data, sections, val_sections, config, training)
    n_cells = int(np.isin(data.section, sections).sum())
    length = _length(n_cells, len(train_sets), training, trainer_options)
    if ckpt_path is not None:
        history = history_from_json(read_checkpoint(ckpt_path)[1]["history"])
        length = _resumed(length, ckpt_path, record, len(train_sets), training, trainer_options)
    stopping, steps = Stopping(), StepProgress()
    trainer = _trainer(
        {
            "check_val_every_n_epoch": 1 if val_sections else None,
            **trainer_options,
            "precision": training.precision,
            "max_epochs": length.epochs,
            "max_steps": length.steps,
            "callbacks": [*trainer_options.get("callbacks", []), steps],
        },
        stopping,
    )
    two_stages = ckpt_path is None and not record.steps
    if has_own_bar(trainer_options):
        reporter = Reporter()

    with _restored_on_error(module):
        if ckpt_path is None:
            _fit_priors(module, data, sections, config, record, length.steps, reporter)
        plan = DenoisingPlan(
            module, config, training, total_steps=length.steps, first_batch=record.steps
        )
        loaders = SetDataModule(
            train_sets,
            val_sets,
            training.batch_size,
            first_epoch=record.epochs,
            batches_done=lambda: plan.batches_seen - plan.first_batch,
            num_workers=training.num_workers,
        )
        progress = _Progress(
            plan, loaders, data, sections, val_sections, record, history, ckpt_path is not None
        )
        plan.saved = lambda: {
            "model": to_checkpoint(payload(progress.record(), progress.history()))
        }
        transformer = module.transformer
        with (
            transformer.compiled() if training.compile else nullcontext(),
            transformer.recomputing() if training.activation_checkpointing else nullcontext(),
            reporter.bar(
                STAGE_2 if two_stages else TRAINING, length.steps, "steps"
            ) as steps.progress,
        ):
            stopped = _run(trainer, stopping, plan, loaders, ckpt_path)
        if stopped and not trainer.global_step:
            end(stopped, 0, length.steps)
        module.load_state_dict(plan.averaged_state())
    module.to(trainer.strategy.root_device)
    return Trained(progress.record(), progress.history(), trainer, stopped)


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
    learns_frame = config.frame == "learned" and config.places_cells
    if not record.steps:
        home = module.device
        fit_statistics(
            module.cpu(),
            data,
            sections,
            training_mode=config.training_mode,
            position_mask_ratio=config.position_mask_ratio,
            learns_frame=learns_frame,
            matching_steps=matching_steps(steps),
            seed=config.seed,
            reporter=reporter,
        )
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


def _trainer(options: Mapping[str, Any], stopping: Stopping) -> Trainer:
    """Make a Trainer with these options, before any work: it refuses some of them."""
    options = {
        "accelerator": "auto",  # scvi-tools' None is refused where there is a GPU
        "log_every_n_steps": 1,
        "logger": epoch_logger(),  # else scvi-tools writes files where there are several processes
        **options,
        "enable_progress_bar": has_own_bar(options),
        "simple_progress_bar": False,
        "callbacks": [*options.get("callbacks", []), stopping],
        "plugins": plugins_for(options),
        "reload_dataloaders_every_n_epochs": 1,
        "use_distributed_sampler": False,
        "strategy": strategy_for(options.get("strategy", "auto"), world_size(options)),
    }
    if options.get("devices", "auto") == "auto":
        options["devices"] = 1
        if options["accelerator"] == "auto" and not torch.cuda.is_available():
            options["accelerator"] = "cpu"  # MPS lacks operations, as scvi-tools has it
    with _quiet_trainer(), own_errors(options):
        if not options.get("early_stopping"):  # scvi-tools warns that it is off in any case
            warnings.filterwarnings("ignore", message=".*early_stopping was automatically.*")
        trainer = Trainer(**options)
    require_script(trainer)
    return trainer


@contextmanager
def _quiet_trainer() -> Iterator[None]:
    """Let a trainer neither draw global random numbers nor warn of what is harmless here."""
    with torch.random.fork_rng(), quiet("lightning.pytorch"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*treespec.*")
        for message in (
            ".*in eval mode.*",
            ".*dataloader is not resumable.*",
            ".*across ranks is zero.*",  # validation without sections to validate on
        ):
            warnings.filterwarnings("ignore", message=message, module="lightning")
        # Harmless warnings of torch.distributed: views of outputs, the gloo backend.
        for message in (".*returned a view.*", ".*_get_pg_default.*", ".*Multiple backends.*"):
            warnings.filterwarnings("ignore", message=message, module="torch.distributed")
        # Norms have weights in single precision, whatever the precision of their input.
        warnings.filterwarnings("ignore", message=".*Mismatch dtype between input and weight.*")
        yield


def _run(
    trainer: L.Trainer,
    stopping: Stopping,
    plan: DenoisingPlan,
    loaders: SetDataModule,
    ckpt_path: str | os.PathLike[str] | None,
) -> signal.Signals | None:
    """Run a Trainer; also the signal that stopped it."""
    with _quiet_trainer(), stopping.handling():
        trainer.fit(plan, loaders, ckpt_path=ckpt_path)
    return stopping.received
