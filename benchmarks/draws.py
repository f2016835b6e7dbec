"""Score one draw of a held-out section as a distribution, beside references and another version.

    python benchmarks/draws.py --data starmap_mpfc.h5ad --test BZ5 --earlier ../old/src

Trains on all other sections with the package's defaults, once a seed, deletes the coordinates of
the test section and places it by ``predict`` and by one draw of ``sample``. ``--earlier`` names the
source folder of another version of the package, which does the same in processes of its own. What
was placed is stored in ``--store`` and not made again. Writes a CSV of every seed, a Markdown table
of mean ± sd and a picture to benchmarks/results.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start

import alphastomics as al

SIMULATED = "simulated"
TITLES = {"draw, this": "A draw", "draw, earlier": "A draw, version 0.1"}


def read(data: str, test: str) -> tuple[ad.AnnData, ad.AnnData]:
    """Training sections and the held-out section."""
    if data == SIMULATED:
        adata = al.datasets.simulate_tissue(n_sections=4, n_cells=1000)
    else:
        adata = ad.read_h5ad(data)
    held_out = (adata.obs["section"].astype(str) == test).to_numpy()
    if not held_out.any():
        sections = sorted(adata.obs["section"].astype(str).unique())
        raise SystemExit(f"--test {test!r} is none of {sections}.")
    return adata[~held_out].copy(), adata[held_out].copy()


def place(args: argparse.Namespace, seed: int, path: Path) -> None:
    """Train, place the section, and store what was placed, with the package that is imported."""
    atlas, cells = read(args.data, args.test)
    del cells.obsm["spatial"]
    started = time.perf_counter()
    al.AlphaSTomics.setup_anndata(atlas, values=args.values)
    model = al.AlphaSTomics(atlas, training_mode="expr_to_pos", seed=seed)
    model.train(progress_bar=False)
    seconds = [time.perf_counter() - started]
    for call in (
        lambda: model.predict(cells, progress_bar=False),
        lambda: model.predict(cells, estimate="mean", key_added="mean", progress_bar=False),
        lambda: model.sample(cells, seed=seed, progress_bar=False),
    ):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    np.savez(
        path,
        predict=cells.obsm["spatial_predicted"],
        mean=cells.obsm["mean"],
        draw=cells.obsm["spatial_sampled"],
        seconds=np.array(seconds)[[0, 1, 3]],
    )


def placed(args: argparse.Namespace, seed: int, version: str) -> dict[str, np.ndarray]:
    """Positions by estimate, of this version or of the earlier one; made if not stored."""
    stem = "sim" if args.data == SIMULATED else Path(args.data).stem
    path = args.store / version / f"{stem}_{args.test}_{seed}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        source = Path(al.__file__).parents[1] if version == "this" else args.earlier
        subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--place", str(seed), str(path)],
            env={**os.environ, "PYTHONPATH": str(source)},
            check=True,
        )
    with np.load(path) as stored:
        return dict(stored)


def to_markdown(table: pd.DataFrame, seconds: pd.DataFrame) -> str:
    """Mean ± sd over seeds of every metric."""
    groups = table.groupby("method", sort=False)
    mean, sd = groups.mean(numeric_only=True), groups.std(numeric_only=True)
    columns = [c for c in mean.columns if c not in ("seed", "n_cells")]
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method in mean.index:
        row = []
        for column in columns:
            m, s = mean.loc[method, column], sd.loc[method, column]
            row.append("" if np.isnan(m) else f"{m:.3f}" + (f" ± {s:.3f}" if s > 0 else ""))
        lines.append(f"| {method} | " + " | ".join(row) + " |")
    lines += ["", "| version | train s | predict s | one draw s |", "|---|---|---|---|"]
    for version, row in seconds.iterrows():
        lines.append(f"| {version} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
    return "\n".join(lines)


def picture(cells: ad.AnnData, atlas: ad.AnnData, shown: dict[str, np.ndarray], path: Path) -> None:
    """True section, another real section and draws side by side, superposed on the truth."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    true = np.asarray(cells.obsm["spatial"], dtype=float)
    other = atlas[atlas.obs["section"] == atlas.obs["section"].iloc[0]]
    panels = {"True": (true, cells), "Another section": (np.asarray(other.obsm["spatial"]), other)}
    panels |= {n: (al.metrics.superpose(points, true), cells) for n, points in shown.items()}
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), 4), sharex=True, sharey=True, layout="constrained"
    )
    palette = ListedColormap(al.pl.PALETTE)
    for ax, (name, (points, adata)) in zip(axes, panels.items(), strict=True):
        color, limits = None, {}
        if "cell_type" in adata.obs:
            color = adata.obs["cell_type"].astype("category").cat.codes
            limits = {"cmap": palette, "vmin": 0, "vmax": palette.N - 1}
        x, y = (points - points.mean(0)).T
        ax.scatter(x, y, c=color, s=3, **limits)
        ax.set_title(TITLES.get(name, name))
        ax.set_aspect("equal")
        ax.axis("off")
    axes[0].invert_yaxis()  # as in squidpy
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", required=True, help=f"h5ad of several sections, or {SIMULATED}")
    parser.add_argument("--test", required=True, help="section to hold out")
    parser.add_argument("--values", default="counts")
    parser.add_argument("--earlier", type=Path, help="source folder of another version")
    parser.add_argument("--store", type=Path, default=Path("draws"), help="where to store draws")
    parser.add_argument("--place", nargs=2, metavar=("SEED", "PATH"), help=argparse.SUPPRESS)
    args = start(parser)
    if args.place:
        place(args, int(args.place[0]), Path(args.place[1]))
        return

    atlas, cells = read(args.data, args.test)
    labels_key = "cell_type" if "cell_type" in cells.obs else None
    options = {"labels_key": labels_key, "values": args.values}
    versions = ["this", *(["earlier"] if args.earlier else [])]
    rows, seconds, shown = [], [], {}
    for version in versions:
        for seed in args.seeds:
            results = placed(args, seed, version)
            keys = {f"{name}, {version}": results[name] for name in ("draw", "predict", "mean")}
            for name, points in keys.items():
                cells.obsm[name] = points
            scores = al.tl.score_draws(cells, list(keys), seed=seed, **options).droplevel("section")
            rows.append(scores.rename_axis("method").reset_index().assign(seed=seed))
            seconds.append({"version": version, **dict(enumerate(results["seconds"]))})
            if seed == args.seeds[0]:
                shown[f"draw, {version}"] = results["draw"]
    baselines = al.tl.draw_baselines(cells, atlas, **options).droplevel("section")
    rows.append(baselines.rename_axis("method").reset_index().assign(seed=0))
    table = pd.concat(rows, ignore_index=True).sort_values("method", kind="stable")

    stem = f"draws_{SIMULATED if args.data == SIMULATED else Path(args.data).stem}_{args.test}"
    table.round(5).to_csv(args.out / f"{stem}.csv", index=False)
    times = pd.DataFrame(seconds).groupby("version", sort=False).mean()
    text = (
        f"# One draw of {args.test}\n\n{cells.n_obs} cells placed from {atlas.n_obs} cells of "
        f"{atlas.obs['section'].nunique()} sections; mean ± sd over seeds "
        f"{', '.join(map(str, args.seeds))}; {args.threads} threads, shared machine. `earlier` "
        "is the version before draws by diffusion heads.\n\n" + to_markdown(table, times) + "\n"
    )
    (args.out / f"{stem}.md").write_text(text)
    picture(cells, atlas, shown, args.out / f"{stem}.png")
    print(text)


if __name__ == "__main__":
    main()
