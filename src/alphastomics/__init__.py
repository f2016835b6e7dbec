"""alphastomics: learn tissue architecture from spatial transcriptomics."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alphastomics import datasets, io, metrics, pl, pp, tl
    from alphastomics._settings import settings
    from alphastomics.model import AlphaSTomics

__version__ = "0.2.0.dev0"
__all__ = [
    "AlphaSTomics",
    "__version__",
    "datasets",
    "io",
    "metrics",
    "pl",
    "pp",
    "settings",
    "tl",
]

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
        return _imported(name)
    if name == "AlphaSTomics":
        return _imported("model").AlphaSTomics
    if name == "settings":
        return _imported("_settings").settings
    raise AttributeError(f"module 'alphastomics' has no attribute {name!r}")


def _imported(name: str) -> Any:
    """Import a part of the package without the warnings of tqdm and docrep, a part of squidpy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        warnings.filterwarnings("ignore", message=".* is not a valid key", category=SyntaxWarning)
        return importlib.import_module(f"alphastomics.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
