"""Run one method on exported tasks, and keep seconds and memory.

    peers_env/bin/python benchmarks/peers/run.py tangram peers_inputs/map_*.npz

Writes `<task>.<method>.npz` beside each task: the estimates by name, `seconds` of processor time of
the whole method, imports included (the clock's in `waited`, which other jobs lengthen) and
`peak_mb`, the highest memory of the process so far above that at its start: one section a call.
Runs in an environment with anndata and the method alone; nothing here is imported by the package.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

Estimates = dict[str, np.ndarray]


def table(x: np.ndarray, genes: np.ndarray, positions: np.ndarray | None = None) -> ad.AnnData:
    names = [f"cell_{i}" for i in range(len(x))]
    adata = ad.AnnData(csr_matrix(x), pd.DataFrame(index=names), pd.DataFrame(index=list(genes)))
    if positions is not None:
        adata.obsm["spatial"] = positions
    return adata


def logged(task: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    """Reference and query, each cell brought to the median total of the reference, then log1p."""
    if str(task.values) != "counts":
        return np.log1p(task.reference), np.log1p(task.query)
    target = np.median(task.reference.sum(1))
    total = [np.maximum(x.sum(1, keepdims=True), 1) for x in (task.reference, task.query)]
    return np.log1p(task.reference / total[0] * target), np.log1p(task.query / total[1] * target)


def placed(weights: np.ndarray, positions: np.ndarray) -> Estimates:
    """Both readings of weights (query, reference): the mean position and the likeliest one."""
    weights = weights / weights.sum(1, keepdims=True)
    return {"mean": weights @ positions, "argmax": positions[weights.argmax(1)]}


# ---- mapping: peers


def tangram(task: SimpleNamespace) -> Estimates:
    """Tutorial `tutorial_tangram`: mode "cells", 500 epochs.

    `density_prior="uniform"` is what the documentation names for voxels of a single cell
    ("rna_count_based" for Visium). Cells are normalized there, space is not.
    """
    import tangram as tg

    x, q = (np.expm1(v) for v in logged(task))
    cells, space = table(q, task.genes), table(x, task.genes)
    tg.pp_adatas(cells, space, genes=None)
    found = tg.map_cells_to_space(
        cells,
        space,
        mode="cells",
        density_prior="uniform",
        num_epochs=500,
        device="cpu",
        random_state=int(task.seed),
        verbose=False,
    )
    return placed(np.asarray(found.X), task.positions)


def novosparc(task: SimpleNamespace) -> Estimates:
    """Tutorial of the Drosophila embryo with an atlas: 5 neighbors, alpha .8, epsilon 5e-3.

    Every gene is a marker, since the atlas measures all of them.
    """
    import novosparc as ns

    x, q = logged(task)
    dataset = table(q, task.genes)
    dataset.X = q
    tissue = ns.cm.Tissue(dataset=dataset, locations=task.positions)
    tissue.setup_reconstruction(
        atlas_matrix=x,
        markers_to_use=np.arange(len(task.genes)),
        num_neighbors_s=5,
        num_neighbors_t=5,
    )
    tissue.reconstruct(alpha_linear=0.8, epsilon=5e-3)
    return placed(np.asarray(tissue.gw), task.positions)


def moscot(task: SimpleNamespace) -> Estimates:
    """Tutorial of spatial mapping: PCA of 30 components of the cells, local PCA of shared genes.

    `solve()` with its defaults (alpha .5, epsilon .01, balanced).
    """
    import scanpy as sc
    from moscot.problems.space import MappingProblem

    x, q = logged(task)
    cells, space = table(q, task.genes), table(x, task.genes, task.positions)
    cells.X, space.X = q, x
    sc.pp.pca(cells, n_comps=min(30, len(task.genes) - 1), random_state=int(task.seed))
    problem = MappingProblem(adata_sc=cells, adata_sp=space)
    problem = problem.prepare(
        sc_attr={"attr": "obsm", "key": "X_pca"}, xy_callback="local-pca"
    ).solve()
    plan = np.asarray(next(iter(problem.solutions.values())).transport_matrix)
    return placed(plan.T, task.positions)  # rows of the plan are places


def celery(task: SimpleNamespace) -> Estimates:
    """README and `Fit_cord`'s defaults: layers 30, 25, 15, 500 epochs, z-scored genes.

    The network has two outputs, so a volume can't be mapped. Its outputs are shares of the extent
    of the reference widened by 1 on each side, as in its data set.
    """
    import CeLEry
    import torch

    x, q = logged(task)
    train, test = table(x, task.genes), table(q, task.genes)
    train.X, test.X = x, q
    train.obs[["x_pixel", "y_pixel"]] = task.positions
    mean, sd = x.mean(0), np.maximum(x.std(0), 1e-6)
    with tempfile.TemporaryDirectory() as folder:
        for adata in (train, test):
            adata.X = (adata.X - mean) / sd  # get_zscore; anndata takes no foreign attributes
        CeLEry.Fit_cord(
            data_train=train,
            hidden_dims=[30, 25, 15],
            num_epochs_max=500,
            path=folder,
            filename="model",
            num_workers=0,
            seednum=int(task.seed),
        )
        with torch.no_grad():
            share = CeLEry.Predict_cord(data_test=test, path=folder, filename="model")
    low, high = task.positions.min(0) - 1, task.positions.max(0) + 1
    return {"regression": low + share * (high - low)}


# ---- mapping: ours and the simplest baseline


def knn(task: SimpleNamespace) -> Estimates:
    """As in benchmarks/reference.py: cosine, on genes standardized by the reference."""
    from sklearn.neighbors import KNeighborsRegressor

    x, q = logged(task)
    mean, sd = x.mean(0), np.maximum(x.std(0), 1e-3)
    return {
        str(k): KNeighborsRegressor(k, metric="cosine")
        .fit((x - mean) / sd, task.positions)
        .predict((q - mean) / sd)
        for k in (1, 10, 50)
    }


def alphastomics(task: SimpleNamespace) -> Estimates:
    """As in benchmarks/reference.py, with all defaults."""
    import torch

    import alphastomics as al

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    reference = table(task.reference, task.genes, task.positions)
    query = table(task.query, task.genes)
    al.AlphaSTomics.setup_anndata(reference, values=str(task.values), section_key=None)
    model = al.AlphaSTomics(reference, training_mode="expr_to_pos", seed=int(task.seed))
    model.train(progress_bar=False)
    model.predict(query, reference=reference, progress_bar=False)
    model.sample(query, reference=reference, seed=int(task.seed), progress_bar=False)
    return {
        "predict": np.asarray(query.obsm["spatial_predicted"]),
        "one draw": np.asarray(query.obsm["spatial_sampled"]),
    }


# ---- imputation: peers


def tangram_impute(task: SimpleNamespace) -> Estimates:
    """Tutorial: mode "cells", 500 epochs, counts of RNA as density; genes by `project_genes`."""
    return {"cells": project(task, {"mode": "cells", "num_epochs": 500})}


def tangram_clusters(task: SimpleNamespace) -> Estimates:
    """Mode "clusters" of Leiden's (resolution .5), 1,000 epochs, as the code of stDiff calls it."""
    import scanpy as sc

    cells = table(task.dissociated_counts, task.genes)
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    sc.pp.scale(cells, max_value=10)
    sc.pp.pca(cells)
    sc.pp.neighbors(cells)
    sc.tl.leiden(cells, resolution=0.5, flavor="igraph", n_iterations=2, directed=False)
    options = {"mode": "clusters", "cluster_label": "cluster", "num_epochs": 1000}
    return {"clusters": project(task, options, cells.obs["leiden"].to_numpy())}


def project(
    task: SimpleNamespace, options: dict[str, object], clusters: np.ndarray | None = None
) -> np.ndarray:
    """Hidden genes at the places of a section by Tangram's map of the dissociated cells."""
    import tangram as tg

    visible = task.genes[: task.spatial.shape[1]]
    cells, space = table(task.dissociated, task.genes), table(task.spatial, visible)
    cells.obs["cluster"] = pd.Categorical(
        clusters if clusters is not None else ["one"] * len(cells)
    )
    label = {"cluster_label": "cluster"} if clusters is not None else {}
    tg.pp_adatas(cells, space, genes=list(visible))
    found = tg.map_cells_to_space(
        cells,
        space,
        density_prior="rna_count_based",
        device="cpu",
        random_state=int(task.seed),
        verbose=False,
        **options,
    )
    genes = tg.project_genes(found, cells, **label)
    hidden = [g.lower() for g in task.genes[task.spatial.shape[1] :]]
    return np.asarray(genes[:, hidden].X)


def gimvi(task: SimpleNamespace) -> Estimates:
    """Tutorial: counts, 200 epochs, its default distributions.

    Counts are estimated for the protocol on raw counts; for those on normalized ones the estimated
    share of a gene, on the same scale as the truth (log1p of counts per 10,000).
    """
    import scvi
    from scvi.external import GIMVI

    scvi.settings.seed = int(task.seed)
    n_visible = task.spatial.shape[1]
    cells = table(task.dissociated_counts, task.genes)
    space = table(task.spatial_counts, task.genes[:n_visible])
    seen = np.asarray(space.X.sum(1)).ravel() > 0  # it takes no cell without counts
    GIMVI.setup_anndata(cells)
    fitted = space[seen].copy()
    GIMVI.setup_anndata(fitted)
    model = GIMVI(cells, fitted)
    model.train(max_epochs=200)
    _, genes = model.get_imputed_values(normalized=not bool(task.raw))
    found = np.zeros((space.n_obs, len(task.genes) - n_visible))
    found[seen] = np.asarray(genes)[:, n_visible:]
    return {"counts": found if bool(task.raw) else np.log1p(found * 1e4)}


# ---- imputation: ours and the baselines


def scaled(task: SimpleNamespace) -> tuple[np.ndarray, np.ndarray, Callable[..., np.ndarray]]:
    """Log-normalized section and dissociated cells, and the way back to the values of the task.

    As in benchmarks/published.py, raw counts are divided by the total over the visible genes.
    """
    if not bool(task.raw):
        return task.spatial, task.dissociated, lambda found: found
    n_visible = task.spatial.shape[1]
    total, of_cells = (
        np.maximum(x[:, :n_visible].sum(1, keepdims=True), 1)
        for x in (task.spatial, task.dissociated)
    )
    depth = np.median(total)
    x, q = np.log1p(task.spatial / total * depth), np.log1p(task.dissociated / of_cells * depth)
    return x, q, lambda found: np.expm1(np.clip(found, 0, None)) * total / depth


def alphastomics_impute(task: SimpleNamespace) -> Estimates:
    """5 steps, as in benchmarks/published.py: the network enters by the mean of a gene alone."""
    import torch

    import alphastomics as al

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    section, cells, back = scaled(task)
    n_visible, n_hidden = section.shape[1], cells.shape[1] - section.shape[1]
    parts = {
        "spatial": table(np.pad(section, ((0, 0), (0, n_hidden))), task.genes, task.positions),
        "dissociated": table(cells, task.genes, np.full((len(cells), 2), np.nan)),
    }
    both = ad.concat(parts, label="section", index_unique="-")
    measured = {"spatial": np.arange(len(task.genes)) < n_visible, "dissociated": True}
    both.varm["measured"] = pd.DataFrame(measured, index=both.var_names)
    al.AlphaSTomics.setup_anndata(both, values="lognorm")
    model = al.AlphaSTomics(both, training_mode="pos_to_expr", seed=int(task.seed))
    model.train(max_steps=5, progress_bar=False)
    query = both[both.obs["section"] == "spatial", :n_visible].copy()
    del query.varm["measured"]
    model.impute(query, progress_bar=False)
    found = query.obsm["expression_imputed"][list(task.genes[n_visible:])]
    return {"impute": back(found.to_numpy(float))}


def baselines_impute(task: SimpleNamespace) -> Estimates:
    """Ridge, SpaGE, kNN and others of `al.tl.imputation_baselines`."""
    import alphastomics as al

    section, cells, back = scaled(task)
    n_visible = section.shape[1]
    found = al.tl.imputation_baselines(
        section, cells[:, :n_visible], cells[:, n_visible:], seed=int(task.seed)
    )
    return {name: back(values) for name, values in found if "plain" not in name}


METHODS: dict[str, dict[str, Callable[[SimpleNamespace], Estimates]]] = {
    "map": {f.__name__: f for f in (tangram, novosparc, moscot, celery, knn, alphastomics)},
    "impute": {
        "tangram": tangram_impute,
        "tangram_clusters": tangram_clusters,
        "gimvi": gimvi,
        "alphastomics": alphastomics_impute,
        "baselines": baselines_impute,
    },
}


def resident() -> float:
    """Memory of this process now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(method: str, path: Path, before: float) -> str:
    with np.load(path) as stored:
        task = SimpleNamespace(**stored)
    kind = path.name.partition("_")[0]
    used, started = time.process_time(), time.perf_counter()
    estimates = METHODS[kind][method](task)
    seconds, waited = time.process_time() - used, time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before
    found = {name: np.asarray(x, dtype=np.float32) for name, x in estimates.items()}
    done = path.with_suffix(f".{method}.npz")
    np.savez_compressed(done, seconds=seconds, waited=waited, peak_mb=peak, **found)
    return f"{path.stem} {method}: {seconds:.0f} s ({waited:.0f}), {peak:.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("method")
    parser.add_argument("tasks", type=Path, nargs="+")
    args = parser.parse_args()
    before = resident()
    for path in args.tasks:
        print(run(args.method, path, before), flush=True)


if __name__ == "__main__":
    main()
