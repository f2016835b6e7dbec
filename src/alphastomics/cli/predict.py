"""The command ``predict``: point estimates of missing positions and expression."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alphastomics import _keys
from alphastomics.cli._cells import (
    TABLE,
    Checkpoint,
    Mode,
    ModeOption,
    Output,
    Overwrite,
    Query,
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
    write_cells,
)
from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import BEST, PREDICTED_SUFFIX, default_output, find_checkpoint


class Estimate(StrEnum):
    """Kinds of point estimates of positions."""

    arrangement = "arrangement"
    mean = "mean"


def predict_command(
    input: Query,
    checkpoint: Checkpoint = Path(BEST),
    config: RunConfig = None,
    reference: Reference = None,
    mode: ModeOption = Mode.auto,
    standardize: StandardizeOption = Standardize.auto,
    estimate: Annotated[
        Estimate,
        typer.Option(
            help="Point estimate of positions: the arrangement has the best ranks of distances, "
            "the mean the least squared error.",
            rich_help_panel="Cells",
        ),
    ] = Estimate.arrangement,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """Predict missing positions or expression: point estimates.

    Positions are written to .obsm["spatial_predicted"], or as a table to a .csv file, with the
    radius within which 90 % of the cells lie if the model is calibrated; expression to
    .layers["expression_predicted"].
    """
    with report_errors("Nothing was written."):
        found = find_checkpoint(checkpoint, config)
        output = output or default_output(found, input, PREDICTED_SUFFIX)
        check_output(output, [found, input, reference], overwrite=overwrite)
        require_cells(input, reference)
        from alphastomics.model import AlphaSTomics

        model = AlphaSTomics.load(found)
        cells = read_cells(input, "--input")
        check_table_of_positions(output, cells, mode, model._setup.spatial_key)
        model.predict(
            cells,
            mode=mode.value,
            reference=read_reference(reference),
            standardize=standardize.value,
            estimate=estimate.value,
        )
        table = position_table(cells, _keys.PREDICTED) if output.suffix == TABLE else None
        write_cells(cells, output, table)
