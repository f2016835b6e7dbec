"""Options of the model, of training and of the commands: the one list of names, types and defaults.

Signatures and command-line options follow from the classes here, or are tested against them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from alphastomics._options import Options, Section, check_devices_option, explained
from alphastomics._yaml import ConfigError as ConfigError
from alphastomics._yaml import read_yaml

TrainingMode = Literal["expr_to_pos", "pos_to_expr", "joint"]
Frame = Literal["learned", "registered"]
Schedule = Literal["edm", "cosine"]
Attention = Literal["softmax", "linear"]
GateType = Literal["none", "headwise", "elementwise"]
Values = Literal["counts", "lognorm", "intensity"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
ACCELERATORS: tuple[Accelerator, ...] = get_args(Accelerator)

LONGEST_NAME = 200  # of a run; file systems allow 255 bytes
DIFFUSION_STEPS = 1000  # Nichol & Dhariwal 2021
POSITION_ROUNDS, EXPRESSION_ROUNDS, N_STEPS = 1, 4, 12  # of a draw

# Beyond these, a number in a file is a mistake or an attack: nothing is built of it.
MOST_PARAMETERS, MOST_LAYERS = 10**10, 1000


class Architecture(Options):
    """Size and options of a stack of transformer blocks.

    Attributes
    ----------
    d_model, num_heads, num_layers, d_ff
        Width of a token; attention heads, a divisor of it; blocks; inner width of the feed-forward.
    dropout
        Dropout probability in training.
    attention
        ``"softmax"``, or ``"linear"``, whose cost is linear in the number of cells.
    gate_type
        Gate on the output of attention: ``"none"``, ``"headwise"`` (a number per head and cell),
        ``"elementwise"``.
    num_experts
        Number of experts in the place of each feed-forward; 0 for a dense one.
    moe_top_k
        Number of experts a token goes through.
    expert_width
        Inner width of an expert; ``None`` for ``d_ff / num_experts``.
    router_noise
        Standard deviation of noise on the router's logits in training.
    """

    d_model: int = Field(128, ge=1, description="width of a token")
    num_heads: int = Field(4, ge=1, description="number of attention heads; must divide d_model")
    num_layers: int = Field(4, ge=0, description="number of transformer blocks")
    d_ff: int = Field(256, ge=1, description="hidden width of the feed-forward")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout probability in training")
    attention: Attention = Field("softmax", description="attention kernel")
    gate_type: GateType = Field("none", description="gate on the output of attention")
    num_experts: int = Field(0, ge=0, description="number of experts per feed-forward; 0: dense")
    moe_top_k: int = Field(2, ge=1, description="experts used per cell")
    expert_width: int | None = Field(
        None, ge=1, description="hidden width of an expert; by default d_ff / num_experts"
    )
    router_noise: float = Field(
        0.0, ge=0, description="standard deviation of noise on the router's logits"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.d_model % self.num_heads:
            raise ValueError(
                f"d_model={self.d_model} is not divisible by num_heads={self.num_heads}: choose a "
                "d_model that is a multiple of num_heads."
            )
        if self.num_experts and self.moe_top_k > self.num_experts:
            raise ValueError(
                f"moe_top_k={self.moe_top_k} is more than num_experts={self.num_experts}: a token "
                "cannot go through more experts than there are."
            )
        if self.num_experts and self.expert_width is None and self.d_ff % self.num_experts:
            raise ValueError(
                f"d_ff={self.d_ff} is not divisible by num_experts={self.num_experts}: choose a "
                "multiple, or pass expert_width."
            )
        if self.num_layers > MOST_LAYERS or self._about_parameters > MOST_PARAMETERS:
            sizes = ("d_model", "num_layers", "d_ff", "num_experts", "expert_width")
            given = ", ".join(f"{name}={getattr(self, name)}" for name in sizes)
            raise ValueError(
                f"{given} make a network of about {self._about_parameters:.1g} parameters in "
                f"{self.num_layers} blocks, implausibly large: at most {MOST_PARAMETERS:.0e} "
                f"parameters and {MOST_LAYERS} blocks are built. Choose smaller sizes."
            )
        return self

    @property
    def _about_parameters(self) -> int:
        """Number of parameters without those that depend on the data, to the leading order."""
        width = self.num_experts * self.d_expert if self.num_experts else self.d_ff
        return self.d_model * (4 * self.d_model + self.num_layers * (4 * self.d_model + 2 * width))

    @property
    def d_expert(self) -> int:
        """Inner width of an expert."""
        return self.expert_width or self.d_ff // max(self.num_experts, 1)


class Objective(Options):
    """Options of hidden genes and noise in training, and of the noise levels of the heads.

    Attributes
    ----------
    schedule, diffusion_steps
        See :func:`~alphastomics.diffusion_model.noise_schedule.draw_sigmas`.
    expression_mask_ratio
        Mean share of genes hidden; each set draws its own.
    expression_noise
        Mean standard deviation of noise on the standardized expression of cells that are to be
        placed; each set draws its own between 0 and twice that.
    expression_shift
        The same of a shift of each gene that the cells of a set to place have in common, as those
        of another animal have.
    """

    schedule: Schedule = Field("edm", description="noise schedule")
    diffusion_steps: int = Field(
        DIFFUSION_STEPS, ge=2, description="noise levels of the cosine schedule"
    )
    expression_mask_ratio: float = Field(
        0.4, ge=0, lt=1, description="mean fraction of masked genes"
    )
    expression_noise: float = Field(
        0.4, ge=0, description="mean sd of noise on standardized expression"
    )
    expression_shift: float = Field(
        0.4, ge=0, description="mean sd of shifts of genes that a set has in common"
    )


class ModelConfig(Architecture, Objective):
    """Options of ``AlphaSTomics``, described there."""

    training_mode: TrainingMode = Field("joint", description="what to learn")
    position_mask_ratio: float = Field(
        0.33, ge=0, lt=1, description="mean fraction of masked positions"
    )
    frame: Frame = Field(
        "learned",
        description="coordinate frame of estimated positions; registered: that of the data",
    )
    allow_reflection: bool = Field(True, description="sections may be mirror images")
    seed: int = Field(0, ge=0, description="random seed")

    @property
    def architecture(self) -> Architecture:
        """Options of the network alone."""
        return Architecture(**{name: getattr(self, name) for name in Architecture.model_fields})

    @property
    def places_cells(self) -> bool:
        """True if positions are learned."""
        return self.training_mode != "pos_to_expr"


class TrainConfig(Options):
    """Options of ``AlphaSTomics.train``, described there."""

    max_epochs: int | None = Field(
        None, ge=1, description="number of epochs; by default by the number of cells"
    )
    max_steps: int | None = Field(None, ge=1, description="maximum number of optimizer steps")
    batch_size: int = Field(6, ge=1, description="sets of cells per batch")
    set_size: int = Field(256, ge=3, description="maximum number of cells per set")
    sets_per_section: int = Field(48, ge=1, description="sets per section and epoch")
    lr: float = Field(1e-3, ge=0, description="peak learning rate")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    accelerator: Accelerator = Field("auto", description="kind of device")
    devices: int | list[int] | str = Field("auto", description="number of devices, or auto")
    precision: Precision = Field("32-true", description="floating-point precision")
    num_workers: int = Field(0, ge=0, description="data-loading processes")
    compile: bool = Field(False, description="compile the transformer with torch.compile")
    activation_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass, to save memory"
    )

    @model_validator(mode="after")
    def _names_devices(self) -> Self:
        check_devices_option(self.devices)
        return self


class PreprocessConfig(Options):
    """Options of ``preprocess``, described there."""

    model_config = ConfigDict(strict=False)

    genes: str = Field(
        "intersection",
        description="intersection or union of the sections, or a file with one gene per line",
    )
    num_genes: int | None = Field(
        None, ge=1, description="number of most variable genes; by default all"
    )
    min_genes: int = Field(0, ge=0, description="minimum number of genes per cell")
    min_counts: float = Field(0.0, ge=0, description="minimum counts per cell")
    min_cells: int = Field(
        0, ge=0, description="minimum number of training cells that express a gene"
    )
    values: Values = Field("counts", description="kind of the expression values")
    layer: str | None = Field(None, description="layer to read; by default X")
    spatial_key: str = Field("spatial", description="key of the coordinates in obsm")
    section_key: str = Field("section", description="key of the section in obs")
    bin_size: int | None = Field(
        None, ge=1, description="bin size, in µm for Visium HD (8), in DNBs for Stereo-seq (50)"
    )
    labels_key: str | None = Field(None, description="key of the cell type in obs")
    batch_key: str | None = Field(None, description="key of the donor or platform in obs")
    test_sections: list[str] = Field(
        [], description="section to hold out for testing; may be repeated"
    )
    val_sections: list[str] = Field([], description="section to validate on; may be repeated")
    test_ratio: float = Field(0.0, description="fraction of sections to hold out for testing")
    val_ratio: float = Field(0.0, description="fraction of sections to validate on")
    seed: int = Field(0, ge=0, description="random seed of splits and of the layout")


def _same(options: type[Options], name: str, **changes: Any) -> Any:
    """Field of ``config.yaml`` with the limits, default and description of an option."""
    field = copy.copy(options.model_fields[name])
    for attribute, value in changes.items():
        setattr(field, attribute, value)
    return field


class TransformerSettings(Section):
    """Size and options of the transformer."""

    d_model: int = _same(Architecture, "d_model")
    num_heads: int = _same(Architecture, "num_heads")
    num_layers: int = _same(Architecture, "num_layers")
    d_ff: int = _same(Architecture, "d_ff")
    dropout: float = _same(Architecture, "dropout")
    attention: Attention = _same(Architecture, "attention")
    use_gated_attention: bool = Field(False, description="gate the output of attention")
    gate_type: GateType = Field("elementwise", description="kind of gate, with use_gated_attention")
    use_moe: bool = Field(False, description="mixture of experts in place of each feed-forward")
    num_experts: int = Field(8, ge=0, description="number of experts, with use_moe")
    moe_top_k: int = _same(Architecture, "moe_top_k")
    expert_width: int | None = _same(Architecture, "expert_width")
    router_noise: float = _same(Architecture, "router_noise")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        self.architecture()
        return self

    def architecture(self) -> Architecture:
        """Network options; without the switches there are no gates and no experts."""
        values = self.model_dump(exclude={"use_gated_attention", "use_moe"})
        if not self.use_gated_attention:
            values["gate_type"] = "none"
        if not self.use_moe:
            values["num_experts"] = 0
        return Architecture(**values)


class DiffusionSettings(Section):
    """Diffusion heads, sampling and coordinate frame."""

    schedule: Schedule = _same(ModelConfig, "schedule")
    diffusion_steps: int = _same(ModelConfig, "diffusion_steps")
    sampling_rounds: int | None = Field(
        None,
        ge=1,
        description=f"rounds per sample; by default {POSITION_ROUNDS} of positions, "
        f"{EXPRESSION_ROUNDS} of expression",
    )
    sampling_steps: int = Field(N_STEPS, ge=1, description="diffusion steps per round")
    frame: Frame = _same(ModelConfig, "frame")
    allow_reflection: bool = _same(ModelConfig, "allow_reflection")


class TrainingSettings(Section):
    """Length, speed and devices of training."""

    batch_size: int = _same(TrainConfig, "batch_size")
    accumulate_grad_batches: int = Field(1, ge=1, description="batches per optimizer step")
    set_size: int = _same(TrainConfig, "set_size")
    sets_per_section: int = _same(TrainConfig, "sets_per_section")
    epochs: int | None = _same(TrainConfig, "max_epochs")
    max_steps: int | None = _same(TrainConfig, "max_steps")
    early_stopping: int | None = Field(
        None, ge=1, description="stop after as many epochs without a lower validation loss"
    )
    learning_rate: float = _same(TrainConfig, "lr", metadata=Field(gt=0).metadata)
    weight_decay: float = _same(TrainConfig, "weight_decay")
    seed: int = _same(ModelConfig, "seed")
    accelerator: Accelerator = _same(TrainConfig, "accelerator")
    devices: int | list[int] | str = _same(TrainConfig, "devices")
    num_nodes: int = Field(1, ge=1, description="number of machines")
    strategy: str = Field("auto", description="Lightning's strategy: auto, ddp, ...")
    precision: Precision = _same(TrainConfig, "precision")
    num_workers: int = _same(TrainConfig, "num_workers")
    compile: bool = _same(TrainConfig, "compile")
    activation_checkpointing: bool = _same(TrainConfig, "activation_checkpointing")
    logger: Literal["auto", "wandb", "tensorboard", "csv", "none"] = Field(
        "auto",
        description="experiment tracking; auto: Weights & Biases if logged in, else CSV",
    )

    def train_options(self) -> dict[str, Any]:
        """Arguments of ``AlphaSTomics.train``."""
        values = self.model_dump(exclude={"early_stopping", "seed", "logger"})
        values["max_epochs"], values["lr"] = values.pop("epochs"), values.pop("learning_rate")
        return values


class MaskingSettings(Section):
    """Masking and noise in training, beyond what the mode masks."""

    enable: bool = Field(True, description="mask genes and positions, and add noise")
    expression_mask_ratio: float = _same(ModelConfig, "expression_mask_ratio")
    expression_noise: float = _same(ModelConfig, "expression_noise")
    expression_shift: float = _same(ModelConfig, "expression_shift")
    position_mask_ratio: float = _same(ModelConfig, "position_mask_ratio")


class DataSettings(Section):
    """Location and genes of the data."""

    processed_data_dir: str | None = Field(None, description="folder written by preprocess")
    num_genes: int | None = Field(
        None, ge=1, description="number of most variable genes; by default all"
    )


class Config(Section):
    """Configuration of a training run.

    Attributes
    ----------
    training_mode
        ``"joint"``, ``"expr_to_pos"`` or ``"pos_to_expr"``.
    exp_name, output_dir
        Name of the run, and its folder.
    data, TransformerLayer_setting, diffusion, training, masking
        Sections of ``config.yaml``, where every key is described.

    Examples
    --------
    >>> Config().training_mode, Config(training_mode="expr_to_pos").to_yaml().split()[:2]
    ('joint', ['training_mode:', 'expr_to_pos'])
    """

    training_mode: Literal["joint", "expr_to_pos", "pos_to_expr"] = _same(
        ModelConfig, "training_mode"
    )
    exp_name: str | None = Field(
        None, description="name of the run; by default that of the config file"
    )
    output_dir: str | None = Field(
        None, description="folder of the run; by default outputs/<exp_name>"
    )
    data: DataSettings = DataSettings()
    TransformerLayer_setting: TransformerSettings = TransformerSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    training: TrainingSettings = TrainingSettings()
    masking: MaskingSettings = MaskingSettings()

    @field_validator("exp_name")
    @classmethod
    def _is_folder_name(cls, name: str | None) -> str | None:
        """Check that a name is that of one folder, short enough to append a time to it."""
        if name is None:
            return name
        one = name.strip() and name not in (".", "..") and not set(name) & set("/\\\0")
        if not one or len(name.encode()) > LONGEST_NAME:
            raise ValueError(
                f"must be the name of one folder, without / or .. and at most {LONGEST_NAME} bytes "
                f"long, found {name[:LONGEST_NAME]!r}; output_dir may be any folder."
            )
        return name

    def to_yaml(self) -> str:
        """Write every key; :func:`load_config` is the inverse."""
        return str(yaml.safe_dump(self.model_dump(), sort_keys=False))

    def commented(self) -> str:
        """Write every key with its description: the ``config.yaml`` of the repository."""
        lines: list[str] = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Section):
                lines += ["", f"{name}:  # {(type(value).__doc__ or '').rstrip('.')}"]
                lines += [
                    f"  {_line(key, getattr(value, key))}  # {of.description}"
                    for key, of in type(value).model_fields.items()
                ]
            else:
                lines.append(f"{_line(name, value)}  # {field.description}")
        return "\n".join(lines) + "\n"

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of ``AlphaSTomics``."""
        masking = self.masking.model_dump(exclude={"enable"})
        if not self.masking.enable:
            masking = dict.fromkeys(masking, 0.0)
        diffusion = self.diffusion.model_dump(exclude={"sampling_rounds", "sampling_steps"})
        return {
            **dict(self.TransformerLayer_setting.architecture()),
            **masking,
            **diffusion,
            "training_mode": self.training_mode,
            "seed": self.training.seed,
        }


def _line(key: str, value: object) -> str:
    """Write one key and value as YAML."""
    return str(yaml.safe_dump({key: value})).strip()


PRESETS: dict[str, dict[str, Any]] = {
    "research": {"training": {"batch_size": 128, "epochs": 50, "learning_rate": 5e-4}},
    "production": {"training": {"batch_size": 32, "epochs": 200, "learning_rate": 1e-4}},
    "moe": {"TransformerLayer_setting": {"use_moe": True, "num_experts": 8, "moe_top_k": 2}},
    "expressive": {
        "TransformerLayer_setting": {"use_gated_attention": True, "gate_type": "elementwise"}
    },
}


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries, later ones win."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged


def load_config(
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> Config:
    """Combine defaults, a preset, a YAML file and overrides, later ones win.

    Parameters
    ----------
    path
        YAML file with any of the keys.
    overrides
        Nested dictionary of what was given on the command line.
    preset
        One of :data:`PRESETS`.

    Returns
    -------
    Config
        Checked and complete.

    Raises
    ------
    ConfigError
        With a line for every key that is unknown, of a wrong type or out of range.

    Examples
    --------
    >>> config = load_config(overrides={"training": {"epochs": 5}})
    >>> config.training.epochs, config.TransformerLayer_setting.d_model
    (5, 128)
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"--preset: {preset!r} is none of {', '.join(PRESETS)}.")
    chosen = PRESETS[preset] if preset else {}
    values = merge(chosen, read_yaml(Path(path)) if path else {}, overrides or {})
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [explained(detail, Config) for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from None
