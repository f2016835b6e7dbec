"""The command line: ``alphastomics``, or ``python -m alphastomics``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alphastomics.cli.compare import SMALL, Format, compare, render
from alphastomics.cli.preprocess import preprocess_command
from alphastomics.config import load_config
from alphastomics.nn.architecture import Architecture

app = typer.Typer(
    help="Learn tissue architecture from spatial transcriptomics.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def commands() -> None:
    """Learn tissue architecture from spatial transcriptomics."""


@app.command()
def compare_configs(
    config: Annotated[
        Path | None, typer.Option(help="YAML file with the size to compare at.")
    ] = None,
    num_genes: Annotated[int, typer.Option("--num_genes", "--num-genes", min=1)] = 100,
    n_cells: Annotated[int, typer.Option("--n_cells", "--n-cells", min=2)] = 256,
    d_model: Annotated[int, typer.Option("--d_model", "--d-model")] = SMALL.d_model,
    num_heads: Annotated[int, typer.Option("--num_heads", "--num-heads")] = SMALL.num_heads,
    num_layers: Annotated[int, typer.Option("--num_layers", "--num-layers")] = SMALL.num_layers,
    d_ff: Annotated[int, typer.Option("--d_ff", "--d-ff")] = SMALL.d_ff,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
) -> None:
    """Compare what gates, experts and linear attention cost at one size of the network."""
    try:
        size = Architecture(d_model, num_heads, num_layers, d_ff)
        if config is not None:
            size = load_config(config).TransformerLayer_setting.architecture()
        table = compare(size, num_genes=num_genes, n_cells=n_cells)
    except ValueError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(render(table, how))


app.command("preprocess")(preprocess_command)


if __name__ == "__main__":
    app()
