"""Number of CPU threads that this process may use, and a context that keeps torch within it.

numba starts its thread pool at its first parallel function or ``numba.get_num_threads``, for
instance in ``scanpy.pp.normalize_total``. With the OpenMP layer this calls ``omp_set_num_threads``,
once, with ``NUMBA_NUM_THREADS``: by default every core of the process's affinity, whatever
``OMP_NUM_THREADS`` says. numba's symbol is bound to the OpenMP library of torch, so torch's
products use as many threads from then on. The threads of one product wait for each other: on a
busy machine the slowest core sets the pace.

OpenMP stores the number for each thread separately, and torch stores the number of
``torch.set_num_threads`` for the whole process. In a new thread torch therefore still reports its
own number, which numba has not changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from alphastomics._settings import settings

_ENVIRONMENT = ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")


def allowed_threads() -> int:
    """Return the number of CPU threads that torch may use in this process.

    It is ``settings.threads`` if that is set, else the smallest of ``OMP_NUM_THREADS``,
    ``SLURM_CPUS_PER_TASK``, the cores of the process's affinity, the CPU quota of its cgroup and,
    once torch is imported, torch's own number: its default or that of ``torch.set_num_threads``. A
    call of ``torch.set_num_threads`` above the number that OpenMP started with is a choice of the
    user and is returned as it is.

    Returns
    -------
    int
        Number of threads, at least 1.

    Notes
    -----
    torch is not imported. A call of ``torch.set_num_threads`` that lies between these limits and
    the number that OpenMP started with is indistinguishable from torch's default: the limits hold.

    Examples
    --------
    >>> allowed_threads() >= 1
    True
    """
    if settings.threads is not None:
        return settings.threads
    limits = [*_environment_limits(), _affinity_limit(), _cgroup_limit()]
    if "torch" in sys.modules:
        own, initial = _torch_threads()
        if initial is not None and own > initial:
            return own
        limits.append(own)
    return max(1, min(limit for limit in limits if limit is not None))


@contextmanager
def limited_threads() -> Iterator[int]:
    """Keep torch, BLAS and OpenMP within :func:`allowed_threads`, as a context or a decorator.

    torch's number is set; pools of BLAS and OpenMP libraries are lowered and never raised. All
    numbers return to their former values at the end, also after an exception.

    Yields
    ------
    int
        Number of threads inside the context.

    Notes
    -----
    The number of an OpenMP library belongs to the calling thread. numba raises it when it starts
    its thread pool, so prepare the data before entering. A nested context sets the number
    again. Contexts of several Python threads must not overlap, because the numbers of torch and
    BLAS belong to the process.

    Examples
    --------
    >>> import torch
    >>> with limited_threads() as n_threads:
    ...     torch.get_num_threads() == n_threads
    True
    >>> @limited_threads()
    ... def train() -> int:
    ...     return torch.get_num_threads()
    >>> train() == allowed_threads()
    True
    """
    import torch

    n_threads = allowed_threads()
    own, _ = _torch_threads()
    torch.get_num_threads()  # the first call in a Python thread sets its number of OpenMP
    former = [(library, library.num_threads) for library in _libraries()]
    try:
        torch.set_num_threads(n_threads)
        for library, number in former:
            if number is not None and number > n_threads:
                library.set_num_threads(n_threads)
        yield n_threads
    finally:
        # torch's number for the process first, then the number of this thread, which numba may
        # have raised: `torch.set_num_threads` alone would make the raised number torch's own.
        torch.set_num_threads(own)
        for library, number in former:
            if number is not None and library.num_threads != number:
                library.set_num_threads(number)


def _environment_limits() -> list[int]:
    """Return the valid numbers of threads in the environment variables."""
    limits = []
    for variable in _ENVIRONMENT:
        # OMP_NUM_THREADS may be a list, one number per level of nesting.
        text = os.environ.get(variable, "").split(",")[0].strip()
        if text.isdecimal() and int(text) > 0:
            limits.append(int(text))
    return limits


def _affinity_limit() -> int:
    """Count the cores that the scheduler may give to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS, Windows


def _cgroup_limit(root: Path = Path("/")) -> int | None:
    """Return the CPU quota of this process's cgroup and its parents in whole cores.

    A fraction of a core is dropped: OpenMP threads wait actively for each other, which a
    throttled thread prolongs.

    Parameters
    ----------
    root
        Directory of ``proc/self/cgroup`` and ``sys/fs/cgroup``.

    Returns
    -------
    int or None
        Number of cores, at least 1; None without a quota.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:  # hierarchy:controllers:path
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            mount, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            mount, read = root / "sys/fs/cgroup" / controllers, _quota_v1
            if not mount.is_dir():
                mount = root / "sys/fs/cgroup/cpu"
        else:
            continue
        relative = Path(path.lstrip("/"))
        # A parent's quota holds for its children. In a container the path may be that of the
        # host, with the container's own group at the mount: the parents end there.
        for group in (relative, *relative.parents):
            quota = read(mount / group)
            if quota is not None:
                quotas.append(quota)
    return max(1, int(min(quotas))) if quotas else None


def _quota_v2(group: Path) -> float | None:
    """Return the quota of a group of cgroup v2 in cores, None if there is none."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return _cores(int(quota), int(period))  # "max" is no number
    except (OSError, ValueError):
        return None


def _quota_v1(group: Path) -> float | None:
    """Return the quota of a group of cgroup v1 in cores, None if there is none."""
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return _cores(quota, int((group / "cpu.cfs_period_us").read_text()))
    except (OSError, ValueError):
        return None


def _cores(quota: int, period: int) -> float | None:
    """Divide a quota by its period; None unless both are positive (-1 is no quota)."""
    return quota / period if quota > 0 and period > 0 else None


def _libraries() -> list[Any]:
    """List threadpoolctl's controllers of the loaded BLAS and OpenMP libraries.

    OpenMP comes last: a BLAS library built on OpenMP sets the number of OpenMP as well.
    """
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    libraries = ThreadpoolController().lib_controllers
    return sorted(libraries, key=lambda library: library.user_api == "openmp")


def _torch_threads() -> tuple[int, int | None]:
    """Read torch's own number of threads and the number that OpenMP started with.

    Both are read in a new thread, where numba's call of ``omp_set_num_threads`` has no effect.

    Returns
    -------
    own
        Number of the last ``torch.set_num_threads``, else torch's default.
    initial
        ``OMP_NUM_THREADS`` or the cores of the affinity when OpenMP was loaded; None without an
        OpenMP library.
    """
    import torch

    openmp = [library for library in _libraries() if library.user_api == "openmp"]
    own = 1
    initial: int | None = None

    def read() -> None:
        nonlocal own, initial
        # Before torch: its first use in a thread sets the number of OpenMP.
        initial = max((library.num_threads for library in openmp), default=None)
        own = torch.get_num_threads()

    thread = Thread(target=read, name="alphastomics-threads")
    thread.start()
    thread.join()
    return own, initial
