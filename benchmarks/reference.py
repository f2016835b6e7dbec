"""Map cells into the other half of their section: predict and one draw, beside kNN regression.

    python benchmarks/reference.py --data osmfish_cortex.h5ad
    python benchmarks/reference.py --data drosophila_bdtnp.h5ad --values intensity

A seeded random half of the cells is the reference; the model is trained on it alone and places the
other half, whose coordinates are deleted, in its frame. Errors are in that frame, nothing is
superposed. Writes a CSV with every seed and a Markdown table to benchmarks/results.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start
from placement import cell, to_markdown
from sklearn.neighbors import KNeighborsRegressor

import alphastomics as al

SHOWN = [
    "distance_spearman",
    "neighbor_recall@20",
    "contact_precision@1%",
    "rmse",
    "spread",
    "seconds",
]
KNN = (1, 10, 50)


def scores(true: np.ndarray, placed: np.ndarray) -> dict[str, float]:
    error = np.sqrt(np.square(placed - true).sum(1).mean())
    return {
        "distance_spearman": al.metrics.distance_spearman(true, placed),
        "neighbor_recall@20": al.metrics.neighbor_recall(true, placed, 20),
        "contact_precision@1%": al.metrics.contact_precision(true, placed, 0.01),
        "rmse": error / al.metrics.rms_radius(true),
        "spread": al.metrics.spread(true, placed),
    }


def standardized(adata: ad.AnnData, values: str, training: np.ndarray) -> np.ndarray:
    """Expression as the model reads it, with statistics of the training cells."""
    x = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
    if values == "counts":
        total = x.sum(1, keepdims=True)
        x = x * np.median(total[training]) / np.maximum(total, 1)
    x = np.log1p(x)
    return (x - x[training].mean(0)) / np.maximum(x[training].std(0), 1e-3)


def run(adata: ad.AnnData, args: argparse.Namespace, seed: int) -> list[dict[str, object]]:
    known = np.random.default_rng(seed).permutation(adata.n_obs) < adata.n_obs // 2
    reference, query = adata[known].copy(), adata[~known].copy()
    true = np.asarray(query.obsm.pop("spatial"), dtype=float)
    started = time.perf_counter()
    al.AlphaSTomics.setup_anndata(reference, values=args.values, section_key=None)
    model = al.AlphaSTomics(reference, training_mode=args.training_mode, seed=seed)
    model.train(max_steps=args.max_steps, progress_bar=False)
    seconds = time.perf_counter() - started
    model.predict(query, reference=reference, progress_bar=False)
    model.sample(query, reference=reference, seed=seed, progress_bar=False)
    rows = [
        {"kind": "model", "method": name, **scores(true, query.obsm[key]), "seconds": seconds}
        for name, key in (("predict", "spatial_predicted"), ("one draw", "spatial_sampled"))
    ]
    x = standardized(adata, args.values, known)
    for k in KNN:
        knn = KNeighborsRegressor(k, metric="cosine").fit(x[known], reference.obsm["spatial"])
        rows.append(
            {"kind": "baseline", "method": f"knn{k}", **scores(true, knn.predict(x[~known]))}
        )
    return [{"seed": seed, **row} for row in rows]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--values", default="counts")
    parser.add_argument("--training_mode", default="expr_to_pos")
    parser.add_argument("--max_steps", type=int, default=None)
    args = start(parser)

    adata = ad.read_h5ad(args.data)
    results = pd.DataFrame([row for seed in args.seeds for row in run(adata, args, seed)])
    name = f"reference_{args.data.stem}"
    results.round(5).to_csv(args.out / f"{name}.csv", index=False)
    groups = results.groupby(["kind", "method"], sort=False)[SHOWN]
    mean, sd = groups.mean(), groups.std(ddof=1)
    table = pd.DataFrame(
        {c: [cell(m, s) for m, s in zip(mean[c], sd[c], strict=True)] for c in SHOWN},
        index=mean.index,
    )
    text = (
        f"# {args.data.stem}: one half mapped into the other\n\n{adata.n_obs} cells, "
        f"{adata.n_vars} genes; mean ± sd over seeds {', '.join(map(str, args.seeds))}; rmse in "
        f"RMS radii, in the frame of the reference; seconds of training ({args.training_mode}, "
        f"{args.threads} threads, other jobs beside).\n\n{to_markdown(table)}\n"
    )
    (args.out / f"{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
