"""Score what run.py has written, peers and ours in one table.

    PYTHONPATH=benchmarks python benchmarks/peers/score.py --inputs peers_inputs

Writes peers_mapping and peers_imputation, CSV and Markdown, to benchmarks/results. Seconds are of
one processor core, since other jobs ran beside; memory is above that of the process at its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from common import make_parser, start
from export import SECTIONS
from placement import cell
from reference import scores
from scipy.stats import spearmanr

import alphastomics as al

OURS = "alphastomics"
COST = ["seconds", "peak_mb"]
MAPPED = ["distance_spearman", "neighbor_recall@20", "contact_precision@1%", "rmse", "spread"]
IMPUTED = ["pcc", "ssim", "rmse", "js", "spearman"]
PROTOCOLS = {
    "li": "raw counts, ten folds of genes (Li et al. 2022; seeded, theirs are not known here)",
    "stdiff": "five folds of genes, normalized on all 33 (stDiff, with its leak)",
    "stdiff_visible": "the same five folds, normalized on the visible genes only",
}
# medians as published, see the docs: not run here
PUBLISHED = [
    ("li", "Tangram", {"pcc": 0.343, "ssim": 0.211, "rmse": 1.146, "js": 0.191}),
    ("li", "SpaGE", {"pcc": 0.272, "ssim": 0.194, "rmse": 1.207, "js": 0.333}),
    ("li", "gimVI", {"pcc": 0.225, "ssim": 0.215, "rmse": 1.245, "js": 0.218}),
    ("stdiff", "stDiff", {"spearman": 0.278, "ssim": 0.229}),
    ("stdiff", "SpaGE", {"spearman": 0.179, "ssim": 0.080}),
    ("stdiff", "Tangram", {"spearman": 0.098, "ssim": 0.112}),
    ("stdiff", "gimVI", {"spearman": 0.097, "ssim": 0.088}),
]


def results(inputs: Path, kind: str) -> Iterator[tuple[str, str, np.ndarray, dict[str, object]]]:
    """Name of the task without its number, number, truth, and one estimate with its cost."""
    for path in sorted(inputs.glob(f"{kind}_*.*.npz")):
        task, method, _ = path.name.split(".")
        name, _, number = task.removeprefix(f"{kind}_").rpartition("_")
        with np.load(inputs / "truth" / f"{task}.npz") as stored:
            truth = stored["truth"]
        with np.load(path) as stored:
            cost = {key: float(stored[key]) for key in COST}
            for reading in stored.files:
                if reading not in (*COST, "waited"):
                    tool = method.removesuffix("_clusters")
                    label = reading if tool == "baselines" else f"{tool}, {reading}"
                    row = {"method": label, "estimate": stored[reading], **cost}
                    yield name, number, truth, row


def mapping(inputs: Path, tables: Path) -> pd.DataFrame:
    """A row a section, seed and estimate."""
    found = pd.DataFrame(
        {"section": name, "seed": int(seed), "cells": len(truth), "method": row["method"]}
        | scores(truth, row.pop("estimate"))
        | {key: row[key] for key in COST}
        for name, seed, truth, row in results(inputs, "map")
    )
    own = (known(found, tables / f"reference_{name}.csv") for name, _, n in SECTIONS if n is None)
    return pd.concat([found, *own])


def known(found: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Ours and the baselines of benchmarks/reference.py, whose halves of a section are the same.

    Only the methods and seeds that run.py has not run; without seconds and memory, which
    reference.py does not measure in the same terms.
    """
    if not path.exists():
        return pd.DataFrame()
    rows = found[found["section"] == path.stem.removeprefix("reference_")]
    own = pd.read_csv(path).query("seed in @rows.seed.unique()")
    own = own.assign(section=rows["section"].iloc[0], cells=rows["cells"].iloc[0])
    ours = np.where(own["kind"] == "model", f"{OURS}, ", "")
    own["method"] = ours + own["method"].str.replace("^knn", "knn, ", regex=True)
    run = pd.MultiIndex.from_frame(rows[["method", "seed"]])
    own = own[~pd.MultiIndex.from_frame(own[["method", "seed"]]).isin(run)]
    return own[[column for column in found if column in own and column not in COST]]


def imputation(inputs: Path) -> pd.DataFrame:
    """A row a gene."""
    parts = []
    for protocol, fold, true, row in results(inputs, "impute"):
        found = np.asarray(row["estimate"], dtype=float)
        with np.load(inputs / f"impute_{protocol}_{fold}.npz") as task:
            genes = task["genes"][-true.shape[1] :]
        measured = {
            "gene": genes,
            "pcc": al.metrics.pcc(true, found),
            "ssim": al.metrics.ssim(true, found),
            "rmse": al.metrics.expression_rmse(true, found),
            "js": al.metrics.jensen_shannon(true, found),
            "spearman": [
                spearmanr(t, f).statistic if np.ptp(f) > 0 else 0.0
                for t, f in zip(true.T, found.T, strict=True)
            ],
        }
        cost = {key: row[key] for key in COST}
        parts.append(
            pd.DataFrame(
                {"protocol": protocol, "fold": int(fold), "method": row["method"]} | measured | cost
            )
        )
    return pd.concat(parts)


def lines(table: pd.DataFrame) -> str:
    """Markdown, ours in bold."""
    head = ["| method | " + " | ".join(table) + " |", "|---" * (table.shape[1] + 1) + "|"]
    for method, row in table.iterrows():
        name = f"**{method}**" if str(method).startswith(OURS) else method
        head.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(head)


def mapping_text(found: pd.DataFrame) -> str:
    text = [
        "# One half of a section mapped into the other: peers\n",
        "Same cells and same reference for all methods (benchmarks/peers), mean ± sd over seeds "
        "where there are several. Weights over reference cells are read as their mean position and "
        "as the likeliest cell (argmax). rmse in RMS radii, in the frame of the reference; seconds "
        "of one processor core for the whole method, imports and training included; peak memory in "
        "MB above that of the process at its start (blank: benchmarks/reference.py ran it on the "
        "same cells, as it did ours with seeds 1 and 2 where a section is whole).\n",
    ]
    for section, rows in found.groupby("section", sort=False):
        groups = rows.groupby("method")[[*MAPPED, *COST]]
        mean, sd, seeds = (
            groups.mean(),
            groups.std(ddof=1),
            rows.groupby("method")["seed"].nunique(),
        )
        order = mean["distance_spearman"].sort_values(ascending=False).index
        table = pd.DataFrame({"seeds": seeds.loc[order].astype(str)})
        for column in MAPPED:
            table[column] = [cell(mean.loc[m, column], sd.loc[m, column]) for m in order]
        for column in COST:
            table[column] = mean.loc[order, column].map("{:.0f}".format).replace("nan", "")
        cells = rows["cells"].iloc[0]
        text.append(f"## {section}, {cells} cells placed\n\n{lines(table)}\n")
    return "\n".join(text)


def imputation_text(found: pd.DataFrame) -> str:
    text = [
        "# Genes of osmFISH imputed from dissociated cells: peers\n",
        "`osmfish_published` (3,405 cells) and `osmfish_scrna_ref` (5,613), 33 genes; medians over "
        "genes of scores over cells, one seed. Seconds of one processor core for all folds; peak "
        "memory in MB above that of the process at its start (baselines: of all of them). Rows "
        "marked *published* are numbers of the papers, not run here.\n",
    ]
    for protocol, title in PROTOCOLS.items():
        rows = found[found["protocol"] == protocol]
        groups = rows.groupby("method")
        table = groups[IMPUTED].median()
        folds = rows.drop_duplicates(["method", "fold"]).groupby("method")
        shown = table.map("{:.3f}".format)
        shown.insert(0, "genes", groups["gene"].nunique().astype(str))
        shown["seconds"] = folds["seconds"].sum().map("{:.0f}".format)
        shown["peak_mb"] = folds["peak_mb"].max().map("{:.0f}".format)
        for where, method, published in PUBLISHED:
            if where == protocol:
                numbers = {key: f"{value:.3f}" for key, value in published.items()}
                shown.loc[f"{method}, *published*"] = pd.Series(numbers).reindex(shown.columns)
        order = "pcc" if protocol == "li" else "spearman"
        shown = shown.sort_values(order, ascending=False).fillna("")
        text.append(f"## {title[0].upper()}{title[1:]}\n\n{lines(shown)}\n")
    return "\n".join(text)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--inputs", type=Path, required=True)
    args = start(parser)
    for name, found, text in (
        ("peers_mapping", mapping(args.inputs, args.out), mapping_text),
        ("peers_imputation", imputation(args.inputs), imputation_text),
    ):
        found.round(5).to_csv(args.out / f"{name}.csv", index=False)
        (args.out / f"{name}.md").write_text(text(found))
        print(text(found))


if __name__ == "__main__":
    main()
