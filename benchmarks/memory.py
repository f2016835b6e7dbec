"""Peak memory of preprocess and train on processed data of two sizes.

    python benchmarks/memory.py

Simulates raw sections of 100,000 cells and 500 genes, one of them and ten of them, and runs the two
commands on each in processes of their own. Writes a CSV and a Markdown table to benchmarks/results.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

GENES, CELLS = 500, 100_000
MEAN_COUNTS = 60.0


def write_section(path: Path, name: str, seed: int) -> None:
    """Cells whose counts follow smooth patterns in space, a block of rows at a time."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(-5000, 5000, (CELLS, 2))
    waves = rng.normal(0, 1e-3, (2, GENES))
    blocks = []
    for rows in np.array_split(np.arange(CELLS), 50):
        rate = np.exp(np.sin(position[rows] @ waves * np.pi))
        rate *= MEAN_COUNTS / rate.sum(1, keepdims=True)
        blocks.append(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    cells = ad.AnnData(sparse.vstack(blocks, format="csr"), obsm={"spatial": position})
    cells.obs["section"] = name
    cells.write_h5ad(path)


def measure(arguments: list[str]) -> tuple[float, float]:
    """Run a command; seconds and peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "alphastomics", *arguments], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return time.perf_counter() - started, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sections", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--max_steps", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "raw").mkdir()
        for n in args.sections:
            for i in range(len(list((work / "raw").iterdir())), n):
                write_section(work / "raw" / f"{i}.h5ad", f"section_{i}", i)
            raw, data = str(work / "raw"), str(work / f"data_{n}")
            run = ["--max_steps", str(args.max_steps), "--logger", "none"]
            for name, arguments in {
                "preprocess": ["preprocess", "--raw_dir", raw, "--output_dir", data],
                "train": ["train", "--data_dir", data, "--output_dir", str(work / "run"), *run],
            }.items():
                seconds, peak = measure(arguments)
                rows.append({"command": name, "cells": n * CELLS, "seconds": seconds, "MB": peak})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    table.round(1).to_csv(args.out / "memory.csv", index=False)
    wide = table.pivot(index="command", columns="cells", values="MB")
    lines = ["| peak memory, MB | " + " | ".join(f"{c:,} cells" for c in wide) + " | ratio |"]
    lines.append("|---" * (len(wide.columns) + 2) + "|")
    for name, row in wide.iterrows():
        cells = " | ".join(f"{value:,.0f}" for value in row)
        lines.append(f"| {name} | {cells} | {row.iloc[-1] / row.iloc[0]:.2f} |")
    text = (
        f"# Memory of the commands\n\n{GENES} simulated genes, sections of {CELLS:,} cells; train "
        f"takes {args.max_steps} steps at default sizes.\n\n" + "\n".join(lines) + "\n"
    )
    (args.out / "memory.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
