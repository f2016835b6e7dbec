"""The command ``sample``: draws of missing positions and expression, or generated cells."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from alphastomics import _keys
from alphastomics.cli._cells import (
    QUERY,
    TABLE,
    Checkpoint,
    Mode,
    ModeOption,
    Output,
    Overwrite,
    Reference,
    RunConfig,
    Standardize,
    StandardizeOption,
    check_output,
    check_table_of_positions,
    position_table,
    read_cells,
    read_reference,
    require_cells,
    table_error,
    write_cells,
)
from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import (
    BEST,
    FILLED_SUFFIX,
    GENERATED,
    config_of_run,
    default_output,
    find_checkpoint,
)
from alphastomics.config import ConfigError


class Method(StrEnum):
    """Kinds of results: posterior samples or the point estimate."""

    sample = "sample"
    predict = "predict"


class Point(StrEnum):
    """Summaries of several samples of positions."""

    medoid = "medoid"
    consensus = "consensus"
    none = "none"


def sample_command(
    context: typer.Context,
    checkpoint: Checkpoint = Path(BEST),
    config: RunConfig = None,
    input: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help=QUERY,
            rich_help_panel="Cells",
        ),
    ] = None,
    n_cells: Annotated[
        int | None,
        typer.Option(
            "--n_cells",
            "--num_samples",
            min=1,
            help="Number of new cells to generate, instead of --input.",
            rich_help_panel="Cells",
        ),
    ] = None,
    reference: Reference = None,
    mode: ModeOption = Mode.auto,
    standardize: StandardizeOption = Standardize.auto,
    method: Annotated[
        Method,
        typer.Option(
            help="Posterior samples (draws), or the point estimate of `alphastomics predict`.",
            rich_help_panel="Sampling",
        ),
    ] = Method.sample,
    n_samples: Annotated[
        int,
        typer.Option(
            "--n_samples", min=1, help="Number of posterior samples.", rich_help_panel="Sampling"
        ),
    ] = 1,
    point: Annotated[
        Point,
        typer.Option(
            help="Summary of several samples: the one nearest to all others, their mean, or none "
            "(all are written).",
            rich_help_panel="Sampling",
        ),
    ] = Point.medoid,
    n_rounds: Annotated[
        int | None,
        typer.Option(
            "--n_rounds",
            min=1,
            help="Rounds of a sample; by default those of the run.",
            rich_help_panel="Sampling",
        ),
    ] = None,
    n_steps: Annotated[
        int | None,
        typer.Option(
            "--n_steps",
            min=1,
            help="Diffusion steps of a round; by default those of the run.",
            rich_help_panel="Sampling",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the samples.", rich_help_panel="Sampling")
    ] = 0,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """Sample missing positions or expression; generate cells.

    Positions are written to .obsm["spatial_sampled"], or as a table to a .csv file; expression to
    .layers["expression_sampled"].
    """
    with report_errors("Nothing was written."):
        _check_request(context, input, n_cells, method)
        found = find_checkpoint(checkpoint, config)
        output = output or default_output(found, input, FILLED_SUFFIX, GENERATED)
        check_output(output, [found, input, reference], overwrite=overwrite)
        require_cells(input, reference)
        _check_table(output, generates=input is None, point=point)
        run = config_of_run(found).diffusion
        options: dict[str, Any] = {
            "seed": seed,
            "n_rounds": n_rounds or run.sampling_rounds,
            "n_steps": n_steps or run.sampling_steps,
        }
        from alphastomics.model import AlphaSTomics

        model = AlphaSTomics.load(found)
        if input is None:
            assert n_cells is not None
            write_cells(model.generate(n_cells, **options), output)
            return
        cells = read_cells(input, "--input")
        check_table_of_positions(output, cells, mode, model._setup.spatial_key)
        task: dict[str, Any] = {
            "mode": mode.value,
            "standardize": standardize.value,
            "reference": read_reference(reference),
        }
        if method is Method.predict:
            key = _keys.PREDICTED
            model.predict(cells, **task)
        else:
            key = _keys.SAMPLED
            options["point"] = None if point is Point.none else point.value
            model.sample(cells, n_samples=n_samples, **task, **options)
        write_cells(cells, output, position_table(cells, key) if output.suffix == TABLE else None)


def _check_request(
    context: typer.Context, input: Path | None, n_cells: int | None, method: Method
) -> None:
    """Raise unless cells are either given or to be generated, and all options have an effect."""
    if (input is None) == (n_cells is None):
        raise ConfigError(
            "give either --input, cells with missing positions or expression, or --n_cells, the "
            "number of new cells."
        )
    _refuse_unused(context, generates=input is None, method=method)


def _check_table(output: Path, *, generates: bool, point: Point) -> None:
    """Raise if a table is to be written that cannot hold the results."""
    if output.suffix != TABLE:
        return
    if generates:
        raise table_error("new cells have expression, too")
    if point is Point.none:
        raise table_error("--point none writes several")


def _refuse_unused(context: typer.Context, *, generates: bool, method: Method) -> None:
    """Raise if an option is given that has no effect with the others."""
    if generates:
        why = "--n_cells"
        unused = ["mode", "method", "reference", "standardize", "n_samples", "point"]
    elif method is Method.predict:
        unused, why = ["n_samples", "n_rounds", "n_steps", "point", "seed"], "--method predict"
    else:
        return
    for name in unused:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name} has no effect with {why}: leave it out.")
