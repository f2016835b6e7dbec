"""Generate a section and compare it with a held-out real one, beside other real sections.

    python benchmarks/generation.py --data starmap_mpfc.h5ad --test BZ5

Trains with training_mode="joint" on the other sections and draws as many cells as the held-out
section has. Distances to the held-out section, by distribution only: MMD² of expression and of the
mean expression of the 20 nearest cells (one bandwidth, that of the held-out section), moments of
the genes, concordance of Moran's I, and composition of neighborhoods, with cell types transferred
to all sections by the same 15 nearest cells of training. Writes a CSV, a Markdown table and a
figure.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import squidpy as sq
from common import make_parser, start
from matplotlib.colors import ListedColormap
from scipy.spatial import KDTree
from scipy.spatial.distance import pdist
from sklearn.neighbors import KNeighborsClassifier

import alphastomics as al

K = 20


def lognorm(adata: ad.AnnData, median: float) -> np.ndarray:
    X = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
    counts = np.asarray(X, dtype=float)
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    return np.log1p(counts / total * median)


class Section:
    """Expression, positions and what is around every cell."""

    def __init__(self, expression: np.ndarray, points: np.ndarray) -> None:
        self.expression, self.points = expression, points
        _, near = KDTree(points).query(points, K + 1)
        self.around = expression[near[:, 1:]].mean(1)
        self.moran = al.metrics.morans_i(expression, points)
        self.labels = np.zeros(len(points), dtype=str)

    def distances(self, other: Section) -> dict[str, float]:
        """To this section from another."""
        scores = {}
        for name in ("expression", "around"):
            mine, theirs = getattr(self, name), getattr(other, name)
            bandwidth = float(np.median(pdist(mine[:1000])))
            scores[f"mmd2 {name}"] = al.metrics.mmd2(mine, theirs, bandwidth)
        moments = al.metrics.moment_distance(self.expression, other.expression)
        scores |= {f"genes' {name}": value for name, value in moments.items()}
        scores["moran concordance"] = al.metrics.lins_concordance(self.moran, other.moran)
        scores["composition"] = al.metrics.composition_distance(
            self.points, self.labels, other.points, other.labels, K
        )
        return scores


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="counts, several sections")
    parser.add_argument("--test", required=True, help="section to hold out")
    parser.add_argument("--max_steps", type=int, default=None)
    args = start(parser)

    adata = ad.read_h5ad(args.data)
    section = adata.obs["section"].astype(str).to_numpy()
    if args.test not in section:
        parser.error(f"--test {args.test!r} is none of {sorted(set(section))}")
    atlas = adata[section != args.test].copy()
    median = float(np.median(np.asarray(atlas.X.sum(1))))
    types = KNeighborsClassifier(15).fit(lognorm(atlas, median), atlas.obs["cell_type"])
    real = {
        name: Section(lognorm(part, median), np.asarray(part.obsm["spatial"], dtype=float))
        for name in sorted(set(section))
        for part in [adata[section == name]]
    }
    for one in real.values():
        one.labels = types.predict(one.expression)
    held_out = real.pop(args.test)
    rows = [{"kind": "real", "method": n, **held_out.distances(s)} for n, s in real.items()]
    shuffled = Section(np.random.default_rng(0).permutation(held_out.expression), held_out.points)
    shuffled.labels = types.predict(shuffled.expression)
    name = f"{args.test}, cells shuffled"
    rows.append({"kind": "baseline", "method": name, **held_out.distances(shuffled)})
    for seed in args.seeds:
        started = time.perf_counter()
        al.AlphaSTomics.setup_anndata(atlas)
        model = al.AlphaSTomics(atlas, seed=seed)
        model.train(max_steps=args.max_steps, progress_bar=False)
        new = model.generate(len(held_out.points), output="counts", seed=seed, progress_bar=False)
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
        generated = Section(lognorm(new, median), new.obsm["spatial"])
        generated.labels = types.predict(generated.expression)
        rows.append({"kind": "model", "method": "generated", **held_out.distances(generated)})
        if seed == args.seeds[0]:
            stem = f"generation_{args.data.stem}_{args.test}"
            draw({**real, args.test: held_out, "generated": generated}, args.out / f"{stem}.png")
    write(pd.DataFrame(rows), args, stem)


def draw(sections: dict[str, Section], path: Path) -> None:
    """Cell types in every section, by squidpy."""
    types = np.unique(np.concatenate([one.labels for one in sections.values()]))
    figure, axes = plt.subplots(
        1, len(sections), figsize=(4 * len(sections), 3), sharex=True, sharey=True
    )
    for ax, (name, one) in zip(axes, sections.items(), strict=True):
        shown = ad.AnnData(
            np.zeros((len(one.points), 1)),
            obs=pd.DataFrame({"type": pd.Categorical(one.labels, types)}).rename(index=str),
            obsm={"spatial": one.points - one.points.mean(0)},
        )
        palette = ListedColormap(al.pl.PALETTE[: len(types)])
        sq.pl.spatial_scatter(
            shown, shape=None, color="type", palette=palette, size=12, ax=ax, title=name
        )
        ax.set(xlabel="", ylabel="")
        if ax is not axes[-1]:
            ax.get_legend().remove()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(results: pd.DataFrame, args: argparse.Namespace, stem: str) -> None:
    results.round(5).to_csv(args.out / f"{stem}.csv", index=False)
    groups = results.drop(columns="kind").groupby("method", sort=False)
    mean, sd = groups.mean(), groups.std()
    lines = [
        "| section | " + " | ".join(mean.columns) + " |",
        "|---" * (len(mean.columns) + 1) + "|",
    ]
    for method in mean.index:
        cells = [
            f"{m:.3f}" + (f" ± {s:.3f}" if np.isfinite(s) else "")
            for m, s in zip(mean.loc[method], sd.loc[method], strict=True)
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    text = (
        f"# {args.data.stem}: a generated section and {args.test}\n\nDistances to the real "
        f"section {args.test}, held out; generated with seeds {args.seeds}, mean ± sd. Moran "
        "concordance: 1 is best; else 0.\n\n" + "\n".join(lines)
    )
    (args.out / f"{stem}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
