"""Place a held-out section: predict, one draw, medoid and consensus of 8, beside all baselines.

    python benchmarks/placement.py --data merfish_hypothalamus.h5ad --test animal1_bregma+0.21

Trains on all other sections of the file with the package's defaults, once a seed. The coordinates
of the test section are deleted before it is placed. Writes a CSV with every seed and a Markdown
table of mean ± sd over seeds to benchmarks/results.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start
from scipy.stats import ortho_group

import alphastomics as al
from alphastomics.tl._score import placement_scores

N_DRAWS = 8
SHOWN = [
    "distance_spearman",
    "distance_spearman_median",
    "procrustes_rmse",
    "rigid_rmse_units",
    "neighbor_recall@20",
    "neighbor_recall@1%",
    "contact_precision@1%",
    "contact_precision@10%",
    "rssd/sqrt_n",
    "niche_cosine@20",
    "spread",
    "coverage",
    "radius",
    "radius_error_spearman",
]


def turn_sections(atlas: ad.AnnData, seed: int) -> ad.AnnData:
    """The atlas with every section rotated and mirrored at random."""
    turned = atlas.copy()
    section = atlas.obs["section"].astype(str).to_numpy()
    for i, name in enumerate(np.unique(section)):
        rotation = ortho_group.rvs(atlas.obsm["spatial"].shape[1], random_state=100 * seed + i)
        turned.obsm["spatial"][section == name] = atlas.obsm["spatial"][section == name] @ rotation
    return turned


def place(
    atlas: ad.AnnData,
    cells: ad.AnnData,
    labels_key: str | None,
    args: argparse.Namespace,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Train and place once; scores by estimate."""
    true = np.asarray(cells.obsm["spatial"], dtype=float)
    labels = None if labels_key is None else cells.obs[labels_key].to_numpy()
    query = cells.copy()
    del query.obsm["spatial"]
    started = time.perf_counter()
    al.AlphaSTomics.setup_anndata(atlas, values=args.values)
    model = al.AlphaSTomics(atlas, training_mode=args.training_mode, frame=args.frame, seed=seed)
    model.train(max_steps=args.max_steps, progress_bar=False)
    trained = time.perf_counter()
    model.predict(query, progress_bar=False)
    model.predict(query, estimate="mean", key_added="mean", progress_bar=False)
    predicted = time.perf_counter()
    radii = {}
    if seed in args.calibrate_seeds:
        model.calibrate(progress_bar=False)
        model.predict(query, progress_bar=False)
        radius = query.obs["spatial_predicted_radius"]
        radii["predict"] = al.metrics.radius_scores(true, query.obsm["spatial_predicted"], radius)
    estimates = {
        "predict": query.obsm["spatial_predicted"],
        "predict, mean": query.obsm["mean"],
    }
    if seed in args.draw_seeds:
        estimates |= draw(model, query, seed)
    sampled = time.perf_counter()
    print(
        f"seed {seed}: train {trained - started:.0f} s, predict {predicted - trained:.1f} s, "
        f"draws {sampled - predicted:.0f} s",
        flush=True,
    )
    return {
        name: {
            **placement_scores(true, estimate, labels, seed=seed),
            **radii.get(name, {}),
            "seconds": trained - started,
        }
        for name, estimate in estimates.items()
    }


def draw(model: al.AlphaSTomics, query: ad.AnnData, seed: int) -> dict[str, np.ndarray]:
    """One draw, medoid and consensus of several."""
    model.sample(query, n_samples=N_DRAWS, point=None, seed=seed, progress_bar=False)
    draws = query.obsm["spatial_sampled_draws"].transpose(1, 0, 2)
    return {
        "one draw": draws[0],
        f"medoid of {N_DRAWS}": draws[al.metrics.medoid(draws)],
        f"consensus of {N_DRAWS}": al.metrics.consensus(draws),
    }


def cell(mean: float, sd: float) -> str:
    """Mean ± sd; the mean alone of a single seed."""
    if np.isnan(mean):
        return ""
    digits = 3 if mean < 100 else 0
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if np.isfinite(sd) else "")


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Mean ± sd over seeds, baselines best first."""
    shown = [column for column in SHOWN if column in results]
    groups = results.groupby(["kind", "method"], sort=False)[shown]
    mean, sd = groups.mean(), groups.std(ddof=1)
    order = (
        mean.assign(model=mean.index.get_level_values("kind") == "model")
        .sort_values(["model", "distance_spearman"], ascending=False)
        .index
    )
    text = pd.DataFrame(
        {c: [cell(m, s) for m, s in zip(mean[c], sd[c], strict=True)] for c in shown},
        index=mean.index,
    )
    return text.loc[order]


def to_markdown(table: pd.DataFrame) -> str:
    lines = [
        "| method | " + " | ".join(table.columns) + " |",
        "|---" * (len(table.columns) + 1) + "|",
    ]
    for (kind, method), row in table.iterrows():
        name = f"**{method}**" if kind == "model" else method
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", required=True, help="section to hold out")
    parser.add_argument("--train", help="the only section to train on; all others by default")
    parser.add_argument("--values", default="counts")
    parser.add_argument("--max_steps", type=int, default=None)
    parser.add_argument("--training_mode", default="expr_to_pos")
    parser.add_argument(
        "--draw_seeds", type=int, nargs="*", default=[0, 1, 2], help="seeds to draw samples with"
    )
    parser.add_argument(
        "--calibrate_seeds", type=int, nargs="*", default=[0], help="seeds to score the radius with"
    )
    parser.add_argument(
        "--rotate", action="store_true", help="rotate and mirror training sections at random"
    )
    parser.add_argument("--frame", default="learned", choices=("learned", "registered"))
    args = start(parser)

    adata = ad.read_h5ad(args.data)
    section = adata.obs["section"].astype(str)
    for option, name in {"--test": args.test, "--train": args.train or args.test}.items():
        if name not in set(section):
            parser.error(f"{option} {name!r} is none of {sorted(set(section))}")
    trained_on = section != args.test if args.train is None else section == args.train
    cells, atlas = adata[section == args.test].copy(), adata[trained_on].copy()
    labels_key = "cell_type" if "cell_type" in adata.obs else None

    rows = []
    given = atlas
    for seed in args.seeds:
        atlas = turn_sections(given, seed) if args.rotate else given
        for name, scores in place(atlas, cells, labels_key, args, seed).items():
            rows.append({"kind": "model", "method": name, "seed": seed, **scores})
        predicted = next(
            row["distance_spearman"]
            for row in rows
            if (row["method"], row["seed"]) == ("predict", seed)
        )
        baselines = al.tl.placement_baselines(
            cells, atlas, values=args.values, labels_key=labels_key, seed=seed
        )
        for name, scores in baselines.iterrows():
            rows.append({"kind": "baseline", "method": name, "seed": seed, **scores})
        print(
            f"seed {seed}: predict {predicted:.3f}, best baseline "
            f"{baselines['distance_spearman'].idxmax()} {baselines['distance_spearman'].max():.3f}",
            flush=True,
        )
    results = pd.DataFrame(rows)
    name = f"placement_{args.data.stem}_{args.test}" + "_rotated" * args.rotate
    name += f"_from_{args.train}" * (args.train is not None)
    name += "" if args.frame == "learned" else f"_{args.frame}"
    results.round(5).to_csv(args.out / f"{name}.csv", index=False)
    seconds = results["seconds"].dropna().groupby(results["seed"]).first()
    what = ", training sections rotated" * args.rotate
    what += "" if args.frame == "learned" else f", frame {args.frame}"
    source = args.train or f"{atlas.obs['section'].nunique()} sections"
    text = (
        f"# {args.data.stem}, {args.test} held out{what}\n\n"
        f"{cells.n_obs} cells placed from {atlas.n_obs} cells of {source}, "
        f"{adata.n_vars} genes; mean ± sd over seeds {', '.join(map(str, args.seeds))}; "
        f"{seconds.mean():.0f} s of training per seed ({args.training_mode}, {args.threads} "
        f"threads, shared machine); draws with seeds {args.draw_seeds}. Lengths in the unit of "
        "the data.\n\n" + to_markdown(summarise(results)) + "\n"
    )
    (args.out / f"{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
