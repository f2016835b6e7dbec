"""Impute genes of the osmFISH cortex by the two published protocols, with and without their leak.

    python benchmarks/published.py --data osmfish_published.h5ad --reference osmfish_scrna_ref.h5ad

Li et al. (2022, Nature Methods 19, 662), data set 15: ten folds of genes, scored on raw counts,
medians of correlation, SSIM, RMSE of z-scores and Jensen-Shannon divergence. stDiff: five folds,
scored on log-normalized values, medians of Spearman's correlation and SSIM. With the leak, cells
are divided by their total over all genes, the hidden ones among them, without it by that of the
visible genes; the truth that is scored is the same. Writes a CSV with every gene and a Markdown
table to benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start
from expression import summarise
from imputation import join
from placement import to_markdown
from scipy.sparse import csr_array
from scipy.stats import spearmanr
from sklearn.model_selection import KFold

import alphastomics as al

SHOWN = {"Li": ["pcc", "ssim", "rmse", "js"], "stDiff": ["spearman", "ssim"]}
TITLES = {"Li": "Li et al.: raw counts, 10 folds", "stDiff": "stDiff: log-normalized, 5 folds"}


def gene_folds(protocol: str, n_genes: int) -> list[np.ndarray]:
    """Genes of each fold."""
    if protocol == "Li":
        return np.array_split(np.random.default_rng(0).permutation(n_genes), 10)
    splits = KFold(5, shuffle=True, random_state=0).split(np.arange(n_genes))
    return [hidden for _, hidden in splits]


def log_normalize(counts: np.ndarray, total: np.ndarray, depth: float) -> np.ndarray:
    return np.log1p(counts / total * depth)


def impute(
    spatial: ad.AnnData, reference: ad.AnnData, hidden: np.ndarray, max_steps: int, seed: int
) -> np.ndarray:
    """Train on log-normalized values and impute, positions known."""
    both = join(spatial, reference, hidden)
    al.AlphaSTomics.setup_anndata(both, values="lognorm")
    model = al.AlphaSTomics(both, training_mode="pos_to_expr", seed=seed)
    model.train(max_steps=max_steps, progress_bar=False)
    query = both[both.obs["section"] == "spatial", ~hidden].copy()
    del query.varm["measured"]
    model.impute(query, progress_bar=False)
    values = query.obsm["expression_imputed"][list(both.var_names[hidden])]
    return values.to_numpy(float)


def one_fold(
    spatial: ad.AnnData,
    reference: ad.AnnData,
    hidden: np.ndarray,
    protocol: str,
    leak: bool,
    args: argparse.Namespace,
    seed: int,
) -> pd.DataFrame:
    """Scores of the genes of a fold by method."""
    counted = np.ones_like(hidden) if leak else ~hidden
    S, R = (adata.X.toarray().astype(float) for adata in (spatial, reference))
    total, of_reference = (np.maximum(X[:, counted].sum(1, keepdims=True), 1) for X in (S, R))
    depth = float(np.median(total))  # of the section, for both
    S_log, R_log = log_normalize(S, total, depth), log_normalize(R, of_reference, depth)
    logged = []
    for adata, values in ((spatial, S_log), (reference, R_log)):
        logged.append(adata.copy())
        logged[-1].X = csr_array(values.astype(np.float32))
    found = [("model", "impute", impute(*logged, hidden, args.max_steps, seed))]
    baselines = al.tl.imputation_baselines(
        S_log[:, ~hidden], R_log[:, ~hidden], R_log[:, hidden], seed=seed
    )
    found += [("baseline", name, values) for name, values in baselines]
    if protocol == "Li":
        true = S[:, hidden]
        found = [(k, n, np.expm1(v.clip(0)) * total / depth) for k, n, v in found]
    else:
        everything = np.maximum(S.sum(1, keepdims=True), 1)
        true = log_normalize(S, everything, float(np.median(everything)))[:, hidden]
    rows = [
        pd.DataFrame(
            {
                "protocol": protocol,
                "leak": leak,
                "kind": kind,
                "method": name,
                "seed": seed,
                "gene": spatial.var_names[hidden],
                "pcc": al.metrics.pcc(true, values),
                "ssim": al.metrics.ssim(true, values),
                "rmse": al.metrics.expression_rmse(true, values),
                "js": al.metrics.jensen_shannon(true, values),
                "spearman": [
                    0.0 if np.ptp(v) == 0 else spearmanr(t, v).statistic
                    for t, v in zip(true.T, values.T, strict=True)
                ],
            }
        )
        for kind, name, values in found
    ]
    return pd.concat(rows)


def write(
    results: pd.DataFrame, spatial: ad.AnnData, reference: ad.AnnData, args: argparse.Namespace
) -> str:
    """Write the CSV and the Markdown of the folds so far."""
    path = args.out / "imputation_osmfish_published"
    results.round(5).to_csv(f"{path}.csv", index=False)
    parts = [
        f"# Published protocols of imputation, {spatial.n_vars} genes of osmFISH\n\n"
        f"{spatial.n_obs} cells, {reference.n_obs} dissociated cells, medians over genes; mean ± "
        f"sd over seeds {', '.join(map(str, results['seed'].unique()))}; pos_to_expr, "
        f"{args.max_steps} steps. Raw counts are predicted by log-normalized expression, its "
        "logarithm undone, times the total over all genes (leak) or over the visible ones. The "
        "network enters by the mean of a gene alone, so that few steps suffice and seeds agree."
    ]
    for (protocol, leak), part in results.groupby(["protocol", "leak"], sort=False):
        groups = part.groupby(["kind", "method", "seed"], sort=False)[SHOWN[protocol]]
        table = summarise(groups.median().reset_index(), SHOWN[protocol], SHOWN[protocol][0])
        said = "totals over all genes (leak)" if leak else "totals over the visible genes"
        parts.append(
            f"## {TITLES[protocol]}, {said}\n\n{part['gene'].nunique()} genes.\n\n"
            f"{to_markdown(table)}"
        )
    text = "\n\n".join(parts) + "\n"
    Path(f"{path}.md").write_text(text)
    return text


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="counts, one section")
    parser.add_argument("--reference", type=Path, required=True, help="dissociated cells, counts")
    parser.add_argument("--max_steps", type=int, default=5, help="of each fold")
    args = start(parser)

    spatial, reference = ad.read_h5ad(args.data), ad.read_h5ad(args.reference)
    reference = reference[:, spatial.var_names].copy()
    parts: list[pd.DataFrame] = []
    text = ""
    for seed in args.seeds:
        for protocol, leak in [(p, k) for p in ("stDiff", "Li") for k in (False, True)]:
            for fold in gene_folds(protocol, spatial.n_vars):
                hidden = np.isin(np.arange(spatial.n_vars), fold)
                parts.append(one_fold(spatial, reference, hidden, protocol, leak, args, seed))
                text = write(pd.concat(parts), spatial, reference, args)
            print(f"seed {seed}, {protocol}, leak {leak} done", flush=True)
    print(text)


if __name__ == "__main__":
    main()
