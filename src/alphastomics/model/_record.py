"""Record and history of the training of a model, over all calls of ``train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

History = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class TrainingRecord:
    """Record of the training of a model, over all calls of ``train``."""

    epochs: int = 0
    steps: int = 0
    n_cells: int = 0
    train_sections: list[str] = field(default_factory=list)
    val_sections: list[str] = field(default_factory=list)
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)
    intervals: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary; ``TrainingRecord(**d)`` is the inverse."""
        return asdict(self)


def history_to_json(history: History | None) -> dict[str, Any]:
    """Write a training history as plain lists."""
    return {
        name: {
            "index_name": frame.index.name,
            "index": [int(i) for i in frame.index],
            "values": [float(v) for v in frame[name]],
        }
        for name, frame in (history or {}).items()
    }


def history_from_json(history: Mapping[str, Any]) -> History:
    """Invert :func:`history_to_json`."""
    return {
        name: pd.DataFrame(
            {name: entry["values"]}, index=pd.Index(entry["index"], name=entry["index_name"])
        )
        for name, entry in history.items()
    }


def joined(before: History, logged: History, *, resumes: bool) -> History:
    """History continued by the curves that a trainer logged; of a resumed epoch, its end.

    A trainer that does not resume counts from 0 again.
    """
    result = dict(before)
    for name, frame in logged.items():
        if name not in result:
            result[name] = frame
            continue
        first = result[name]
        if not resumes:
            index = range(len(first), len(first) + len(frame))
            frame = frame.set_axis(pd.Index(index, name=first.index.name))
        both = pd.concat([first, frame])
        result[name] = both[~both.index.duplicated(keep="last")]
    return result
