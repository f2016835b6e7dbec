"""Options of a call, checked with messages that name the argument."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic.fields import FieldInfo

WHOLE_BITS = 63  # of a whole number, what torch and NumPy take
MOST_SHOWN = 80  # characters of a value in a message


class _Repr(reprlib.Repr):
    """Text of a value in a message, shortened."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = MOST_SHOWN


shown = _Repr().repr


class Section(BaseModel):
    """Options without a constructor of their own, such as a section of a file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_representable(cls, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > WHOLE_BITS:
            raise ValueError(f"must be below 2**{WHOLE_BITS}, found {shown(value)}.")
        return value


class Options(Section):
    """Options of a call in Python, checked with messages that name the argument."""

    def __init__(self, *args: Any, **values: Any) -> None:
        values = dict(zip(type(self).model_fields, args, strict=False)) | values
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
        try:
            super().__init__(**plain)
        except ValidationError as error:
            first = {str(detail["loc"][:1]): detail for detail in reversed(error.errors())}
            lines = [self._explain(detail) for detail in reversed(first.values())]
            raise ValueError("\n".join(lines)) from None

    @classmethod
    def _explain(cls, error: Any) -> str:
        """Name the argument that is wrong, and describe what it must be."""
        if not error["loc"]:
            return str(error["ctx"]["error"])
        name, found = error["loc"][0], error["input"]
        if error["type"] == "value_error":
            return f"{name} {error['ctx']['error']}"
        if error["type"] == "extra_forbidden":
            return f"there is no option {name!r}.{nearest_name(name, cls.model_fields)}"
        return f"{name} must be {_allowed(cls.model_fields[name], error)}, found {shown(found)}."

    def replace(self, **changes: Any) -> Self:
        """Copy with some options changed, checked."""
        return type(self)(**{**dict(self), **changes})


OUT_OF_RANGE = ("greater_than_equal", "less_than")


def _allowed(field: FieldInfo, error: Any) -> str:
    """Describe the values that an option may have."""
    limits = {
        name: getattr(limit, name)
        for limit in field.metadata
        for name in ("ge", "gt", "lt")
        if hasattr(limit, name)
    }
    if error["type"] == "literal_error":
        choices = [
            c for kind in (field.annotation, *get_args(field.annotation)) for c in get_args(kind)
        ]
        return f"one of {', '.join(map(repr, dict.fromkeys(choices)))}"
    if "ge" in limits and "lt" in limits and error["type"] in OUT_OF_RANGE:
        return f"at least {limits['ge']} and below {limits['lt']}"
    if "ge" in limits and error["type"] == "greater_than_equal":
        return f"at least {limits['ge']}"
    return str(error["msg"]).removeprefix("Input should be ")


def check_devices_option(devices: int | list[int] | str) -> None:
    """Raise unless ``devices`` is a number of devices, a list of their numbers, or ``"auto"``."""
    if isinstance(devices, str):
        right = bool(re.fullmatch(r"auto|-1|[1-9]\d*|\d+(, ?\d+)*,?", devices)) and devices != "0"
    elif isinstance(devices, list):
        whole = all(type(number) is int for number in devices)
        right = whole and min(devices, default=-1) >= 0 and len(set(devices)) == len(devices)
    else:
        right = type(devices) is int and (devices >= 1 or devices == -1)
    if not right:
        raise ValueError(
            "devices must be 'auto', how many devices to use (1 or more, -1 for all) or a list of "
            f"their numbers, found {devices!r}."
        )


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Hint at the name that was meant, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else ""


def explained(error: Any, model: type[BaseModel]) -> str:
    """One line on an error in nested options: the key's path, what was found, what is valid."""
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = list(_fields_at(error["loc"][:-1], model))
        key = str(error["loc"][-1])
        path = path if len(path) < MOST_SHOWN else f"{path[:MOST_SHOWN]}..."
        elsewhere = _elsewhere(key, model)
        hint = f" Did you mean {elsewhere[0]}?" if elsewhere else nearest_name(key, known)
        return f"{path}: unknown key.{hint} Known keys: {', '.join(known)}."
    if error["type"] == "value_error":
        return f"{path}: {error['ctx']['error']}"
    if error["type"] == "model_type":
        return f"{path}: must hold keys and values, found {shown(error['input'])}."
    message = error["msg"].replace("Keys should be strings", "text")
    message = message.removeprefix("Input should be ")
    return f"{path}: must be {message}, found {shown(error['input'])}."


def _elsewhere(key: str, model: type[BaseModel]) -> list[str]:
    """Find the paths at which other sections have a key."""
    sections = {
        name: field.annotation.model_fields
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    return [f"{name}.{key}" for name, fields in sections.items() if key in fields]


def _fields_at(location: tuple[Any, ...], model: Any) -> Mapping[str, Any]:
    """Known keys of a section."""
    for part in location:
        model = model.model_fields[part].annotation
    return dict(model.model_fields)
