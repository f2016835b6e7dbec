"""Saved models and checkpoints: tensors and JSON, so that reading them runs no code.

The folder of a model holds ``weights.safetensors``, the weights and the statistics of the training
cells, and ``model.json``: everything else, the checksum of the weights and its own. A checkpoint is
a file of Lightning, with the same JSON in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
import zipfile
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alphastomics import __version__, _keys
from alphastomics._files import require_writable, while_unchanged, whole, whole_folder, writing
from alphastomics.config import ModelConfig
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._record import History, TrainingRecord, history_to_json
from alphastomics.model._saved import (
    ARRAY,
    DamagedError,
    Kind,
    as_kinds,
    check_kinds,
    check_numbers,
    read_payload,
)

FORMAT = "alphastomics-model"
FORMAT_VERSION = _keys.MODEL_FORMAT
JSON_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
AVERAGE = "average.module."
CHECKPOINT_KEY = "alphastomics"
MOST_JSON = 64_000_000  # bytes
DTYPES = {
    "BOOL": torch.bool,
    "F32": torch.float32,
    "F64": torch.float64,
    "I32": torch.int32,
    "I64": torch.int64,
}


def versions() -> dict[str, str]:
    """Versions of the packages that a model depends on."""
    others = {name: version(name) for name in ("anndata", "numpy", "scvi-tools", "torch")}
    return {"alphastomics": __version__, **others}


def plain(value: Any) -> Any:
    """Convert NumPy values to JSON types; arrays are marked."""
    if isinstance(value, np.ndarray):
        return {ARRAY: value.tolist()}
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
        if set(value) == {ARRAY}:
            return np.asarray(value[ARRAY])
        return {k: restore(v) for k, v in value.items()}
    if isinstance(value, list):
        return [restore(v) for v in value]
    return value


def payload_of(
    config: ModelConfig, registry: dict[str, Any], training: TrainingRecord, history: History
) -> dict[str, Any]:
    """Everything of a saved model but its weights."""
    return {
        "init_arguments": config.model_dump(),
        "registry": registry,
        "training": training.to_json(),
        "history": history_to_json(history),
        "versions": versions(),
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _document_checksum(document: dict[str, Any]) -> str:
    return _sha256(json.dumps(document, sort_keys=True).encode())


def fingerprint(state: dict[str, Tensor]) -> str:
    """Version of the package and short checksum of weights: the model of a result."""
    return f"alphastomics {__version__}, weights {_sha256(_serialize(state))[:12]}"


def _serialize(state: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in state.items()})


def write_model(
    folder: str | os.PathLike[str],
    state: dict[str, Tensor],
    payload: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Write a model folder, whole or not at all; an earlier model stays until then.

    Other files in the folder stay.

    Raises
    ------
    FileExistsError
        If the folder is not empty and ``overwrite`` is False.
    OSError
        If it cannot be written.
    """
    path = Path(folder)
    with writing("dir_path", path):
        require_writable(path)
        _check_folder(path, overwrite=overwrite)
    weights = _serialize(state)
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "payload": plain({**payload, "weights_sha256": _sha256(weights)}),
    }
    document["sha256"] = _document_checksum(document)
    with writing("dir_path", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(path, (WEIGHTS_FILE, JSON_FILE)) as new:
            (new / WEIGHTS_FILE).write_bytes(weights)
            (new / JSON_FILE).write_bytes(json.dumps(document, indent=1, sort_keys=True).encode())


def _check_folder(path: Path, *, overwrite: bool) -> None:
    """Raise if a model cannot be written to ``path``."""
    if path.is_file():
        raise FileExistsError(f"{path} is a file: choose a folder for the model.")
    names: set[str] = set()
    with suppress(FileNotFoundError):  # also of a folder that is being replaced
        names = {entry.name for entry in path.iterdir()}
    if names and not overwrite:
        others = names - {JSON_FILE, WEIGHTS_FILE}
        what = "a saved model" if JSON_FILE in names else repr(min(others or names))
        raise FileExistsError(
            f"{path} holds {what} already: choose another folder or pass overwrite=True."
        )
    folders = [name for name in (JSON_FILE, WEIGHTS_FILE) if (path / name).is_dir()]
    if folders:
        raise FileExistsError(
            f"{path / folders[0]} is a folder, not a file of a model: choose another folder."
        )


def _damaged(path: Path, why: object) -> ValueError:
    why = str(why).removesuffix(".")
    return ValueError(
        f"{path} is damaged or was altered: {why}. Copy the saved folder anew or save the model "
        "again."
    )


def _require_readable(path: Path, version: object, payload: object) -> None:
    """Raise if a version of the package wrote a file that this one does not read."""
    if type(version) is not int or version < 1:
        raise _damaged(path, f"its format_version is {version!r:.80}")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has model format {version}, but this alphastomics reads formats up to "
            f"{FORMAT_VERSION}: upgrade alphastomics."
        )
    if version < FORMAT_VERSION:
        packages = payload.get("versions", {}) if isinstance(payload, dict) else {}
        known = packages.get("alphastomics") if isinstance(packages, dict) else None
        writer = str(known or "0.1.0")[:20]
        raise ValueError(
            f"{path} was written by alphastomics {writer}, whose network this version does not "
            f"have: load it with alphastomics=={writer}, or train a new model."
        )


def _parse(text: bytes | str) -> dict[str, Any]:
    """Read the JSON of a model."""
    if len(text) > MOST_JSON:
        raise DamagedError("it is larger than the JSON of any model")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError("it is not the complete JSON of a model") from error
    if not isinstance(document, dict):
        raise DamagedError("it is not the JSON of a model")
    return document


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
        payload = _read_json(path / JSON_FILE)
        module = read_payload(payload).new_module()
        restored: dict[str, Any] = restore(payload)
    except (DamagedError, RecursionError) as error:
        raise _damaged(path / JSON_FILE, error) from None
    try:
        state = _read_weights(path / WEIGHTS_FILE, payload, module)
    except (DamagedError, SafetensorError) as error:
        raise _damaged(path / WEIGHTS_FILE, error) from None
    return state, restored


def _read_json(path: Path) -> dict[str, Any]:
    """Read the payload of a model folder, as it was written."""
    with path.open("rb") as file:
        document = _parse(file.read(MOST_JSON + 1))
    if document.get("format") != FORMAT:
        if "format" not in document:
            raise DamagedError("it is not the complete JSON of a model")
        raise ValueError(f"{path} has format {document['format']!r:.80}, expected {FORMAT!r}.")
    _require_readable(path, document.get("format_version"), document.get("payload"))
    if document.pop("sha256", None) != _document_checksum(document):
        raise DamagedError("its content does not match its checksum")
    payload = document.get("payload")
    if not isinstance(payload, dict):
        raise DamagedError("payload: it must hold keys and values")
    return payload


def _read_weights(
    path: Path, payload: dict[str, Any], module: MaskedDiffusionModule
) -> dict[str, Tensor]:
    """Read the weights of a network, which are checked before there is memory for them."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != payload.get("weights_sha256"):
        raise DamagedError(f"it does not match the checksum in {JSON_FILE}")
    with safe_open(path, "pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        kinds = {
            name: Kind(tuple(part.get_shape()), DTYPES.get(part.get_dtype(), part.get_dtype()))
            for name, part in parts.items()
        }
    check_kinds(module, kinds)
    state = safetensors.torch.load_file(path)
    check_numbers(state)
    return state


def to_checkpoint(payload: dict[str, Any]) -> str:
    """Payload of a model as text, so that reading it runs no code."""
    return json.dumps(plain({**payload, "format_version": FORMAT_VERSION}), sort_keys=True)


def replace_payload(path: Path, payload: dict[str, Any]) -> None:
    """Replace the payload of a checkpoint, atomically."""
    checkpoint = _load_checkpoint(path)
    checkpoint[CHECKPOINT_KEY]["model"] = to_checkpoint(payload)
    content = io.BytesIO()  # torch does not say why a file cannot be written
    torch.save(checkpoint, content)
    with writing("checkpoint_dir", path), whole(path) as part:
        part.write_bytes(content.getvalue())


def read_saved(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights and the payload of a model folder or of a checkpoint."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            "the model must be named by the folder that save wrote or a checkpoint (.ckpt), found "
            f"{type(path).__name__}."
        )
    path = Path(path)
    if path.is_file() or (path.suffix == ".ckpt" and not path.is_dir()):
        return read_checkpoint(path)
    return while_unchanged(path, partial(read_model, path))


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the averaged weights and the payload of a checkpoint; nothing in it is run.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a checkpoint of this package, or damaged.
    """
    path = Path(path)
    checkpoint = _load_checkpoint(path)
    try:
        payload = _parse(checkpoint[CHECKPOINT_KEY]["model"])
        _require_readable(path, payload.get("format_version", 1), payload)
        module = read_payload(payload).new_module()
        state = {
            name.removeprefix(AVERAGE): tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.startswith(AVERAGE)
        }
        check_kinds(module, as_kinds(state))
        check_numbers(state)
        return state, restore(payload)
    except (DamagedError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged or was altered: {error}. Copy it again, or train again."
        ) from None


def progress_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Number of epochs that the trainer of a checkpoint had ended, and of its batches."""
    checkpoint = _load_checkpoint(Path(path))
    epoch, batches = checkpoint.get("epoch"), checkpoint[CHECKPOINT_KEY].get("batches_seen")
    if not (isinstance(epoch, int) and isinstance(batches, int) and min(epoch, batches) >= 0):
        raise ValueError(f"{path} lacks the state of its training: train a new model.")
    return epoch, batches


def _load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of Lightning with what this package adds; nothing in it is run.

    torch does not look at the checksums of the file, would unpack it to any size, and advises to
    switch its safety off where it finds code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {str(path)!r}.")
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
            is_plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            size = sum(entry.file_size for entry in entries)
            if not is_plain or size > path.stat().st_size or file.testzip() is not None:
                raise DamagedError("a part of it does not match its checksum or its size")
        with warnings.catch_warnings(action="ignore"):
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        ours = checkpoint[CHECKPOINT_KEY]
        if not (isinstance(ours["model"], str) and isinstance(checkpoint["state_dict"], dict)):
            raise DamagedError("it lacks what a checkpoint holds")
    except Exception as error:
        why = f" ({error})" if isinstance(error, DamagedError) else ""
        raise ValueError(
            f"{path} is not a checkpoint that alphastomics wrote, or it is damaged{why}: pass the "
            "folder that save wrote, or a .ckpt that train wrote. Nothing in it was run."
        ) from None
    return checkpoint
