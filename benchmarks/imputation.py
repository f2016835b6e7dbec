"""Impute genes that a panel lacks from dissociated cells, beside all baselines.

    python benchmarks/imputation.py --data osmfish_cortex.h5ad --reference osmfish_scrna_ref.h5ad

Hides the genes fold by fold in the section, not in the dissociated cells, trains on both, and
imputes the section twice, with its positions and without. Without --reference, one half of the
section is taken as dissociated cells. Writes a CSV with every gene and a Markdown table of medians
and means over genes, mean ± sd over seeds, to benchmarks/results, after every fold.
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

SCORES = ["pcc", "partial_pcc", "ssim"]
SHOWN = ["pcc", "pcc_mean", "partial_pcc", "partial_pcc_mean", "ssim", "moran_concordance"]


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
        found = query.obsm["expression_imputed"][genes]
        # Cells without a position and without a visible count have NaN: the mean of the others.
        estimates[f"impute, {name}"] = found.fillna(found.mean()).to_numpy()
        if args.draw and name == "with positions":
            model.impute(query, draw=True, seed=seed, progress_bar=False)
            estimates["one draw"] = query.obsm["expression_imputed"][genes].to_numpy()
    return estimates, seconds


def halves(adata: ad.AnnData, max_cells: int, max_reference: int) -> tuple[ad.AnnData, ad.AnnData]:
    """One half of a section, and the other one as dissociated cells.

    At most so many cells of the first, those nearest to its center, and of the other, at random.
    """
    x = np.asarray(adata.obsm["spatial"], dtype=float)
    first = np.flatnonzero(x[:, 0] < np.median(x[:, 0]))
    other = np.setdiff1d(np.arange(len(x)), first)
    distance = np.square(x[first] - np.median(x[first], axis=0)).sum(1)
    first = first[np.argsort(distance, kind="stable")[:max_cells]]
    other = np.random.default_rng(0).permutation(other)[:max_reference]
    section, reference = adata[np.sort(first)].copy(), adata[np.sort(other)].copy()
    del reference.obsm["spatial"]
    return section, reference


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
    positions = spatial.obsm["spatial"]
    return pd.concat(
        pd.DataFrame(
            {
                "kind": kind,
                "method": name,
                "seed": seed,
                "gene": spatial.var_names[hidden],
                "pcc": al.metrics.pcc(true, values),
                "partial_pcc": al.metrics.partial_pcc(true, values, covariate),
                "ssim": al.metrics.ssim(true, values),
                "moran": al.metrics.morans_i(values, positions),
                "moran_true": al.metrics.morans_i(true, positions),
                "train_seconds": seconds if kind == "model" else np.nan,
            }
        )
        for kind, name, values in found
    )


def over_genes(results: pd.DataFrame) -> pd.DataFrame:
    """Medians and means over the genes, a row for each method and seed."""
    groups = results.groupby(["kind", "method", "seed"], sort=False)
    scores = groups[SCORES].median().join(groups[SCORES].mean(), rsuffix="_mean")
    scores["moran_concordance"] = groups[["moran", "moran_true"]].apply(
        lambda genes: al.metrics.lins_concordance(genes["moran_true"], genes["moran"])
    )
    return scores.reset_index()


def write(
    results: pd.DataFrame, spatial: ad.AnnData, reference: ad.AnnData, args: argparse.Namespace
) -> str:
    """Write the CSV and the Markdown of the folds so far."""
    mode = "" if args.training_mode == "joint" else f"_{args.training_mode}"
    path = args.out / f"imputation_{args.data.stem}{mode}"
    results.round(5).to_csv(f"{path}.csv", index=False)
    seeds = results["seed"].unique()
    source = args.reference.stem if args.reference else "its other half"
    text = (
        f"# {args.data.stem}, genes imputed from {source}\n\n"
        f"{results['gene'].nunique()} of {spatial.n_vars} genes, each hidden in one of "
        f"{args.folds} folds, in {spatial.n_obs} cells; {reference.n_obs} dissociated cells. Mean "
        f"± sd over seeds {', '.join(map(str, seeds))}; {args.training_mode}, {args.max_steps} "
        f"steps, {results['train_seconds'].mean():.0f} s of training per fold ({args.threads} "
        "threads, shared machine). Each data set log-normalized on the visible genes only. "
        "`pcc` and `partial_pcc` (given the mean of the visible genes) are medians over genes, "
        "`_mean` their means; `moran_concordance` is Lin's of Moran's I over genes. The "
        "network gives the mean of a gene alone, which of these scores only SSIM sees.\n\n"
        + to_markdown(summarise(over_genes(results), SHOWN, "pcc"))
        + "\n"
    )
    Path(f"{path}.md").write_text(text)
    return text


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="counts, one section")
    parser.add_argument("--reference", type=Path, help="dissociated cells, counts")
    parser.add_argument("--max_cells", type=int, default=10**9, help="of the half that is scored")
    parser.add_argument("--max_reference", type=int, default=10**9, help="of the other half")
    parser.add_argument("--draw", action="store_true", help="score a draw, too")
    parser.set_defaults(seeds=[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--max_steps", type=int, default=200, help="of each fold")
    parser.add_argument("--training_mode", default="joint")
    args = start(parser)

    spatial = ad.read_h5ad(args.data)
    if args.reference:
        reference = ad.read_h5ad(args.reference)[:, spatial.var_names].copy()
    else:
        spatial, reference = halves(spatial, args.max_cells, args.max_reference)
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
