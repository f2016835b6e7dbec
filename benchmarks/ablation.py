"""Whether gates, experts and linear attention help: every combination on held-out sections.

    python benchmarks/ablation.py --data starmap_mpfc.h5ad --test BZ14
    python benchmarks/ablation.py --data merfish_hypothalamus.h5ad --test animal1_bregma+0.21

Changes nothing but the option. Writes a row a run to a CSV as it goes, goes on from it when started
again, and ends with a Markdown page in benchmarks/results: mean ± sd over seeds, and the difference
that each option makes, paired over seeds and the other options.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start

import alphastomics as al

GATES = ("none", "headwise", "elementwise")
EXPERTS = {"dense": 0, "2 of 8": 8}
KERNELS = ("softmax", "linear")
KEYS = ["attention", "gate", "feed-forward", "seed"]
COMPARED = {
    "gate": ("none", ("headwise", "elementwise")),
    "feed-forward": ("dense", ("2 of 8",)),
    "attention": ("softmax", ("linear",)),
}


def run(
    atlas: ad.AnnData, cells: ad.AnnData, args: argparse.Namespace, seed: int, **options: object
) -> dict[str, float]:
    query = cells.copy()
    true = np.asarray(query.obsm.pop("spatial"), dtype=float)
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, training_mode="expr_to_pos", seed=seed, **options)
    started = time.perf_counter()
    model.train(max_steps=args.max_steps, progress_bar=False)
    trained = time.perf_counter() - started
    scores = {}
    for estimate in ("arrangement", "mean"):
        model.predict(query, estimate=estimate, progress_bar=False)
        placed = query.obsm["spatial_predicted"]
        scores[f"distance_spearman {estimate}"] = al.metrics.distance_spearman(true, placed)
    scores["neighbor_recall@20"] = al.metrics.neighbor_recall(true, placed, 20)
    return {**scores, "seconds": trained}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", required=True, help="section to hold out")
    parser.add_argument("--max_steps", type=int, default=None)
    args = start(parser)

    adata = ad.read_h5ad(args.data)
    held_out = (adata.obs["section"].astype(str) == args.test).to_numpy()
    if not held_out.any():
        parser.error(f"--test {args.test!r} is none of {sorted(adata.obs['section'].unique())}")
    atlas, cells = adata[~held_out].copy(), adata[held_out].copy()
    path = args.out / f"ablation_{args.data.stem}_{args.test}.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {tuple(row[key] for key in KEYS) for row in rows}
    for seed, kernel, gate, experts in itertools.product(args.seeds, KERNELS, GATES, EXPERTS):
        if (kernel, gate, experts, seed) in done:
            continue
        options = {"attention": kernel, "gate_type": gate, "num_experts": EXPERTS[experts]}
        scores = run(atlas, cells, args, seed, **options)
        rows.append(dict(zip(KEYS, (kernel, gate, experts, seed), strict=True)) | scores)
        pd.DataFrame(rows).round(5).to_csv(path, index=False)
        print(rows[-1], flush=True)
    write(pd.DataFrame(rows), cells, atlas, args, path)


def write(
    results: pd.DataFrame,
    cells: ad.AnnData,
    atlas: ad.AnnData,
    args: argparse.Namespace,
    path: Path,
) -> None:
    groups = results.groupby(KEYS[:3], sort=False)[list(results.columns[len(KEYS) :])]
    mean, sd = groups.mean(), groups.std()
    lines = [" | ".join([*KEYS[:3], *mean.columns]), "|".join(["---"] * (3 + len(mean.columns)))]
    for name in mean.index:
        values = [
            f"{m:.0f}" if column == "seconds" else f"{m:.3f} ± {s:.3f}"
            for column, m, s in zip(mean.columns, mean.loc[name], sd.loc[name], strict=True)
        ]
        lines.append(" | ".join([*name, *values]))
    text = (
        f"# {args.data.stem}, {args.test} held out: options of the network\n\n{cells.n_obs} cells "
        f"placed from {atlas.n_obs}; mean ± sd over seeds {sorted(set(results['seed']))}; "
        f"{args.max_steps or 'default'} steps. Seconds are of single runs, shared machine: for "
        "speed see throughput.md.\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"
    )
    text += "\n## Differences\n\nMean ± standard error over pairs.\n\n" + differences(results)
    path.with_suffix(".md").write_text(text)
    print(text)


def differences(results: pd.DataFrame) -> str:
    """What each option changes, with everything else the same."""
    scores = [name for name in results.columns[len(KEYS) :] if name != "seconds"]
    lines = [["option", "instead of", *scores], ["---"] * (2 + len(scores))]
    for key, (base, others) in COMPARED.items():
        same = [name for name in KEYS if name != key]
        table = results.set_index([*same, key])[scores].unstack(key)
        for other in others:
            change = table.xs(other, axis=1, level=1) - table.xs(base, axis=1, level=1)
            error = change.std() / len(change) ** 0.5
            lines.append(
                [other, base, *(f"{change[s].mean():+.4f} ± {error[s]:.4f}" for s in scores)]
            )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    main()
