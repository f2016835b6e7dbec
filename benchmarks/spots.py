"""Spots and cells of one tissue: genes that the panel of the cells lacks, imputed from spots.

    python benchmarks/spots.py --spots breast_visium.h5ad --cells breast_xenium.h5ad

Trains on half of the spots, with the genes that both have and the most variable others, and on all
cells, with the genes that both have. The other genes are imputed at the cells. Under each spot of
the other half the imputed counts of its cells are summed, and compared with what was measured
there. Writes a CSV with every gene and a Markdown table of medians over genes, mean ± sd over
seeds, to benchmarks/results.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start
from expression import summarise
from placement import to_markdown
from scipy import sparse
from scipy.spatial import KDTree
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor

import alphastomics as al

SHOWN = ["pcc", "pcc_mean", "shared_pcc"]
DETECTED = 0.3  # least share of spots with a gene that is imputed
PENALTIES = np.logspace(0, 5, 11)
K_SPACE, K_EXPRESSION = 6, 20


def normalized(counts: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Log-normalized counts ``(n, G)`` by totals ``(n,)`` and their median."""
    return np.log1p(counts / np.maximum(total, 1)[:, None] * np.median(total))


def variable_genes(spots: ad.AnnData, shared: pd.Index, n: int) -> pd.Index:
    """The ``n`` genes, of those that the cells lack, that vary most for their mean."""
    others = spots[:, ~spots.var_names.isin(shared)]
    others = others[:, np.asarray((others.X > 0).mean(0)).ravel() > DETECTED]
    values = normalized(others.X.toarray(), np.asarray(spots.X.sum(1)).ravel())
    dispersion = values.var(0) / np.maximum(values.mean(0), 0.1)
    return others.var_names[np.sort(np.argsort(-dispersion)[:n])]


def join(spots: ad.AnnData, cells: ad.AnnData, shared: pd.Index, genes: pd.Index) -> ad.AnnData:
    """Both in one AnnData, as two sections with their own panels."""
    both = ad.concat(
        {"spots": spots[:, genes], "cells": cells[:, shared]},
        label="section",
        join="outer",
        fill_value=0,
        index_unique="-",
    )[:, genes].copy()
    both.X = sparse.csr_matrix(both.X)
    both.varm["measured"] = pd.DataFrame(
        {"spots": True, "cells": genes.isin(shared)}, index=both.var_names
    )
    return both


def imputed(
    spots: ad.AnnData,
    cells: ad.AnnData,
    shared: pd.Index,
    hidden: pd.Index,
    args: argparse.Namespace,
    seed: int,
) -> tuple[dict[str, np.ndarray], float]:
    """Relative expression of the hidden genes at the cells, by use of positions, and seconds."""
    both = join(spots, cells, shared, shared.append(hidden))
    started = time.perf_counter()
    al.AlphaSTomics.setup_anndata(both)
    model = al.AlphaSTomics(both, training_mode="pos_to_expr", seed=seed)
    model.train(max_steps=args.max_steps, progress_bar=False)
    seconds = time.perf_counter() - started
    query = cells[:, shared].copy()
    estimates = {}
    for name, reference in (("with positions among spots", spots), ("by genes alone", None)):
        if reference is None:
            del query.obsm["spatial"]
        else:
            reference = reference[:, shared.append(hidden)].copy()
        model.impute(query, genes=list(hidden), reference=reference, progress_bar=False)
        estimates[f"impute, {name}"] = np.expm1(query.obsm["expression_imputed"].to_numpy())
    return estimates, seconds


def baselines(
    spots: np.ndarray, under: np.ndarray, place: np.ndarray, train: np.ndarray, target: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Estimates at the held-out spots by their place or by the summed cells under them.

    Parameters
    ----------
    spots, under
        Log-normalized shared genes of all spots and of the sums of the cells under them.
    place
        Coordinates of all spots.
    train
        Which spots are known.
    target
        Log-normalized hidden genes of these.
    """
    own, summed = (
        (x - x[train].mean(0)) / np.maximum(x[train].std(0), 0.05) for x in (spots, under)
    )
    space = KNeighborsRegressor(K_SPACE).fit(place[train], target)
    yield f"{K_SPACE} nearest spots", space.predict(place[~train])
    similar = KNeighborsRegressor(K_EXPRESSION, metric="cosine").fit(own[train], target)
    yield f"knn{K_EXPRESSION} of spots, at summed cells", similar.predict(summed[~train])
    yield (
        "ridge of spots, at summed cells",
        RidgeCV(PENALTIES).fit(own[train], target).predict(summed[~train]),
    )
    yield (
        "ridge of summed cells under spots",
        RidgeCV(PENALTIES).fit(summed[train], target).predict(summed[~train]),
    )
    # Out of fold, as a known spot is its own nearest one.
    neighbors = KDTree(place[train]).query(place[train], K_SPACE + 1)[1][:, 1:]
    around = target[neighbors].mean(1)
    center, scale = around.mean(0), np.maximum(around.std(0), 0.05)
    features = np.hstack([summed[train], (around - center) / scale])
    new = np.hstack([summed[~train], (space.predict(place[~train]) - center) / scale])
    yield (
        "ridge of summed cells and nearest spots",
        RidgeCV(PENALTIES).fit(features, target).predict(new),
    )
    yield (
        "(oracle) ridge on the spot's own shared genes",
        RidgeCV(PENALTIES).fit(own[train], target).predict(own[~train]),
    )


def run(
    spots: ad.AnnData, cells: ad.AnnData, split: str, args: argparse.Namespace, seed: int
) -> pd.DataFrame:
    """Scores by gene and method of one split of the spots."""
    place, shared = spots.obsm["spatial"], spots.var_names.intersection(cells.var_names)
    hidden = variable_genes(spots, shared, args.n_genes)
    distance, spot = KDTree(place).query(cells.obsm["spatial"])
    pitch = np.median(KDTree(place).query(place, 2)[0][:, 1])
    of_spot = sparse.csr_matrix(
        (distance < 0.6 * pitch, (spot, np.arange(len(spot)))), shape=(len(place), len(spot))
    ).astype(float)
    counts = cells[:, shared].X
    summed = np.asarray((of_spot @ counts).todense())
    has_cells = summed.sum(1) > 0
    train = np.random.default_rng(seed).permutation(len(place)) < len(place) // 2
    if split == "contiguous":
        train = place[:, 0] < np.median(place[:, 0])
    keep = train | has_cells  # a spot without cells has no estimate
    spots, place, train, summed = spots[keep], place[keep], train[keep], summed[keep]
    own = spots[:, shared].X.toarray()
    total = own.sum(1)
    true = normalized(spots[:, hidden].X.toarray(), total)
    estimates, seconds = imputed(spots[train].copy(), cells, shared, hidden, args, seed)
    depth = np.asarray(counts.sum(1)).ravel()
    under = (of_spot[keep] @ depth)[~train]
    found = [
        ("model", name, np.log1p((of_spot[keep][~train] @ (rate * depth[:, None]))
                                 / np.maximum(under, 1)[:, None]))
        for name, rate in estimates.items()
    ]  # fmt: skip
    shared_values = normalized(own, total), normalized(summed, summed.sum(1))
    shared_pcc = np.nanmedian(al.metrics.pcc(shared_values[0][~train], shared_values[1][~train]))
    found += [
        ("baseline", name, values)
        for name, values in baselines(*shared_values, place, train, true[train])
    ]
    return pd.concat(
        pd.DataFrame(
            {
                "split": split,
                "kind": kind,
                "method": name,
                "seed": seed,
                "gene": hidden,
                "pcc": al.metrics.pcc(true[~train], values),
                "shared_pcc": shared_pcc,
                "train_seconds": seconds if kind == "model" else np.nan,
            }
        )
        for kind, name, values in found
    )


def over_genes(results: pd.DataFrame) -> pd.DataFrame:
    """Median and mean over the genes, a row for each method and seed."""
    groups = results.groupby(["kind", "method", "seed"], sort=False)[["pcc", "shared_pcc"]]
    return groups.median().join(groups.mean()[["pcc"]], rsuffix="_mean").reset_index()


def write(results: pd.DataFrame, args: argparse.Namespace) -> str:
    """Write the CSV and the Markdown of the runs so far."""
    name = f"spots_{args.spots.stem}"
    results.round(5).to_csv(args.out / f"{name}.csv", index=False)
    text = (
        f"# {args.spots.stem}: genes of spots, imputed at the cells of {args.cells.stem}\n\n"
        f"{results['gene'].nunique()} genes that the panel of the cells lacks, half of the spots "
        "known; imputed counts of the cells nearest to a held-out spot are summed and compared "
        "with it. `pcc` over held-out spots, median over genes, `pcc_mean` their mean; "
        "`shared_pcc`: the same of the genes that both platforms measured, the sum of cells "
        f"against the spot, which bounds what can be expected. Mean ± sd over seeds; "
        f"{args.max_steps} steps, {results['train_seconds'].mean():.0f} s of training "
        f"({args.threads} threads, other jobs running).\n"
    )
    for split, part in results.groupby("split", sort=False):
        text += f"\n## {split} half held out\n\n"
        text += to_markdown(summarise(over_genes(part), SHOWN, "pcc")) + "\n"
    Path(args.out / f"{name}.md").write_text(text)
    return text


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--spots", type=Path, required=True, help="counts, one section")
    parser.add_argument("--cells", type=Path, required=True, help="counts, in the same frame")
    parser.add_argument("--n_genes", type=int, default=300, help="genes to impute")
    parser.add_argument("--max_steps", type=int, default=150)
    args = start(parser)

    spots, cells = ad.read_h5ad(args.spots), ad.read_h5ad(args.cells)
    parts: list[pd.DataFrame] = []
    text = ""
    for seed in args.seeds:
        for split in ("random", "contiguous"):
            parts.append(run(spots, cells, split, args, seed))
            text = write(pd.concat(parts), args)
            print(f"seed {seed}, {split}: done", flush=True)
    print(text)


if __name__ == "__main__":
    main()
