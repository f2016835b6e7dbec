"""Draw the figures of the documentation anew, on simulated tissue: python docs/figures.py."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import squidpy as sq
from anndata import AnnData
from matplotlib.patches import Rectangle

import alphastomics as al

OUT = Path(__file__).parent / "_static"
KNOWN, UNKNOWN, EDGE = "#0072B2", "white", "#555555"
CELLS = 6
# Which cells have their expression (a share of the genes) and their position.
PATTERNS = {
    "place dissociated cells": ([1] * CELLS, [0] * CELLS),
    "place cells in a reference": ([1] * CELLS, [1, 1, 1, 0, 0, 0]),
    "predict expression": ([0] * CELLS, [1] * CELLS),
    "impute genes": ([1, 1, 1, 0.5, 0.5, 0.5], [1] * CELLS),
    "repair a hole": ([1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1]),
    "generate a section": ([0] * CELLS, [0] * CELLS),
}


def patterns() -> None:
    """One network, six questions: what is blue is known, what is white is filled in."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 3.6), layout="constrained")
    for ax, (title, rows) in zip(axes.flat, PATTERNS.items(), strict=True):
        for y, shares in zip((1, 0), rows, strict=True):
            for x, share in enumerate(shares):
                ax.add_patch(Rectangle((x, y), 0.84, 0.84, facecolor=UNKNOWN, edgecolor=EDGE))
                ax.add_patch(Rectangle((x, y), 0.84, 0.84 * share, facecolor=KNOWN))
        ax.set(xlim=(-0.1, CELLS), ylim=(-0.1, 2), aspect="equal", title=title)
        ax.set_yticks([1.42, 0.42], ["expression", "position"])
        ax.set_xticks([CELLS / 2 - 0.08], ["cells of a section"])
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    figure.savefig(OUT / "patterns.png", dpi=150)


def mean_and_draw(cells: AnnData) -> None:
    """Draw the truth, a mean and a draw, in one frame."""
    true = cells.obsm["spatial"]
    everyone = np.ones(len(true), dtype=bool)
    shown = {"true": true - true.mean(0)}
    for title, key in {
        "predict: the arrangement": "spatial_predicted",
        "predict(estimate='mean')": "mean",
        "sample: a draw": "spatial_sampled",
    }.items():
        shown[title] = al.metrics.superpose_by(cells.obsm[key], shown["true"], everyone)
    figure, axes = plt.subplots(
        1, 4, figsize=(11, 3), layout="constrained", sharex=True, sharey=True
    )
    colors = cells.obs["cell_type"].cat.codes
    for ax, (title, points) in zip(axes, shown.items(), strict=True):
        ax.scatter(*points.T, c=colors, cmap="tab10", s=4, linewidths=0)
        ax.set(title=title, aspect="equal")
        ax.set_axis_off()
    figure.savefig(OUT / "mean_and_draw.png", dpi=150)


def common_frame(model: al.AlphaSTomics, atlas: AnnData) -> None:
    """Draw the training sections on each other, as they came and in the common frame."""
    model.register(atlas)
    section = atlas.obs["section"].to_numpy()
    as_they_came = np.empty_like(atlas.obsm["spatial"])
    for name in np.unique(section):
        cells = section == name
        as_they_came[cells] = atlas.obsm["spatial"][cells] - atlas.obsm["spatial"][cells].mean(0)
    shown = {"as they came": as_they_came, "registered": atlas.obsm["spatial_registered"]}
    figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
    for ax, (title, points) in zip(axes, shown.items(), strict=True):
        colors = atlas.obs["cell_type"].cat.codes
        ax.scatter(*points.T, c=colors, cmap="tab10", s=3, linewidths=0)
        ax.set(title=f"{len(np.unique(section))} sections, {title}", aspect="equal")
        ax.set_axis_off()
    figure.savefig(OUT / "common_frame.png", dpi=150)


def main() -> None:
    """Train, place a section, draw."""
    patterns()
    tissue = al.datasets.simulate_tissue(n_sections=4, n_cells=1000)
    held_out = (tissue.obs["section"] == "section_3").to_numpy()
    atlas, cells = tissue[~held_out].copy(), tissue[held_out].copy()
    al.AlphaSTomics.setup_anndata(atlas, labels_key="cell_type")
    model = al.AlphaSTomics(atlas)
    model.train(progress_bar=False)
    common_frame(model, atlas)
    asked = {"mode": "expr_to_pos", "progress_bar": False}
    model.predict(cells, **asked)
    model.predict(cells, estimate="mean", key_added="mean", **asked)
    model.sample(cells, **asked)
    al.pl.positions(cells, color="cell_type", save=OUT / "positions.png")
    al.pl.displacement(cells, save=OUT / "displacement.png")
    mean_and_draw(cells)
    sq.pl.spatial_scatter(cells, spatial_key="spatial_predicted", shape=None, color="cell_type")
    plt.savefig(OUT / "squidpy.png", dpi=150, bbox_inches="tight")

    model.calibrate(progress_bar=False)
    half = np.random.default_rng(0).random(cells.n_obs) < 0.5
    reference, query = cells[half].copy(), cells[~half].copy()
    model.predict(query, reference=reference, **asked)
    _, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    al.pl.uncertainty(query, ax=axes[0])
    al.pl.calibration(query, align=False, ax=axes[1], save=OUT / "radius.png")

    model.impute(cells, genes=list(cells.var_names[::3]), output="counts", progress_bar=False)
    al.pl.reliability(cells, "expression_imputed", truth="X", save=OUT / "intervals.png")


if __name__ == "__main__":
    main()
