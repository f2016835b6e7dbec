"""Impute genes that a panel lacks from dissociated cells, beside all baselines.

    python benchmarks/imputation.py --data osmfish_cortex.h5ad --reference osmfish_scrna_ref.h5ad

Hides the genes fold by fold in the section, not in the dissociated cells, trains on both, and
imputes the section twice, with its positions and without. Writes a CSV with every gene and a
Markdown table of medians and means over genes, mean ± sd over seeds, to benchmarks/results, after
every fold.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start
from expression import summarise
from placement import to_markdown

import alphastomics as al

SHOWN = ["pcc", "pcc_mean", "partial_pcc", "partial_pcc_mean"]


def join(spatial: ad.AnnData, reference: ad.AnnData, hidden: np.ndarray) -> ad.AnnData:
    """Both data sets in one AnnData, the hidden genes not measured in the section."""
    n_dims = spatial.obsm["spatial"].shape[1]
    counts = spatial.X.tolil()
    counts[:, np.flatnonzero(hidden)] = 0
    parts = [
        ad.AnnData(X, obs=pd.DataFrame({"section": name}, index=names), var=pd.DataFrame(index=g))
        for X, name, names, g in (
            (counts.tocsr(), "spatial", spatial.obs_names, spatial.var_names),
            (reference.X, "dissociated", reference.obs_names, reference.var_names),
        )
    ]
    both = ad.concat(parts, index_unique="-", keys=["spatial", "dissociated"])
    nowhere = np.full((reference.n_obs, n_dims), np.nan)
    both.obsm["spatial"] = np.concatenate([spatial.obsm["spatial"], nowhere])
    both.varm["measured"] = pd.DataFrame(
        {"spatial": ~hidden, "dissociated": True}, index=both.var_names
    )
    return both


def impute(
    spatial: ad.AnnData,
    reference: ad.AnnData,
    hidden: np.ndarray,
    args: argparse.Namespace,
    seed: int,
) -> tuple[dict[str, np.ndarray], float]:
    """Train once and impute with and without positions; seconds of training."""
    both = join(spatial, reference, hidden)
    started = time.perf_counter()
    al.AlphaSTomics.setup_anndata(both)
    model = al.AlphaSTomics(both, training_mode=args.training_mode, seed=seed)
    model.train(max_steps=args.max_steps, progress_bar=False)
    seconds = time.perf_counter() - started
    query = both[both.obs["section"] == "spatial", ~hidden].copy()
    del query.varm["measured"]
    genes = list(both.var_names[hidden])
    estimates = {}
    for name in ("with positions", "without positions"):
        if name == "without positions":
            del query.obsm["spatial"]
        model.impute(query, progress_bar=False)
        estimates[f"impute, {name}"] = query.obsm["expression_imputed"][genes].to_numpy()
    return estimates, seconds


def normalize(adata: ad.AnnData, visible: np.ndarray) -> np.ndarray:
    """Log-normalize all genes by the totals over the visible ones and their median."""
    X = adata.X.toarray().astype(float)
    total = np.maximum(X[:, visible].sum(1, keepdims=True), 1)
    return np.log1p(X / total * np.median(total))


def one_fold(
    spatial: ad.AnnData,
    reference: ad.AnnData,
    hidden: np.ndarray,
    args: argparse.Namespace,
    seed: int,
) -> pd.DataFrame:
    """Scores of the genes of a fold by method."""
    S, R = (normalize(adata, ~hidden) for adata in (spatial, reference))
    estimates, seconds = impute(spatial, reference, hidden, args, seed)
    found = [("model", name, values) for name, values in estimates.items()]
    baselines = al.tl.imputation_baselines(S[:, ~hidden], R[:, ~hidden], R[:, hidden], seed=seed)
    found += [("baseline", name, values) for name, values in baselines]
    true, covariate = S[:, hidden], S[:, ~hidden].mean(1)
    return pd.concat(
        pd.DataFrame(
            {
                "kind": kind,
                "method": name,
                "seed": seed,
                "gene": spatial.var_names[hidden],
                "pcc": al.metrics.pcc(true, values),
                "partial_pcc": al.metrics.partial_pcc(true, values, covariate),
                "train_seconds": seconds if kind == "model" else np.nan,
            }
        )
        for kind, name, values in found
    )


def over_genes(results: pd.DataFrame) -> pd.DataFrame:
    """Medians and means over the genes, a row for each method and seed."""
    groups = results.groupby(["kind", "method", "seed"], sort=False)[["pcc", "partial_pcc"]]
    return groups.median().join(groups.mean(), rsuffix="_mean").reset_index()


def write(
    results: pd.DataFrame, spatial: ad.AnnData, reference: ad.AnnData, args: argparse.Namespace
) -> str:
    """Write the CSV and the Markdown of the folds so far."""
    mode = "" if args.training_mode == "joint" else f"_{args.training_mode}"
    path = args.out / f"imputation_{args.data.stem}{mode}"
    results.round(5).to_csv(f"{path}.csv", index=False)
    seeds = results["seed"].unique()
    text = (
        f"# {args.data.stem}, genes imputed from {args.reference.stem}\n\n"
        f"{results['gene'].nunique()} of {spatial.n_vars} genes, each hidden in one of "
        f"{args.folds} folds, in {spatial.n_obs} cells; {reference.n_obs} dissociated cells. Mean "
        f"± sd over seeds {', '.join(map(str, seeds))}; {args.training_mode}, {args.max_steps} "
        f"steps, {results['train_seconds'].mean():.0f} s of training a fold ({args.threads} "
        "threads, other jobs beside). Each data set log-normalized on the visible genes only. "
        "`pcc` and `partial_pcc` (given the mean of the visible genes) are medians over genes, "
        "`_mean` their means.\n\n"
        + to_markdown(summarise(over_genes(results), SHOWN, "pcc"))
        + "\n"
    )
    Path(f"{path}.md").write_text(text)
    return text


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="counts, one section")
    parser.add_argument("--reference", type=Path, required=True, help="dissociated cells, counts")
    parser.set_defaults(seeds=[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--max_steps", type=int, default=200, help="of each fold")
    parser.add_argument("--training_mode", default="joint")
    args = start(parser)

    spatial, reference = ad.read_h5ad(args.data), ad.read_h5ad(args.reference)
    reference = reference[:, spatial.var_names].copy()
    folds = np.array_split(np.random.default_rng(0).permutation(spatial.n_vars), args.folds)
    parts: list[pd.DataFrame] = []
    text = ""
    for seed in args.seeds:
        for fold in folds:
            hidden = np.isin(np.arange(spatial.n_vars), fold)
            parts.append(one_fold(spatial, reference, hidden, args, seed))
            text = write(pd.concat(parts), spatial, reference, args)
            print(f"seed {seed}: {len(parts)} folds done", flush=True)
    print(text)


if __name__ == "__main__":
    main()
