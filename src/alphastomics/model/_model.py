"""The class users meet."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField, ObsmField
from scvi.model.base import BaseModelClass

from alphastomics import _keys
from alphastomics._choices import FRAMES, SCHEDULES, Frame, Schedule
from alphastomics._quiet import quiet
from alphastomics.diffusion_model.masking import TRAINING_MODES
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.noise_schedule import DIFFUSION_STEPS
from alphastomics.model._data import (
    Categories,
    SetupArgs,
    read_categories,
    read_training,
)
from alphastomics.model._generation import GenerationMixin
from alphastomics.model._learning import LearningMixin
from alphastomics.model._saving import SavingMixin
from alphastomics.model._tissue import TissueData
from alphastomics.model._training import TrainingRecord
from alphastomics.model._validate import check_at_least, check_choice, check_share
from alphastomics.nn.architecture import Architecture, Attention, GateType


class AlphaSTomics(LearningMixin, GenerationMixin, SavingMixin, BaseModelClass):
    """Learns the architecture of a tissue and fills in what is unknown of its cells.

    A masked transformer over the cells of a section turns what is known of them into a context
    vector for each cell, and diffusion heads turn that into distributions of what is unknown
    (masked autoregressive diffusion, Li et al. 2024). :meth:`predict` gives everything missing its
    best estimate in one pass of the network, :meth:`sample` draws from the learned tissue.

    Parameters
    ----------
    adata
        AnnData that :meth:`setup_anndata` has seen.
    training_mode
        What to learn: ``"expr_to_pos"``, positions given expression; ``"pos_to_expr"``, expression
        given positions; ``"joint"``, every pattern of known and unknown.
    d_model
        Width of a token.
    num_heads
        Attention heads per block; must divide ``d_model``.
    num_layers
        Number of transformer blocks.
    d_ff
        Inner width of the feed-forward of a block.
    dropout
        Dropout probability in training.
    attention
        ``"softmax"``, or ``"linear"``, whose cost is linear in the number of cells.
    gate_type
        Gate on the output of attention: ``"none"``, ``"headwise"`` or ``"elementwise"``.
    num_experts, moe_top_k
        Number of experts in the place of each feed-forward, 0 for a dense one, and how many of
        them a cell goes through.
    expert_width
        Inner width of an expert; by default ``d_ff / num_experts``.
    router_noise
        Standard deviation of noise on the choice of experts in training.
    expression_mask_ratio
        Share of genes hidden from each cell in training, in [0, 1).
    expression_noise
        Standard deviation of the noise added to standardised expression of cells that are to be
        placed, in training.
    position_mask_ratio
        Mean share of positions hidden in training sets that have only some hidden, in [0, 1). With
        0 no set has, and the model does not learn to place cells among others.
    frame
        ``"learned"``: sections come in arbitrary rotations, and the network settles on a frame of
        its own, into which it registers the training sections. ``"registered"``: sections share the
        frame of their coordinates, and cells are placed in it.
    allow_reflection
        Whether sections may also be mirror images of each other.
    schedule
        Noise levels of training and sampling: ``"edm"`` (Karras et al. 2022) or ``"cosine"``
        (Nichol & Dhariwal 2021).
    diffusion_steps
        Number of noise levels of training, if the schedule is ``"cosine"``.
    seed
        Seed of the initial weights and of training.
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

    def __init__(
        self,
        adata: AnnData | None = None,
        *,
        training_mode: str = "joint",
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
        position_mask_ratio: float = 0.33,
        frame: Frame = "learned",
        allow_reflection: bool = True,
        schedule: Schedule = "edm",
        diffusion_steps: int = DIFFUSION_STEPS,
        seed: int = 0,
        registry: dict[str, Any] | None = None,
    ) -> None:
        check_choice("training_mode", training_mode, TRAINING_MODES)
        check_choice("frame", frame, FRAMES)
        check_choice("schedule", schedule, SCHEDULES)
        check_at_least("diffusion_steps", diffusion_steps, 2)
        Architecture(
            d_model,
            num_heads,
            num_layers,
            d_ff,
            dropout,
            attention,
            gate_type,
            num_experts,
            moe_top_k,
            expert_width,
            router_noise,
        )
        check_at_least("expression_noise", expression_noise, 0)
        check_share("expression_mask_ratio", expression_mask_ratio)
        check_share("position_mask_ratio", position_mask_ratio)
        super().__init__(adata, registry)
        self.init_params_ = self._get_init_params(locals())
        self.module = self._new_module()
        self.module.eval()
        self.training_record = TrainingRecord()

    def _new_module(self) -> MaskedDiffusionModule:
        """Build the network with its initial weights."""
        init, setup, categories = self._init_arguments(), self._setup(), self._categories()
        with torch.random.fork_rng():
            torch.manual_seed(init["seed"])
            return MaskedDiffusionModule(
                len(self.genes),
                int(self.summary_stats[f"n_{_keys.POSITION_REGISTRY}"]),
                values=setup.values,
                num_labels=len(categories.labels),
                num_batches=len(categories.batches),
                frame=init["frame"],
                allow_reflection=init["allow_reflection"],
                **{f.name: init[f.name] for f in fields(Architecture)},
            )

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
        """Tell where an AnnData holds what the model reads.

        Parameters
        ----------
        adata
            Sections to learn from; at least one with coordinates.
        layer
            Layer with the expression values; ``None`` for ``.X``.
        values
            ``"counts"`` (whole numbers), ``"lognorm"`` (log-normalised) or ``"intensity"``
            (continuous, not logged).
        spatial_key
            Name in ``.obsm`` of the coordinates, ``(n_cells, 2)`` or ``(n_cells, 3)``, in any
            unit; a row of NaN where a position is missing.
        section_key
            Name in ``.obs`` of the section; ``None`` when all cells are one section.
        labels_key
            Name in ``.obs`` of cell types, for scores and colours; never an input to placement.
        batch_key
            Name in ``.obs`` of donor or platform, a condition of training and of queries that have
            it.

        Examples
        --------
        >>> al.AlphaSTomics.setup_anndata(atlas, section_key="section", labels_key="cell_type")
        """
        setup_args = cls._get_setup_method_args(**locals())
        setup = SetupArgs(layer, values, spatial_key, section_key, labels_key, batch_key)
        read_training(adata, setup)
        setup_args[_keys.CATEGORIES_REGISTRY] = asdict(read_categories(adata, setup))
        manager = AnnDataManager(
            fields=[
                LayerField(
                    REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False
                ),
                ObsmField(_keys.POSITION_REGISTRY, spatial_key, correct_data_format=False),
            ],
            setup_method_args=setup_args,
        )
        with quiet("scvi.data"):
            manager.register_fields(adata)
        cls.register_manager(manager)

    def _setup(self) -> SetupArgs:
        return SetupArgs(**self.registry_["setup_args"])

    def _categories(self) -> Categories:
        names = self.registry_[_keys.CATEGORIES_REGISTRY]
        return Categories(**{kind: tuple(values) for kind, values in names.items()})

    @property
    def genes(self) -> pd.Index:
        """Names of the genes the model reads, in its order."""
        registries = self.registry_["field_registries"]
        return pd.Index(registries[REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"])

    def _require_adata(self, adata: AnnData | None) -> AnnData:
        if adata is not None:
            return adata
        if self.adata is None:
            raise ValueError(
                "adata is missing: this model was loaded without one. Pass adata=, or load with "
                "AlphaSTomics.load(folder, adata)."
            )
        return self.adata

    def _training_data(self, adata: AnnData) -> TissueData:
        """Read sections to learn from, which must have the model's genes and dimension."""
        data = read_training(adata, self._setup(), self._categories(), self.genes)
        assert data.position is not None
        n_dims = data.position.shape[1]
        if n_dims != self.module.position_dim:
            raise ValueError(
                f"adata.obsm[{self._setup().spatial_key!r}] has {n_dims} columns, but the model is "
                f"{self.module.position_dim}D: pass sections of its dimension."
            )
        return data

    def _require_trained(self) -> None:
        if not self.is_trained_:
            raise RuntimeError("The model is not trained: call model.train() first.")

    def _init_arguments(self) -> dict[str, Any]:
        return dict(self.init_params_["non_kwargs"])

    def __repr__(self) -> str:
        setup, record = self._setup(), self.training_record
        parameters = sum(p.numel() for p in self.module.parameters())
        init = self._init_arguments()
        trained = "not trained"
        if self.is_trained_:
            trained = (
                f"trained {record.steps} steps on {record.n_cells:,} cells of "
                f"{len(record.train_sections)} sections ({', '.join(record.train_sections)})"
            )
            if record.val_sections:
                trained += f", validated on {', '.join(record.val_sections)}"
        return (
            f"AlphaSTomics ({init['training_mode']}): {trained}\n"
            f"  data: {len(self.genes):,} genes ({setup.values}), "
            f"{self.module.position_dim}D positions in obsm[{setup.spatial_key!r}]\n"
            f"  network: {parameters:,} parameters, d_model={init['d_model']}, "
            f"num_heads={init['num_heads']}, num_layers={init['num_layers']}, d_ff={init['d_ff']}"
        )
