"""Time, memory and quality of placing 1,000 to 1,000,000 cells of one section.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --sizes 1000 10000 100000 --draw
    python benchmarks/scaling.py --device cuda --sizes 1000 10000 100000 1000000 10000000

Trains on two simulated sections, then places a third one of every size, each in a process of its
own, and measures the peak of its memory above what the cells and the model take. Writes a CSV, a
Markdown page and a log-log figure to benchmarks/results.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from common import Peak, make_parser, start
from scipy import sparse

import alphastomics as al
from alphastomics.config import POSITION_ROUNDS
from alphastomics.datasets import _simulate
from alphastomics.diffusion_model.complexity import account
from alphastomics.model._task import MAX_SET

BLOCK = 20_000
SCORED = 5_000  # cells that are scored, at random
LARGE = 10_000  # the exponent is fitted from here on


def one_section(n_cells: int, n_genes: int, seed: int) -> ad.AnnData:
    """Simulate a section of the tissue that the model knows, a block of cells at a time."""
    genes = _simulate._draw_genes(np.random.default_rng([seed]), n_genes)
    rng = np.random.default_rng([seed, n_cells, 99])
    counts, units = [], []
    for rows in np.array_split(np.arange(n_cells), -(-n_cells // BLOCK)):
        unit = _simulate._draw_positions(rng, len(rows))
        types = _simulate._draw_types(rng, unit)
        drawn = _simulate._draw_counts(rng, genes, unit, types)
        counts.append(sparse.csr_matrix(drawn.astype(np.float32)))
        units.append(unit)
    return ad.AnnData(
        sparse.vstack(counts, format="csr"),
        var=pd.DataFrame(index=[f"gene_{i}" for i in range(n_genes)]),
        obsm={"true": (np.concatenate(units) * _simulate.EXTENT_UM)[:, :2]},
    )


def place(model_dir: str, n_cells: int, args: argparse.Namespace) -> dict[str, float]:
    """Place one section; in a process of its own."""
    model = al.AlphaSTomics.load(model_dir)
    on_gpu = args.device == "cuda"
    model.to_device(0 if on_gpu else "cpu")
    model.predict(one_section(300, args.num_genes, args.seed), progress_bar=False)  # warm up
    cells = one_section(n_cells, args.num_genes, args.seed)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    peak, began = Peak(), time.perf_counter()
    peak.start()
    if args.draw:
        model.sample(cells, key_added="placed", progress_bar=False)
    else:
        model.predict(cells, key_added="placed", progress_bar=False)
    took, above = time.perf_counter() - began, peak.end()
    chosen = np.random.default_rng(0).permutation(n_cells)[:SCORED]
    true, placed = cells.obsm["true"][chosen], cells.obsm["placed"][chosen]
    measured = {
        "cells": n_cells,
        "seconds": took,
        "cells/s": n_cells / took,
        "MB above the cells": above,
        "distance_spearman": al.metrics.distance_spearman(true, placed),
        "neighbor_recall@20": al.metrics.neighbor_recall(true, placed, 20),
    }
    if args.draw:
        logged = np.log1p(cells.X[chosen].toarray())
        measured["two_sample_auc"] = al.metrics.two_sample_auc(true, logged, placed, logged)
    if on_gpu:
        measured["GPU MB"] = torch.cuda.max_memory_allocated() / 1e6
        passes = (
            POSITION_ROUNDS if args.draw else 1
        )  # of the transformer; the heads are not counted
        size = min(MAX_SET, n_cells)
        flops = passes * account(model.module, size).flops / size * n_cells
        measured["share of peak FLOP/s"] = flops / took / (args.peak_tflops * 1e12)
    return measured


def exponent(table: pd.DataFrame) -> float:
    """Growth of time with cells, by a line through the logarithms."""
    large = table[table["cells"] >= LARGE]
    return float(np.polyfit(np.log(large["cells"]), np.log(large["seconds"]), 1)[0])


def draw_figure(table: pd.DataFrame, slope: float, path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for ax, name in zip(axes, ("seconds", "MB above the cells"), strict=True):
        ax.loglog(table["cells"], table[name], "o-", color="#0072b2")
        ax.set(xlabel="cells", ylabel=name)
        ax.grid(alpha=0.3)
    axes[0].set_title(f"time grows with exponent {slope:.2f}", fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--num_genes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_steps", type=int, default=300)
    parser.add_argument("--draw", action="store_true", help="one draw instead of predict")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peak_tflops", type=float, default=67.0, help="of the GPU, in fp32")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # folder of a model: place, print, end
    args = start(parser)
    if args.one is not None:
        print(pd.Series(place(args.one, args.sizes[0], args)).to_json(), flush=True)
        return

    rows = []
    name = "scaling" + "_draw" * args.draw + "_gpu" * (args.device == "cuda")
    with tempfile.TemporaryDirectory() as folder:
        atlas = al.datasets.simulate_tissue(2, 5000, args.num_genes, seed=args.seed)
        al.AlphaSTomics.setup_anndata(atlas)
        model = al.AlphaSTomics(atlas, training_mode="expr_to_pos", seed=args.seed)
        model.train(max_steps=args.max_steps)
        model.save(f"{folder}/model")
        same = ["--one", f"{folder}/model", "--num_genes", str(args.num_genes)]
        same += ["--seed", str(args.seed), "--threads", str(args.threads)] + ["--draw"] * args.draw
        same += ["--device", args.device, "--peak_tflops", str(args.peak_tflops)]
        for size in args.sizes:
            command = [sys.executable, __file__, *same, "--sizes", str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(pd.read_json(done.stdout.splitlines()[-1], typ="series").to_dict())
            print(rows[-1], flush=True)
            pd.DataFrame(rows).round(4).to_csv(args.out / f"{name}.csv", index=False)
    table = pd.DataFrame(rows)
    slope = exponent(table) if (table["cells"] >= LARGE).sum() > 1 else float("nan")
    draw_figure(table, slope, args.out / f"{name}.png")
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    for row in rows:
        values = (f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in row.values())
        lines.append("| " + " | ".join(values) + " |")
    where = f"CPU, {args.threads} threads"
    if args.device == "cuda":
        where = f"{torch.cuda.get_device_name()}, peak {args.peak_tflops:g} TFLOP/s"
    what = "one draw" if args.draw else "`predict`"
    page = (
        f"# Scaling of {what}\n\n{args.num_genes} simulated genes, one section of every size, "
        f"default network, {where}, torch {torch.__version__}. Time grows with "
        f"exponent {slope:.2f} from {LARGE:,} cells on. Quality is of {SCORED:,} cells at random, "
        "so `neighbor_recall@20` and `two_sample_auc` are among those.\n\n"
        + "\n".join(lines)
        + "\n"
    )
    (args.out / f"{name}.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
