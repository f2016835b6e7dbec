"""The typed configuration of the commands: defaults, YAML, command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alphastomics._choices import Frame, Schedule
from alphastomics.nn.architecture import Architecture, Attention, GateType


class ConfigError(ValueError):
    """A configuration that cannot be: names the key, what was found and what may be there."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TransformerSettings(_Section):
    """Size and options of the transformer."""

    d_model: int = Field(128, ge=1, description="width of a token")
    num_heads: int = Field(4, ge=1, description="attention heads, a divisor of d_model")
    num_layers: int = Field(4, ge=0, description="transformer blocks")
    d_ff: int = Field(256, ge=1, description="inner width of the feed-forward")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in training")
    attention: Attention = Field("softmax", description="attention kernel")
    use_gated_attention: bool = Field(False, description="gate the output of attention")
    gate_type: GateType = Field("elementwise", description="kind of gate, if there is one")
    use_moe: bool = Field(False, description="experts in the place of each feed-forward")
    num_experts: int = Field(8, ge=0, description="number of experts, if there are any")
    moe_top_k: int = Field(2, ge=1, description="experts that a cell goes through")
    expert_width: int | None = Field(None, ge=1, description="inner width; d_ff / num_experts")
    router_noise: float = Field(0.0, ge=0, description="noise on the choice of experts")

    @model_validator(mode="after")
    def _can_be(self) -> TransformerSettings:
        self.architecture()
        return self

    def architecture(self) -> Architecture:
        """Resolve the switches: without them there is no gate and are no experts."""
        return Architecture(
            self.d_model,
            self.num_heads,
            self.num_layers,
            self.d_ff,
            self.dropout,
            self.attention,
            self.gate_type if self.use_gated_attention else "none",
            self.num_experts if self.use_moe else 0,
            self.moe_top_k,
            self.expert_width,
            self.router_noise,
        )


class DiffusionSettings(_Section):
    """Noise levels of the heads, draws and frames."""

    schedule: Schedule = Field("edm", description="how noise levels are drawn and spaced")
    diffusion_steps: int = Field(1000, ge=2, description="levels, if the schedule is cosine")
    sampling_rounds: int | None = Field(
        None, ge=1, description="rounds of a draw; by default 1 of positions, 4 of expression"
    )
    sampling_steps: int = Field(12, ge=1, description="steps of the diffusion heads in a draw")
    frame: Frame = Field("learned", description="frame in which positions are asked for")
    allow_reflection: bool = Field(True, description="sections may be mirror images")


class TrainingSettings(_Section):
    """Length, speed and devices of training."""

    batch_size: int = Field(6, ge=1, description="sets of cells in a batch")
    accumulate_grad_batches: int = Field(1, ge=1, description="batches in a step")
    set_size: int = Field(256, ge=3, description="most cells in a set")
    sets_per_section: int = Field(48, ge=1, description="sets of each section in an epoch")
    epochs: int | None = Field(None, ge=1, description="epochs; by default as many as cells need")
    max_steps: int | None = Field(None, ge=1, description="steps, whichever comes first")
    early_stopping: int | None = Field(
        None, ge=1, description="epochs without a better validation after which to stop"
    )
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    seed: int = Field(0, ge=0, description="seed of everything random")
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = Field("auto", description="kind of device")
    devices: int | str = Field("auto", description="number of devices")
    num_nodes: int = Field(1, ge=1, description="number of machines")
    strategy: str = Field("auto", description="Lightning's strategy: auto, ddp, ...")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true", description="floating-point precision"
    )
    num_workers: int = Field(0, ge=0, description="processes that prepare sets")
    compile: bool = Field(False, description="compile the transformer with torch.compile")
    activation_checkpointing: bool = Field(
        False, description="compute activations again instead of keeping them, to save memory"
    )
    logger: Literal["wandb", "tensorboard", "csv", "none"] = Field(
        "wandb", description="experiment tracking; wandb runs offline without a login"
    )


class MaskingSettings(_Section):
    """Genes and positions hidden in training beyond those of the mode."""

    enable: bool = Field(True, description="hide genes and positions, and add noise")
    expression_mask_ratio: float = Field(0.4, ge=0, lt=1, description="mean share of hidden genes")
    expression_noise: float = Field(0.4, ge=0, description="mean noise on standardised expression")
    position_mask_ratio: float = Field(0.33, ge=0, lt=1, description="share of hidden positions")


class DataSettings(_Section):
    """Location and genes of the data."""

    processed_data_dir: str | None = Field(None, description="folder made by preprocess")
    num_genes: int | None = Field(None, ge=1, description="most variable genes; by default all")


class Config(_Section):
    """Everything that a training run is told.

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

    training_mode: Literal["joint", "expr_to_pos", "pos_to_expr"] = Field(
        "joint", description="what to learn"
    )
    exp_name: str | None = Field(None, description="name of the run; by default config and time")
    output_dir: str | None = Field(None, description="by default outputs/<exp_name>")
    data: DataSettings = DataSettings()
    TransformerLayer_setting: TransformerSettings = TransformerSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    training: TrainingSettings = TrainingSettings()
    masking: MaskingSettings = MaskingSettings()

    def to_yaml(self) -> str:
        """Write every key; :func:`load_config` is the inverse."""
        return str(yaml.safe_dump(self.model_dump(), sort_keys=False))

    def commented(self) -> str:
        """Write every key with what it means: the ``config.yaml`` of the repository."""
        lines: list[str] = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, _Section):
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
        hides = self.masking.enable
        architecture = self.TransformerLayer_setting.architecture()
        return {
            **vars(architecture),
            "training_mode": self.training_mode,
            "expression_mask_ratio": self.masking.expression_mask_ratio if hides else 0.0,
            "expression_noise": self.masking.expression_noise if hides else 0.0,
            "position_mask_ratio": self.masking.position_mask_ratio if hides else 0.0,
            "frame": self.diffusion.frame,
            "allow_reflection": self.diffusion.allow_reflection,
            "schedule": self.diffusion.schedule,
            "diffusion_steps": self.diffusion.diffusion_steps,
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


class _Loader(yaml.SafeLoader):
    """Reads ``1e-4`` as the number that it is in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values."""
    if not path.is_file():
        raise ConfigError(f"--config: there is no file {str(path)!r}.")
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else f"{path}"
        why = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{where}: not valid YAML: {why}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(values).__name__}.")
    return values


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
        lines = [_explain(detail) for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _explain(error: Any) -> str:
    """One line: the key's path, what was found, what may be there."""
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = list(_fields_at(error["loc"][:-1]))
        key = str(error["loc"][-1])
        near = _elsewhere(key) or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"{path}: unknown key.{hint} Known keys: {', '.join(known)}."
    if error["type"] == "value_error":
        return f"{path}: {error['ctx']['error']}"
    if error["type"] == "model_type":
        return f"{path}: must hold keys and values, found {error['input']!r}."
    message = error["msg"].removeprefix("Input should be ")
    return f"{path}: must be {message}, found {error['input']!r}."


def _elsewhere(key: str) -> list[str]:
    """Find the paths at which other sections have a key."""
    sections = {
        name: field.annotation.model_fields
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    return [f"{name}.{key}" for name, fields in sections.items() if key in fields]


def _fields_at(location: tuple[Any, ...]) -> Mapping[str, Any]:
    """Known keys of a section."""
    model: Any = Config
    for part in location:
        model = model.model_fields[part].annotation
    return dict(model.model_fields)
