"""The error of data that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DataError(ValueError):
    """Names the file or option, says what was found and what to do.

    Examples
    --------
    >>> import alphastomics as al
    >>> al.io.open_data("nowhere")
    Traceback (most recent call last):
    alphastomics.io._errors.DataError: ...nowhere holds no processed data...
    """


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises for a damaged file into one clear error."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{path} cannot be read as {kind}: {why}. It may be damaged or incomplete: copy it "
            "again, or move it out of the folder."
        ) from error
