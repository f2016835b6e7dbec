"""Content of saved models, checked before a network is built of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor

from alphastomics import _keys
from alphastomics.config import ModelConfig, Values
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._intervals import N_BINS, Pattern
from alphastomics.nn.dynamic_buffers import DynamicBufferModule

ARRAY = "__array__"
MOST_STORED = 10**9  # values of a buffer that has the size of the data in it
NAMED = 3  # tensors in a message

Count = Annotated[int, Field(ge=0, lt=2**63)]
# What a network divides by or takes the logarithm of.
POSITIVE = (
    "position_transform.scale",
    "expression_transform.std",
    "expression_transform.median_total",
    "factors.log_depth_std",
    "smoother.width",
)
MAY_BE_INFINITE = "expression_transform.std"  # of genes that did not vary


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Open(BaseModel):
    """Part that scvi-tools writes, with fields that are not read."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Names(_Open):
    array: list[str] = Field(alias=ARRAY, min_length=1)

    @field_validator("array")
    @classmethod
    def _is_unique(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a gene is there twice")
        return names


class _State(_Open):
    column_names: _Names


class _Expression(_Open):
    state_registry: _State
    summary_stats: dict[Literal["n_cells", "n_vars"], Count]


class _Dimension(_Strict):
    n_position: Literal[2, 3]


class _Position(_Open):
    summary_stats: _Dimension


class _Fields(_Strict):
    X: _Expression
    position: _Position


class _Setup(_Strict):
    layer: str | None
    values: Values
    spatial_key: str
    section_key: str | None
    labels_key: str | None
    batch_key: str | None = None


class _Categories(_Strict):
    labels: list[str]
    batches: list[str]


class _Registry(_Open):
    field_registries: _Fields
    setup_args: _Setup
    categories: _Categories = Field(alias=_keys.CATEGORIES_REGISTRY)
    units: str = ""
    setup_method_name: Literal["setup_anndata"] = "setup_anndata"
    model_name: Literal["AlphaSTomics"] = "AlphaSTomics"


Bound = Annotated[float, Field(ge=-1e30, le=1e30)]


class _Intervals(_Strict):
    """Rows of genes, of bins."""

    edges: list[Annotated[list[Bound], Field(min_length=N_BINS - 1, max_length=N_BINS - 1)]]
    lower: list[Annotated[list[Bound | None], Field(min_length=N_BINS, max_length=N_BINS)]]
    upper: list[Annotated[list[Bound], Field(min_length=N_BINS, max_length=N_BINS)]]
    reliability: list[Annotated[float, Field(ge=-1, le=1)] | None]

    @field_validator("edges")
    @classmethod
    def _are_sorted(cls, edges: list[list[float]]) -> list[list[float]]:
        if any(row != sorted(row) for row in edges):
            raise ValueError("edges of bins that do not rise")
        return edges


class _Training(_Strict):
    epochs: Count
    steps: Count
    n_cells: Count
    train_sections: list[str]
    val_sections: list[str] = []
    calibration: dict[str, dict[str, Annotated[float, Field(gt=0)]]] = {}
    intervals: dict[Pattern, _Intervals] = {}


class _Curve(BaseModel):
    """Curve of a history; of a training that diverged it has values that are not finite."""

    model_config = ConfigDict(extra="forbid", strict=True)
    index_name: str | None
    index: list[Count]
    values: list[float]

    @field_validator("values")
    @classmethod
    def _has_index(cls, values: list[float], info: Any) -> list[float]:
        if len(values) != len(info.data.get("index", values)):
            raise ValueError("another number of values than of epochs")
        return values


class SavedModel(BaseModel):
    """Everything of a saved model but its weights, as JSON has it."""

    model_config = ConfigDict(strict=True)
    init_arguments: dict[str, Any]
    registry: _Registry
    training: _Training
    history: dict[str, _Curve]
    versions: dict[str, str]

    @field_validator("init_arguments")
    @classmethod
    def _are_options(cls, values: dict[str, Any]) -> dict[str, Any]:
        ModelConfig(**values)
        return values

    @model_validator(mode="after")
    def _has_intervals_of_its_genes(self) -> Self:
        n_genes = len(self.registry.field_registries.X.state_registry.column_names.array)
        for pattern, intervals in self.training.intervals.items():
            for name, rows in intervals:
                if len(rows) != n_genes:
                    raise ValueError(
                        f"intervals of {pattern!r} have {name} of {len(rows)} genes, not {n_genes}"
                    )
        return self

    def new_module(self) -> MaskedDiffusionModule:
        """Network of this model without weights, which takes no memory."""
        registry = self.registry
        with torch.device("meta"):
            return new_module(
                ModelConfig(**self.init_arguments),
                n_genes=len(registry.field_registries.X.state_registry.column_names.array),
                n_dims=registry.field_registries.position.summary_stats.n_position,
                values=registry.setup_args.values,
                n_labels=len(registry.categories.labels),
                n_batches=len(registry.categories.batches),
            )


def new_module(
    config: ModelConfig, *, n_genes: int, n_dims: int, values: str, n_labels: int, n_batches: int
) -> MaskedDiffusionModule:
    """Network of a model with initial weights."""
    return MaskedDiffusionModule(
        n_genes,
        n_dims,
        values=values,
        num_labels=n_labels,
        num_batches=n_batches,
        frame=config.frame,
        allow_reflection=config.allow_reflection,
        **dict(config.architecture),
    )


class DamagedError(ValueError):
    """Damage of a saved model; the reader adds where."""


def read_payload(payload: object) -> SavedModel:
    """Check everything of a saved model but its weights; the first error names the field."""
    try:
        return SavedModel.model_validate(payload)
    except ValidationError as error:
        first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "payload"
    raise DamagedError(f"{where}: {first['msg'].removeprefix('Value error, ')}"[:300])


class Kind(NamedTuple):
    """Shape and type of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str


def check_kinds(module: MaskedDiffusionModule, found: Mapping[str, Kind]) -> None:
    """Raise unless tensors are those of a network, by names, shapes and types."""
    expected = {name: Kind(tuple(t.shape), t.dtype) for name, t in module.state_dict().items()}
    sized = {
        f"{name}.{buffer}"
        for name, part in module.named_modules()
        if isinstance(part, DynamicBufferModule)
        for buffer in part.sized
    }
    for what, names in (
        ("lacks", expected.keys() - found.keys()),
        ("has, which the network does not,", found.keys() - expected.keys()),
    ):
        if names:
            raise DamagedError(f"it {what} {_listed(names)}")
    wrong = [name for name in expected if not _fits(expected[name], found[name], name in sized)]
    if wrong:
        name = wrong[0]
        raise DamagedError(
            f"{_listed(wrong)} do not fit {len(wrong)} places in the network; {name} is "
            f"{list(found[name].shape)}, {found[name].dtype}, not {list(expected[name].shape)}, "
            f"{expected[name].dtype}"
        )


def _fits(expected: Kind, found: Kind, is_sized: bool) -> bool:
    """True if a tensor is as expected; one with the size of its data has any of the last size."""
    if expected.dtype != found.dtype or not is_sized:
        return expected == found
    n = 1
    for size in found.shape:
        n *= size
    # Axes that are empty in a new network are those of the data.
    free = [size == 0 or (i == 0) for i, size in enumerate(expected.shape)]
    return (
        n <= MOST_STORED
        and len(found.shape) == len(free)
        and all(
            is_free or a == b
            for is_free, a, b in zip(free, expected.shape, found.shape, strict=True)
        )
    )


def _listed(names: Any) -> str:
    """Some names of tensors."""
    names = sorted(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(name[:80] for name in names[:NAMED]) + more


def check_numbers(state: Mapping[str, Tensor]) -> None:
    """Raise if weights are not finite, or scales not positive."""
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        wrong = tensor.isnan() if name == MAY_BE_INFINITE else ~tensor.isfinite()
        if bool(wrong.any()):
            raise DamagedError(
                f"{name} holds {int(wrong.sum())} values that are not finite: the file is damaged, "
                "or the training diverged"
            )
        if name in POSITIVE and not bool((tensor > 0).all()):
            raise DamagedError(f"{name} must be above 0, found {float(tensor.min()):g}")


def check_stored(module: MaskedDiffusionModule, path: object) -> None:
    """Raise unless the data that a loaded network stores fit each other."""
    for name, part in module.named_modules():
        if isinstance(part, DynamicBufferModule) and not part.is_consistent():
            raise ValueError(
                f"{path} is damaged or was altered: the parts of {name} do not fit each other. "
                "Copy it again."
            )


def _is_in_memory(tensor: Tensor) -> bool:
    """True if a tensor has no more values than it stores; strides of 0 would repeat them."""
    return tensor.nbytes <= tensor.untyped_storage().nbytes()


def as_kinds(state: Mapping[str, Any]) -> dict[str, Kind]:
    """Shapes and types of tensors in memory; of anything else, that it is none."""
    return {
        str(name): Kind(tuple(t.shape), t.dtype)
        if isinstance(t, Tensor) and t.layout == torch.strided and _is_in_memory(t)
        else Kind((), type(t).__name__)
        for name, t in state.items()
    }
