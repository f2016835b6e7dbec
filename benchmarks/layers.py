"""Place dissociated cells into a section and read the order of the layers from held-out markers.

    python benchmarks/layers.py --data osmfish_cortex.h5ad --reference osmfish_scrna_ref.h5ad

The section is cut to its cortical layers. The markers are taken out of the section and of the cells
before the model sees either. Every marker's cells are the 5 % of the dissociated cells that express
it most; Kendall's tau-b compares their median depth at their places with the known order. For the
figure of types all genes are used; types of the dissociated cells are those of the most similar
cells of the section.
Writes a CSV, a Markdown table and two figures to benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import make_parser, start
from scipy.stats import kendalltau
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

import alphastomics as al

# Cortical layer of the neurons that a gene marks.
LAYER = {"Lamp5": 2.5, "Kcnip2": 3.5, "Rorb": 4, "Cpne5": 5, "Tbr1": 6, "Syt6": 6}
REGIONS = {
    "Pia Layer 1": 1,
    "Layer 2-3 medial": 2.5,
    "Layer 2-3 lateral": 2.5,
    "Layer 3-4": 3.5,
    "Layer 4": 4,
    "Layer 5": 5,
    "Layer 6": 6,
}
SHARE = 0.05
SHOWN_TYPES = 10


def lognorm(adata: ad.AnnData) -> np.ndarray:
    counts = adata.X.toarray().astype(float)
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    return np.log1p(counts / total * np.median(total))


def own(adata: ad.AnnData) -> np.ndarray:
    values = lognorm(adata)
    return (values - values.mean(0)) / np.maximum(values.std(0), 0.05)


def radius(points: np.ndarray) -> float:
    """Root mean square distance of points from their center."""
    points = points[np.isfinite(points).all(1)]
    return float(np.sqrt(np.square(points - points.mean(0)).sum(1).mean()))


def marked(adata: ad.AnnData) -> dict[str, np.ndarray]:
    """Cells that express each marker most."""
    values = pd.DataFrame(lognorm(adata), columns=adata.var_names)
    n = round(SHARE * adata.n_obs)
    return {gene: np.argsort(-values[gene].to_numpy(), kind="stable")[:n] for gene in LAYER}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True, help="dissociated cells")
    parser.add_argument("--max_steps", type=int, default=None)
    parser.add_argument("--set_size", type=int, default=None, help="of the network, not matching")
    args = start(parser)

    section, cells = ad.read_h5ad(args.data), ad.read_h5ad(args.reference)
    number = section.obs["region"].astype(str).map(REGIONS)
    section = section[number.notna()].copy()
    layers = make_pipeline(StandardScaler(), PolynomialFeatures(4), Ridge())
    layers.fit(section.obsm["spatial"], number.dropna())

    def depth(points: np.ndarray, cells_of: dict[str, np.ndarray]) -> dict[str, float]:
        has_place = np.isfinite(points).all(1)  # cells without counts have none
        places = {g: points[rows][has_place[rows]] for g, rows in cells_of.items()}
        return {g: float(np.median(layers.predict(p))) for g, p in places.items()}

    seen = [gene for gene in section.var_names if gene not in LAYER]
    cells_of = marked(cells)
    true = depth(section.obsm["spatial"], marked(section))
    given, query = section[:, seen].copy(), cells[:, seen].copy()
    rows = [{"method": "measured section", "seed": 0, "depth": true, "spread": 1.0}]

    def row(method: str, seed: int, points: np.ndarray) -> dict:
        spread = radius(points) / radius(section.obsm["spatial"])
        return {"method": method, "seed": seed, "depth": depth(points, cells_of), "spread": spread}

    for seed in args.seeds:
        al.AlphaSTomics.setup_anndata(given, section_key=None)
        model = al.AlphaSTomics(given, training_mode="expr_to_pos", seed=seed)
        sizes = {} if args.set_size is None else {"set_size": args.set_size, "batch_size": 1}
        model.train(max_steps=args.max_steps, progress_bar=False, **sizes)
        for estimate in ("arrangement", "mean"):
            for by in ("auto", "training"):
                model.predict(
                    query, reference=given, estimate=estimate, standardize=by, progress_bar=False
                )
                placed = query.obsm["spatial_predicted"]
                name = f"predict, {estimate}, standardize={by!r}"
                rows.append(row(name, seed, placed))
                if (estimate, by, seed) == ("arrangement", "auto", args.seeds[0]):
                    draw(section, cells_of, placed, args.out / "layers_osmfish.png")
    for name, change in (("knn50", lognorm), ("knn50, each standardized separately", own)):
        knn = KNeighborsRegressor(50, metric="cosine")
        placed = knn.fit(change(given), given.obsm["spatial"]).predict(change(query))
        rows.append(row(name, 0, placed))
    write(rows, args)
    draw_types(section, cells, args.seeds[0], args.out / "layers_osmfish_types.png")


def draw(
    section: ad.AnnData, cells_of: dict[str, np.ndarray], placed: np.ndarray, path: Path
) -> None:
    """Cells of every marker: in the section above, dissociated and placed below."""
    figure, axes = plt.subplots(2, len(LAYER), figsize=(13, 5.4), sharex=True, sharey=True)
    for (gene, layer), column in zip(LAYER.items(), axes.T, strict=True):
        where = ((section.obsm["spatial"], marked(section)[gene]), (placed, cells_of[gene]))
        for ax, (points, rows) in zip(column, where, strict=True):
            ax.scatter(*section.obsm["spatial"].T, s=1, c="lightgrey", rasterized=True)
            ax.scatter(*points[rows].T, s=6, c="tab:blue", rasterized=True)
            ax.set(aspect="equal", xticks=[], yticks=[])
        column[0].set_title(f"{gene}, layer {layer:g}")
    axes[0, 0].set_ylabel("measured")
    axes[1, 0].set_ylabel("dissociated, placed")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def similar_types(given: ad.AnnData, query: ad.AnnData) -> np.ndarray:
    """Type of most of the 15 most similar cells of the section, each data set by itself."""
    knn = KNeighborsClassifier(15, metric="cosine")
    return knn.fit(own(given), given.obs["cell_type"].astype(str)).predict(own(query))


def draw_types(section: ad.AnnData, cells: ad.AnnData, seed: int, path: Path) -> None:
    """Places of cells by type and composition of every layer, measured and placed."""
    al.AlphaSTomics.setup_anndata(section, section_key=None)
    model = al.AlphaSTomics(section, training_mode="expr_to_pos", seed=seed)
    model.train(progress_bar=False)
    model.predict(cells, reference=section, progress_bar=False)
    plot_types(section, similar_types(section, cells), cells.obsm["spatial_predicted"], path)


def plot_types(section: ad.AnnData, types: np.ndarray, placed: np.ndarray, path: Path) -> None:
    true, measured = section.obsm["spatial"], section.obs["cell_type"].astype(str).to_numpy()
    region = section.obs["region"].astype(str).to_numpy()
    has_place = np.isfinite(placed).all(1)
    placed, types = placed[has_place], types[has_place]
    nearest = KNeighborsClassifier(1).fit(true, region).predict(placed)
    shown = pd.Series(measured).value_counts().index[:SHOWN_TYPES]
    colors = dict(zip(shown, al.pl.PALETTE, strict=False))

    def colored(values: np.ndarray) -> list:
        return [colors.get(value, (0.8, 0.8, 0.8)) for value in values]

    figure, axes = plt.subplots(
        1, 4, figsize=(13, 4), width_ratios=(1, 1, 0.8, 0.8), layout="constrained"
    )
    panels = ((true, measured, region), (placed, types, nearest))
    titles = (
        f"Measured, {len(true):,} cells",
        f"Dissociated, placed, {len(placed):,} cells",
    )
    order = np.random.default_rng(0)
    for ax, (points, kinds, _), title in zip(axes, panels, titles, strict=False):
        ax.scatter(*true.T, s=14, c="whitesmoke", edgecolors="none", rasterized=True)
        rows = order.permutation(len(points))
        ax.scatter(*points[rows].T, s=3, c=colored(kinds[rows]), rasterized=True)
        ax.set(aspect="equal", xticks=[], yticks=[], title=title)
    for ax, (_, kinds, layer), title in zip(
        axes[2:], panels, ("Composition, measured", "Composition, placed"), strict=True
    ):
        share = pd.crosstab(layer, kinds, normalize="index").reindex(REGIONS, fill_value=0)
        left = np.zeros(len(share))
        for kind in shown:
            value = share[kind].to_numpy() if kind in share else np.zeros(len(share))
            ax.barh(share.index, value, left=left, color=colors[kind], label=kind)
            left += value
        ax.barh(share.index, 1 - left, left=left, color=(0.8, 0.8, 0.8), label="other types")
        ax.set(title=title, xlabel="Share of cells", xlim=(0, 1))
        ax.invert_yaxis()
    axes[3].set_yticklabels([])
    axes[3].legend(bbox_to_anchor=(1, 1), loc="upper left", fontsize=8, frameon=False)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def write(rows: list[dict], args: argparse.Namespace) -> None:
    table = pd.DataFrame([{**row, **row["depth"]} for row in rows]).drop(columns="depth")
    table["tau"] = [
        kendalltau(list(row["depth"].values()), list(LAYER.values())).statistic for row in rows
    ]
    table.round(3).to_csv(args.out / "layers_osmfish.csv", index=False)
    shown = table.groupby("method", sort=False)[[*LAYER, "tau", "spread"]].mean()
    lines = ["| method | " + " | ".join(shown.columns) + " |", "|---" * 9 + "|"]
    for method, row in shown.iterrows():
        values = [f"{v:.2f}" for v in row]
        lines.append(f"| {method} | " + " | ".join(values) + " |")
    text = (
        "# Dissociated cells placed into the cortex, six layer markers held out\n\nMedian depth "
        f"(number of the annotated layer, smoothed by a polynomial of degree 4) of the {SHARE:.0%} "
        f"of cells that express a marker most; Kendall's tau-b with the layers {LAYER}; RMS "
        "radius of all placed cells over that of the section. Mean over "
        f"seeds {args.seeds}.\n\n" + "\n".join(lines)
    )
    (args.out / "layers_osmfish.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
