"""The command that compares what configurations of the network cost."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alphastomics.cli._errors import report_errors
from alphastomics.config import Architecture, load_config

# The setting of the published table.
SMALL = Architecture(d_model=128, num_heads=4, num_layers=2, d_ff=256)


class Format(StrEnum):
    """How a table is written."""

    table = "table"
    csv = "csv"
    json = "json"


def compare_configs_command(
    config: Annotated[
        Path | None, typer.Option(help="YAML file with the size to compare at.")
    ] = None,
    num_genes: Annotated[int, typer.Option("--num_genes", min=1)] = 100,
    n_cells: Annotated[int, typer.Option("--n_cells", min=2)] = 256,
    d_model: Annotated[int, typer.Option("--d_model")] = SMALL.d_model,
    num_heads: Annotated[int, typer.Option("--num_heads")] = SMALL.num_heads,
    num_layers: Annotated[int, typer.Option("--num_layers")] = SMALL.num_layers,
    d_ff: Annotated[int, typer.Option("--d_ff")] = SMALL.d_ff,
    seed: Annotated[int, typer.Option(help="Of the weights.")] = 0,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
) -> None:
    """Compare what gates, experts and linear attention cost at one size of the network."""
    with report_errors("Nothing was written."):
        from alphastomics.cli.compare import compare, render

        size = Architecture(d_model=d_model, num_heads=num_heads, num_layers=num_layers, d_ff=d_ff)
        if config is not None:
            size = load_config(config).TransformerLayer_setting.architecture()
        table = compare(size, num_genes=num_genes, n_cells=n_cells, seed=seed)
        typer.echo(render(table, how))
