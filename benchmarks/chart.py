"""Chart of placing, by data set, from the CSVs of placement.py, reference.py and peers/score.py.

    python benchmarks/chart.py

Every data set has `predict`, the best baseline of our own by this score, and the best of the other
tools where these were run on it; squared errors of new sections also the conditional mean. Writes
docs/_static/results.png.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd

RESULTS = Path(__file__).parent / "results"
OUT = Path(__file__).parents[1] / "docs" / "_static" / "results.png"
WITH_REFERENCE = {
    "osmFISH cortex": "osmfish_cortex",
    "Drosophila embryo": "drosophila_bdtnp",
    "Xenium breast tumor": "breast_xenium",
}
SMALLER = "Xenium, 1,000 cells"  # as the other tools had
NEW_SECTION = {
    "Visium DLPFC 151675": "dlpfc_visium_151675",
    "STARmap mPFC, animal BZ5": "starmap_mpfc_BZ5",
    "STARmap mPFC, animal BZ14": "starmap_mpfc_BZ14",
    "STARmap mPFC, animal BZ9": "starmap_mpfc_BZ9",
    "MERFISH hypothalamus +0.21": "merfish_hypothalamus_animal1_bregma+0.21",
    "MERFISH hypothalamus -0.29": "merfish_hypothalamus_animal1_bregma-0.29",
}
OURS, BASELINE, PEER = "alphastomics, predict", "best baseline", "best other tool"
MEAN = 'alphastomics, estimate="mean"'
STYLE = {  # Okabe and Ito
    OURS: {"color": "#0072B2", "marker": "o"},
    MEAN: {"color": "#0072B2", "marker": "o", "markerfacecolor": "white"},
    BASELINE: {"color": "#D55E00", "marker": "s"},
    PEER: {"color": "#009E73", "marker": "D"},
}
TOOLS = ("tangram", "novosparc", "moscot", "celery")


class Score(NamedTuple):
    """Mean and standard deviation over seeds of a method, and its name."""

    mean: float
    sd: float
    name: str


def best(table: pd.DataFrame, metric: str, *, smallest: bool) -> Score:
    """The method with the best mean."""
    groups = table.groupby("method")[metric]
    means = groups.mean()
    name = str(means.idxmin() if smallest else means.idxmax())
    return Score(float(means[name]), float(groups.std(ddof=1)[name]), name)


def scores(path: Path, metric: str, *, smallest: bool) -> dict[str, Score]:
    table = pd.read_csv(path)
    parts = {
        OURS: table["method"] == "predict",
        MEAN: (table["method"] == "predict, mean") & smallest,
        BASELINE: table["kind"] == "baseline",
    }
    return {
        label: best(table[rows], metric, smallest=smallest)
        for label, rows in parts.items()
        if rows.any()
    }


def scores_beside_tools(peers: pd.DataFrame, metric: str, *, smallest: bool) -> dict[str, Score]:
    """Scores of the run of the other tools."""
    parts = {OURS: (OURS,), BASELINE: ("knn",), PEER: TOOLS}
    return {
        label: best(peers[peers["method"].str.startswith(names)], metric, smallest=smallest)
        for label, names in parts.items()
    }


def draw(axes: plt.Axes, rows: list[tuple[str, dict[str, Score]]], title: str) -> None:
    """Points with sd, a row for each data set."""
    for y, (_, found) in enumerate(rows):
        for label, score in found.items():
            axes.errorbar(
                score.mean,
                y + {OURS: -0.2, MEAN: -0.02, BASELINE: 0.16, PEER: 0.34}[label],
                xerr=None if pd.isna(score.sd) else score.sd,
                label=label if y == 0 else None,
                linestyle="",
                markersize=5,
                capsize=2,
                **STYLE[label],
            )
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_xlim(left=0)
    axes.set_title(title, fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(labelsize=8)


def main() -> None:
    figure, axes = plt.subplots(
        2, 2, figsize=(8, 5.4), sharey="row", height_ratios=(2, 3), layout="constrained"
    )
    peers = pd.read_csv(RESULTS / "peers_mapping.csv")
    metrics = [("distance_spearman", False), ("rmse", True)]
    for ax, (metric, smallest) in zip(axes[0], metrics, strict=True):
        rows = []
        for name, stem in WITH_REFERENCE.items():
            found = scores(RESULTS / f"reference_{stem}.csv", metric, smallest=smallest)
            beside = scores_beside_tools(peers[peers["section"] == stem], metric, smallest=smallest)
            if stem == "breast_xenium":
                rows += [(name, found), (SMALLER, beside)]
            else:
                rows.append((name, found | {PEER: beside[PEER]}))
        which = "squared error (lower is better)" if smallest else "ranks (higher is better)"
        draw(ax, rows, f"With a reference: {which}")
    metrics[1] = ("procrustes_rmse", True)
    for ax, (metric, smallest) in zip(axes[1], metrics, strict=True):
        rows = [
            (name, scores(RESULTS / f"placement_{stem}.csv", metric, smallest=smallest))
            for name, stem in NEW_SECTION.items()
        ]
        which = "squared error (lower is better)" if smallest else "ranks (higher is better)"
        draw(ax, rows, f"A new section: {which}")
    axes[0, 1].set_xlabel("RMS error, in RMS radii of the reference", fontsize=8)
    axes[1, 1].set_xlabel("RMS error after superposition, in RMS radii", fontsize=8)
    for ax in axes[:, 0]:
        ax.set_xlabel("Spearman correlation of pairwise distances", fontsize=8)
    legend = {}
    for ax in axes[::-1].flat:
        legend |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    order = [label for label in STYLE if label in legend]
    figure.legend(
        [legend[label] for label in order],
        order,
        loc="outside upper center",
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    figure.savefig(OUT, dpi=150)


if __name__ == "__main__":
    main()
