"""Map cells into the other half of their section: predict and one draw, beside regressors.

    python benchmarks/reference.py --data osmfish_cortex.h5ad
    python benchmarks/reference.py --data drosophila_bdtnp.h5ad --values intensity
    python benchmarks/reference.py --data breast_xenium.h5ad --n_cells 6000 --split contiguous

A seeded random half of the cells, or those on one side of the median of their first coordinate, are
the reference; the model is trained on it alone and places the other half, whose coordinates are
deleted, in its frame. Errors are in that frame, nothing is superposed. Among known cells the
matching alone places a cell, so --set_size may be small. Writes a CSV with every seed and a
Markdown table to benchmarks/results.
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
from sklearn.base import RegressorMixin
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline

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
PENALTIES = np.logspace(-1, 5, 25)
NETWORKS = {  # hidden units, L2 penalty
    "mlp 64, penalty 1": ((64,), 1.0),
    "mlp 64, penalty 30": ((64,), 30.0),
    "mlp 128-128, penalty 1": ((128, 128), 1.0),
    "mlp 256-256, penalty 1": ((256, 256), 1.0),
    "mlp 256-256, penalty 3": ((256, 256), 3.0),
}


def baselines(n_genes: int, seed: int) -> dict[str, RegressorMixin]:
    """Regressors of positions in RMS radii on standardized expression."""
    cosine = {"metric": "cosine", "algorithm": "brute"}
    found = {f"knn{k}": KNeighborsRegressor(k, **cosine) for k in KNN}
    pca = PCA(min(20, n_genes // 2), random_state=seed)
    for k in (1, 10):
        found[f"knn{k} of components"] = make_pipeline(pca, KNeighborsRegressor(k, **cosine))
    found["ridge, cross-validated"] = RidgeCV(PENALTIES)
    for name, (hidden, penalty) in NETWORKS.items():
        found[name] = MLPRegressor(
            hidden_layer_sizes=hidden,
            alpha=penalty,
            early_stopping=True,
            max_iter=300,
            random_state=seed,
        )
    return found


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


def half(adata: ad.AnnData, split: str, seed: int) -> np.ndarray:
    """Cells of the reference: a random half, or those on one side of the section."""
    if split == "random":
        return np.random.default_rng(seed).permutation(adata.n_obs) < adata.n_obs // 2
    x = adata.obsm["spatial"][:, 0]
    return x < np.median(x)


def run(adata: ad.AnnData, args: argparse.Namespace, seed: int) -> list[dict[str, object]]:
    known = half(adata, args.split, seed)
    reference, query = adata[known].copy(), adata[~known].copy()
    true = np.asarray(query.obsm.pop("spatial"), dtype=float)
    started = time.perf_counter()
    al.AlphaSTomics.setup_anndata(reference, values=args.values, section_key=None)
    model = al.AlphaSTomics(reference, training_mode=args.training_mode, seed=seed)
    sizes = {} if args.set_size is None else {"set_size": args.set_size, "batch_size": 1}
    model.train(max_steps=args.max_steps, progress_bar=False, **sizes)
    seconds = time.perf_counter() - started
    model.predict(query, reference=reference, progress_bar=False)
    model.sample(query, reference=reference, seed=seed, progress_bar=False)
    rows = [
        {"kind": "model", "method": name, **scores(true, query.obsm[key]), "seconds": seconds}
        for name, key in (("predict", "spatial_predicted"), ("one draw", "spatial_sampled"))
    ]
    x = standardized(adata, args.values, known)
    place = np.asarray(reference.obsm["spatial"], dtype=float)
    center, unit = place.mean(0), al.metrics.rms_radius(place)
    for name, regressor in baselines(adata.n_vars, seed).items():
        started = time.perf_counter()
        placed = regressor.fit(x[known], (place - center) / unit).predict(x[~known])
        seconds = time.perf_counter() - started
        row = scores(true, placed * unit + center) | {"seconds": seconds}
        rows.append({"kind": "baseline", "method": name, **row})
    return [{"seed": seed, **row} for row in rows]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--values", default="counts")
    parser.add_argument("--training_mode", default="expr_to_pos")
    parser.add_argument("--max_steps", type=int, default=None)
    parser.add_argument("--set_size", type=int, default=None, help="of the network, not matching")
    parser.add_argument("--split", choices=("random", "contiguous"), default="random")
    parser.add_argument("--n_cells", type=int, default=None, help="a seeded subsample")
    args = start(parser)

    adata = ad.read_h5ad(args.data)
    if args.n_cells is not None:
        chosen = np.random.default_rng(0).permutation(adata.n_obs)[: args.n_cells]
        adata = adata[chosen].copy()
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()  # others have no place
    results = pd.DataFrame([row for seed in args.seeds for row in run(adata, args, seed)])
    name = f"reference_{args.data.stem}" + "_contiguous" * (args.split == "contiguous")
    results.round(5).to_csv(args.out / f"{name}.csv", index=False)
    groups = results.groupby(["kind", "method"], sort=False)[SHOWN]
    mean, sd = groups.mean(), groups.std(ddof=1)
    table = pd.DataFrame(
        {c: [cell(m, s) for m, s in zip(mean[c], sd[c], strict=True)] for c in SHOWN},
        index=mean.index,
    )
    text = (
        f"# {args.data.stem}: one {args.split} half mapped into the other\n\n{adata.n_obs} cells, "
        f"{adata.n_vars} genes; mean ± sd over seeds {', '.join(map(str, args.seeds))}; rmse in "
        f"RMS radii, in the frame of the reference; seconds of training, or of fit and prediction "
        f"({args.training_mode}, {args.threads} threads, shared machine).\n\n"
        f"{to_markdown(table)}\n"
    )
    (args.out / f"{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
