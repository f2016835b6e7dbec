"""The main job on simulated tissue: train, place a held-out section, score it beside the baselines.

    python benchmarks/demo.py --out demo

Writes positions.png and placed.h5ad.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import alphastomics as al

HELD_OUT = "section_3"
COLUMNS = [
    "distance_spearman",
    "procrustes_rmse",
    "neighbor_recall@20",
    "contact_precision@1%",
    "niche_cosine@20",
    "spread",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--max_steps", type=int, default=300)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module=r"(squidpy|spatialdata|lightning|anndata|sklearn)")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    started = time.perf_counter()

    tissue = al.datasets.simulate_tissue(n_sections=4, n_cells=1000, seed=0)
    held_out = (tissue.obs["section"] == HELD_OUT).to_numpy()
    atlas, cells = tissue[~held_out].copy(), tissue[held_out].copy()

    al.AlphaSTomics.setup_anndata(atlas, labels_key="cell_type")
    model = al.AlphaSTomics(atlas)
    model.train(max_steps=args.max_steps)
    print(model)
    model.predict(cells, mode="expr_to_pos")
    model.sample(cells, mode="expr_to_pos", n_samples=4)

    scores = al.tl.score(
        cells, ["spatial_predicted", "spatial_sampled"], labels_key="cell_type"
    ).droplevel("section")
    baselines = al.tl.placement_baselines(cells, atlas, labels_key="cell_type")
    best = baselines.sort_values("distance_spearman", ascending=False)
    print(f"\nPlacing {cells.n_obs} cells of {HELD_OUT}, never seen in training:")
    print(scores[COLUMNS].round(3).to_string())
    print("\nBaselines, best first (method and what it was fitted on):")
    print(best[COLUMNS].round(3).to_string())

    args.out.mkdir(parents=True, exist_ok=True)
    al.pl.positions(cells, color="cell_type", save=args.out / "positions.png")
    cells.write_h5ad(args.out / "placed.h5ad")
    print(
        f"\n{args.out / 'positions.png'} and {args.out / 'placed.h5ad'} written; "
        f"{time.perf_counter() - started:.0f} s in all."
    )


if __name__ == "__main__":
    main()
