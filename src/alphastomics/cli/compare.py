"""Compare what configurations of the network cost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alphastomics.cli._errors import report_errors
from alphastomics.config import Architecture, load_config

if TYPE_CHECKING:
    import pandas as pd

    from alphastomics.diffusion_model.batch import StandardizedCells
    from alphastomics.diffusion_model.module import MaskedDiffusionModule

# Size of the published table.
SMALL = Architecture(d_model=128, num_heads=4, num_layers=2, d_ff=256)
REPEATS = 7


class Format(StrEnum):
    """Formats of the table."""

    table = "table"
    csv = "csv"
    json = "json"


def compare_configs_command(
    config: Annotated[
        Path | None, typer.Option(help="YAML file with the size of the network.")
    ] = None,
    num_genes: Annotated[int, typer.Option("--num_genes", min=1, help="Genes of a cell.")] = 100,
    n_cells: Annotated[int, typer.Option("--n_cells", min=2, help="Cells of a set.")] = 256,
    d_model: Annotated[int, typer.Option("--d_model", help="Width of a token.")] = SMALL.d_model,
    num_heads: Annotated[
        int, typer.Option("--num_heads", help="Number of attention heads.")
    ] = SMALL.num_heads,
    num_layers: Annotated[
        int, typer.Option("--num_layers", help="Number of transformer blocks.")
    ] = SMALL.num_layers,
    d_ff: Annotated[
        int, typer.Option("--d_ff", help="Hidden width of the feed-forward.")
    ] = SMALL.d_ff,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights.")] = 0,
    how: Annotated[Format, typer.Option("--format", help="Format of the output.")] = Format.table,
) -> None:
    """Compare the cost of gates, experts and linear attention."""
    with report_errors("Nothing was written."):
        size = Architecture(d_model=d_model, num_heads=num_heads, num_layers=num_layers, d_ff=d_ff)
        if config is not None:
            size = load_config(config).TransformerLayer_setting.architecture()
        table = compare(size, num_genes=num_genes, n_cells=n_cells, seed=seed)
        typer.echo(render(table, how))


def configurations(size: Architecture) -> dict[str, Architecture]:
    """Name the options to compare at one size."""
    dense = size.replace(gate_type="none", num_experts=0)

    def experts(num_experts: int, top_k: int, of: Architecture = dense) -> Architecture:
        return of.replace(num_experts=num_experts, moe_top_k=top_k, expert_width=None)

    gated = dense.replace(gate_type="elementwise")
    return {
        "Baseline": dense,
        "Gated, headwise": dense.replace(gate_type="headwise"),
        "Gated, elementwise": gated,
        "MoE, 2 of 4": experts(4, 2),
        "MoE, 2 of 8": experts(8, 2),
        "MoE, 4 of 16": experts(16, 4),
        "Gated + MoE, 2 of 8": experts(8, 2, gated),
        "Linear attention": dense.replace(attention="linear"),
    }


def compare(
    size: Architecture = SMALL, *, num_genes: int = 100, n_cells: int = 256, seed: int = 0
) -> pd.DataFrame:
    """Count parameters and operations and measure the time of configurations.

    Parameters
    ----------
    size
        Size of the network.
    num_genes, n_cells
        Genes of a cell, cells of a set.
    seed
        Seed of the weights.

    Returns
    -------
    DataFrame
        A row for each configuration: parameters and those that a cell goes through, their share in
        the whole model and in the experts, floating-point operations of a forward pass of the
        model and of the feed-forwards, and milliseconds of a forward and of a forward and backward
        pass, the least of seven.

    Examples
    --------
    >>> from alphastomics.config import Architecture
    >>> size = Architecture(d_model=16, num_heads=2, num_layers=1, d_ff=16)
    >>> table = compare(size, num_genes=10, n_cells=16)
    >>> float(table.loc["MoE, 2 of 4", "FFN active %"])
    50.0
    """
    import pandas as pd
    import torch

    from alphastomics.diffusion_model.complexity import account, random_set
    from alphastomics.diffusion_model.module import MaskedDiffusionModule

    torch.manual_seed(seed)
    rows = {}
    for name, architecture in configurations(size).items():
        module = MaskedDiffusionModule(num_genes, **dict(architecture))
        cost = account(module, n_cells)
        cells = random_set(module, n_cells)
        with torch.inference_mode():
            forward = _milliseconds(partial(module, cells))
        both = _milliseconds(partial(_forward_and_backward, module, cells))
        rows[name] = {
            "parameters": cost.parameters,
            "active": cost.active_parameters,
            "active %": round(100 * cost.active_share, 1),
            "FFN active %": round(100 * cost.feed_forward_share, 1),
            "MFLOP": round(cost.flops / 1e6, 1),
            "FFN MFLOP": round(cost.feed_forward_flops / 1e6, 1),
            "forward ms": round(forward, 2),
            "forward + backward ms": round(both, 2),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("configuration")


def _forward_and_backward(module: MaskedDiffusionModule, cells: StandardizedCells) -> None:
    module(cells).position.square().sum().backward()


def _milliseconds(run: Callable[[], object]) -> float:
    """Least time of several runs, after one to warm up."""
    run()
    measured = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        measured.append(1000 * (time.perf_counter() - start))
    return min(measured)


def render(table: pd.DataFrame, how: Format) -> str:
    """Write a table as text, CSV or JSON."""
    if how is Format.json:
        return json.dumps(table.reset_index().to_dict(orient="records"), indent=2)
    return table.to_csv().rstrip() if how is Format.csv else table.to_string()
