"""Coverage and width of calibrated intervals of expression, beside simpler ones.

    python benchmarks/intervals.py --data breast_xenium.h5ad --n_cells 4000

Half of the cells of a section are trained on and calibrate the model; the other half is estimated:
genes hidden fold by fold, with and without positions, then all genes at positions among the
training cells. The simpler intervals are made around the same estimates and calibrated on a part
of the other half, which spares them the difference between the models of calibration and the
final one; all are scored on the rest of it. With --tissue also those of TISSUE (Sun et al. 2024,
the package tissue-sc, to be installed by hand). Writes a CSV with every seed and a Markdown table
of mean ± sd over seeds to benchmarks/results, after every seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import torch
from common import make_parser, start
from expression import summarise
from placement import to_markdown
from scipy.stats import spearmanr

import alphastomics as al

LEVEL = 0.9
WITHIN = (0.80, 0.97)
TOLERANCE = 1e-4  # of log-normalized values in single precision
ALPHASTOMICS = "bounds of the calibrated model"
SHOWN = [
    "coverage",
    "of expressed genes",
    "genes within",
    "of these expressed",
    "of high estimates",
    "median width",
    "mean width",
    "reliability",
    "by mean expression",
]


class Estimated(NamedTuple):
    """Values ``(n, G)`` of the cells that were held out, and what is expected of each gene.

    The depth is NaN where it is not known.
    """

    truth: np.ndarray
    estimate: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    depth: np.ndarray
    reliability: np.ndarray


def estimated_genes(
    model: al.AlphaSTomics, cells: ad.AnnData, folds: list[np.ndarray]
) -> Estimated:
    """Hide the genes of a fold at a time; truth at the depth of the other genes."""
    shape = cells.shape
    found = Estimated(*(np.full(shape, np.nan) for _ in range(5)), np.full(shape[1], np.nan))
    counts = torch.from_numpy(cells.X.toarray().astype(np.float32))
    transform = model.module.expression_transform
    for fold in folds:
        genes = list(cells.var_names[fold])
        model.impute(cells, genes=genes, progress_bar=False)
        visible = torch.from_numpy(~np.isin(np.arange(shape[1]), fold)).expand_as(counts)
        found.depth[:, fold] = transform.depth(counts, visible)[:, None].numpy()
        found.truth[:, fold] = transform.log(counts, visible)[:, fold].numpy()
        for name, suffix in (("estimate", ""), ("lower", "_lower"), ("upper", "_upper")):
            values = cells.obsm[f"expression_imputed{suffix}"].to_numpy()
            getattr(found, name)[:, fold] = values
        record = cells.uns["alphastomics"]["expression_imputed"]
        found.reliability[fold] = record["reliability"]
    return found


def estimated_at_positions(
    model: al.AlphaSTomics, cells: ad.AnnData, reference: ad.AnnData
) -> Estimated:
    """Hide all genes of the cells among those of the reference."""
    hidden = cells.copy()
    hidden.obs["expression_known"] = False
    model.predict(hidden, reference=reference, progress_bar=False)
    counts = torch.from_numpy(cells.X.toarray().astype(np.float32))
    truth = model.module.expression_transform.log(counts, torch.ones_like(counts, dtype=torch.bool))
    key = "expression_predicted"
    return Estimated(
        truth.numpy(),
        *(hidden.layers[key + suffix] for suffix in ("", "_lower", "_upper")),
        np.full(cells.shape, np.nan),
        hidden.var[f"{key}_reliability"].to_numpy(),
    )


def simpler(found: Estimated, fitted: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Intervals of one width for a gene, from the errors of some cells."""
    error = (found.truth - found.estimate)[fitted]
    n = len(error)
    widest = np.sort(np.abs(error), axis=0)[int(np.ceil((n + 1) * LEVEL)) - 1]
    gaussian = 1.6449 * np.sqrt(np.square(error).mean(0))
    for name, width in (("one width per gene, conformal", widest), ("Gaussian", gaussian)):
        lower, upper = np.maximum(found.estimate - width, 0), found.estimate + width
        yield name, lower, upper
        if np.isfinite(found.depth).all():
            # As the model does: the first and the last whole count within, the estimate as well.
            first = np.log1p(np.ceil(found.depth * np.expm1(lower) - 1e-3) / found.depth)
            last = np.log1p(np.floor(found.depth * np.expm1(upper) + 1e-3) / found.depth)
            rounded = np.minimum(first, found.estimate), np.maximum(last, found.estimate)
            yield f"{name}, whole counts", *rounded


def tissue(
    found: Estimated, cells: ad.AnnData, folds: list[np.ndarray]
) -> tuple[str, np.ndarray, np.ndarray]:
    """Intervals of TISSUE: genes of a fold are calibrated on the others."""
    import tissue.main  # type: ignore[import-not-found]

    names = pd.Index([f"g{i}" for i in range(cells.n_vars)])
    lower, upper = np.zeros(cells.shape), np.zeros(cells.shape)
    for fold in folds:
        own = ad.AnnData(found.truth.copy(), cells.obs[[]].copy(), pd.DataFrame(index=names))
        own.obsm["spatial"] = cells.obsm["spatial"]
        own.obsm["found"] = pd.DataFrame(found.estimate, own.obs_names, names)
        tissue.main.build_spatial_graph(own, method="fixed_radius", n_neighbors=15)
        calibrating = list(names.delete(fold))
        tissue.main.conformalize_spatial_uncertainty(
            own, "found", calibrating, grouping_method="kmeans_gene_cell", k=4, k2=2
        )
        tissue.main.conformalize_prediction_interval(
            own, "found", calibrating, alpha_level=1 - LEVEL
        )
        lower[:, fold] = own.obsm["found_lo"].to_numpy()[:, fold]
        upper[:, fold] = own.obsm["found_hi"].to_numpy()[:, fold]
    return "TISSUE", np.maximum(lower, 0), upper


def scores(found: Estimated, lower: np.ndarray, upper: np.ndarray) -> dict[str, float]:
    """Scores of intervals over cells ``(n, G)``."""
    covered = (found.truth >= lower - TOLERANCE) & (found.truth <= upper + TOLERANCE)
    by_gene, width = covered.mean(0), upper - lower
    expressed = (found.truth <= 0).mean(0) < LEVEL  # else an interval with 0 in it covers too many
    within = (by_gene >= WITHIN[0]) & (by_gene <= WITHIN[1])
    high = found.estimate >= np.quantile(found.estimate, 0.9, axis=0)
    return {
        "coverage": covered.mean(),
        "of expressed genes": covered[:, expressed].mean(),
        "genes within": within.mean(),
        "of these expressed": within[expressed].mean(),
        "of high estimates": covered[high].mean(),
        "median width": np.median(width),
        "mean width": width.mean(),
    }


def part(found: Estimated, cells: np.ndarray) -> Estimated:
    return Estimated(*(values[cells] for values in found[:5]), found.reliability)


def one_pattern(
    found: Estimated, cells: ad.AnnData, folds: list[np.ndarray], with_tissue: bool, seed: int
) -> pd.DataFrame:
    """Scores of all intervals around the same estimates."""
    known = np.isfinite(found.estimate).all(1)
    found, cells = part(found, known), cells[known].copy()
    fitted = np.random.default_rng(seed).random(len(found.truth)) < 0.5
    intervals = [(ALPHASTOMICS, found.lower, found.upper), *simpler(found, fitted)]
    if with_tissue:
        intervals.append(tissue(found, cells, folds))
    scored = part(found, ~fitted)
    realised = al.metrics.pcc(scored.truth, scored.estimate)
    rows = []
    for name, lower, upper in intervals:
        row = {"kind": "baseline", "method": name, **scores(scored, lower[~fitted], upper[~fitted])}
        if name == ALPHASTOMICS:
            row["kind"] = "model"
            row["reliability"] = spearmanr(found.reliability, realised).statistic
            row["by mean expression"] = spearmanr(scored.truth.mean(0), realised).statistic
        rows.append(row)
    zeros = (scored.truth <= 0).mean(0)
    return pd.DataFrame(rows).assign(
        seed=seed, median_pcc=np.median(realised), least_possible=np.maximum(LEVEL, zeros).mean()
    )


def one_seed(adata: ad.AnnData, args: argparse.Namespace, seed: int) -> pd.DataFrame:
    """Scores of a model of half of the cells."""
    order = np.random.default_rng(seed).permutation(adata.n_obs)[: args.n_cells]
    training, cells = (adata[half].copy() for half in np.array_split(order, 2))
    al.AlphaSTomics.setup_anndata(training)
    model = al.AlphaSTomics(training, seed=seed)
    model.train(max_steps=args.max_steps, progress_bar=False)
    started = time.perf_counter()
    model.calibrate(max_steps=args.max_steps, progress_bar=False)
    seconds = time.perf_counter() - started
    folds = np.array_split(np.random.default_rng(seed).permutation(adata.n_vars), args.folds)
    nowhere = cells.copy()
    del nowhere.obsm["spatial"]
    tables = {
        "genes": (estimated_genes(model, nowhere, folds), False),
        "genes at positions": (estimated_genes(model, cells, folds), args.tissue),
        "positions": (estimated_at_positions(model, cells, training), False),
    }
    return pd.concat(
        one_pattern(found, cells, folds, with_tissue, seed).assign(
            pattern=pattern, calibrate_seconds=seconds
        )
        for pattern, (found, with_tissue) in tables.items()
    )


def write(results: pd.DataFrame, adata: ad.AnnData, args: argparse.Namespace) -> str:
    """Write the CSV and the Markdown of the seeds so far."""
    path = args.out / f"intervals_{args.data.stem}"
    results.round(5).to_csv(f"{path}.csv", index=False)
    n = min(args.n_cells, adata.n_obs)
    text = (
        f"# {args.data.stem}, 90 % intervals of expression\n\n{n} cells, {adata.n_vars} genes: "
        f"half trained on ({args.max_steps} steps) and calibrating, half held out, of which the "
        "simpler intervals are calibrated on a half and all scored on the other. Log-normalized "
        "values. `coverage` of all genes and cells, `of expressed genes` (fewer than 90 % zeros), "
        "`of high estimates` (highest tenth of each gene); `genes within`: share of genes with a "
        f"coverage of {WITHIN[0]:.2f} to {WITHIN[1]:.2f}; `reliability`: Spearman over genes with "
        "the correlation on held-out cells, and that of mean expression. Mean ± sd over seeds "
        f"{', '.join(map(str, results['seed'].unique()))}.\n"
    )
    for pattern, rows in results.groupby("pattern", sort=False):
        text += (
            f"\n## Estimated from {pattern}\n\nMedian correlation over genes "
            f"{rows['median_pcc'].mean():.3f}; an interval that holds 0 covers at least "
            f"{rows['least_possible'].mean():.3f}.\n\n"
            + to_markdown(summarise(rows, SHOWN, "coverage")).replace("nan ± nan", "")
            + "\n"
        )
    Path(f"{path}.md").write_text(text)
    return text


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="counts, one section")
    parser.add_argument("--n_cells", type=int, default=4000)
    parser.add_argument("--folds", type=int, default=5, help="of genes")
    parser.add_argument("--max_steps", type=int, default=150, help="of each training")
    parser.add_argument("--tissue", action="store_true", help="also the intervals of TISSUE")
    args = start(parser)

    adata = ad.read_h5ad(args.data)
    parts: list[pd.DataFrame] = []
    text = ""
    for seed in args.seeds:
        parts.append(one_seed(adata, args, seed))
        text = write(pd.concat(parts), adata, args)
        print(f"seed {seed} done", flush=True)
    print(text)


if __name__ == "__main__":
    main()
