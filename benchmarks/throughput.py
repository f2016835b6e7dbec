"""How fast the network is: every option by set size, experts, and linear attention.

    python benchmarks/throughput.py                     # CPU
    python benchmarks/throughput.py --device cuda --precision bf16

Measures the machine's own rate of matrix products first, and reports what share of it a forward
pass and a training step reach (a backward pass counts twice a forward one). Every row is measured
in a process of its own, for its peak memory. Writes CSV files and a Markdown page to
benchmarks/results.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from alphastomics.cli.compare import SMALL
from alphastomics.config import Architecture
from alphastomics.diffusion_model import MaskedDiffusionModule
from alphastomics.diffusion_model.complexity import account, random_set
from alphastomics.nn.attention import SelfAttention
from alphastomics.nn.moe import MixtureOfExperts
from alphastomics.nn.transformer import FeedForward

OPTIONS: dict[str, dict[str, object]] = {
    "softmax": {},
    "headwise gate": {"gate_type": "headwise"},
    "elementwise gate": {"gate_type": "elementwise"},
    "experts, 2 of 8": {"num_experts": 8},
    "linear": {"attention": "linear"},
}
REPEATS = 7


def seconds(run: Callable[[], object], device: str, repeats: int = REPEATS) -> float:
    """Median time after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def matmul_rate(device: str, low: bool) -> float:
    """Operations a second of a large matrix product, in bfloat16 where ``low``."""
    n = 2048 if device == "cpu" else 8192
    a, b = torch.randn(2, n, n, device=device, dtype=torch.bfloat16 if low else torch.float32)
    return 2 * n**3 / seconds(lambda: a @ b, device)


def measure_network(
    options: dict[str, object], n_cells: int, args: argparse.Namespace
) -> dict[str, float]:
    """Time, operations and memory of placing one set."""
    module = MaskedDiffusionModule(args.num_genes, **options).to(args.device)
    cost = account(module, n_cells)
    if args.compile:
        module.compile()
    cells = random_set(module, n_cells)
    low = args.precision == "bf16"

    def forward() -> torch.Tensor:
        with torch.autocast(args.device, torch.bfloat16, enabled=low):
            return module(cells).position

    def step() -> None:
        forward().float().square().sum().backward()

    module.eval()
    with torch.inference_mode():
        predict = seconds(forward, args.device)
    module.train()
    train = seconds(step, args.device)
    return {
        "predict cells/s": n_cells / predict,
        "train cells/s": n_cells / train,
        "predict TFLOP/s": cost.flops / predict / 1e12,
        "train TFLOP/s": 3 * cost.flops / train / 1e12,
        "peak MB": _peak(args.device),
    }


def _peak(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _child(queue: multiprocessing.Queue, function: Callable, arguments: tuple) -> None:
    torch.set_num_threads(arguments[-1].threads)
    queue.put(function(*arguments))


def alone(function: Callable, *arguments: object) -> object:
    """Run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_child, args=(queue, function, arguments))
    process.start()
    result = queue.get()
    process.join()
    return result


def networks(args: argparse.Namespace, rate: float) -> pd.DataFrame:
    rows = []
    for name, options in OPTIONS.items():
        for n_cells in args.sizes:
            found = alone(measure_network, options, n_cells, args)
            share = {
                f"{what} share": found.pop(f"{what} TFLOP/s") * 1e12 / rate
                for what in ("predict", "train")
            }
            rows.append({"option": name, "cells": n_cells, **found, **share})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def experts(args: argparse.Namespace) -> pd.DataFrame:
    """Experts beside the dense layer of the same total width, 4,096 cells, forward and backward."""
    rows = []
    for size in (
        SMALL.replace(dropout=0.0),
        Architecture(d_model=256, num_heads=8, num_layers=1, d_ff=2048, dropout=0.0),
    ):
        x = torch.randn(1, 4096, size.d_model, device=args.device, requires_grad=True)
        dense = FeedForward(size).to(args.device)
        base = seconds(lambda dense=dense, x=x: dense(x).sum().backward(), args.device)
        rows.append(
            {"d_model": size.d_model, "d_ff": size.d_ff, "layer": "dense", "ms": 1e3 * base}
        )
        for num_experts, top_k in ((4, 2), (8, 2), (16, 4)):
            layer = MixtureOfExperts(size.replace(num_experts=num_experts, moe_top_k=top_k))
            layer = layer.to(args.device)
            took = seconds(lambda layer=layer, x=x: layer(x)[0].sum().backward(), args.device)
            rows.append(
                {
                    "d_model": size.d_model,
                    "d_ff": size.d_ff,
                    "layer": f"{top_k} of {num_experts}",
                    "ms": 1e3 * took,
                    "of dense": took / base,
                }
            )
    return pd.DataFrame(rows)


def attention(args: argparse.Namespace) -> tuple[pd.DataFrame, float, float]:
    """Time of both kernels by set size; exponent of the linear one, and where it is faster."""
    layers: dict[str, nn.Module] = {
        kernel: SelfAttention(SMALL.replace(attention=kernel)).to(args.device).eval()
        for kernel in ("softmax", "linear")
    }
    rows = []
    for n_cells in (256, 512, 1024, 2048, 4096, 8192, 16384, 32768):
        x = torch.randn(1, n_cells, SMALL.d_model, device=args.device)
        with torch.inference_mode():
            rows.append(
                {
                    "cells": n_cells,
                    **{
                        f"{kernel} ms": 1e3 * seconds(lambda f=layer, x=x: f(x), args.device, 3)
                        for kernel, layer in layers.items()
                    },
                }
            )
    table = pd.DataFrame(rows)
    large = table[table["cells"] >= 1024]
    exponent = np.polyfit(np.log(large["cells"]), np.log(large["linear ms"]), 1)[0]
    faster = table.loc[table["linear ms"] < table["softmax ms"], "cells"]
    return table, float(exponent), float(faster.min()) if len(faster) else np.nan


def markdown(table: pd.DataFrame) -> str:
    def text(value: float) -> str:
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

    rows = [[v if isinstance(v, str) else text(v) for v in row] for row in table.to_numpy()]
    lines = [list(table.columns), ["---"] * len(table.columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--num_genes", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)

    rate = matmul_rate(args.device, args.precision == "bf16")
    of_experts = experts(args)
    of_attention, exponent, crossover = attention(args)
    of_networks = networks(args, rate)
    stem = f"throughput_{args.device}_{args.precision}" + "_compiled" * args.compile
    for name, table in (("", of_networks), ("_experts", of_experts), ("_attention", of_attention)):
        table.to_csv(args.out / f"{stem}{name}.csv", index=False)
    device = (
        torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} threads"
    )
    page = (
        f"# Throughput, {device}, {args.precision}{', compiled' * args.compile}\n\n"
        f"Matrix products: {rate / 1e9:.0f} GFLOP/s. Default network, {args.num_genes} genes, one "
        "set at a time; shares are of that rate.\n\n" + markdown(of_networks) + "\n\n## Experts\n\n"
        "One layer, 4,096 cells, forward and backward.\n\n"
        + markdown(of_experts.fillna(1.0))
        + f"\n\n## Attention\n\nOne layer, d = 128, forward. Time of the linear kernel grows with "
        f"exponent {exponent:.2f} from 1k to 32k cells; it is the faster one from {crossover:.0f} "
        "cells on.\n\n" + markdown(of_attention)
    )
    (args.out / f"{stem}.md").write_text(page + "\n")
    print(page)


if __name__ == "__main__":
    main()
