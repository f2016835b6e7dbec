"""alphastomics: learn tissue architecture from spatial transcriptomics."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alphastomics import datasets, io, metrics, pl, pp, tl
    from alphastomics.model import AlphaSTomics

__version__ = "0.2.0.dev0"
__all__ = ["AlphaSTomics", "__version__", "datasets", "io", "metrics", "pl", "pp", "tl"]

_NAMESPACES = (
    "datasets",
    "diffusion_model",
    "io",
    "metrics",
    "model",
    "nn",
    "pl",
    "pp",
    "priors",
    "tl",
)


def __getattr__(name: str) -> Any:
    """Import namespaces and the model when first touched, so that `import alphastomics` is fast."""
    if name in _NAMESPACES:
        return importlib.import_module(f"alphastomics.{name}")
    if name == "AlphaSTomics":
        return importlib.import_module("alphastomics.model").AlphaSTomics
    raise AttributeError(f"module 'alphastomics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
