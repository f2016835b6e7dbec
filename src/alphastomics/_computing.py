"""State of torch in which all is computed, whatever the user has set globally."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from alphastomics._threads import limited_threads


@contextmanager
def own_torch_state() -> Iterator[None]:
    """Single precision, tensors on the CPU, no autocast, few threads; random numbers as before.

    A context or a decorator of every method that computes. ``torch.set_default_dtype``,
    ``torch.set_default_device`` and an outer ``torch.autocast`` have no effect inside, and the
    state of the global generator of the CPU is restored. torch and BLAS use
    :func:`~alphastomics._threads.limited_threads`.

    Examples
    --------
    >>> import torch
    >>> with torch.autocast("cpu"), own_torch_state():
    ...     torch.is_autocast_enabled("cpu"), torch.get_default_dtype()
    (False, torch.float32)
    """
    import torch

    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as stack:
            stack.enter_context(limited_threads())
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            for kind in ("cpu", "cuda", "mps"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_rng_state(state)
