"""Predict the expression of hidden cells of a section from where they are, beside all baselines.

    python benchmarks/expression.py --data merfish_hypothalamus.h5ad --section animal1_bregma+0.21

Hides a share of the section's cells, at random or in four square blocks, and trains on all
sections of the file, the known cells of this one among them, once a seed. Hidden cells alone are
scored. Writes a CSV with every seed and a Markdown table of mean ± sd over seeds to
benchmarks/results, after every seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start
from placement import cell, to_markdown
from scipy import sparse

import alphastomics as al

N_BLOCKS = 4
SHOWN = [
    "pcc",
    "pcc_mean",
    "ssim",
    "rmse",
    "js",
    "moran_concordance",
    "moran_difference",
    "zeros",
]
LEAST = 1e-6  # a log-normalized value below is a zero
HIDDEN = {"random": "drawn at random", "blocks": f"in {N_BLOCKS} squares"}


def hide_random(positions: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Indices of a random share of the cells."""
    n = len(positions)
    return np.random.default_rng(seed).permutation(n)[: round(share * n)]


def hide_blocks(positions: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Indices of the cells in squares around random cells that do not overlap."""
    n = len(positions)
    size = max(1, round(share * n / N_BLOCKS))
    squares: list[tuple[np.ndarray, float, np.ndarray]] = []
    for center in positions[np.random.default_rng(seed).permutation(n)]:
        distance = np.abs(positions - center).max(1)
        inside = np.argsort(distance, kind="stable")[:size]
        half = distance[inside[-1]]
        if all(np.abs(center - other).max() > half + side for other, side, _ in squares):
            squares.append((center, half, inside))
        if len(squares) == N_BLOCKS:
            return np.concatenate([inside for *_, inside in squares])
    raise ValueError(f"share {share} leaves no room for {N_BLOCKS} squares: choose a smaller one.")


def log_normalize(counts: sparse.csr_matrix | np.ndarray, median: float) -> np.ndarray:
    """Log-normalize counts to a depth: log1p(counts * median / total)."""
    X = np.asarray(counts.toarray() if sparse.issparse(counts) else counts, dtype=float)
    return np.log1p(X * median / np.maximum(X.sum(1, keepdims=True), 1))


def zero_rows(adata: ad.AnnData, known: np.ndarray) -> ad.AnnData:
    """Copy the cells, those that are not known without their counts."""
    adata = adata.copy()
    adata.X = sparse.csr_matrix(sparse.diags(known.astype(adata.X.dtype)) @ adata.X)
    adata.obs["expression_known"] = known
    return adata


def predict(
    atlas: ad.AnnData, args: argparse.Namespace, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Train once and fill in the section; expression of its cells and seconds."""
    started = time.perf_counter()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, training_mode=args.training_mode, seed=seed)
    model.train(max_steps=args.max_steps, progress_bar=False)
    trained = time.perf_counter()
    query = atlas[atlas.obs["section"].astype(str) == args.section].copy()
    model.predict(query, progress_bar=False)
    predicted = time.perf_counter()
    seconds = {"train_seconds": trained - started, "predict_seconds": predicted - trained}
    estimates = {"predict": query.layers["expression_predicted"]}
    if seed in args.draw_seeds:
        model.sample(query, seed=seed, progress_bar=False)
        seconds["draw_seconds"] = time.perf_counter() - predicted
        estimates["one draw"] = query.layers["expression_sampled"]
    return estimates, seconds


def one_seed(adata: ad.AnnData, args: argparse.Namespace, seed: int) -> list[dict]:
    """Scores of the hidden cells by method."""
    rows = np.flatnonzero(adata.obs["section"].astype(str) == args.section)
    positions = np.asarray(adata.obsm["spatial"], dtype=float)[rows]
    hide = hide_random if args.hidden == "random" else hide_blocks
    hidden = np.sort(hide(positions, args.share, seed))
    shown = np.setdiff1d(np.arange(len(rows)), hidden)
    known = np.ones(adata.n_obs, dtype=bool)
    known[rows[hidden]] = False

    median = float(np.median(np.asarray(adata.X[known].sum(1))))
    expression = log_normalize(adata.X[rows], median)
    labels = (None, None)
    if "cell_type" in adata.obs:
        types = adata.obs["cell_type"].to_numpy()[rows]
        labels = (types[shown], types[hidden])
    baselines = al.tl.expression_baselines(
        positions[shown], expression[shown], positions[hidden], *labels, seed=seed
    )
    estimates, seconds = predict(zero_rows(adata, known), args, seed)
    found = [("model", name, values[hidden], seconds) for name, values in estimates.items()]
    found += [("baseline", name, values, {}) for name, values in baselines]
    return [
        {
            "kind": kind,
            "method": name,
            "seed": seed,
            **al.tl.expression_scores(expression[hidden], values, positions[hidden]),
            "zeros": float((values < LEAST).mean()),
            "true_zeros": float((expression[hidden] < LEAST).mean()),
            **timing,
        }
        for kind, name, values, timing in found
    ]


def summarise(results: pd.DataFrame, shown: Sequence[str], by: str) -> pd.DataFrame:
    """Mean ± sd over seeds of some columns, the model first, then baselines from the best."""
    groups = results.groupby(["kind", "method"], sort=False)[list(shown)]
    mean, sd = groups.mean(), groups.std(ddof=1)
    text = pd.DataFrame(
        {c: [cell(m, s) for m, s in zip(mean[c], sd[c], strict=True)] for c in shown},
        index=mean.index,
    )
    is_model = mean.index.get_level_values("kind") == "model"
    order = mean.assign(model=is_model).sort_values(["model", by], ascending=False).index
    return text.loc[order]


def write(results: pd.DataFrame, adata: ad.AnnData, args: argparse.Namespace) -> str:
    """Write the CSV and the Markdown of the seeds so far."""
    mode = "" if args.training_mode == "pos_to_expr" else f"_{args.training_mode}"
    path = args.out / f"expression_{args.data.stem}_{args.section}_{args.hidden}{mode}"
    results.round(5).to_csv(f"{path}.csv", index=False)
    seeds = results["seed"].unique()
    seconds = ", ".join(
        f"{part} {results[f'{part}_seconds'].mean():.0f} s"
        for part in ("train", "predict", "draw")
        if f"{part}_seconds" in results
    )
    n_section = int((adata.obs["section"].astype(str) == args.section).sum())
    text = (
        f"# {args.data.stem}, {args.share:.0%} of {args.section} hidden, {HIDDEN[args.hidden]}\n\n"
        f"{results['n_cells'].iloc[0]} of the section's {n_section} cells hidden and scored, "
        f"{results['n_genes'].iloc[0]} genes; trained on the {adata.n_obs} cells of all "
        f"{adata.obs['section'].nunique()} sections less the hidden expression. Mean ± sd over "
        f"seeds {', '.join(map(str, seeds))}, a draw with those of {args.draw_seeds}; "
        f"{args.training_mode}, {args.max_steps} steps; a seed takes {seconds} ({args.threads} "
        "threads, shared machine). Scale: log1p(counts * median / total), with the median "
        "total of all known cells of the file, as the model's. Medians over genes but for "
        "`pcc_mean` and Moran's; `zeros` is the share of zeros, "
        f"{results['true_zeros'].mean():.3f} in the truth. `cell-type mean` is an oracle.\n\n"
        + to_markdown(summarise(results, SHOWN, "pcc"))
        + "\n"
    )
    Path(f"{path}.md").write_text(text)
    return text


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="counts, several sections")
    parser.add_argument("--section", required=True, help="section to hide cells of")
    parser.add_argument(
        "--draw_seeds", type=int, nargs="*", default=[0, 1, 2], help="seeds to draw a sample with"
    )
    parser.add_argument("--hidden", choices=HIDDEN, default="random")
    parser.add_argument("--share", type=float, default=0.2, help="share of its cells to hide")
    parser.add_argument("--max_steps", type=int, default=200)
    parser.add_argument("--training_mode", default="pos_to_expr")
    args = start(parser)

    adata = ad.read_h5ad(args.data)
    if args.section not in set(adata.obs["section"].astype(str)):
        parser.error(f"--section {args.section!r} is none of {sorted(set(adata.obs['section']))}")
    rows: list[dict] = []
    text = ""
    for seed in args.seeds:
        rows += one_seed(adata, args, seed)
        text = write(pd.DataFrame(rows), adata, args)
        print(f"seed {seed} done\n{text}", flush=True)


if __name__ == "__main__":
    main()
