"""A saved model: tensors as safetensors, everything else as JSON. Reading it runs no code.

The folder holds two files. ``weights.safetensors`` has the weights and the statistics of the
training cells. ``model.json`` has everything else, the checksum of the weights and its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
from torch import Tensor

from alphastomics._files import whole

FORMAT = "alphastomics-model"
FORMAT_VERSION = 2  # 1: the network of alphastomics 0.1, with noise levels in the transformer
JSON_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"

_ARRAY = "__array__"


def plain(value: Any) -> Any:
    """Turn NumPy values into what JSON knows; arrays are marked."""
    if isinstance(value, np.ndarray):
        return {_ARRAY: value.tolist()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def restore(value: Any) -> Any:
    """Invert :func:`plain`, with lists for tuples."""
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return np.asarray(value[_ARRAY])
        return {k: restore(v) for k, v in value.items()}
    if isinstance(value, list):
        return [restore(v) for v in value]
    return value


def history_to_json(history: dict[str, pd.DataFrame] | None) -> dict[str, Any]:
    """Write a training history as plain lists."""
    return {
        name: {
            "index_name": frame.index.name,
            "index": [int(i) for i in frame.index],
            "values": [float(v) for v in frame[name]],
        }
        for name, frame in (history or {}).items()
    }


def history_from_json(history: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Invert :func:`history_to_json`."""
    return {
        name: pd.DataFrame(
            {name: entry["values"]}, index=pd.Index(entry["index"], name=entry["index_name"])
        )
        for name, entry in history.items()
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _document_checksum(document: dict[str, Any]) -> str:
    return _sha256(json.dumps(document, sort_keys=True).encode())


def weights_fingerprint(state: dict[str, Tensor]) -> str:
    """Short checksum of a state dict, to say which model made a result."""
    return _sha256(_serialise(state))[:12]


def _serialise(state: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in state.items()})


def write_model(
    folder: str | os.PathLike[str],
    state: dict[str, Tensor],
    payload: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write a model folder.

    Raises
    ------
    FileExistsError
        If the folder holds a model and ``overwrite`` is False.
    """
    path = Path(folder)
    if (path / JSON_FILE).exists() and not overwrite:
        raise FileExistsError(
            f"{path} holds a saved model already: choose another folder or pass overwrite=True."
        )
    path.mkdir(parents=True, exist_ok=True)
    weights = _serialise(state)
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "payload": plain({**payload, "weights_sha256": _sha256(weights)}),
    }
    document["sha256"] = _document_checksum(document)
    for name, content in (
        (WEIGHTS_FILE, weights),
        (JSON_FILE, json.dumps(document, indent=1, sort_keys=True).encode()),
    ):
        with whole(path / name) as part:
            part.write_bytes(content)


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} is damaged or was altered: {why}. Copy the saved folder anew or save the model "
        "again."
    )


def earlier_network(path: Path, written_by: str) -> ValueError:
    """Error for weights of the network before diffusion heads."""
    return ValueError(
        f"{path} was written by alphastomics {written_by}, whose network this version does not "
        f"have: load it with alphastomics=={written_by}, or train the model anew."
    )


def read_model(folder: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model folder: the state dict and the payload.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    ValueError
        If it was written by a newer version, or a file is truncated or altered.
    """
    path = Path(folder)
    for name in (JSON_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"{path} is not a saved alphastomics model: it has no {name}. Pass the folder that "
                "AlphaSTomics.save wrote."
            )
    try:
        document = json.loads((path / JSON_FILE).read_bytes())
        written_format, version = document["format"], int(document["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path / JSON_FILE, "it is not the complete JSON of a model") from error
    if written_format != FORMAT:
        raise ValueError(f"{path / JSON_FILE} has format {written_format!r}, expected {FORMAT!r}.")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has model format {version}, but this alphastomics reads formats up to "
            f"{FORMAT_VERSION}: upgrade alphastomics."
        )
    if version < FORMAT_VERSION:
        written_by = document.get("payload", {}).get("versions", {}).get("alphastomics", "0.1.0")
        raise earlier_network(path, written_by)
    if document.pop("sha256", None) != _document_checksum(document):
        raise _damaged(path / JSON_FILE, "its content does not match its checksum")
    plain = document["payload"]
    weights = (path / WEIGHTS_FILE).read_bytes()
    if _sha256(weights) != plain["weights_sha256"]:
        raise _damaged(path / WEIGHTS_FILE, f"it does not match the checksum in {JSON_FILE}")
    return safetensors.torch.load(weights), restore(plain)
