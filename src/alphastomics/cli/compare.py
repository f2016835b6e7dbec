"""Compare what configurations of the network cost."""

from __future__ import annotations

import json
import time
from io import StringIO

import pandas as pd
import torch

from alphastomics.cli.compare_configs import SMALL, Format
from alphastomics.config import Architecture
from alphastomics.diffusion_model.complexity import account, random_set
from alphastomics.diffusion_model.module import MaskedDiffusionModule

REPEATS = 7


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
        Of the weights.

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
    torch.manual_seed(seed)
    rows = {}
    for name, architecture in configurations(size).items():
        module = MaskedDiffusionModule(num_genes, **dict(architecture))
        cost = account(module, n_cells)
        forward, both = _milliseconds(module, n_cells)
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


def _milliseconds(module: MaskedDiffusionModule, n_cells: int) -> tuple[float, float]:
    """Least time of a forward, and of a forward and backward pass."""
    cells = random_set(module, n_cells)

    def forward() -> None:
        with torch.inference_mode():
            module(cells)

    def both() -> None:
        module(cells).position.square().sum().backward()

    times: list[float] = []
    for run in (forward, both):
        run()
        measured = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            run()
            measured.append(1000 * (time.perf_counter() - started))
        times.append(min(measured))
    return times[0], times[1]


def render(table: pd.DataFrame, how: Format) -> str:
    """Write a table as text, CSV or JSON."""
    if how is Format.json:
        return json.dumps(table.reset_index().to_dict(orient="records"), indent=2)
    if how is Format.csv:
        out = StringIO()
        table.to_csv(out)
        return out.getvalue().rstrip()
    return table.to_string()
