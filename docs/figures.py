"""Draw the figures of the documentation anew: python docs/figures.py [PART ...].

Parts are patterns, osmfish, starmap and simulated; all of them without an argument. Real sections
are read from the folder ALPHASTOMICS_DATA, ../shared/data by default. About four minutes of CPU,
most of it training.
"""

import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
import squidpy as sq
from anndata import AnnData
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

import alphastomics as al

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "_static"
DATA = Path(os.environ.get("ALPHASTOMICS_DATA", ROOT.parent / "shared" / "data"))
REFERENCE_STEPS = 60  # placing cells among a reference rests on what is fitted before
QUIET = {"progress_bar": False}

# From the pia inwards.
REGIONS = [
    *("Pia Layer 1", "Layer 2-3 medial", "Layer 2-3 lateral", "Layer 3-4", "Layer 4", "Layer 5"),
    *("Layer 6", "White matter", "Internal Capsule Caudoputamen", "Ventricle", "Hippocampus"),
]
TYPES = [  # of STARmap
    *("Reln", "eL2/3", "L5-1", "eL5-2", "eL5-3", "eL6-1", "eL6-2", "Lhx6", "SST", "NPY", "VIP"),
    *("Astro", "Oligo", "Endo", "Smc"),
]

OBSERVED, PREDICTED, EDGE = "#0072B2", "white", "#555555"
CELLS = 6
# Which cells have their expression (a share of the genes) and their position.
PATTERNS = {
    "Place dissociated cells": ([1] * CELLS, [0] * CELLS),
    "Place cells into a reference": ([1] * CELLS, [1, 1, 1, 0, 0, 0]),
    "Predict expression": ([0] * CELLS, [1] * CELLS),
    "Impute genes": ([1, 1, 1, 0.5, 0.5, 0.5], [1] * CELLS),
    "Fill a hole": ([1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1]),
    "Generate a section": ([0] * CELLS, [0] * CELLS),
}


def patterns() -> None:
    """Draw which values of each task are observed, and which are predicted."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 3.0), layout="constrained")
    for ax, (title, rows) in zip(axes.flat, PATTERNS.items(), strict=True):
        for y, shares in zip((1, 0), rows, strict=True):
            for x, share in enumerate(shares):
                ax.add_patch(Rectangle((x, y), 0.84, 0.84, facecolor=PREDICTED, edgecolor=EDGE))
                ax.add_patch(Rectangle((x, y), 0.84, 0.84 * share, facecolor=OBSERVED))
        ax.set(xlim=(-0.1, CELLS), ylim=(-0.1, 2), aspect="equal")
        ax.set_title(title, fontsize="medium")
        ax.set_yticks([1.42, 0.42], ["expression", "position"])
        ax.set_xticks([])
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    handles = [
        Patch(facecolor=OBSERVED, edgecolor=EDGE, label="observed (half a box: half of the genes)"),
        Patch(facecolor=PREDICTED, edgecolor=EDGE, label="predicted"),
    ]
    figure.legend(
        handles=handles,
        title="Columns are cells of one section",
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    figure.savefig(OUT / "patterns.png", dpi=150)


def map_osmfish() -> tuple[AnnData, AnnData]:
    """Map one random half of the osmFISH section into the other half, and impute its genes."""
    section = ad.read_h5ad(DATA / "osmfish_cortex.h5ad")
    section.obs["region"] = section.obs["region"].cat.set_categories(REGIONS)
    half = np.random.default_rng(0).random(section.n_obs) < 0.5
    reference, cells = section[half].copy(), section[~half].copy()
    al.AlphaSTomics.setup_anndata(reference)
    model = al.AlphaSTomics(reference)
    model.train(max_steps=REFERENCE_STEPS, **QUIET)
    model.calibrate(**QUIET)
    model.predict(cells, reference=reference, mode="expr_to_pos", **QUIET)
    impute_all(model, cells)
    return reference, cells


def impute_all(model: al.AlphaSTomics, cells: AnnData) -> None:
    """Impute every gene, a third of them at a time, and log-normalize the truth likewise."""
    key = "expression_imputed"
    parts = []
    for third in range(3):
        model.impute(cells, genes=list(cells.var_names[third::3]), **QUIET)
        parts.append({suffix: cells.obsm[key + suffix] for suffix in ("", "_lower", "_upper")})
        parts[-1]["reliability"] = cells.uns["alphastomics"][key]["reliability"]
    for suffix in ("", "_lower", "_upper"):
        cells.obsm[key + suffix] = pd.concat([part[suffix] for part in parts], axis=1)
    reliability = np.concatenate([part["reliability"] for part in parts])
    cells.uns["alphastomics"][key]["reliability"] = reliability
    cells.layers["lognorm"] = cells.X.copy()
    sc.pp.normalize_total(cells, layer="lognorm")
    sc.pp.log1p(cells, layer="lognorm")


def osmfish() -> None:
    """Draw a section mapped into its other half, the radius, and the reliability of genes."""
    draw_osmfish(*map_osmfish())


def draw_osmfish(reference: AnnData, cells: AnnData) -> None:
    """Draw what :func:`map_osmfish` gives."""
    al.pl.positions(cells, color="region", reference=reference, save=OUT / "positions.png")
    figure, axes = plt.subplots(
        1, 2, figsize=(9, 4.6), layout="constrained", width_ratios=(0.8, 1.2)
    )
    al.pl.uncertainty(cells, reference=reference, ax=axes[0])
    al.pl.calibration(cells, align=False, ax=axes[1])
    figure.savefig(OUT / "radius.png", dpi=150)
    al.pl.reliability(cells, "expression_imputed", truth="lognorm", save=OUT / "intervals.png")


def map_starmap() -> AnnData:
    """Map section BZ5 of STARmap from its expression alone, with the sections of two animals."""
    sections = ad.read_h5ad(DATA / "starmap_mpfc.h5ad")
    sections.obs["cell_type"] = sections.obs["cell_type"].cat.set_categories(TYPES)
    held_out = (sections.obs["section"] == "BZ5").to_numpy()
    atlas, cells = sections[~held_out].copy(), sections[held_out].copy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, training_mode="expr_to_pos")
    model.train(**QUIET)
    asked = {"mode": "expr_to_pos", **QUIET}
    model.predict(cells, **asked)
    model.predict(cells, estimate="mean", key_added="mean", **asked)
    model.sample(cells, **asked)
    return cells


def starmap() -> None:
    """Draw the truth, both estimates and a sample."""
    draw_starmap(map_starmap())


def draw_starmap(cells: AnnData) -> None:
    """Draw what :func:`map_starmap` gives."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.2), layout="compressed")
    keys = ["spatial_predicted", "mean", "spatial_sampled"]
    al.pl.positions(cells, keys, color="cell_type", ax=axes.reshape(1, 4), legend_loc=None)
    titles = (
        *("True positions", "Arrangement: predict()"),
        *("Mean: predict(estimate='mean')", "Sample: sample()"),
    )
    for ax, title in zip(axes.flat, titles, strict=True):
        ax.set_title(title, fontsize="medium")
    colors = dict(zip(TYPES, al.pl.PALETTE, strict=False))
    figure.legend(
        handles=[
            Line2D([], [], marker="o", linestyle="", color=color, label=name)
            for name, color in colors.items()
        ],
        loc="outside right center",
        frameon=False,
    )
    figure.savefig(OUT / "mean_and_draw.png", dpi=150)


def simulated() -> None:
    """Draw the frame, and the held-out section of *Get started*."""
    tissue = al.datasets.simulate_tissue(n_sections=4, n_cells=1000)
    held_out = (tissue.obs["section"] == "section_3").to_numpy()
    atlas, cells = tissue[~held_out].copy(), tissue[held_out].copy()
    al.AlphaSTomics.setup_anndata(atlas, labels_key="cell_type")
    model = al.AlphaSTomics(atlas)
    model.train(**QUIET)
    model.register(atlas)
    model.predict(cells, mode="expr_to_pos", **QUIET)
    draw_simulated(atlas, cells)


def draw_simulated(atlas: AnnData, cells: AnnData) -> None:
    """Draw sections before and after registration, and a section placed by expression alone."""
    section = atlas.obs["section"].to_numpy()
    centered = np.empty_like(atlas.obsm["spatial"])
    for name in np.unique(section):
        own = section == name
        centered[own] = atlas.obsm["spatial"][own] - atlas.obsm["spatial"][own].mean(0)
    atlas.obsm["spatial"] = centered
    axes = al.pl.positions(
        atlas, "spatial_registered", color="cell_type", section_key=None, align=False
    )
    axes[0, 0].set_title("Three sections as measured", fontsize="medium")
    axes[0, 1].set_title("Three sections, registered", fontsize="medium")
    axes[0, 0].figure.savefig(OUT / "common_frame.png", dpi=150, bbox_inches="tight")
    al.pl.displacement(cells, save=OUT / "displacement.png")
    n_types = len(cells.obs["cell_type"].cat.categories)
    cells.uns["cell_type_colors"] = list(al.pl.PALETTE[:n_types])
    sq.pl.spatial_scatter(
        cells,
        spatial_key="spatial_predicted",
        shape=None,
        color="cell_type",
        library_id=[""],
        size=12,
    )
    plt.savefig(OUT / "squidpy.png", dpi=150, bbox_inches="tight")


def main() -> None:
    """Draw the parts that are named, or all."""
    parts = {f.__name__: f for f in (patterns, osmfish, starmap, simulated)}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
