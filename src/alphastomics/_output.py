"""Results in AnnData: keys that can be stored, places that are free, all written at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from anndata import AnnData

from alphastomics import _keys
from alphastomics._validate import require_adata, short

Store = Literal["obsm", "layers", "obs", "var"]
Output = Literal["lognorm", "counts"]  # scale of expression
OUTPUTS: tuple[Output, ...] = ("lognorm", "counts")
METHOD = "method"  # in every record of provenance, by which a result is known as ours
# What a result has beside it, in the record of its provenance: whether it was written.
RADIUS = "radius"  # of positions, in obs
INTERVAL = "interval"  # of expression: its bounds, and the reliability of genes


def check_key(argument: str, key: object, read: Mapping[str, str]) -> None:
    """Raise unless results can be stored under a key.

    Parameters
    ----------
    argument
        Name of the argument, for the message.
    key
        What was given.
    read
        Keys that may not be replaced, and what is there.
    """
    if not isinstance(key, str):
        raise TypeError(
            f"{argument} must be a text, the key of the results, found {short(key)} "
            f"({type(key).__name__})."
        )
    problem = "is empty" if not key.strip() else None
    if "/" in key or "\0" in key or key in (".", "..") or not _is_unicode(key):
        problem = "cannot be stored in a file ('/' separates groups there)"
    if key in read:
        problem = f"is where {read[key]}"
    if problem is not None:
        raise ValueError(f"{argument}={short(key)} {problem}: choose another name.")


def _is_unicode(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def destination(adata: AnnData, copy: object) -> AnnData:
    """Cells that a call writes into: those given, or a copy of them in memory."""
    require_adata(adata)
    if not isinstance(copy, bool):
        raise TypeError(f"copy must be True or False, found {short(copy)}.")
    if not copy:
        return adata
    return adata.to_memory() if adata.isbacked else adata.copy()


class Results:
    """Results of a call: places checked first, values written last, all together.

    Parameters
    ----------
    adata
        Destination. Existing values are not replaced, unless an earlier call wrote them according
        to ``.uns["alphastomics"]``.
    """

    def __init__(self, adata: AnnData) -> None:
        self.adata = adata
        records = adata.uns.get(_keys.UNS, {})
        if not isinstance(records, Mapping):
            raise ValueError(
                f"adata.uns[{_keys.UNS!r}] is {short(records)} ({type(records).__name__}), but "
                "results are recorded there: give it another name, or delete it."
            )
        self.records: dict[str, Any] = dict(records)
        self._values: dict[tuple[str, str], Any] = {}
        self._outdated: list[tuple[str, str]] = []

    def wrote(self, key: str) -> bool:
        """True if an earlier call wrote the results of a key."""
        return isinstance(self.records.get(key), Mapping) and METHOD in self.records[key]

    def wrote_with(self, key: str, part: str) -> bool:
        """True if an earlier call wrote a radius or an interval with the results of a key."""
        return self.wrote(key) and bool(self.records[key].get(part, part == RADIUS))

    def reserve(
        self, store: Store, key: str, argument: str, suffix: str = "", part: str | None = None
    ) -> None:
        """Raise if something is under a key that no earlier call wrote.

        With a suffix it is that of a ``part`` of the results of the key.
        """
        name = key + suffix
        is_ours = self.wrote(key) if part is None else self.wrote_with(key, part)
        if name in getattr(self.adata, store) and not is_ours:
            raise ValueError(
                f"adata.{store}[{name!r}] is there already, and alphastomics did not write it: "
                f"pass another {argument}=, or delete it if it is not needed."
            )
        if key in self.records and not self.wrote(key):
            raise ValueError(
                f"adata.uns[{_keys.UNS!r}][{key!r}] is not a record of alphastomics: "
                f"pass another {argument}=, or delete it."
            )

    def put(self, store: Store | Literal["uns"], key: str, value: Any) -> None:
        """Have a value written."""
        self._values[store, key] = value

    def drop(self, store: Store | Literal["uns"], key: str) -> None:
        """Have a value of an earlier call removed."""
        self._outdated.append((store, key))

    def record(self, key: str, **details: Any) -> None:
        """Have the provenance of a result written."""
        self.records[key] = details

    def write(self) -> None:
        """Write everything into the AnnData."""
        for store, key in self._outdated:
            held = getattr(self.adata, store)
            if key in held:
                del held[key]
        for (store, key), value in self._values.items():
            getattr(self.adata, store)[key] = value
        self.adata.uns[_keys.UNS] = self.records
