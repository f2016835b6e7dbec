"""Write what every method reads, peers and ours: the same cells, genes, halves and folds.

    python benchmarks/peers/export.py --data ../shared/data --to peers_inputs

A file a task. `map_<section>_<seed>.npz`: cells of one seeded random half with positions, cells of
the other half without. `impute_<protocol>_<fold>.npz`: the visible genes of a section, all genes of
dissociated cells. What is to be found is in `truth/`, which no method opens.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
from sklearn.model_selection import KFold

# name, values, cells of both halves together (None: all)
SECTIONS = (
    ("osmfish_cortex", "counts", None),
    ("drosophila_bdtnp", "intensity", None),
    ("breast_xenium", "counts", 2000),
)


def dense(adata: ad.AnnData) -> np.ndarray:
    return np.asarray(adata.X.toarray(), dtype=np.float32)


def write(folder: Path, name: str, truth: np.ndarray, **arrays: object) -> None:
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    np.savez_compressed(folder / "truth" / f"{name}.npz", truth=truth)


def mapping(data: Path, to: Path, seeds: list[int]) -> None:
    """Halves of benchmarks/reference.py, of a seeded subsample where a section is large."""
    for name, values, n_cells in SECTIONS:
        section = ad.read_h5ad(data / f"{name}.h5ad")
        for seed in seeds:
            rng = np.random.default_rng(seed)
            cells = section
            if n_cells is not None:
                cells = section[np.sort(rng.choice(section.n_obs, n_cells, replace=False))]
            known = rng.permutation(cells.n_obs) < cells.n_obs // 2
            x, positions = dense(cells), np.asarray(cells.obsm["spatial"], dtype=float)
            write(
                to,
                f"map_{name}_{seed}",
                positions[~known],
                reference=x[known],
                positions=positions[known],
                query=x[~known],
                genes=np.asarray(section.var_names, dtype=str),
                values=values,
                seed=seed,
            )


def lognorm(x: np.ndarray, total: np.ndarray) -> np.ndarray:
    """log1p of counts per 10,000, as the protocol of stDiff; cells without counts stay zero."""
    return np.log1p(x / np.where(total > 0, total, 1) * 1e4)


def imputation(data: Path, to: Path) -> None:
    """Both published protocols on the same 33 genes, and the second one without its leak.

    `li`: raw counts, ten folds (seeded; the publication's are not known here). Nothing is
    normalized, so hidden genes do not leak. `stdiff`: five folds, every cell normalized by its
    total over all 33 genes, the hidden ones too. `stdiff_visible`: the same folds and cells, the
    totals of the visible genes only, for the truth, too.
    """
    spatial = ad.read_h5ad(data / "osmfish_published.h5ad")
    dissociated = ad.read_h5ad(data / "osmfish_scrna_ref.h5ad")[:, spatial.var_names]
    s, r = dense(spatial), dense(dissociated)
    genes = np.asarray(spatial.var_names, dtype=str)
    for protocol, n_folds in (("li", 10), ("stdiff", 5), ("stdiff_visible", 5)):
        folds = KFold(n_folds, shuffle=True, random_state=0).split(genes)
        for fold, (visible, hidden) in enumerate(folds):
            by_cell, by_gene = s, r
            if protocol != "li":
                counted = visible if protocol == "stdiff_visible" else np.arange(len(genes))
                by_cell, by_gene = (lognorm(x, x[:, counted].sum(1, keepdims=True)) for x in (s, r))
            write(
                to,
                f"impute_{protocol}_{fold}",
                by_cell[:, hidden],
                spatial=by_cell[:, visible],
                dissociated=np.hstack([by_gene[:, visible], by_gene[:, hidden]]),
                spatial_counts=s[:, visible],
                dissociated_counts=np.hstack([r[:, visible], r[:, hidden]]),
                genes=np.concatenate([genes[visible], genes[hidden]]),
                raw=protocol == "li",
                positions=np.asarray(spatial.obsm["spatial"], dtype=float),
                seed=0,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    (args.to / "truth").mkdir(parents=True, exist_ok=True)
    mapping(args.data, args.to, args.seeds)
    imputation(args.data, args.to)


if __name__ == "__main__":
    main()
