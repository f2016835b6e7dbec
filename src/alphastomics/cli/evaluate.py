"""Score a model on held-out sections next to baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from alphastomics import _keys
from alphastomics._compat import warn
from alphastomics._files import whole, writing
from alphastomics.cli._cells import Checkpoint, RunConfig
from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import (
    BEST,
    TEST,
    check_place,
    data_folder,
    find_checkpoint,
    relative,
    run_of,
    write_text,
)
from alphastomics.cli._score_summary import summary
from alphastomics.config import Config, ConfigError, load_config

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from alphastomics.io import ProcessedData, ProcessedSection
    from alphastomics.model import AlphaSTomics

SPLITS = ("test", "val", "train")
METRICS, TABLE = "metrics.json", "metrics.csv"
HIDDEN_SHARE = 0.2  # of the cells whose expression is predicted

Row = dict[str, Any]


def evaluate_command(
    checkpoint: Checkpoint = Path(BEST),
    config: RunConfig = None,
    data_dir: Annotated[
        str | None,
        typer.Option("--data_dir", help="Processed data to score on; by default those of the run."),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output_dir", help="Folder to write; by default test/ in that of the run."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="<test|val|train>",
            help="Sections to score; by default the first of these that the data have.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of samples and baselines.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace scores and figures in the folder.")
    ] = False,
) -> None:
    """Score a model and baselines on held-out sections."""
    with report_errors("No scores were written."):
        _check_split(split)
        found = find_checkpoint(checkpoint, config)
        settings = load_config(config) if config is not None else Config()
        folder = output_dir or relative(run_of(found)) / TEST
        data = data_folder(settings, data_dir, found)
        _check_output(folder, [found, data], overwrite=overwrite)
        table = evaluate(found, data, folder, split=split, seed=seed)
        from alphastomics.io._manifest import read_manifest

        typer.echo(summary(table, read_manifest(data).units))
        typer.echo(f"{folder}: {METRICS}, {TABLE} and figures.")


def _check_output(folder: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Raise if files would be replaced unasked, or mixed with those that are read."""
    check_place(folder, inputs)
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(
            f"--output_dir: {folder} is not empty: name another folder, or pass --overwrite to "
            f"replace {METRICS}, {TABLE} and figures in it."
        )


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
        Folder to write ``metrics.json``, ``metrics.csv`` and a figure of every section to.
    split
        ``"test"``, ``"val"`` or ``"train"``; by default the first of these with any section, with a
        warning if that is ``"train"``.
    seed
        Seed of draws, hidden cells and baselines.

    Returns
    -------
    DataFrame
        A row for every section, task and method.

    Raises
    ------
    ConfigError
        If the split has no section with coordinates, or the data lack genes of the model.

    Examples
    --------
    >>> from pathlib import Path
    >>> best, data = Path("outputs/first/checkpoints/best.ckpt"), Path("processed")
    >>> scores = evaluate(best, data, Path("outputs/first/test"))  # doctest: +SKIP
    """
    import pandas as pd

    from alphastomics.cli._processed import columns_of, read_atlas, read_section
    from alphastomics.io import open_data
    from alphastomics.model import AlphaSTomics

    data = open_data(data_dir)
    data.verify(progress_bar=None)
    model = AlphaSTomics.load(checkpoint)
    split, sections = _sections_to_score(data, split)
    columns_of(data, model.genes)
    mode = model.config.training_mode
    labels_key = data.manifest.labels_key
    atlas = read_atlas(data, model.genes) if mode != "pos_to_expr" else None
    with writing("--output_dir", folder):
        folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for section in sections:
        typer.echo(f"Scoring {section.name}.", err=True)
        cells = read_section(section, model.genes, data.manifest.units)
        found = []
        if atlas is not None:
            others = atlas[atlas.obs[_keys.SECTION] != section.name].copy()
            found += score_placement(model, cells, others, labels_key=labels_key, seed=seed)
            _draw(cells, labels_key, folder / f"{section.path.stem}.png")
        if mode != "expr_to_pos":
            found += score_expression(model, cells, seed=seed)
        rows += [{"section": section.name, **row} for row in found]
    table = pd.DataFrame(rows)
    facts = {"checkpoint": str(checkpoint), "data": str(data_dir), "split": split, "seed": seed}
    _write_scores(table, facts, folder)
    return table


def _write_scores(table: pd.DataFrame, facts: dict[str, Any], folder: Path) -> None:
    """Write the scores as CSV, and with the facts of the call as JSON."""
    records = json.loads(table.to_json(orient="records"))
    with writing("--output_dir", folder):
        write_text(folder / TABLE, table.to_csv(index=False))
        write_text(folder / METRICS, json.dumps({**facts, "scores": records}, indent=1) + "\n")


def _check_split(split: str | None) -> None:
    if split not in (None, *SPLITS):
        raise ConfigError(f"--split must be test, val or train, found {split!r}.")


def _sections_to_score(
    data: ProcessedData, split: str | None
) -> tuple[str, list[ProcessedSection]]:
    """Find the sections of a split, or of the first split that has any."""
    _check_split(split)
    for name in SPLITS if split is None else (split,):
        sections = [s for s in data.sections(name) if s.entry.has_coordinates]  # type: ignore[arg-type]
        if sections:
            break
    else:
        raise ConfigError(
            f"--data_dir: {data.folder} has no {name} section with coordinates. Run preprocess "
            f"with --{name}_sections or --{name}_ratio, or choose another --split."
        )
    if split is None and name == "train":
        warn(
            "no section was held out (preprocess --test_sections or --test_ratio), so the training "
            "sections are scored: this shows how well the model fits them, not how it generalizes."
        )
    return name, sections


def score_placement(
    model: AlphaSTomics, cells: AnnData, atlas: AnnData, *, labels_key: str | None, seed: int
) -> list[Row]:
    """Score the cells of a section that are placed without their coordinates, into ``cells``."""
    from alphastomics.metrics import radius_scores
    from alphastomics.tl import placement_baselines
    from alphastomics.tl._score import placement_scores, read_labels

    true = np.asarray(cells.obsm[_keys.SPATIAL], dtype=np.float64)
    query = cells.copy()
    del query.obsm[_keys.SPATIAL]
    model.predict(query, progress_bar=False)
    model.sample(query, seed=seed, progress_bar=False)
    labels = read_labels(cells, labels_key)
    found = []
    for method, key in (("predict", _keys.PREDICTED), ("sample", _keys.SAMPLED)):
        cells.obsm[key] = query.obsm[key]
        scores = placement_scores(true, query.obsm[key], labels, seed=seed)
        radius = key + _keys.RADIUS_SUFFIX
        if radius in query.obs:
            cells.obs[radius] = query.obs[radius]
            scores |= radius_scores(true, query.obsm[key], query.obs[radius])
        found.append(("model", method, scores))
    if atlas.n_obs:
        values = model._setup.values
        baselines = placement_baselines(
            cells, atlas, values=values, labels_key=labels_key, seed=seed
        )
        found += [
            ("baseline", str(method), dict(scores)) for method, scores in baselines.iterrows()
        ]
    return [
        {"task": "placement", "kind": kind, "method": method, **scores}
        for kind, method, scores in found
    ]


def score_expression(model: AlphaSTomics, cells: AnnData, *, seed: int) -> list[Row]:
    """Score the predicted expression of a share of the cells of a section."""
    import torch

    from alphastomics.tl import expression_baselines, expression_scores

    hidden = np.random.default_rng(seed).random(cells.n_obs) < HIDDEN_SHARE
    transform = model.module.expression_transform.cpu()
    values = torch.from_numpy(np.asarray(cells.X.toarray(), dtype=np.float32))
    true = transform.log(values, torch.ones_like(values, dtype=torch.bool)).numpy()
    query = cells.copy()
    query.X = cells.X.multiply(~hidden[:, None]).tocsr()
    query.obs[_keys.EXPRESSION_KNOWN] = ~hidden
    model.predict(query, progress_bar=False)
    model.sample(query, seed=seed, progress_bar=False)
    place = np.asarray(cells.obsm[_keys.SPATIAL], dtype=np.float64)
    layers = (("predict", _keys.EXPRESSION_PREDICTED), ("sample", _keys.EXPRESSION_SAMPLED))
    baselines = expression_baselines(place[~hidden], true[~hidden], place[hidden], seed=seed)
    estimates = [
        *(("model", method, np.asarray(query.layers[layer])[hidden]) for method, layer in layers),
        *(("baseline", method, filled) for method, filled in baselines),
    ]
    return [
        {
            "task": "expression",
            "kind": kind,
            "method": method,
            **expression_scores(true[hidden], filled, place[hidden]),
        }
        for kind, method, filled in estimates
    ]


def _draw(cells: AnnData, labels_key: str | None, path: Path) -> None:
    import matplotlib.pyplot as plt

    from alphastomics.pl import positions

    with writing("--output_dir", path), whole(path) as part:
        axes = positions(cells, _keys.PREDICTED, color=labels_key, save=part)
    plt.close(axes[0, 0].figure)
