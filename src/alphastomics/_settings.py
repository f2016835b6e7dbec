"""Settings of the package, ``al.settings``, and its logger."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from pathlib import Path
from typing import Literal, get_args

Verbosity = Literal["error", "warning", "info", "debug"]
LEVELS: tuple[Verbosity, ...] = get_args(Verbosity)
DATA_VARIABLE = "ALPHASTOMICS_DATA"
EARLIER_VARIABLE = "ALPHASTOMICS_DATA_DIR"  # of version 0.1
MAX_SEED = 2**63 - 1  # of torch, and of HDF5

logger = logging.getLogger("alphastomics")


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Handler that writes to the present ``sys.stderr``, unless the user has configured logging."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(message)s"))

    @property
    def stream(self) -> object:
        """Present ``sys.stderr``, which notebooks and tests replace."""
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless a handler of the root logger does."""
        if not logging.getLogger().handlers:
            super().emit(record)


def _whole(name: str, value: object, least: int, most: int) -> int:
    """Value as ``int``, or an error that names the setting."""
    index = getattr(type(value), "__index__", None)
    if index is None or isinstance(value, bool) or not least <= index(value) <= most:
        raise ValueError(
            f"settings.{name} must be a whole number of at least {least}, found {value!r:.80}."
        )
    return int(index(value))


class Settings:
    """Settings that hold for all calls of a session.

    An argument of a call takes precedence over the setting: ``model.sample(cells, seed=1)`` draws
    with seed 1 whatever ``al.settings.seed`` is.

    Attributes
    ----------
    seed
        Seed of every call with ``seed=None``, the default: 0 unless it is set. The same seed gives
        the same result. Global seeds, ``scvi.settings.seed`` and ``torch.manual_seed`` among them,
        have no effect, and the global random states stay as they are.
    verbosity
        Least level of the messages of ``logging.getLogger("alphastomics")``: ``"error"``,
        ``"warning"``, ``"info"`` (default) or ``"debug"``. Messages go to ``sys.stderr``, or to the
        handlers of the root logger if there are any.
    progress_bar
        Whether calls with ``progress_bar=None``, the default, show their progress. Where
        ``sys.stderr`` is no terminal, such as in a log of SLURM, a few lines are logged instead of
        a bar.
    threads
        Number of CPU threads of torch and BLAS in the calls of a model; ``None``, the default, for
        the smallest of ``OMP_NUM_THREADS``, ``SLURM_CPUS_PER_TASK``, the available cores and
        torch's own number.
    data_dir
        Folder of :mod:`alphastomics.datasets`: by default that of the environment variable
        ``ALPHASTOMICS_DATA``, or else ``None``, the folder of squidpy.

    Examples
    --------
    >>> import alphastomics as al
    >>> al.settings.seed
    0
    >>> al.settings.verbosity = "warning"
    >>> al.settings.reset()
    """

    _seed: int
    _progress_bar: bool
    _threads: int | None
    _data_dir: Path | None

    def __init__(self) -> None:
        logger.addHandler(_Handler())
        self.reset()

    def reset(self) -> None:
        """Restore all defaults."""
        self.seed, self.verbosity, self.progress_bar = 0, "info", True
        self.threads = self.data_dir = None

    def __setattr__(self, name: str, value: object) -> None:
        names = [n for n, kind in vars(Settings).items() if isinstance(kind, property)]
        if name.startswith("_") or name in names:
            object.__setattr__(self, name, value)
            return
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise AttributeError(
            f"there is no setting {name!r}.{hint} Settings are {', '.join(names)}."
        )

    @property
    def seed(self) -> int:
        """Seed of every call with ``seed=None``."""
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = _whole("seed", seed, 0, MAX_SEED)

    @property
    def verbosity(self) -> Verbosity:
        """Least level of the messages of the logger."""
        name = logging.getLevelName(logger.level).lower()
        return name if name in LEVELS else "info"

    @verbosity.setter
    def verbosity(self, verbosity: Verbosity) -> None:
        if verbosity not in LEVELS:
            raise ValueError(
                f"settings.verbosity must be one of {', '.join(map(repr, LEVELS))}, found "
                f"{verbosity!r:.80}."
            )
        logger.setLevel(verbosity.upper())

    @property
    def progress_bar(self) -> bool:
        """True if calls with ``progress_bar=None`` show their progress."""
        return self._progress_bar

    @progress_bar.setter
    def progress_bar(self, progress_bar: bool) -> None:
        if not isinstance(progress_bar, bool):
            raise ValueError(
                f"settings.progress_bar must be True or False, found {progress_bar!r:.80}."
            )
        self._progress_bar = progress_bar

    @property
    def threads(self) -> int | None:
        """Number of CPU threads; ``None`` for the limits of the process."""
        return self._threads

    @threads.setter
    def threads(self, threads: int | None) -> None:
        self._threads = None if threads is None else _whole("threads", threads, 1, 2**16)

    @property
    def data_dir(self) -> Path | None:
        """Folder of the public data sets."""
        folder = self._data_dir or os.environ.get(DATA_VARIABLE) or os.environ.get(EARLIER_VARIABLE)
        return Path(folder).expanduser().absolute() if folder else None

    @data_dir.setter
    def data_dir(self, data_dir: str | os.PathLike[str] | None) -> None:
        self._data_dir = None if data_dir is None else Path(data_dir)

    def __repr__(self) -> str:
        names = ("seed", "verbosity", "progress_bar", "threads", "data_dir")
        return "\n".join(["alphastomics settings", *(f"  {n}: {getattr(self, n)}" for n in names)])


settings = Settings()
