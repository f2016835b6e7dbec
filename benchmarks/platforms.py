"""Which queries are recognized as cells of another platform than training.

    python benchmarks/platforms.py --data_dir ../shared/data

Sections, animals, halves and single cell types of one platform, and the pairs of platforms that
there are. Only the statistics of training matter, so every model takes a single step. Writes a CSV
and a Markdown table to benchmarks/results.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from common import make_parser, start

import alphastomics as al
from alphastomics.model._platform import is_shifted, section_statistics

FILES = ("merfish_hypothalamus", "starmap_mpfc", "dlpfc_visium", "breast_st")
HALVED = {"osmfish_cortex": "counts", "breast_xenium": "counts", "drosophila_bdtnp": "intensity"}
PLATFORMS = (
    ("osmfish_cortex", "osmfish_scrna_ref"),
    ("breast_xenium", "breast_visium"),
    ("breast_visium", "breast_xenium"),
)
SMALL = {"d_model": 16, "num_heads": 2, "num_layers": 1, "d_ff": 16}

Pair = tuple[str, ad.AnnData, ad.AnnData, str]


def pairs(folder: Path) -> Iterator[Pair]:
    """Name, training cells, query and kind of values."""

    def read(name: str) -> ad.AnnData:
        return ad.read_h5ad(folder / f"{name}.h5ad")

    for name in FILES:
        adata = read(name)
        section = adata.obs["section"].astype(str)
        for held_out in section.unique():
            test = (section == held_out).to_numpy()
            yield f"{name}, {held_out}", adata[~test], adata[test], "counts"
    adata = read("merfish_hypothalamus")
    test = (adata.obs["section"].astype(str) == "animal1_bregma+0.21").to_numpy()
    kind = adata.obs["cell_type"].astype(str)
    for label in kind.value_counts().index[:4]:
        query = adata[test & (kind == label).to_numpy()]
        yield f"merfish_hypothalamus, {label} only", adata[~test], query, "counts"
    for name, values in HALVED.items():
        adata = read(name)
        x = adata.obsm["spatial"][:, 0]
        chance = np.random.default_rng(0).permutation(adata.n_obs) < adata.n_obs // 2
        for how, half in (("random half", chance), ("contiguous half", x < np.median(x))):
            yield f"{name}, {how}", adata[half], adata[~half], values
    for training, query in PLATFORMS:
        yield f"{training} <- {query}", read(training), read(query), "counts"


def measure(training: ad.AnnData, query: ad.AnnData, values: str) -> dict[str, object]:
    """Statistics of the query relative to training, on the genes that both have."""
    genes = [gene for gene in training.var_names if gene in query.var_names]
    training, query = training[:, genes].copy(), query[:, genes].copy()
    for adata in (training, query):
        adata.obs["section"] = "all"
    al.AlphaSTomics.setup_anndata(training, values=values)
    model = al.AlphaSTomics(training, training_mode="expr_to_pos", **SMALL)
    model.train(max_steps=1, set_size=32, batch_size=2, progress_bar=False)
    task = model._reader.task(query, "expr_to_pos", predicts=True)
    found = section_statistics(model.module, task, np.flatnonzero(task.in_query))
    varies = np.isfinite(found.std)
    return {
        "depth": found.depth,
        "log deviation": np.abs(np.log(found.std[varies])).mean(),
        "recognized": "yes" if is_shifted(found) else "no",
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    args = start(parser)
    rows = []
    for name, training, query, values in pairs(args.data_dir):
        rows.append({"query": name, **measure(training, query, values)})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.round(3).to_csv(args.out / "platforms.csv", index=False)
    lines = ["| " + " | ".join(table) + " |", "|---" * len(table.columns) + "|"]
    for row in table.itertuples(index=False):
        lines.append(f"| {row[0]} | {row[1]:.2f} | {row[2]:.2f} | {row[3]} |")
    (args.out / "platforms.md").write_text(
        "# Cells of another platform\n\nMedian depth relative to training, and mean absolute "
        "logarithm of the ratio of the genes' standard deviations.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
