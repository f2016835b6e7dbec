"""The command ``impute``: expression of genes that a panel lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alphastomics import _keys
from alphastomics.cli._cells import (
    Checkpoint,
    Output,
    Overwrite,
    Query,
    Reference,
    RunConfig,
    check_output,
    read_cells,
    read_reference,
    require_cells,
    write_cells,
)
from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import BEST, IMPUTED_SUFFIX, default_output, find_checkpoint
from alphastomics.config import ConfigError

if TYPE_CHECKING:
    import pandas as pd


def impute_command(
    input: Query,
    checkpoint: Checkpoint = Path(BEST),
    config: RunConfig = None,
    reference: Reference = None,
    genes: Annotated[
        list[str] | None,
        typer.Option(
            "--genes",
            help="Gene of the model to impute, or a file with one gene per line; may be repeated; "
            "by default all that the input lacks. Measured values of these genes are not used.",
            rich_help_panel="Cells",
        ),
    ] = None,
    draw: Annotated[
        bool,
        typer.Option(
            "--draw", help="Sample values instead of their mean.", rich_help_panel="Sampling"
        ),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of --draw.", rich_help_panel="Sampling")
    ] = 0,
    output: Output = None,
    overwrite: Overwrite = False,
) -> None:
    """Impute genes that were not measured.

    Their expression is written to .obsm["expression_imputed"], log-normalized, with 90 % bounds if
    the model is calibrated; or as a table of cells and genes to a .csv file.
    """
    with report_errors("Nothing was written."):
        found = find_checkpoint(checkpoint, config)
        output = output or default_output(found, input, IMPUTED_SUFFIX)
        check_output(output, [found, input, reference], overwrite=overwrite)
        require_cells(input, reference)
        names = _read_names(genes)
        from alphastomics.model import AlphaSTomics

        model = AlphaSTomics.load(found)
        _check_names(names or [], model.genes)
        cells = read_cells(input, "--input")
        model.impute(
            cells,
            genes=names,
            reference=read_reference(reference),
            draw=draw,
            seed=seed,
        )
        write_cells(cells, output, cells.obsm[_keys.EXPRESSION_IMPUTED].rename_axis("cell"))


def _check_names(names: list[str], genes: pd.Index) -> None:
    """Raise if a gene is not of the model."""
    unknown = [name for name in names if name not in genes]
    if unknown:
        raise ConfigError(
            f"--genes: {unknown[0]!r} is not among the {len(genes)} genes of the model, such as "
            f"{', '.join(genes[:3])}."
        )


def _read_names(genes: list[str] | None) -> list[str] | None:
    """Names of genes, those in files too."""
    if not genes:
        return None
    names: list[str] = []
    for name in genes:
        path = Path(name)
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else [name]
        names += [line.strip() for line in lines if line.strip()]
    return names
