"""Packages that extras bring, imported when something needs them."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtraError(ImportError):
    """Names the package and the extra that brings it."""


def require(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an extra, or say for what ``purpose`` to install it."""
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # there, but broken
            raise
        raise MissingExtraError(
            f"{purpose} needs {package}: pip install 'alphastomics[{extra}]'.", name=package
        ) from None
    return importlib.import_module(module)
