"""``train`` and ``calibrate`` of the model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from anndata import AnnData

from alphastomics.model._calibration import cross_validate, on_sections
from alphastomics.model._checkpoints import Checkpoints
from alphastomics.model._devices import PRECISIONS
from alphastomics.model._tissue import TissueData
from alphastomics.model._training import (
    BATCH_SIZE,
    LR,
    SET_SIZE,
    SETS_PER_SECTION,
    WEIGHT_DECAY,
    TrainingRecord,
    fit,
)
from alphastomics.model._validate import check_at_least, check_choice

if TYPE_CHECKING:
    from alphastomics.model._model import AlphaSTomics


class LearningMixin:
    """Trains the model and calibrates its radius."""

    training_record: TrainingRecord

    if TYPE_CHECKING:

        def _require_trained(self) -> None: ...
        def _require_adata(self, adata: AnnData | None) -> AnnData: ...
        def _training_data(self, adata: AnnData) -> TissueData: ...
        def _init_arguments(self) -> dict[str, Any]: ...

    def _places_cells(self) -> bool:
        return bool(self._init_arguments()["training_mode"] != "pos_to_expr")

    def train(
        self,
        max_epochs: int | None = None,
        max_steps: int | None = None,
        *,
        val_sections: Sequence[str] | str | None = None,
        batch_size: int = BATCH_SIZE,
        set_size: int = SET_SIZE,
        sets_per_section: int = SETS_PER_SECTION,
        lr: float = LR,
        weight_decay: float = WEIGHT_DECAY,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        precision: str = "32-true",
        num_workers: int = 0,
        compile: bool = False,
        activation_checkpointing: bool = False,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        progress_bar: bool = True,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model; called again, train it further.

        Parameters
        ----------
        max_epochs, max_steps
            When to stop, one or both. When neither is given, after every training cell was seen
            about 100 times, but 250 to 600 steps. An epoch draws ``sets_per_section`` sets from
            every training section; a step takes a batch of every process, or
            ``accumulate_grad_batches`` of them.
        val_sections
            Names of sections to hold out and validate on after every epoch.
        batch_size
            Sets in a batch.
        set_size
            Most cells in a set.
        sets_per_section
            Sets an epoch draws from every section.
        lr, weight_decay
            Highest learning rate and weight decay of AdamW.
        accelerator, devices, precision
            As in :class:`lightning.pytorch.Trainer`; the precision is ``"32-true"``,
            ``"bf16-mixed"`` or ``"16-mixed"``. Several devices train as one would that takes as
            many batches a step (``accumulate_grad_batches``); the lines must be in a script, which
            is run once a device.
        num_workers
            Processes that prepare sets; the sets do not depend on it.
        compile
            Whether to compile the transformer with :func:`torch.compile`: takes a minute at the
            beginning and a C++ compiler, and makes steps faster, mostly on a GPU.
        activation_checkpointing
            Whether to keep only what goes into each block and compute the rest again in the
            backward pass: less memory for a third more time. The gradients are the same.
        checkpoint_dir
            Folder in which to write ``last.ckpt`` every minute, and ``best.ckpt``.
        ckpt_path
            Checkpoint of an interrupted training of a model like this one, to go on from. The same
            options give the same weights as an uninterrupted training.
        progress_bar
            Whether to show a progress bar.
        **trainer_kwargs
            More options of :class:`scvi.train.Trainer`, such as ``accumulate_grad_batches``,
            ``num_nodes`` or ``strategy``.

        Examples
        --------
        >>> model = al.AlphaSTomics(atlas, d_model=32, num_layers=1)
        >>> model.train(1, val_sections="section_1", sets_per_section=6, progress_bar=False)
        >>> model.history["validation_loss"].shape  # one epoch
        (1, 1)
        """
        for name, value in (
            ("batch_size", batch_size),
            ("set_size", set_size),
            ("sets_per_section", sets_per_section),
        ):
            check_at_least(name, value, 3 if name == "set_size" else 1)
        check_choice("precision", precision, PRECISIONS)
        for name, limit in (("max_epochs", max_epochs), ("max_steps", max_steps)):
            if limit is not None:
                check_at_least(name, limit, 1)
        if val_sections is None:
            val_sections = []
        held_out = [str(s) for s in np.atleast_1d(np.asarray(val_sections, dtype=object))]
        data = self._training_data(self._require_adata(None))
        options: dict[str, Any] = {
            "max_epochs": max_epochs,
            "max_steps": max_steps,
            "batch_size": batch_size,
            "set_size": set_size,
            "sets_per_section": sets_per_section,
            "lr": lr,
            "weight_decay": weight_decay,
            "accelerator": accelerator,
            "devices": devices,
            "precision": precision,
            "num_workers": num_workers,
            "compile": compile,
            "activation_checkpointing": activation_checkpointing,
            "ckpt_path": ckpt_path,
            "enable_progress_bar": progress_bar,
            **trainer_kwargs,
        }
        if checkpoint_dir is not None:
            written = Checkpoints(Path(checkpoint_dir))
            options["callbacks"] = [*trainer_kwargs.get("callbacks", []), written]
        model = cast("AlphaSTomics", self)
        fit(model, data, val_sections=held_out, **options)
        calibration: dict[str, dict[str, float]] = {}
        if self._places_cells() and held_out:
            calibration = on_sections(model, data, held_out)
        self.training_record = replace(self.training_record, calibration=calibration)

    def calibrate(
        self,
        *,
        max_steps: int | None = None,
        progress_bar: bool = True,
        **train_options: Any,
    ) -> None:
        """Find the radius within which 90 % of the cells of a new section lie.

        The network tells each cell's error scale, which is too small for sections it never saw.
        Each training section in turn (four at most) is left out, a model like this one is trained
        on the others, and the ratio of error to scale that holds for 90 % of the cells left out
        turns every scale into a radius (split conformal prediction). Takes about as long as
        training, times the number of sections. With a single section, half of its cells are left
        out instead, and only placing into a reference is calibrated.

        Sections named as ``val_sections`` of :meth:`train` calibrate the model without this.

        Parameters
        ----------
        max_steps
            Steps of each training; by default as many as this model took, for as many cells.
        progress_bar
            Whether to show a progress bar.
        **train_options
            Those given to :meth:`train`.

        Raises
        ------
        ValueError
            If the model does not place cells.

        Examples
        --------
        >>> model.calibrate(max_steps=1, progress_bar=False)
        >>> model.predict(cells, mode="expr_to_pos", progress_bar=False)
        >>> bool((cells.obs["spatial_predicted_radius"] > 0).all())
        True
        """
        self._require_trained()
        if not self._places_cells():
            raise ValueError(
                "A model trained with training_mode='pos_to_expr' places no cells and has no "
                "radius to calibrate."
            )
        model = cast("AlphaSTomics", self)
        record = self.training_record

        def train(fold: AlphaSTomics, data: TissueData) -> None:
            steps = max_steps or max(1, round(record.steps * len(data.names) / record.n_cells))
            fit(fold, data, max_steps=steps, enable_progress_bar=progress_bar, **train_options)

        data = self._training_data(self._require_adata(None))
        calibration = cross_validate(model, data, train)
        self.training_record = replace(record, calibration=calibration)
