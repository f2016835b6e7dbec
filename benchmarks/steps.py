"""Quality of draws against steps of the sampler, for every solver.

    python benchmarks/steps.py --data starmap_mpfc.h5ad --test BZ5
    python benchmarks/steps.py --simulate

Trains on the other sections, then draws the held-out one with 4 to 64 steps from the same noise.
Writes one line per seed, solver and number of steps, and a table of the differences to 64 steps of
Heun's method, which are paired: same network, same noise.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start

import alphastomics as al

PASSES = {"heun": 2, "dpmpp_2m": 1, "ddim": 1}  # a step
BEST = ("heun", 64)
METRICS = ("distance_spearman", "neighbor_recall@20", "spread")


def sections(args: argparse.Namespace, seed: int) -> tuple[ad.AnnData, ad.AnnData]:
    """Sections to train on, and the one to draw."""
    if args.simulate:
        adata, test = al.datasets.simulate_tissue(3, 1500, 100, seed=seed), "section_2"
    else:
        adata, test = ad.read_h5ad(args.data), args.test
    held_out = (adata.obs["section"] == test).to_numpy()
    return adata[~held_out].copy(), adata[held_out].copy()


def spread(true: np.ndarray, placed: np.ndarray) -> float:
    """RMS radius over the true one."""
    radius = [np.sqrt(np.square(x - x.mean(0)).sum(1).mean()) for x in (placed, true)]
    return float(radius[0] / radius[1])


def score_draws(
    model: al.AlphaSTomics, cells: ad.AnnData, true: np.ndarray, n_samples: int, **how: object
) -> dict[str, float]:
    """Mean scores of single draws."""
    began = time.perf_counter()
    model.sample(cells, n_samples=n_samples, point=None, progress_bar=False, **how)
    took = time.perf_counter() - began
    draws = np.moveaxis(cells.obsm["spatial_sampled_draws"], 1, 0)
    scores = [
        (
            al.metrics.distance_spearman(true, draw),
            al.metrics.neighbor_recall(true, draw, 20),
            spread(true, draw),
        )
        for draw in draws
    ]
    means = dict(zip(METRICS, np.mean(scores, axis=0), strict=True))
    return {**means, "seconds": took / n_samples}


def table_of(results: pd.DataFrame) -> str:
    """Means over seeds, and the paired difference to the best in percent of it."""
    index = ["solver", "steps"]
    best = results[(results["solver"] == BEST[0]) & (results["steps"] == BEST[1])]
    best = best.set_index("seed")["distance_spearman"]
    results = results.assign(
        loss=100 * (1 - results["distance_spearman"] / results["seed"].map(best))
    )
    lines = [
        "| solver | steps | passes | distance_spearman | loss to Heun 64, % | neighbor_recall@20 "
        "| spread | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (solver, steps), rows in results.groupby(index, sort=False):
        mean, sd = rows.mean(numeric_only=True), rows["loss"].std()
        lines.append(
            f"| {solver} | {steps} | {PASSES[solver] * steps} | {mean['distance_spearman']:.4f} | "
            f"{mean['loss']:+.2f} ± {sd:.2f} | {mean['neighbor_recall@20']:.4f} | "
            f"{mean['spread']:.3f} | {mean['seconds']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, help="counts, several sections")
    parser.add_argument("--test", help="section to hold out")
    parser.add_argument("--simulate", action="store_true", help="simulated tissue instead")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 12, 16, 24, 32, 64])
    parser.add_argument("--n_samples", type=int, default=4)
    parser.add_argument("--max_steps", type=int, default=None)
    parser.add_argument("--schedule", default="edm")
    args = start(parser)
    if not args.simulate and (args.data is None or args.test is None):
        parser.error("pass --data and --test, or --simulate")

    name = "simulated" if args.simulate else f"{args.data.stem}_{args.test}"
    name = f"steps_{name}" + ("" if args.schedule == "edm" else f"_{args.schedule}")
    rows = []
    for seed in args.seeds:
        atlas, cells = sections(args, seed)
        true = np.asarray(cells.obsm.pop("spatial"), dtype=float)
        al.AlphaSTomics.setup_anndata(atlas)
        model = al.AlphaSTomics(
            atlas, training_mode="expr_to_pos", schedule=args.schedule, seed=seed
        )
        model.train(max_steps=args.max_steps, progress_bar=False)
        for solver in PASSES:
            for steps in args.steps:
                how = {"solver": solver, "n_steps": steps, "seed": seed}
                scores = score_draws(model, cells, true, args.n_samples, **how)
                rows.append({"seed": seed, "solver": solver, "steps": steps, **scores})
                print(rows[-1], flush=True)
            pd.DataFrame(rows).round(5).to_csv(args.out / f"{name}.csv", index=False)
    page = (
        f"# Steps of the sampler, {name.removeprefix('steps_')}\n\n"
        f"{len(args.seeds)} seeds, {args.n_samples} draws each of {len(true):,} cells, means of "
        "single draws; ± is the standard deviation over seeds of the loss, which is paired (same "
        "network, same noise). Spread: RMS radius over the true one. Seconds a draw, CPU, "
        f"{args.threads} threads.\n\n{table_of(pd.DataFrame(rows))}"
    )
    (args.out / f"{name}.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
