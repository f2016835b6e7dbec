"""Where the time of a training step goes, at the default configuration.

    python benchmarks/profile_step.py                        # CPU
    python benchmarks/profile_step.py --device cuda --precision bf16-mixed --compile

Trains on simulated sections. The operations of the matrix products that were really run are
counted, divided by the time of the steps, and compared with the machine's own rate of large matrix
products. Then the same steps run under the profiler. Writes a Markdown page to benchmarks/results.
"""

from __future__ import annotations

import argparse
import time

import lightning.pytorch as pl
import pandas as pd
import torch
from common import make_parser, start
from throughput import matmul_rate
from torch.utils.flop_counter import FlopCounterMode

import alphastomics as al
from alphastomics.diffusion_model.complexity import _attention_flops as attention_flops

WARM_UP = 5
KINDS = {
    "matrix products": ("::mm", "::addmm", "::bmm", "::baddbmm"),
    "attention": ("scaled_dot_product", "_flash_attention", "_efficient_attention"),
    "optimizer": ("Optimizer", "_foreach", "_fused_adam", "lerp"),
    "norms": ("layer_norm", "rms_norm"),
    "copies": ("copy_", "::cat", "clone", "index", "gather", "scatter", "constant_pad"),
    "sums": ("::sum", "::mean", "softmax", "logsumexp", "cumsum"),
    "drawing": ("normal", "uniform", "bernoulli", "dropout", "randperm"),
}


def attention_backward_flops(grad: torch.Size, *sizes: object, **_: object) -> int:
    """Five products instead of two, as torch counts for the other kernels."""
    return attention_flops(*sizes) * 5 // 2


class Steps(pl.Callback):
    """Times the steps after the first ones."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def train(model: al.AlphaSTomics, args: argparse.Namespace) -> float:
    """Seconds a step."""
    steps = Steps(args.device)
    model.train(
        max_steps=WARM_UP + args.steps,
        accelerator="cpu" if args.device == "cpu" else "gpu",
        devices=1,
        precision=args.precision,
        compile=args.compile,
        progress_bar=False,
        callbacks=[steps],
    )
    return (steps.ends[-1] - steps.ends[WARM_UP - 1]) / args.steps


def count(model: al.AlphaSTomics, args: argparse.Namespace) -> float:
    """Operations a step."""
    aten = torch.ops.aten
    more = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=more) as counter:
        train(model, args)
    return counter.get_total_flops() / (WARM_UP + args.steps)


def shares(model: al.AlphaSTomics, args: argparse.Namespace) -> pd.DataFrame:
    """Share of the time of the operators by kind."""
    activity = torch.profiler.ProfilerActivity
    used = [activity.CPU] if args.device == "cpu" else [activity.CUDA]
    with torch.profiler.profile(activities=used) as profile:
        train(model, args)
    kind = "self_cpu_time_total" if args.device == "cpu" else "self_device_time_total"
    rows = []
    for event in profile.key_averages():
        name = next((k for k, parts in KINDS.items() if any(p in event.key for p in parts)), "rest")
        rows.append({"kind": name, "operator": event.key, "ms": getattr(event, kind) / 1e3})
    return pd.DataFrame(rows)


def build(args: argparse.Namespace) -> al.AlphaSTomics:
    """Make the default model with its statistics fitted."""
    atlas = al.datasets.simulate_tissue(n_sections=2, n_cells=2000, n_genes=args.num_genes, seed=0)
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, seed=0)
    model.train(max_steps=1, accelerator="cpu", progress_bar=False)
    return model


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--num_genes", type=int, default=200)
    parser.add_argument("--steps", type=int, default=30, help="steps timed, after five")
    args = start(parser)

    model = build(args)
    flops = count(model, args)
    rate = matmul_rate(args.device, args.precision.startswith("bf16"))
    took = train(model, args)
    rate = (rate + matmul_rate(args.device, args.precision.startswith("bf16"))) / 2
    table = shares(model, args)
    total = table["ms"].sum()
    of_kind = table.groupby("kind")["ms"].sum().sort_values(ascending=False)
    lines = [
        f"| {kind} | {ms / total:.0%} | "
        + ", ".join(
            f"`{row.operator}` {row.ms / total:.0%}"
            for row in table[table["kind"] == kind].nlargest(4, "ms").itertuples()
            if row.ms > 0.005 * total
        )
        + " |"
        for kind, ms in of_kind.items()
    ]
    device = (
        torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads} threads"
    )
    page = (
        f"# A training step, {device}, {args.precision}{', compiled' * args.compile}\n\n"
        f"Default configuration (mode joint, 6 sets of 256 cells), {args.num_genes} genes, "
        f"{args.steps} steps: {1e3 * took:.0f} ms per step, {flops / 1e9:.1f} GFLOP of matrix "
        f"products a step, {flops / took / 1e9:.0f} GFLOP/s. Large matrix products alone reach "
        f"{rate / 1e9:.0f} GFLOP/s before and after: a step spends {flops / took / rate:.0%} of "
        "that rate.\n\n| kind | share of operator time | mostly |\n|---|---|---|\n"
        + "\n".join(lines)
        + "\n"
    )
    compiled = "_compiled" * args.compile
    (args.out / f"step_{args.device}_{args.precision}{compiled}.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
