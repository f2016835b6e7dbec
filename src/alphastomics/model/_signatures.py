"""Signatures as they are shown: literal types written out, names that cannot be used left out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args, get_origin

Model = TypeVar("Model")


def _has_literal(annotation: object) -> bool:
    """True if a type is literal, or a union with a literal type."""
    if get_origin(annotation) is Literal:
        return True
    return any(map(_has_literal, get_args(annotation)))


def literal_signatures(owner: type[Model]) -> type[Model]:
    """Class whose methods show ``Literal["auto", ...]`` in their signatures, not its alias."""
    for attribute in vars(owner).values():
        function = getattr(attribute, "__func__", attribute)
        if not inspect.isfunction(function):
            continue
        innermost: Callable[..., Any] = inspect.unwrap(function)
        parameters = inspect.signature(innermost, eval_str=True).parameters
        for name, parameter in parameters.items():
            if _has_literal(parameter.annotation):
                innermost.__annotations__[name] = parameter.annotation
    return owner
