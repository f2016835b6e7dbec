"""Placing a section in sets and with anchors, beside placing it in one set.

    python benchmarks/anchors.py --data starmap_3d_cortex.h5ad
    python benchmarks/anchors.py --simulate 30000 --drawn 1

A draw of 30,000 cells in one set takes an hour of a core: there only the first seed draws.

Trains for a while, then places a section that is larger than a set: by predict, in one set and in
sets of 2,048; by a draw, in one set, in sets that follow the same anchors (chosen at random, by a
geometric sketch of expression, or the same number of every cell type), and in sets of their own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

import alphastomics as al
from alphastomics.model import _drawing, _filling, _sets

Cells = np.ndarray
METRICS = ("distance_spearman", "neighbor_recall@20")
PREDICT, DRAW = "predict, one set", "draw, one set"
SKETCH_COMPONENTS = 20
TYPES = 12  # clusters of expression, where no types are given


def sections(args: argparse.Namespace, seed: int) -> tuple[ad.AnnData, ad.AnnData, dict]:
    """Cells to train on, cells to place, and what the values are."""
    if args.simulate:
        adata = al.datasets.simulate_tissue(3, args.simulate, 100, seed=seed)
        held_out = (adata.obs["section"] == "section_2").to_numpy()
        return adata[~held_out].copy(), adata[held_out].copy(), {}
    adata = ad.read_h5ad(args.data)
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    known, asked = order[:16_000], order[16_000:24_000]
    return adata[known].copy(), adata[asked].copy(), {"values": "intensity"}


def components(request: object, cells: Cells) -> np.ndarray:
    """Principal components of log expression, ``(n, 20)``."""
    log = np.log1p(request.data.expression[cells].toarray())
    return PCA(min(SKETCH_COMPONENTS, log.shape[1]), random_state=0).fit_transform(log)


def geometric_sketch(request: object, fill: Cells, n: int, rng: np.random.Generator) -> Cells:
    """Cells of as many boxes of expression as are wanted, one of each (Hie et al. 2019)."""
    points = components(request, fill)
    low, high = 1e-3, float(np.ptp(points, axis=0).max())
    for _ in range(30):
        side = (low + high) / 2
        boxes = np.unique(np.floor((points - points.min(0)) / side), axis=0, return_inverse=True)[1]
        low, high = (side, high) if boxes.max() + 1 > n else (low, side)
    order = rng.permutation(len(fill))
    _, first = np.unique(boxes[order], return_index=True)
    chosen = order[first]
    rest = np.setdiff1d(order, chosen)
    return fill[np.concatenate([chosen, rng.permutation(rest)])[:n]]


def by_type(request: object, fill: Cells, n: int, rng: np.random.Generator) -> Cells:
    """Take the same number of cells of every type, as far as there are."""
    label = request.data.label[fill]
    if not label.any():
        points = components(request, fill)
        label = MiniBatchKMeans(TYPES, random_state=0, n_init=3).fit_predict(points)
    order = rng.permutation(len(fill))
    turn = pd.Series(label[order]).groupby(label[order]).cumcount().to_numpy()
    return fill[order[np.argsort(turn, kind="stable")[:n]]]


def unanchored(fill: Callable) -> Callable:
    """Make every set a draw of its own."""
    return lambda *args, **options: fill(*args, **{**options, "anchored": False})


def measure(
    model: al.AlphaSTomics, cells: ad.AnnData, true: np.ndarray, *, draws: bool, seed: int
) -> list[dict]:
    """Place the cells in every way."""
    rows: list[dict] = []
    quiet = {"key_added": "placed", "progress_bar": False}

    def score(name: str, place: Callable, **options: object) -> None:
        began = time.perf_counter()
        place(cells, **quiet, **options)
        row = {"how": name, "seconds": time.perf_counter() - began}
        placed = cells.obsm["placed"]
        row["distance_spearman"] = al.metrics.distance_spearman(true, placed)
        row["neighbor_recall@20"] = al.metrics.neighbor_recall(true, placed, 20)
        rows.append(row)
        print(seed, row, flush=True)

    score(PREDICT, model.predict, max_set=cells.n_obs)
    score("predict, sets", model.predict)
    if not draws:
        return rows
    score(DRAW, model.sample, max_set=cells.n_obs, seed=seed)
    chooser, fill = _sets.choose_anchors, _filling.fill
    for name, choose in {
        "random anchors": chooser,
        "sketched anchors": geometric_sketch,
        "anchors by type": by_type,
    }.items():
        _sets.choose_anchors = choose
        score(f"draw, sets with {name}", model.sample, seed=seed)
    _sets.choose_anchors, _drawing.fill = chooser, unanchored(fill)
    score("draw, sets of their own", model.sample, seed=seed)
    _drawing.fill = fill
    return rows


def table_of(results: pd.DataFrame) -> str:
    """Means over seeds, and what is lost to one set, in percent, paired."""
    lines = [
        "| | seeds | distance_spearman | lost, % | neighbor_recall@20 | lost, % | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for how, rows in results.groupby("how", sort=False):
        best = results[results["how"] == (PREDICT if how.startswith("predict") else DRAW)]
        cells = [str(len(rows))]
        for metric in METRICS:
            lost = 100 * (1 - rows.set_index("seed")[metric] / best.set_index("seed")[metric])
            lost = lost.dropna()
            cells.append(f"{rows[metric].mean():.4f}")
            cells.append(f"{lost.mean():+.1f} ± {lost.std(ddof=0):.1f}" if len(lost) else "")
        lines.append(f"| {how} | {' | '.join(cells)} | {rows['seconds'].mean():.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, help="one volume, intensities")
    parser.add_argument("--simulate", type=int, default=0, help="cells of simulated sections")
    parser.add_argument("--max_steps", type=int, default=300)
    parser.add_argument("--drawn", type=int, default=99, help="how many of the seeds draw")
    args = start(parser)
    if not args.simulate and args.data is None:
        parser.error("pass --data or --simulate")

    name = "anchors_" + ("simulated" if args.simulate else args.data.stem)
    rows = []
    for i, seed in enumerate(args.seeds):
        atlas, cells, values = sections(args, seed)
        true = np.asarray(cells.obsm.pop("spatial"), dtype=float)
        labels = "cell_type" if "cell_type" in atlas.obs else None
        al.AlphaSTomics.setup_anndata(atlas, labels_key=labels, **values)
        model = al.AlphaSTomics(atlas, training_mode="expr_to_pos", seed=seed)
        model.train(max_steps=args.max_steps, progress_bar=False)
        placed = measure(model, cells, true, draws=i < args.drawn, seed=seed)
        rows += [{"seed": seed, **row} for row in placed]
        pd.DataFrame(rows).round(5).to_csv(args.out / f"{name}.csv", index=False)
    page = (
        f"# {len(true):,} cells in sets of 2,048 and in one, {name.removeprefix('anchors_')}\n\n"
        f"Default network, {args.max_steps} steps of training; what is lost to one set is paired "
        f"(same network), ± its standard deviation over seeds. CPU, {args.threads} threads, not "
        f"alone on the machine.\n\n{table_of(pd.DataFrame(rows))}"
    )
    (args.out / f"{name}.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
