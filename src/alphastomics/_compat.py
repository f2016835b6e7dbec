"""Other packages: extras, their private names that we need, log messages and warnings.

``tests/test_compat.py`` fails when the private names change.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData
    from lightning.pytorch import Trainer
    from scipy.sparse import csr_matrix

PACKAGE = os.path.dirname(__file__)
# Files whose frames lie between two of this package where a function is decorated.
DECORATORS = (contextlib.__file__, os.path.join("torch", "utils", "_contextlib.py"))


@contextmanager
def quiet(logger: str | logging.Logger) -> Iterator[None]:
    """Let only warnings and errors of ``logger`` through."""
    log = logging.getLogger(logger) if isinstance(logger, str) else logger
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Suppress deprecation warnings of other packages."""
    with warnings.catch_warnings():
        for category in (
            DeprecationWarning,
            FutureWarning,
            PendingDeprecationWarning,
            SyntaxWarning,
        ):
            warnings.simplefilter("ignore", category)
        yield


def tqdm() -> Any:
    """Class of progress bars, of widgets in notebooks that have them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm as bar

    return bar


def squidpy() -> Any:
    """Module squidpy, imported without the warnings about its docstrings."""
    with without_deprecations():
        import squidpy as package

        return package


def spatial_graph(cells: AnnData, **options: Any) -> tuple[csr_matrix, csr_matrix]:
    """Build squidpy's graph of ``.obsm["spatial"]``: connectivities and distances.

    ``squidpy.gr.spatial_neighbors`` goes with 1.9, and what replaces it came with 1.8.2.
    """
    sq = squidpy()
    with quiet("spatialdata._logging"), without_deprecations():
        if not hasattr(sq.gr, "spatial_neighbors_knn"):
            graph = sq.gr.spatial_neighbors(cells, coord_type="generic", copy=True, **options)
        elif options.pop("delaunay", False):
            del options["n_neighs"]
            graph = sq.gr.spatial_neighbors_delaunay(cells, copy=True, **options)
        elif options.get("radius") is not None:
            del options["n_neighs"]
            graph = sq.gr.spatial_neighbors_radius(cells, copy=True, **options)
        else:
            options.pop("radius", None)
            graph = sq.gr.spatial_neighbors_knn(cells, copy=True, **options)
    return graph[0], graph[1]


def epoch_logger() -> Any:
    """Logger of scvi-tools that holds the values of every epoch in ``history``."""
    from scvi.train._logger import SimpleLogger

    return SimpleLogger()


def copies_process(trainer: Trainer) -> bool:
    """True if the processes of a trainer are copies of this one, as in notebooks."""
    from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def ends_step(trainer: Trainer) -> bool:
    """True if the last batch ends a step of accumulated gradients."""
    return trainer.fit_loop.epoch_loop._accumulated_batches_reached()


class MissingExtraError(ImportError):
    """Names the package and the extra that brings it."""


def require(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an extra; the error names the ``purpose`` for which to install it."""
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


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of this package that called it, through whatever decorators."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_internal(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_internal(filename: str) -> bool:
    return filename.startswith(PACKAGE) or filename.endswith(DECORATORS)
