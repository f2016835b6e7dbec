"""Checks before a training is resumed: the same data and the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from alphastomics import _keys
from alphastomics.cli._run_folder import CONFIG, RUN, run_of
from alphastomics.config import ConfigError

if TYPE_CHECKING:
    from alphastomics.model import AlphaSTomics


def check_data(resume: Path, data: Path, fingerprint: str) -> None:
    """Raise if a run would be resumed on data other than those it was started with, if known."""
    written = run_of(resume) / RUN
    facts = json.loads(written.read_text()) if written.is_file() else {}
    if facts.get("data_fingerprint", fingerprint) != fingerprint:
        raise ConfigError(
            f"--data_dir: {data} differs from the data of the run of {resume}, which were in "
            f"{facts['data']}: name those, or pass --allow_other_data to resume on these."
        )


def check_resumable(checkpoint: Path, model: AlphaSTomics) -> int:
    """Raise unless a checkpoint is of the same model; the steps that it was trained."""
    from alphastomics.model._checkpoint import plain, read_checkpoint

    _, payload = read_checkpoint(checkpoint)
    mine, theirs = dict(model.config), payload["init_arguments"]
    different = [
        f"{name} is {theirs.get(name)!r} in the checkpoint and {value!r} now"
        for name, value in mine.items()
        if theirs.get(name) != value
    ]
    genes = payload["registry"]["field_registries"]["X"]["state_registry"]["column_names"]
    if list(genes) != list(model.genes):
        different.append(f"its {len(genes)} genes are not the {len(model.genes)} of the data")
    names = payload["registry"]["setup_args"]
    different += [
        f"{name} is {names.get(name)!r} in the checkpoint and {value!r} in the data"
        for name, value in model.registry_["setup_args"].items()
        if names.get(name) != value
    ]
    of = _keys.CATEGORIES_REGISTRY
    if plain(payload["registry"][of]) != plain(model.registry_[of]):
        different.append("the data have other cell types or batches")
    if different:
        written = run_of(checkpoint) / CONFIG
        lost = "" if written.is_file() else f" {written} is missing: pass --config."
        raise ConfigError(
            f"--resume: {checkpoint} has another configuration: {'; '.join(different)}. Resume "
            f"with the same, or train a new model.{lost}"
        )
    return int(payload["training"]["steps"])
