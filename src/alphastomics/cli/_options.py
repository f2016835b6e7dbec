"""Options of a command from a list of options in ``alphastomics.config``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

# Options that are not called like their key; the first is shown first.
NAMES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("data", "processed_data_dir"): ("data_dir", "processed_data_dir"),
    ("training", "learning_rate"): ("lr", "learning_rate"),
    ("training", "devices"): ("devices", "gpus"),
    ("masking", "enable"): ("enable_masking",),
    ("diffusion", "sampling_rounds"): ("sampling_rounds", "n_rounds"),
    ("diffusion", "sampling_steps"): ("sampling_steps", "n_steps"),
}
Path = tuple[str, ...]


def _keys(
    model: type[BaseModel], groups: Mapping[str, str], prefix: Path = (), group: str | None = None
) -> Iterator[tuple[Path, FieldInfo, str | None]]:
    """Path, field and group of every key."""
    for name, field in model.model_fields.items():
        of = field.annotation
        group = groups.get(name, group)
        if isinstance(of, type) and issubclass(of, BaseModel):
            title = f"{(of.__doc__ or name).rstrip('.')} ({name})"
            yield from _keys(of, groups, (*prefix, name), title)
        else:
            yield (*prefix, name), field, group


def _kinds(annotation: Any) -> list[Any]:
    """Types of a key but None."""
    if get_origin(annotation) in (Union, UnionType):
        return [kind for kind in get_args(annotation) if kind is not type(None)]
    return [annotation]


def _option_type(annotation: Any) -> Any:
    """Turn the type of a key into one of the command line, which may be left out."""
    kinds = _kinds(annotation)
    if get_origin(kinds[0]) is Literal:
        choices = get_args(kinds[0])
        kinds = [StrEnum("Choice", {str(c).replace("-", "_"): str(c) for c in choices})]
    return (kinds[0] if len(kinds) == 1 else str) | None


def _metavar(annotation: Any) -> str | None:
    """Choices of an option as they are in the config; ``None`` for the name of its type."""
    kind = _kinds(annotation)[0]
    return f"<{'|'.join(map(str, get_args(kind)))}>" if get_origin(kind) is Literal else None


def _names(path: Path, *, switch: bool) -> str:
    names = [f"--{name}" for name in NAMES.get(path, (path[-1],))]
    return "/".join([names[0], f"--no_{names[0][2:]}"]) if switch else ",".join(names)


def _parameter(path: Path, field: FieldInfo, group: str | None) -> inspect.Parameter:
    """Describe one key as a parameter of a command."""
    kind = _option_type(field.annotation)
    switch = field.annotation is bool
    names = [_names(path, switch=switch)] if switch else _names(path, switch=False).split(",")
    default = field.get_default()
    description = field.description or ""
    if default is not None and default != []:
        description += f" (default {str(default).lower() if switch else default})"
    text = f"{description[:1].upper()}{description[1:]}."
    return inspect.Parameter(
        "__".join(path),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            kind,
            typer.Option(
                *names,
                help=text,
                show_default=False,
                metavar=_metavar(field.annotation),
                rich_help_panel=group,
            ),
        ],
    )


def with_options(
    options: type[BaseModel], groups: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options to a command, for all fields of ``options``, passed as ``overrides``.

    ``groups`` has titles of the help, each by the first field of the group.
    """
    keys = _keys(options, groups or {})
    parameters = {"__".join(path): _parameter(path, field, group) for path, field, group in keys}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)

        def wrapped(**given: Any) -> None:
            values = {name: given.pop(name) for name in parameters}
            command(**given, overrides=nested(values))

        others = [p for p in own.parameters.values() if p.name != "overrides"]
        signature = inspect.Signature([*others, *parameters.values()])
        wrapped.__doc__ = command.__doc__
        wrapped.__signature__ = signature  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return wrapped

    return decorate


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``{"a__b": 1}`` into ``{"a": {"b": 1}}``, without what is None."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        *sections, key = name.split("__")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[key] = _plain(value)
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return str(value.value)
    return int(value) if isinstance(value, str) and value.isdigit() else value
