"""Score a model on held-out sections."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alphastomics import _keys
from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import data_folder, find_checkpoint, run_of, write_text
from alphastomics.config import Config, ConfigError, load_config

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from alphastomics.io import ProcessedData, ProcessedSection

SPLITS = ("test", "val", "train")
METRICS, TABLE = "metrics.json", "metrics.csv"


def evaluate_command(
    checkpoint: Annotated[Path, typer.Option(help="File or folder of a model.")] = Path(
        "best.ckpt"
    ),
    config: Annotated[Path | None, typer.Option(help="YAML file, see config.yaml.")] = None,
    data_dir: Annotated[
        str | None, typer.Option("--data_dir", help="Folder that preprocess wrote.")
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output_dir", help="Where to write; by default <run>/test.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Sections to score: test, val or train; the first that there are."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of draws and of simple methods.")] = 0,
) -> None:
    """Score a model on the sections that preprocess held out, beside simple methods."""
    with report_errors("Nothing was written."):
        found = find_checkpoint(checkpoint, config)
        settings = load_config(config) if config is not None else Config()
        folder = output_dir or run_of(found) / "test"
        data = data_folder(data_dir, found, settings)
        table = evaluate(found, data, folder, split=split, seed=seed)
        shown = ["section", "task", "kind", "method", "distance_spearman", "pcc"]
        typer.echo(
            table[[c for c in shown if c in table]].round(3).to_string(index=False, na_rep="")
        )
        typer.echo(f"{folder}: {METRICS}, {TABLE} and figures.")


def evaluate(
    checkpoint: Path, data_dir: Path, folder: Path, *, split: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Score a model on the sections of a split, and write the scores and figures.

    Cells are placed without their coordinates if the model places cells, and the expression of a
    random 20 % of them is predicted if the model predicts expression.

    Parameters
    ----------
    checkpoint
        Checkpoint or folder of a model.
    data_dir
        Folder of processed data.
    folder
        Where to write ``metrics.json``, ``metrics.csv`` and a figure of every section.
    split
        ``"test"``, ``"val"`` or ``"train"``; by default the first of these with any section, with a
        warning if that is ``"train"``.
    seed
        Of draws, hidden cells and simple methods.

    Returns
    -------
    DataFrame
        A row for every section, task and method.

    Examples
    --------
    >>> from pathlib import Path
    >>> best, data = Path("outputs/first/checkpoints/best.ckpt"), Path("processed")
    >>> scores = evaluate(best, data, Path("outputs/first/test"))  # doctest: +SKIP
    """
    import pandas as pd

    from alphastomics.cli._evaluation import (
        read_atlas,
        read_section,
        score_expression,
        score_placement,
    )
    from alphastomics.io import open_data
    from alphastomics.model import AlphaSTomics

    data = open_data(data_dir)
    model = AlphaSTomics.load(checkpoint)
    split, sections = _sections_to_score(data, split)
    lacking = model.genes[~model.genes.isin(data.genes)]
    if len(lacking):
        raise ConfigError(
            f"--data_dir: {data_dir} lacks {len(lacking)} of the model's {len(model.genes)} genes, "
            f"{lacking[0]!r} among them."
        )
    mode = model.config.training_mode
    labels_key = data.manifest.labels_key
    atlas = read_atlas(data, model.genes) if mode != "pos_to_expr" else None
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for section in sections:
        typer.echo(f"Scoring {section.name}.", err=True)
        cells = read_section(section, model.genes)
        found = []
        if atlas is not None:
            others = atlas[atlas.obs[_keys.SECTION] != section.name].copy()
            found += score_placement(model, cells, others, labels_key=labels_key, seed=seed)
            _draw(cells, labels_key, folder / f"{section.path.stem}.png")
        if mode != "expr_to_pos":
            found += score_expression(model, cells, seed=seed)
        rows += [{"section": section.name, **row} for row in found]
    table = pd.DataFrame(rows)
    table.to_csv(folder / TABLE, index=False)
    records = json.loads(table.to_json(orient="records"))
    facts = {"checkpoint": str(checkpoint), "data": str(data_dir), "split": split, "seed": seed}
    write_text(folder / METRICS, json.dumps({**facts, "scores": records}, indent=1) + "\n")
    return table


def _sections_to_score(
    data: ProcessedData, asked: str | None
) -> tuple[str, list[ProcessedSection]]:
    """Find the sections of a split, or of the first split that has any."""
    if asked not in (None, *SPLITS):
        raise ConfigError(f"--split must be test, val or train, found {asked!r}.")
    for split in SPLITS if asked is None else (asked,):
        sections = [s for s in data.sections(split) if s.entry.has_coordinates]  # type: ignore[arg-type]
        if sections:
            break
    else:
        raise ConfigError(
            f"--data_dir: {data.folder} has no {split} section with coordinates. Run preprocess "
            f"with --{split}_sections or --{split}_ratio, or choose another --split."
        )
    if asked is None and split == "train":
        warnings.warn(
            "no section was held out (preprocess --test_sections or --test_ratio), so the sections "
            "of training are scored: that tells what the model remembers, not what it can do.",
            UserWarning,
            stacklevel=2,
        )
    return split, sections


def _draw(cells: AnnData, labels_key: str | None, path: Path) -> None:
    import matplotlib.pyplot as plt

    from alphastomics.pl import positions

    axes = positions(cells, _keys.PREDICTED, color=labels_key, save=path)
    plt.close(axes[0, 0].figure)
