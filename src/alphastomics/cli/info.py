"""The command ``info``: what a checkpoint, a model, processed data or an AnnData file holds.

Models and processed data are read without torch and AnnData, whose imports take seconds. Whatever
is not as expected is left to the readers of the package, whose errors say what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import pickletools
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from alphastomics import _keys
from alphastomics.cli._cells import is_store
from alphastomics.cli._errors import report_errors
from alphastomics.cli._labels import label_hint
from alphastomics.cli._run_folder import MANIFEST, MODEL, find_checkpoint

WEIGHTS = "weights.safetensors"  # of a saved model
MOST_JSON = 64_000_000  # bytes
UNEXPECTED = (
    *(ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError),
    zipfile.BadZipFile,
)
SIZES = ("d_model", "num_heads", "num_layers", "d_ff")


def info_command(
    path: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint, folder of a run, of a saved model or of processed data, or AnnData "
            "(.h5ad or .zarr).",
            metavar="PATH",
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="Config of the run, to find its checkpoint.")
    ] = None,
) -> None:
    """Describe a checkpoint, a model, processed data or cells."""
    with report_errors("Nothing was written."):
        typer.echo(describe(path, config))


def describe(path: Path, config: Path | None = None) -> str:
    """Describe a checkpoint, a model, a folder of processed data or AnnData in a few lines."""
    if (path / MANIFEST).is_file():
        return _describe_data(path)
    if path.suffix == ".h5ad" or is_store(path):
        from alphastomics.cli._describe_cells import describe_cells

        return describe_cells(path)
    found = find_checkpoint(path, config, "path")
    try:
        payload = _read_model(found) if found.is_dir() else _read_checkpoint(found)
        return _describe_model(payload)
    except UNEXPECTED:
        from alphastomics.model import AlphaSTomics

        return repr(AlphaSTomics.load(found))  # or its error


def _describe_data(folder: Path) -> str:
    from alphastomics.io._manifest import read_manifest

    manifest = read_manifest(folder)
    if not all((folder / section.file).is_dir() for section in manifest.sections):
        from alphastomics.io import open_data

        open_data(folder)  # whose error names the store
    n_cells = sum(section.n_cells for section in manifest.sections)
    lines = [
        f"{len(manifest.genes):,} genes ({manifest.values}), {manifest.n_dims}D, {n_cells:,} cells "
        f"of {len(manifest.sections)} sections"
    ]
    for section in manifest.sections:
        where = "" if section.has_coordinates else ", no coordinates"
        lines.append(f"  {section.split:5} {section.name}: {section.n_cells:,} cells{where}")
    if manifest.labels_key is None:
        hint = label_hint(_columns(folder / manifest.sections[0].file))
        lines += [f"{hint} of preprocess."] * bool(hint)
    return "\n".join(lines)


def _columns(store: Path) -> list[str]:
    """Columns of ``obs`` in a store of processed data, read without AnnData; none if damaged."""
    try:
        columns = json.loads((store / "obs" / ".zattrs").read_bytes())["column-order"]
        return [str(column) for column in columns]
    except UNEXPECTED:
        return []


def _read_model(folder: Path) -> dict[str, Any]:
    """Read the JSON of a saved model, if it and the weights match their checksums."""
    document = _parse((folder / MODEL).read_bytes())
    checksum = document.pop("sha256")
    text = json.dumps(document, sort_keys=True).encode()
    with (folder / WEIGHTS).open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    payload: dict[str, Any] = document["payload"]
    if (checksum, payload["weights_sha256"]) != (hashlib.sha256(text).hexdigest(), weights):
        raise ValueError("checksum")
    return payload


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the JSON in a checkpoint: the text after a key of its pickle, which is not run."""
    with zipfile.ZipFile(path) as file:
        is_plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in file.infolist())
        if not is_plain or file.testzip() is not None:
            raise ValueError("checksum")
        (name,) = (name for name in file.namelist() if name.endswith("/data.pkl"))
        texts = [arg for _, arg, _ in pickletools.genops(file.read(name)) if isinstance(arg, str)]
    return _parse(texts[texts.index("model", texts.index("alphastomics")) + 1])


def _parse(text: str | bytes) -> dict[str, Any]:
    """Read the JSON of a model, if this version of the package reads its format."""
    if len(text) > MOST_JSON:
        raise ValueError("size")
    document: dict[str, Any] = json.loads(text)
    if document["format_version"] != _keys.MODEL_FORMAT:
        raise ValueError("format")
    return document


def _describe_model(payload: dict[str, Any]) -> str:
    """Describe a model by the JSON that is saved with it."""
    options, training, registry = (payload[k] for k in ("init_arguments", "training", "registry"))
    fields, setup = registry["field_registries"], registry["setup_args"]
    genes = fields["X"]["state_registry"]["column_names"]["__array__"]
    sections = training["train_sections"]
    validated = ", ".join(training["val_sections"])
    sizes = [f"{name}={options[name]}" for name in SIZES]
    sizes += [f"gate_type={options['gate_type']}"] * (options["gate_type"] != "none")
    sizes += [f"experts: {options['moe_top_k']} of {options['num_experts']}"] * bool(
        options["num_experts"]
    )
    calibrated = ["positions"] * bool(training["calibration"])
    calibrated += ["expression"] * bool(training["intervals"])
    return "\n".join(
        [
            f"AlphaSTomics ({options['training_mode']}), trained for {training['steps']} steps",
            f"  trained on: {training['n_cells']:,} cells of {len(sections)} "
            f"section{'s' * (len(sections) != 1)} ({', '.join(sections)})",
            *([f"  validated on: {validated}"] if validated else []),
            f"  data: {len(genes):,} genes ({setup['values']}), "
            f"{fields['position']['summary_stats']['n_position']}D positions in "
            f"obsm[{setup['spatial_key']!r}]",
            f"  network: {', '.join(sizes)}",
            f"  calibrated: {' and '.join(calibrated) or 'no (see alphastomics calibrate)'}",
            f"  written by alphastomics {payload['versions']['alphastomics']}",
        ]
    )
