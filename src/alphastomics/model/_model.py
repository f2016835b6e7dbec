"""The model on AnnData, in the style of scvi-tools."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi.data import AnnDataManager
from scvi.model.base import BaseModelClass

from alphastomics import _keys
from alphastomics._anndata import gene_names
from alphastomics._computing import own_torch_state
from alphastomics._output import METHOD, OUTPUTS, Output, Results, destination
from alphastomics._progress import Reporter
from alphastomics._settings import settings
from alphastomics._validate import check_adata, check_choice, check_integer, check_seed, read_points
from alphastomics.config import (
    DIFFUSION_STEPS,
    N_STEPS,
    Accelerator,
    Attention,
    Frame,
    GateType,
    ModelConfig,
    Precision,
    Schedule,
    TrainConfig,
    TrainingMode,
)
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._calibration import Calibrator, on_sections
from alphastomics.model._checkpoint import fingerprint, payload_of, read_saved, write_model
from alphastomics.model._compute import DeviceNumbers, computing_on
from alphastomics.model._cross_validation import Retraining, cross_validate
from alphastomics.model._data import CellTable, SetupArgs
from alphastomics.model._distributed import Devices, check_trainer_options
from alphastomics.model._draws import check_memory_of_draws, draw_missing, draw_settings
from alphastomics.model._generation import generate_section, new_cells, with_expression
from alphastomics.model._imputation import impute_missing
from alphastomics.model._imputed import ImputedWriter
from alphastomics.model._inference import Execution, embed, predict_missing
from alphastomics.model._platform import Standardize
from alphastomics.model._reader import CellReader, Mode
from alphastomics.model._record import History, TrainingRecord, history_from_json
from alphastomics.model._registry import Registry, register_cells
from alphastomics.model._requests import warn_of_training_cells
from alphastomics.model._results import Point, ResultWriter, check_point, draw_details
from alphastomics.model._saved import check_stored
from alphastomics.model._scvi import (
    ELSEWHERE,
    HidesInherited,
    chosen_cells,
    explain_differences,
    move,
    require_setup,
    stopping_options,
)
from alphastomics.model._set_reader import registered_positions
from alphastomics.model._signatures import literal_signatures
from alphastomics.model._summary import Summary
from alphastomics.model._task import check_set_size, genes_to_impute, require_direction
from alphastomics.model._training import fit

Estimate = Literal["arrangement", "mean"]
ESTIMATES: tuple[Estimate, ...] = ("arrangement", "mean")


@literal_signatures
@explain_differences
class AlphaSTomics(BaseModelClass, metaclass=HidesInherited):
    """Masked diffusion model of tissue architecture: positions and expression of cells.

    A masked transformer over the cells of a section turns the observed values into a context
    vector per cell, and diffusion heads turn that into distributions of the missing ones (masked
    autoregressive diffusion, Li et al. 2024). :meth:`predict` returns point estimates in one
    forward pass, :meth:`sample` random samples from the learned distribution. Both write into the
    AnnData and return ``None``, or with ``copy=True`` leave it as it is and return a copy.

    Parameters
    ----------
    adata
        Training cells, registered by :meth:`setup_anndata`.
    training_mode
        What to learn: ``"expr_to_pos"``, positions given expression; ``"pos_to_expr"``, expression
        given positions; ``"joint"``, every combination of observed and missing values.
    d_model
        Width of the tokens.
    num_heads
        Attention heads per block; must divide ``d_model``.
    num_layers
        Number of transformer blocks.
    d_ff
        Inner width of the feed-forward network of a block.
    dropout
        Dropout probability in training.
    attention
        ``"softmax"``, or ``"linear"``, whose cost is linear in the number of cells.
    gate_type
        Gate on the output of attention: ``"none"``, ``"headwise"`` or ``"elementwise"``.
    num_experts, moe_top_k
        Number of experts per block, which replace the feed-forward network (0 for none), and
        number of experts per cell.
    expert_width
        Inner width of an expert; by default ``d_ff / num_experts``.
    router_noise
        Standard deviation of the noise on the router's logits in training.
    expression_mask_ratio
        Mean share of masked genes in training sets without cells of missing expression, in [0, 1);
        the share is random per set.
    expression_noise
        Standard deviation of the noise that is added in training to the standardized expression of
        the cells to place.
    expression_shift
        Standard deviation of a random shift per gene, common to the cells to place of a training
        set, such as between animals.
    position_mask_ratio
        Mean share of masked positions in training sets with observed and masked positions, in
        [0, 1). With 0 there are no such sets, and the model does not learn to place cells into a
        reference.
    frame
        ``"learned"``: sections have arbitrary orientations, and the network learns a common frame,
        into which it registers the training sections. ``"registered"``: sections are registered
        already, and cells are placed into the frame of their coordinates.
    allow_reflection
        Whether sections may be mirror images of each other.
    schedule
        Noise schedule of training and sampling: ``"edm"`` (Karras et al. 2022) or ``"cosine"``
        (Nichol & Dhariwal 2021).
    diffusion_steps
        Number of noise levels of training, if the schedule is ``"cosine"``.
    seed
        Seed of the initial weights and of training; ``None`` for ``al.settings.seed``, which is 0
        unless it is set. ``scvi.settings.seed`` has no effect.
    registry
        Setup of a saved model; used by :meth:`load`.

    Examples
    --------
    >>> import alphastomics as al
    >>> atlas = al.datasets.simulate_tissue(n_sections=3, n_cells=200)
    >>> cells = atlas[atlas.obs["section"] == "section_2"].copy()
    >>> atlas = atlas[atlas.obs["section"] != "section_2"].copy()
    >>> al.AlphaSTomics.setup_anndata(atlas, labels_key="cell_type")
    >>> model = al.AlphaSTomics(atlas, d_model=32, num_layers=1)
    >>> model.train(max_steps=2, progress_bar=False)
    >>> model.predict(cells, mode="expr_to_pos", progress_bar=False)
    >>> cells.obsm["spatial_predicted"].shape
    (200, 2)
    """

    @own_torch_state()
    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        training_mode: TrainingMode = "joint",
        d_model: int = 128,
        num_heads: int = 4,
        num_layers: int = 4,
        d_ff: int = 256,
        dropout: float = 0.1,
        attention: Attention = "softmax",
        gate_type: GateType = "none",
        num_experts: int = 0,
        moe_top_k: int = 2,
        expert_width: int | None = None,
        router_noise: float = 0.0,
        expression_mask_ratio: float = 0.4,
        expression_noise: float = 0.4,
        expression_shift: float = 0.4,
        position_mask_ratio: float = 0.33,
        frame: Frame = "learned",
        allow_reflection: bool = True,
        schedule: Schedule = "edm",
        diffusion_steps: int = DIFFUSION_STEPS,
        seed: int | None = None,
        registry: dict[str, Any] | None = None,
    ) -> None:
        given = {**locals(), "seed": settings.seed if seed is None else seed}
        self.config = ModelConfig(**{name: given[name] for name in ModelConfig.model_fields})
        if adata is not None or registry is None:
            require_setup(type(self), adata)
        super().__init__(adata, registry)
        self.module = self._new_module()
        self.module.eval()
        self.training_record = TrainingRecord()
        self.history_: History | None = None
        self._table: CellTable | None = None  # training cells that are not read from adata

    def __getstate__(self) -> dict[str, Any]:
        """State for copies and pickle: all but the trainer of the last call."""
        return {name: value for name, value in self.__dict__.items() if name != "trainer"}

    def _new_module(self) -> MaskedDiffusionModule:
        """Network with its initial weights."""
        return self._registered.new_module(self.config)

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        layer: str | None = None,
        values: str = "counts",
        spatial_key: str = _keys.SPATIAL,
        section_key: str | None = _keys.SECTION,
        labels_key: str | None = None,
        batch_key: str | None = None,
    ) -> None:
        """Register an AnnData: the keys of expression, positions, sections and labels.

        A line of the logger says what was found.

        Parameters
        ----------
        adata
            Sections to learn from; at least one with coordinates.
        layer
            Layer with the expression values; ``None`` for ``.X``.
        values
            ``"counts"`` (whole numbers), ``"lognorm"`` (log-normalized) or ``"intensity"``
            (continuous, not logged).
        spatial_key
            Name in ``.obsm`` of the coordinates, ``(n_cells, 2)`` or ``(n_cells, 3)``, in any
            unit; a row of NaN where a position is missing.
        section_key
            Name in ``.obs`` of the section; ``None`` when all cells are one section.
        labels_key
            Name in ``.obs`` of cell types, for scores and colors; never an input to placement.
        batch_key
            Name in ``.obs`` of donor or platform, a condition of training and of queries that have
            it. It is not the section: for that, which scvi-tools and squidpy call sample, batch or
            library, pass ``section_key``.

        Examples
        --------
        >>> al.AlphaSTomics.setup_anndata(atlas, section_key="section", labels_key="cell_type")
        """
        cls.register_manager(register_cells(adata, cls._get_setup_method_args(**locals())))

    @property
    def genes(self) -> pd.Index:
        """Names of the genes of the model, in its order."""
        return self._registered.genes

    @own_torch_state()
    def train(
        self,
        max_epochs: int | None = None,
        max_steps: int | None = None,
        *,
        val_sections: Sequence[str] | str | None = None,
        batch_size: int = 6,
        set_size: int = 256,
        sets_per_section: int = 48,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        accelerator: Accelerator = "auto",
        devices: int | list[int] | str = "auto",
        precision: Precision = "32-true",
        num_workers: int = 0,
        compile: bool = False,
        activation_checkpointing: bool = False,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        progress_bar: bool | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model; called again, train it further.

        Parameters
        ----------
        max_epochs, max_steps
            Length of training, the shorter one if both are given; by default 250 to 600 steps, in
            which every training cell occurs about 100 times. An epoch has ``sets_per_section``
            random sets per training section; a step takes one batch per process, or
            ``accumulate_grad_batches`` of them.
        val_sections
            Names of sections to leave out of training and to validate on after every epoch.
        batch_size
            Sets of cells per batch.
        set_size
            Maximum number of cells per set.
        sets_per_section
            Sets per section and epoch.
        lr, weight_decay
            Maximum learning rate, and weight decay, of AdamW.
        accelerator, devices, precision
            As in :class:`lightning.pytorch.Trainer`; the precision is ``"32-true"``,
            ``"bf16-mixed"`` or ``"16-mixed"``. Training on several devices equals training
            on one with as many batches in a step (``accumulate_grad_batches``); the lines must be
            in a script, which runs once for each device.
        num_workers
            Processes that prepare sets; the sets do not depend on it.
        compile
            Whether to compile the transformer with :func:`torch.compile`: takes a minute at the
            beginning and a C++ compiler, and makes steps faster, mostly on a GPU.
        activation_checkpointing
            Whether to store only the inputs of the blocks and to recompute the rest in the backward
            pass: less memory for a third more time. The gradients are the same.
        checkpoint_dir
            Folder in which to write ``last.ckpt`` every minute, and ``best.ckpt``.
        ckpt_path
            Checkpoint of an interrupted training of an equal model, to resume from. With the same
            options the weights equal those of an uninterrupted training.
        progress_bar
            Whether to show progress; ``None`` for ``al.settings.progress_bar``. Where there is no
            terminal, a few lines are logged instead of a bar.
        **trainer_kwargs
            More options of :class:`scvi.train.Trainer`, such as ``accumulate_grad_batches``,
            ``num_nodes`` or ``strategy``. ``early_stopping=True`` stops when the validation loss
            has not improved for 5 epochs (``early_stopping_patience``); it needs ``val_sections``.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C. The model then has the averaged weights of the steps done, which a warning
            counts. SIGTERM does the same and then ends the process.

        Examples
        --------
        >>> model = al.AlphaSTomics(atlas, d_model=32, num_layers=1)
        >>> model.train(1, val_sections="section_1", sets_per_section=6, progress_bar=False)
        >>> model.history["validation_loss"].shape  # one epoch
        (1, 1)
        """
        given = locals()
        config = TrainConfig(**{name: given[name] for name in TrainConfig.model_fields})
        own = set(given) - {"self", "trainer_kwargs", "__class__"}
        check_trainer_options(trainer_kwargs, sorted(own))
        names = np.atleast_1d(np.asarray([] if val_sections is None else val_sections, object))
        held_out = [str(name) for name in names]
        trainer_kwargs = stopping_options(trainer_kwargs, validates=bool(held_out))
        data = self._training_cells()
        trained = fit(
            self.module,
            data,
            self.config,
            config,
            self.training_record,
            self.history_ or {},
            self._payload,
            val_sections=held_out,
            checkpoint_dir=checkpoint_dir,
            ckpt_path=ckpt_path,
            reporter=Reporter.of(progress_bar),
            **trainer_kwargs,
        )
        self.training_record, self.history_, self.trainer, _ = trained
        self.is_trained_ = True
        trained.hand_on()
        self._calibrate_on(data, held_out)

    def _calibrate_on(self, data: CellTable, sections: list[str]) -> None:
        """Calibrate on sections that were not in training; without any, nothing is calibrated."""
        calibrator = Calibrator.of(self.module, self.config)
        if sections:
            on_sections(calibrator, data, sections)
        self.training_record = calibrator.added_to(self.training_record)

    @own_torch_state()
    def calibrate(
        self,
        *,
        max_steps: int | None = None,
        progress_bar: bool | None = None,
        **train_options: Any,
    ) -> None:
        """Calibrate the uncertainty of estimates on cells that are left out of training.

        The model is retrained once per left-out section, up to four times, which takes up to four
        times the training time. With a single section, half of its cells are left out instead, and
        only placement into a reference is calibrated. A line of the logger says what was found.

        Placement: the 90 % radius, within which 90 % of the cells of a new section lie. It is the
        error scale that the network predicts for a cell, times the 90 % quantile of error / scale
        of the cells left out (split conformal prediction). Coverage is only guaranteed for sections
        that are exchangeable with those of training.

        Expression: 90 % intervals per gene and cell, and a reliability per gene, for three kinds of
        estimates: genes from other genes of the cell, with its position and without, and all genes
        at positions among measured cells. Observed values of the cells left out are masked, a fifth
        of the genes at a time, and estimated (see the page *Intervals of expression*).

        If :meth:`train` had ``val_sections``, the model is calibrated on these already.

        Parameters
        ----------
        max_steps
            Steps of each training; by default as many as this model took, for as many cells. With
            fewer, radius and intervals may not hold 90 %, which a warning says.
        progress_bar
            As in :meth:`train`.
        **train_options
            Those given to :meth:`train`, such as ``accelerator`` and ``devices``.

        Raises
        ------
        ValueError
            If the training cells are too few to leave some out.

        Examples
        --------
        >>> model.calibrate(max_steps=1, progress_bar=False)
        >>> model.predict(cells, mode="expr_to_pos", progress_bar=False)
        >>> bool((cells.obs["spatial_predicted_radius"] > 0).all())
        True
        >>> model.impute(cells, genes=["gene_0"], progress_bar=False)
        >>> cells.obsm["expression_imputed_upper"].columns.tolist()
        ['gene_0']
        """
        self._require_trained()
        record, calibrator = self.training_record, Calibrator.of(self.module, self.config)
        retraining = Retraining.of_options(
            train_options, max_steps, self.config, record, self._new_module, self._payload
        )
        cross_validate(calibrator, self._training_cells(), retraining, progress_bar)
        self.training_record = calibrator.added_to(record)

    @own_torch_state()
    def predict(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode = "auto",
        reference: AnnData | None = None,
        estimate: Estimate = "arrangement",
        output: Output = "lognorm",
        key_added: str = _keys.PREDICTED,
        layer_added: str = _keys.EXPRESSION_PREDICTED,
        standardize: Standardize = "auto",
        max_cells_per_set: int | None = None,
        accelerator: Accelerator = "auto",
        devices: DeviceNumbers = "auto",
        distributed: Devices | None = None,
        copy: bool = False,
        progress_bar: bool | None = None,
    ) -> AnnData | None:
        """Predict missing positions or expression, as point estimates in one forward pass.

        Expression is the conditional mean, which has the least squared error and too little
        variance; :meth:`sample` has the variance of the tissue instead. Positions depend on
        ``estimate``. The cells of a section attend to each other. Observed values are returned
        unchanged. Labels are an input only for cells without measured expression whose expression
        is predicted, never for placement.

        Parameters
        ----------
        adata
            Cells to predict for; those of the training when ``None``. Genes are matched by name;
            missing ones are treated as unknown. Cells are one section unless the section key is
            in ``.obs``. A position is missing where its row of the coordinates is NaN or there are
            no coordinates; the expression of a cell where ``.obs["expression_known"]`` is False.
        mode
            ``"auto"``: predict what is missing, positions, expression or both; an error if nothing
            is missing. ``"expr_to_pos"``: mask all positions and place every cell.
            ``"pos_to_expr"``: mask all expression and predict it. ``"joint"``: mask both.
        reference
            Measured cells with positions in one frame, such as the other half of the section or the
            two neighboring slices. The query is placed into their frame, in their units. Known
            coordinates of the query must be in the same frame.
        estimate
            How cells are placed. ``"mean"``: the conditional mean, which has the least squared
            error and shrinks towards the center where expression is uninformative.
            ``"arrangement"``: without any known position, positions whose pairwise distances rank
            as expected, superposed on the mean; within a reference, the most likely position
            (the mode).
        output
            Scale of expression: ``"lognorm"``, log-normalized as the network reads it, with
            negative values set to zero unless training values are negative; or ``"counts"``,
            inverted and rounded, at the median depth of training. Observed values are written in 64
            bits if 32 do not hold them.
        key_added, layer_added
            Names in ``.obsm`` and ``.layers`` of positions and expression. An entry of that name is
            replaced only if an earlier call wrote it.
        standardize
            ``"training"``: genes of the query are standardized with the statistics of training.
            ``"query"``: with those of their own section, for cells of another platform with the
            same composition of cell types; only for placement. With a reference, 100 or more such
            cells are then moved towards their optimal transport to the reference cells until they
            have 0.85 of their spread, so that positions depend on the other cells of the query;
            ``estimate="mean"`` is not moved. ``"auto"``: the latter, with a warning, for sections
            of counts whose depth is more than 2.5 times that of training, or less than 1 / 2.5.
        max_cells_per_set
            Maximum number of cells that attend to each other. Larger sections are divided into
            parts, so that memory stays bounded; by default 2,048 for placement, else 8,192. If
            memory does not suffice, parts of half the size are tried.
        accelerator, devices
            As in :class:`lightning.pytorch.Trainer`: another device than that of the model, which
            ``"auto"`` uses (see :meth:`to_device`), or several, which share the parts. Every
            process has the same result as a single one. The script runs once for each device, so
            let one process write files.
        distributed
            More options of the Trainer, such as ``{"num_nodes": 2}``. Parts are exchanged in
            ``default_root_dir``, which all nodes must share.
        copy
            Whether to leave ``adata`` as it is and to return a copy with the results.
        progress_bar
            As in :meth:`train`.

        Returns
        -------
        AnnData or None
            ``None``, or the copy if ``copy=True``. Writes, where positions are missing,
            ``.obsm[key_added]``, shape ``(n_cells, n_dims)``, in the units of training, and, if the
            model was calibrated, ``.obs[key_added + "_radius"]``, within which the true position
            lies with a probability of 90 %. Without any known position the frame is that of the
            model, centered on the origin. Cells without counts whose position is unknown have NaN,
            with a warning. Where expression is missing, ``.layers[layer_added]``, shape
            ``(n_cells, n_genes)``, NaN for genes the model does not know; if the model was
            calibrated and the cells have other genes, or a position among measured cells, also
            ``.layers[layer_added + "_lower"]`` and ``"_upper"``, between which the true value lies
            with a probability of 90 %, and ``.var[layer_added + "_reliability"]``, the correlation
            over cells of estimates and truth that is expected of each gene. In
            ``.uns["alphastomics"]``, provenance; in ``.uns[key_added]`` the images of Visium, if
            positions are in their frame.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If nothing is missing or the mode masks everything, if the model was not trained for
            the mode, if no gene is shared with the model, or if coordinates have another dimension.

        Examples
        --------
        >>> model.predict(cells, mode="expr_to_pos", progress_bar=False)
        >>> cells.obsm["spatial_predicted"].shape
        (200, 2)
        """
        self._reader.check_output(output, key_added=key_added, layer_added=layer_added)
        check_choice("estimate", estimate, ESTIMATES)
        check_set_size(max_cells_per_set)
        details = {METHOD: "predict", "mode": mode, "estimate": estimate}
        with computing_on(self.module, accelerator, devices, distributed, shares=True) as shared:
            adata, reader = self._destination(adata, copy), self._reader
            task = reader.task(adata, mode, reference, standardize, predicts=True)
            details["model"] = self._fingerprint()
            writer = ResultWriter(
                Results(adata), task, reference, reader, self.training_record, output, details
            )
            writer.reserve(key_added, layer_added)
            execution = Execution(task.set_size(max_cells_per_set), progress_bar, shared)
            estimates = predict_missing(
                self.module, task, execution, arrange=estimate == "arrangement"
            )
            if estimate == "arrangement":  # the mean may be the center
                writer.warn_of_collapse(estimates)
            writer.write(estimates, key_added, layer_added)
        return adata if copy else None

    @own_torch_state()
    def sample(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode = "auto",
        reference: AnnData | None = None,
        n_samples: int = 1,
        n_rounds: int | None = None,
        n_steps: int = N_STEPS,
        point: Point = "medoid",
        output: Output = "lognorm",
        key_added: str = _keys.SAMPLED,
        layer_added: str = _keys.EXPRESSION_SAMPLED,
        seed: int | None = None,
        standardize: Standardize = "auto",
        max_cells_per_set: int | None = None,
        accelerator: Accelerator = "auto",
        devices: DeviceNumbers = "auto",
        distributed: Devices | None = None,
        copy: bool = False,
        progress_bar: bool | None = None,
    ) -> AnnData | None:
        """Sample missing positions or expression from the learned distribution.

        Without any known position, several samples of a section are superposed by generalized
        Procrustes analysis; known positions fix the frame.

        Parameters
        ----------
        adata, mode, reference, output, layer_added
            As in :meth:`predict`.
        standardize, max_cells_per_set, accelerator, devices, distributed, copy, progress_bar
            As in :meth:`predict`.
        n_samples
            Number of samples.
        n_rounds
            Rounds per sample, one forward pass of the transformer each. In a round a random share
            of the cells is sampled, which are known in the next round. With one round the cells of
            a section are conditionally independent given the observed values; at most one round per
            cell. By default 1 for positions and 4 for expression.
        n_steps
            Steps of the diffusion heads, which need no forward pass of the transformer.
        point
            Summary of several samples of positions: ``"medoid"``, the sample nearest to all
            others; ``"consensus"``, their mean; ``None``, all samples. Expression is that of the
            medoid, or the mean.
        key_added
            Name in ``.obsm`` of positions.
        seed
            Same seed, same samples, for any order of the cells; ``None`` for ``al.settings.seed``.

        Returns
        -------
        AnnData or None
            As :meth:`predict`, or with ``point=None`` positions in
            ``.obsm[key_added + "_draws"]`` (``.obsm[key_added]`` if it ends with ``"draws"``),
            ``(n_cells, n_samples, n_dims)``, and expression in ``.layers[layer_added + "_0"]`` and
            so on, a layer per draw. In ``.uns["alphastomics"]``, provenance, and for several draws
            without a known position whether they disagree by a mirror image, see
            :func:`alphastomics.metrics.mirror_ambiguity`.

        Examples
        --------
        >>> model.sample(cells, mode="expr_to_pos", n_samples=2, point=None, progress_bar=False)
        >>> cells.obsm["spatial_sampled_draws"].shape
        (200, 2, 2)
        """
        self._reader.check_output(output, key_added=key_added, layer_added=layer_added)
        n_samples, seed = check_integer("n_samples", n_samples, 1), check_seed(seed)
        settings = draw_settings(self.config.schedule, n_steps, n_rounds)
        check_point(point)
        check_set_size(max_cells_per_set)
        details = draw_details(mode, seed, n_samples, n_rounds, n_steps, point)
        with computing_on(self.module, accelerator, devices, distributed, shares=True) as shared:
            adata, reader = self._destination(adata, copy), self._reader
            task = reader.task(adata, mode, reference, standardize, predicts=False)
            check_memory_of_draws(self.module, task, n_samples)
            details["model"] = self._fingerprint()
            writer = ResultWriter(
                Results(adata), task, reference, reader, self.training_record, output, details
            )
            writer.reserve(key_added, layer_added, n_samples if point is None else None)
            execution = Execution(task.set_size(max_cells_per_set), progress_bar, shared)
            draws = draw_missing(
                self.module, task, settings, execution, seed=seed, n_samples=n_samples
            )
            writer.superpose(draws)
            writer.warn_of_collapse(draws[0])
            writer.write_draws(draws, point, key_added, layer_added)
        return adata if copy else None

    @own_torch_state()
    def impute(
        self,
        adata: AnnData | None = None,
        *,
        genes: Sequence[str] | None = None,
        reference: AnnData | None = None,
        draw: bool = False,
        output: Output = "lognorm",
        key_added: str = _keys.EXPRESSION_IMPUTED,
        n_steps: int = N_STEPS,
        seed: int | None = None,
        max_cells_per_set: int | None = None,
        accelerator: Accelerator = "auto",
        devices: DeviceNumbers = "auto",
        copy: bool = False,
        progress_bar: bool | None = None,
    ) -> AnnData | None:
        """Impute genes that a panel lacks, given its genes, and positions if there are any.

        Estimates stack ridge regressions, similar training cells and spatial averages, with weights
        learned by masking measured genes (Breiman 1996), separately for each section of at least
        100 cells and 10 measured genes, which may come from another platform than training. The
        network estimates the mean of a gene over the section, smaller sections, cells without
        counts, and random values (``draw=True``).

        Parameters
        ----------
        adata, reference, output, max_cells_per_set, copy, progress_bar
            As in :meth:`predict`.
        genes
            Genes of the model to impute, the columns of the result in this order; those that
            ``adata`` lacks when ``None``. Genes that ``adata`` has are masked first. The model has
            learned from the values of its training cells, so a warning is raised for these.
        draw
            Whether to sample values instead of their mean.
        key_added
            Name in ``.obsm`` of the table.
        n_steps, seed
            As in :meth:`sample`, for ``draw=True``.
        accelerator, devices
            As in :meth:`predict`, but one device only.

        Returns
        -------
        AnnData or None
            ``None``, or the copy if ``copy=True``. Writes ``.obsm[key_added]``, a DataFrame
            ``(n_cells, n_genes)`` with the genes as its columns. If the model was calibrated, also
            ``.obsm[key_added + "_lower"]`` and ``"_upper"``, between which the true value lies with
            a probability of 90 %, and ``.uns["alphastomics"][key_added]["reliability"]``, the
            correlation over cells of estimates and truth that is expected of each of these genes.
            Cells without counts are imputed from their position; if that is unknown, too, they have
            NaN, with a warning.

        Raises
        ------
        ValueError
            If a gene was not in the training data, or no gene is missing.

        Examples
        --------
        >>> model.impute(cells, genes=["gene_0", "gene_1"], progress_bar=False)
        >>> cells.obsm["expression_imputed"].columns.tolist()
        ['gene_0', 'gene_1']
        """
        self._require_trained()
        self._reader.check_output(output, key_added=key_added)
        seed = check_seed(seed)
        settings = draw_settings(self.config.schedule, n_steps)
        require_direction(self.config.training_mode, position=False, expression=True)
        check_set_size(max_cells_per_set)
        adata = self._destination(adata, copy)
        check_adata(adata)
        results, reader = Results(adata), self._reader
        results.reserve("obsm", key_added, "key_added")
        imputed = genes_to_impute(self.genes, gene_names(adata), genes)
        query = reader.query(adata)
        self._warn_of_training_cells(adata, query, imputed)
        task = reader.imputation_task(adata, query, reference, imputed)
        details = {"draw": draw, "seed": seed, "model": self._fingerprint()}
        writer = ImputedWriter(
            results, key_added, task, imputed, reader, self.training_record, output, details
        )
        execution = Execution(task.set_size(max_cells_per_set), progress_bar)
        with computing_on(self.module, accelerator, devices):
            estimates = impute_missing(
                self.module, task, imputed, execution, draw=(settings, seed) if draw else None
            )
        writer.write(estimates)
        return adata if copy else None

    @own_torch_state()
    def predict_expression(
        self,
        positions: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        reference: AnnData | None = None,
        draw: bool = False,
        output: Output = "lognorm",
        seed: int | None = None,
        accelerator: Accelerator = "auto",
        devices: DeviceNumbers = "auto",
        progress_bar: bool | None = None,
    ) -> AnnData:
        """Predict the expression of cells at given positions.

        Positions need a frame: that of a ``reference``, or that of all sections if the model has
        ``frame="registered"``. Without one, estimates are near the mean of the tissue, and a
        warning is raised.

        Parameters
        ----------
        positions
            Coordinates in the units of training, shape ``(n_cells, n_dims)``; in the frame of the
            reference if there is one. Those of another section are not, unless both sections were
            registered.
        labels
            Cell type of each cell, if known; needs ``labels_key`` in :meth:`setup_anndata`.
        reference
            Measured cells with positions in the same frame, such as the rest of the section or the
            neighboring slices.
        draw
            Whether to sample expression instead of its mean.
        output
            As in :meth:`predict`.
        seed
            As in :meth:`sample`, for ``draw=True``.
        accelerator, devices, progress_bar
            As in :meth:`predict`.

        Returns
        -------
        AnnData
            ``n_cells`` new cells with the genes of the model, expression in ``.X``, positions in
            ``.obsm`` under the spatial key, their unit in ``.uns["units"]`` if the training data
            had one. Of a calibrated model, with a reference and without
            ``draw``, also the bounds and the reliability of :meth:`predict`, whose names begin
            with ``"expression_predicted"``.

        Examples
        --------
        >>> section = atlas[atlas.obs["section"] == "section_0"].copy()
        >>> new = model.predict_expression([[0.0, 0.0], [50.0, 20.0]], reference=section)
        >>> new.shape
        (2, 60)
        """
        self._require_trained()
        seed = check_seed(seed)
        points = read_points(positions, self.module.position_dim)
        what, key = f"expression at {len(points):,} positions", self._setup.spatial_key
        cells = new_cells(len(points), self.genes, self._setup, labels, what)
        cells.obsm[key] = points
        layer = _keys.EXPRESSION_SAMPLED if draw else _keys.EXPRESSION_PREDICTED
        estimate = partial(self.sample, seed=seed) if draw else self.predict
        estimate(
            cells,
            reference=reference,
            output=output,
            layer_added=layer,
            accelerator=accelerator,
            devices=devices,
            progress_bar=progress_bar,
        )
        return with_expression(cells, layer, key, self._registered.units)

    @own_torch_state()
    def generate(
        self,
        n_cells: int,
        *,
        labels: ArrayLike | None = None,
        output: Output = "lognorm",
        n_rounds: int | None = None,
        n_steps: int = N_STEPS,
        seed: int | None = None,
        accelerator: Accelerator = "auto",
        devices: DeviceNumbers = "auto",
        progress_bar: bool | None = None,
    ) -> AnnData:
        """Generate a synthetic section: training cells at new positions.

        The chain rule ``p(e, x) = p(e) p(x | e)``: expression is that of random training cells
        (:class:`~alphastomics.priors.donors.DonorCells`), whose positions are sampled by the
        network. Nearby cells then exchange their positions until expression is as autocorrelated as
        in training (:class:`~alphastomics.priors.autocorrelation.AutocorrelationPrior`).
        ``sample(mode="joint")`` samples expression by the network, too; such sections are less like
        real ones (see the notes on draws).

        Parameters
        ----------
        n_cells
            Number of cells.
        labels
            Cell type of each cell, if it is to be fixed; needs ``labels_key`` in
            :meth:`setup_anndata`.
        output
            ``"counts"``, the measured counts of training cells; ``"lognorm"``, the same
            log-normalized.
        n_rounds, n_steps, seed, accelerator, devices, progress_bar
            As in :meth:`sample`.

        Returns
        -------
        AnnData
            Expression in ``.X``, positions in ``.obsm`` under the spatial key, in the units of
            training, centered on the origin. ``.obs`` has the section, ``"generated"``, and cell
            types if the model was set up with ``labels_key``: those given, or those of the training
            cells that were drawn. ``.uns["units"]`` is that of the training data, if they had one.

        Examples
        --------
        >>> model.generate(100, progress_bar=False).obsm["spatial"].shape
        (100, 2)
        """
        self._require_trained()
        n_cells, seed = check_integer("n_cells", n_cells, 1), check_seed(seed)
        check_choice("output", output, OUTPUTS)
        settings = draw_settings(self.config.schedule, n_steps, n_rounds)
        require_direction(self.config.training_mode, position=True, expression=True)
        details = draw_details("expr_to_pos", seed, 1, n_rounds, n_steps, "medoid")
        return generate_section(
            self._reader,
            new_cells(n_cells, self.genes, self._setup, labels, f"n_cells={n_cells}"),
            settings,
            output=output,
            seed=seed,
            details={**details, "model": self._fingerprint()},
            units=self._registered.units,
            device=computing_on(self.module, accelerator, devices, shares=True),
            progress_bar=progress_bar,
        )

    @own_torch_state()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        mode: Mode | None = None,
        max_cells_per_set: int | None = None,
        accelerator: Accelerator = "auto",
        devices: DeviceNumbers = "auto",
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Latent representation of cells in the context of their section.

        These are the tokens of the last block of the transformer.

        Parameters
        ----------
        adata, max_cells_per_set
            As in :meth:`predict`.
        indices
            Cells to return, as numbers or as a mask; the context is their whole section in any
            case.
        mode
            Values to mask: ``"expr_to_pos"`` (the default of a model that places cells) embeds
            expression, ``"pos_to_expr"`` positions, ``"auto"`` masks nothing and embeds all
            observed values.
        accelerator, devices
            As in :meth:`predict`, but one device only.

        Returns
        -------
        ndarray
            ``(n_cells, d_model)``, in the order of the cells, or of ``indices``; NaN for cells
            without counts whose position is unknown.

        Examples
        --------
        >>> cells.obsm["X_tissue"] = model.get_latent_representation(cells)
        >>> cells.obsm["X_tissue"].shape
        (200, 32)
        """
        check_set_size(max_cells_per_set)
        if mode is None:
            mode = "expr_to_pos" if self.config.places_cells else "pos_to_expr"
        with computing_on(self.module, accelerator, devices):
            self._require_trained()
            task = self._reader.task(self._require_adata(adata), mode, predicts=True, embed=True)
            n = task.n_query
            cells = chosen_cells(np.arange(n) if indices is None else indices, n)
            tokens = embed(self.module, task, task.set_size(max_cells_per_set))
        return tokens[cells]

    @own_torch_state()
    def register(
        self,
        adata: AnnData | None = None,
        *,
        key_added: str = _keys.REGISTERED,
        accelerator: Accelerator = "auto",
        devices: DeviceNumbers = "auto",
        copy: bool = False,
    ) -> AnnData | None:
        """Register sections with coordinates to the common frame of the model.

        Each section is rotated, mirrored if that is allowed, and shifted onto the positions that
        are predicted from the expression of its cells. Distances within a section are preserved.

        Parameters
        ----------
        adata
            Cells with coordinates and expression, of any number of sections; those of the training
            when ``None``.
        key_added
            Name in ``.obsm`` of the registered coordinates.
        accelerator, devices
            As in :meth:`predict`, but one device only.
        copy
            As in :meth:`predict`.

        Returns
        -------
        AnnData or None
            ``None``, or the copy if ``copy=True``. Writes ``.obsm[key_added]``,
            ``(n_cells, n_dims)``, in the units of training; NaN for cells without a position.

        Raises
        ------
        ValueError
            If the model has no common frame, or a section has no cell with both a position and
            expression.

        Examples
        --------
        >>> model.register(atlas)
        >>> atlas.obsm["spatial_registered"].shape
        (400, 2)
        """
        self._require_trained()
        self._reader.check_output(OUTPUTS[0], key_added=key_added)
        if not self.module.poses.is_fitted:
            raise ValueError(
                "This model has no common frame: it is learned with frame='learned' by a "
                "training_mode that places cells."
            )
        adata = self._destination(adata, copy)
        check_adata(adata)
        results = Results(adata)
        results.reserve("obsm", key_added, "key_added")
        with computing_on(self.module, accelerator, devices):
            position = registered_positions(self.module, self._reader.query(adata))
        results.put("obsm", key_added, position)
        results.record(key_added, **{METHOD: "register"}, model=self._fingerprint())
        results.write()
        return adata if copy else None

    def save(self, dir_path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save the trained model in a folder: safetensors and JSON, nothing that can run code.

        Parameters
        ----------
        dir_path
            Folder to write, created if it does not exist.
        overwrite
            Whether to replace a model in that folder.

        Examples
        --------
        >>> folder = getfixture("tmp_path") / "model"
        >>> model.save(folder)
        >>> al.AlphaSTomics.load(folder).is_trained
        True
        """
        self._require_trained()
        payload = self._payload(self.training_record, self.history_ or {})
        write_model(dir_path, self.module.state_dict(), payload, overwrite=overwrite)

    @classmethod
    def load(
        cls, dir_path: str | os.PathLike[str], adata: AnnData | Literal[False] | None = None
    ) -> Self:
        """Load a model that :meth:`save` wrote, or a checkpoint. No code in it is executed.

        Parameters
        ----------
        dir_path
            The folder, or a checkpoint (``.ckpt``) of the command ``train``.
        adata
            Sections to train further on; they must have all genes of the model, in any order. Not
            needed for other cells: ``None`` or ``False``.

        Returns
        -------
        AlphaSTomics
            The trained model.

        Examples
        --------
        >>> folder = getfixture("tmp_path") / "model"
        >>> model.save(folder)
        >>> again = al.AlphaSTomics.load(folder)
        >>> again.predict(cells, mode="expr_to_pos", progress_bar=False)
        """
        state, payload = read_saved(dir_path)
        model = cls(registry=payload["registry"], **payload["init_arguments"])
        if adata is not None and adata is not False:
            model.adata = adata
        model.module.load_state_dict(state)
        check_stored(model.module, dir_path)
        model.training_record = TrainingRecord(**payload["training"])
        model.history_ = history_from_json(payload["history"])
        model.is_trained_ = True
        return model

    @classmethod
    def load_registry(cls, dir_path: str | os.PathLike[str]) -> dict[str, Any]:
        """Read what :meth:`setup_anndata` recorded of the training cells of a saved model.

        Parameters
        ----------
        dir_path
            As in :meth:`load`.

        Returns
        -------
        dict
            Arguments of the setup, names of genes, categories and counts.

        Examples
        --------
        >>> folder = getfixture("tmp_path") / "model"
        >>> model.save(folder)
        >>> al.AlphaSTomics.load_registry(folder)["setup_args"]["values"]
        'counts'
        """
        return dict(read_saved(dir_path)[1]["registry"])

    @classmethod
    def view_setup_args(cls, dir_path: str | os.PathLike[str]) -> None:
        """Print the arguments of :meth:`setup_anndata` of a saved model.

        Parameters
        ----------
        dir_path
            As in :meth:`load`.

        Examples
        --------
        >>> folder = getfixture("tmp_path") / "model"
        >>> model.save(folder)
        >>> al.AlphaSTomics.view_setup_args(folder)  # doctest: +ELLIPSIS
        Setup via `AlphaSTomics.setup_anndata` with arguments:
        ...
        """
        AnnDataManager.view_setup_method_args(cls.load_registry(dir_path))

    def view_anndata_setup(
        self, adata: AnnData | None = None, hide_state_registries: bool = False
    ) -> None:
        """Print what :meth:`setup_anndata` registered.

        Parameters
        ----------
        adata
            Registered cells; those of the training when ``None``.
        hide_state_registries
            Whether to omit the details.

        Examples
        --------
        >>> model.view_anndata_setup()  # doctest: +ELLIPSIS
        Anndata setup with scvi-tools version ...
        """
        adata = self._require_adata(adata)
        manager = self._get_most_recent_anndata_manager(adata)
        if manager is None:
            raise ValueError("adata was not set up: call AlphaSTomics.setup_anndata(adata) first.")
        manager.view_registry(hide_state_registries=hide_state_registries)

    def deregister_manager(self, adata: AnnData | None = None) -> None:
        """Remove the registration of an AnnData, so that its memory can be freed.

        Parameters
        ----------
        adata
            Registered cells; all but those of the training when ``None``.

        Examples
        --------
        >>> model.deregister_manager()
        """
        self._require_adata(None)
        super().deregister_manager(adata)

    def to_device(self, device: str | int | torch.device) -> None:
        """Move the network to a device, such as ``"cpu"``, ``"cuda:0"`` or ``0``.

        Parameters
        ----------
        device
            As in :class:`torch.device`.

        Examples
        --------
        >>> model.to_device("cpu")
        """
        move(self.module, device)

    @property
    def adata(self) -> AnnData | None:
        """Training cells; others that are set must have all genes of the model."""
        return self._adata

    @adata.setter
    def adata(self, adata: AnnData) -> None:
        self._read_training(adata)  # refuses what does not fit, before anything is written
        type(self).setup_anndata(adata, **self.registry_["setup_args"])
        self._adata = adata
        self._adata_manager = self._get_most_recent_anndata_manager(adata, required=True)
        self._register_manager_for_instance(self._adata_manager)

    @property
    def summary_string(self) -> str:
        """Description of the model and of its training."""
        return repr(self)

    @property
    def _setup(self) -> SetupArgs:
        return self._registered.setup

    @property
    def _registered(self) -> Registry:
        return Registry(self.registry_)

    def _payload(self, training: TrainingRecord, history: History) -> dict[str, Any]:
        """Everything of a saved model but its weights."""
        return payload_of(self.config, self.registry_, training, history)

    def _fingerprint(self) -> str:
        return fingerprint(self.module.state_dict())

    def _require_trained(self) -> None:
        if not self.is_trained_:
            raise RuntimeError("The model is not trained: call model.train() first.")

    def _require_adata(self, adata: AnnData | None) -> AnnData:
        if adata is None:
            adata = self.adata
        if adata is None:
            raise ValueError(
                "adata is missing: this model was loaded without one. Pass adata=, or load with "
                "AlphaSTomics.load(folder, adata)."
            )
        return adata

    def _destination(self, adata: AnnData | None, copy: bool) -> AnnData:
        """Cells that a call of the trained model writes into."""
        adata = destination(self._require_adata(adata), copy)
        self._require_trained()
        return adata

    def _warn_of_training_cells(
        self, adata: AnnData, table: CellTable, imputed: NDArray[np.int64]
    ) -> None:
        """Warn if genes are imputed that the model was trained on in the same cells."""
        known = self.adata
        if known is None or not known.obs_names.isin(adata.obs_names).any():
            return
        try:
            training = table if adata is known else self._training_cells()
        except (KeyError, ValueError):  # changed since training, so no longer the same cells
            return
        warn_of_training_cells(training, self.training_record.train_sections, table, imputed)

    def _training_cells(self) -> CellTable:
        """Training cells: of ``adata``, or on disk."""
        if self._table is not None:
            return self._table
        return self._read_training(self._require_adata(None))

    @property
    def _reader(self) -> CellReader:
        """Reader of the cells of a call."""
        return CellReader(
            self.module, self.config, self._setup, self._registered.categories, self.genes
        )

    def _read_training(self, adata: AnnData) -> CellTable:
        return self._reader.training(adata)

    @property
    def _summary(self) -> Summary:
        record = self.training_record if self.is_trained_ else None
        return Summary(self.config, self._setup, self.genes, self.module, record)

    def __repr__(self) -> str:
        return self._summary.text()

    def _repr_html_(self) -> str:
        """Table of a notebook."""
        return self._summary.table()

    def __dir__(self) -> list[str]:
        return sorted(set(super().__dir__()) - ELSEWHERE.keys())
