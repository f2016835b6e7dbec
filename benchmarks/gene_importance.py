"""Place a section by the 20 genes that matter most in training, and look for known markers.

    python benchmarks/gene_importance.py --data starmap_mpfc.h5ad --test BZ5

Trains on all other sections of the file, once a seed. The importance of genes, and all other
choices of 20 genes, come from the training sections; the same model then places the held-out
section by those 20 genes alone. Cells without a count of them are put at the center of the others.
The ten most important genes are compared with layer markers of the literature. Writes a CSV with
every seed, a CSV with the importance of all genes, a Markdown table and a figure to
benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from common import make_parser, start
from placement import cell
from scipy.stats import hypergeom, spearmanr
from sklearn.feature_selection import f_classif

import alphastomics as al
from alphastomics.tl._score import placement_scores

N_GENES, N_TOP, N_RANDOM = 20, 10, 10
METHODS = ("hiding", "gradients")
SHOWN = ["distance_spearman", "neighbor_recall@20", "procrustes_rmse", "rigid_rmse_units"]
# Layers of the mouse cortex. Tasic et al. 2016 (Nat Neurosci 19:335) name their glutamatergic types
# by a layer and a gene; the others are layer markers of Molyneaux et al. 2007 (Nat Rev Neurosci
# 8:427) or of Tasic et al. 2016 and 2018 (Nature 563:72).
MOUSE = {
    "Reln": "L1", "Ndnf": "L1",
    "Cux2": "L2-4", "Otof": "L2/3", "Rasgrf2": "L2/3", "Ngb": "L2", "Ptgs2": "L2/3",
    "Rorb": "L4", "Scnn1a": "L4", "Ctxn3": "L4", "Arf5": "L4",
    "Etv1": "L5", "Pcp4": "L5", "Rbp4": "L5", "Deptor": "L5", "Batf3": "L5", "Hsd11b1": "L5",
    "Pde1c": "L5", "Tcerg1l": "L5", "Ucma": "L5", "Cdh13": "L5", "Chrna6": "L5", "Tph2": "L5",
    "Tbr1": "L6", "Foxp2": "L6", "Syt6": "L6", "Car12": "L6", "Mgp": "L6", "Sla": "L6",
    "Syt17": "L6", "Rgs12": "L6b", "Serpinb11": "L6b", "Ctgf": "L6b", "Nr4a2": "L6b",
}  # fmt: skip
# Layers of the human DLPFC: Maynard et al. 2021 (Nat Neurosci 24:425), the markers that they
# validated, the earlier ones that they confirmed, and the most enriched genes of each layer; CUX2
# and TBR1 of Molyneaux et al. 2007; myelin genes of oligodendrocytes, which fill the white matter
# (Cahoy et al. 2008, J Neurosci 28:264).
HUMAN = {
    "ENSG00000171885": ("AQP4", "L1"), "ENSG00000164434": ("FABP7", "L1"),
    "ENSG00000189056": ("RELN", "L1"), "ENSG00000115756": ("HPCAL1", "L2"),
    "ENSG00000168952": ("STXBP6", "L2"), "ENSG00000111885": ("MAN1A1", "L2"),
    "ENSG00000197555": ("SIPA1L1", "L2"), "ENSG00000183090": ("FREM3", "L3"),
    "ENSG00000164326": ("CARTPT", "L3"), "ENSG00000141433": ("ADCYAP1", "L3"),
    "ENSG00000007516": ("BAIAP3", "L3"), "ENSG00000139190": ("VAMP1", "L4"),
    "ENSG00000100285": ("NEFH", "L4"), "ENSG00000105711": ("SCN1B", "L4"),
    "ENSG00000165553": ("NGB", "L4"), "ENSG00000198963": ("RORB", "L4"),
    "ENSG00000183036": ("PCP4", "L5"), "ENSG00000186854": ("TRABD2A", "L5"),
    "ENSG00000145349": ("CAMK2D", "L5"), "ENSG00000143499": ("SMYD2", "L5"),
    "ENSG00000128422": ("KRT17", "L6"), "ENSG00000187094": ("CCK", "L6"),
    "ENSG00000129009": ("ISLR", "L6"), "ENSG00000276644": ("DACH1", "L6"),
    "ENSG00000168314": ("MOBP", "WM"), "ENSG00000104419": ("NDRG1", "WM"),
    "ENSG00000240583": ("AQP1", "WM"), "ENSG00000160781": ("PAQR6", "WM"),
    "ENSG00000111249": ("CUX2", "L2-4"), "ENSG00000136535": ("TBR1", "L6"),
    "ENSG00000197971": ("MBP", "WM"), "ENSG00000123560": ("PLP1", "WM"),
    "ENSG00000173786": ("CNP", "WM"),
}  # fmt: skip
# Names of other genes that rank high; not counted as markers.
NAMES = {
    "ENSG00000124935": "SCGB1D2", "ENSG00000153002": "CPB1", "ENSG00000170323": "FABP4",
    "ENSG00000170421": "KRT8", "ENSG00000160182": "TFF1", "ENSG00000185499": "MUC1",
    "ENSG00000173432": "SAA1", "ENSG00000251562": "MALAT1", "ENSG00000064787": "BCAS1",
    "ENSG00000091513": "TF", "ENSG00000105695": "MAG", "ENSG00000167641": "PPP1R14A",
    "ENSG00000080822": "CLDND1",
    "ENSG00000131095": "GFAP", "ENSG00000132639": "SNAP25", "ENSG00000171617": "ENC1",
    "ENSG00000104722": "NEFM", "ENSG00000277586": "NEFL", "ENSG00000111640": "GAPDH",
    "ENSG00000102003": "SYP", "ENSG00000026508": "CD44", "ENSG00000157005": "SST",
    "ENSG00000122585": "NPY", "ENSG00000125869": "LAMP5", "ENSG00000163032": "VSNL1",
    "ENSG00000154146": "NRGN", "ENSG00000145824": "CXCL14", "ENSG00000113319": "RASGRF2",
    "ENSG00000173267": "SNCG", "ENSG00000171532": "NEUROD2", "ENSG00000244734": "HBB",
    "ENSG00000188536": "HBA2", "ENSG00000206172": "HBA1", "ENSG00000075624": "ACTB",
    "ENSG00000110484": "SCGB2A2", "ENSG00000159164": "SV2A", "ENSG00000160307": "S100B",
    "ENSG00000109846": "CRYAB",
}  # fmt: skip


def markers(genes: pd.Index) -> tuple[pd.Series, pd.Series]:
    """Layer of each gene, "" for those that are no marker, and the names to show."""
    layer = {**MOUSE, **{gene: where for gene, (_, where) in HUMAN.items()}}
    name = {**NAMES, **{gene: symbol for gene, (symbol, _) in HUMAN.items()}}
    return (
        pd.Series([layer.get(gene, "") for gene in genes], index=genes),
        pd.Series([name.get(gene, gene) for gene in genes], index=genes),
    )


def other_choices(atlas: ad.AnnData, layer_key: str) -> dict[str, pd.Series]:
    """Scores of genes by which others would choose them, from the training sections."""
    logged = atlas.copy()
    sc.pp.normalize_total(logged)
    sc.pp.log1p(logged)
    X, section = logged.X.toarray(), atlas.obs["section"].to_numpy()
    moran = [
        np.nan_to_num(al.metrics.morans_i(X[section == s], atlas.obsm["spatial"][section == s], 6))
        for s in np.unique(section)
    ]
    layer = atlas.obs[layer_key].astype(str).to_numpy()
    named = ~np.isin(layer, ["NA", "nan"])
    variable = atlas.copy()
    al.pp.highly_variable_genes(variable, n_top_genes=N_GENES)
    scores = {
        "most variable": variable.var["highly_variable"].to_numpy(float),
        "highest Moran's I": np.mean(moran, axis=0),
        "highest F over annotated layers": np.nan_to_num(f_classif(X[named], layer[named])[0]),
    }
    return {name: pd.Series(score, index=atlas.var_names) for name, score in scores.items()}


def trained(atlas: ad.AnnData, seed: int, args: argparse.Namespace) -> al.AlphaSTomics:
    """A trained model, from the folder of models if it is there."""
    al.AlphaSTomics.setup_anndata(atlas)
    if args.models is None:
        folder = None
    else:
        folder = args.models / f"{args.data.stem}_{args.test}_{seed}"
        if folder.is_dir():
            return al.AlphaSTomics.load(folder)
    model = al.AlphaSTomics(atlas, training_mode="expr_to_pos", seed=seed)
    model.train(max_steps=args.max_steps, progress_bar=False)
    if folder is not None:
        model.save(folder)
    return model


def in_rounds(model: al.AlphaSTomics, atlas: ad.AnnData) -> list[str]:
    """Genes that are left when the less important half is dropped again and again."""
    genes = list(atlas.var_names)
    while len(genes) > N_GENES:
        rest = atlas[:, genes].copy()
        al.tl.gene_importance(model, rest, method="gradients")
        n = max(len(genes) // 2, N_GENES)
        genes = list(rest.var["position_importance"].nlargest(n).index)
    return genes


def place(model: al.AlphaSTomics, cells: ad.AnnData, genes: list[str]) -> dict[str, float]:
    """Scores of the held-out section, placed by some genes alone."""
    query = cells[:, genes].copy()
    del query.obsm["spatial"]
    model.predict(query, progress_bar=False)
    placed = query.obsm["spatial_predicted"]
    blank = np.isnan(placed).any(1)
    placed[blank] = placed[~blank].mean(0)
    scores = placement_scores(np.asarray(cells.obsm["spatial"], dtype=float), placed)
    return {**{name: scores[name] for name in SHOWN}, "cells without counts": int(blank.sum())}


def enrichment(top: pd.Index, layer: pd.Series) -> tuple[int, float]:
    """Markers among some genes, and the probability of as many among random ones."""
    k, n = int((layer[top] != "").sum()), int((layer != "").sum())
    return k, float(hypergeom.sf(k - 1, len(layer), n, len(top)))


def text_of_markers(importance: pd.DataFrame, layer: pd.Series, name: pd.Series) -> list[str]:
    """Lines about the ten most important genes of every method, the mean over seeds."""
    n = int((layer != "").sum())
    lines = [
        f"{n} of {len(layer)} genes are layer markers of the literature (listed with source in "
        f"benchmarks/gene_importance.py): {n / len(layer) * N_TOP:.1f} of {N_TOP} by chance.",
        "",
        f"| the {N_TOP} first by | genes | markers | p (hypergeometric) | of the first {N_GENES} |",
        "|---|---|---|---|---|",
    ]
    for column in importance:
        top = importance[column].nlargest(N_TOP).index
        k, p = enrichment(top, layer)
        wide, _ = enrichment(importance[column].nlargest(N_GENES).index, layer)
        genes = ", ".join(f"**{name[g]}** ({layer[g]})" if layer[g] else str(name[g]) for g in top)
        lines.append(f"| {column} | {genes} | {k} | {p:.2g} | {wide} |")
    return lines


def agreement(tables: list[pd.DataFrame]) -> str:
    """How well both methods agree, and two seeds of one."""

    def compared(pairs: list[tuple[pd.Series, pd.Series]]) -> str:
        rank = np.mean([spearmanr(a, b).statistic for a, b in pairs])
        tops = [a.nlargest(N_GENES).index.isin(b.nlargest(N_GENES).index).sum() for a, b in pairs]
        return f"{rank:.2f}, {np.mean(tops):.1f} of {N_GENES}"

    lines = [f"- both methods: {compared([(t[METHODS[0]], t[METHODS[1]]) for t in tables])}"]
    for method in METHODS:
        pairs = [(a[method], b[method]) for i, a in enumerate(tables) for b in tables[:i]]
        if pairs:
            lines.append(f"- {method}, two seeds: {compared(pairs)}")
    return "\n".join(lines)


def draw(importance: pd.DataFrame, name: pd.Series, path: Path) -> None:
    """The first 20 genes of both methods."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for method, ax in zip(METHODS, axes, strict=True):
        genes = ad.AnnData(var=pd.DataFrame({"x": importance[method], "name": name}))
        al.pl.gene_importance(genes, N_GENES, key="x", gene_symbols="name", ax=ax)
        ax.set_title(f"Genes that decide the position,\nby {method}")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def text_of_placement(results: pd.DataFrame) -> list[str]:
    """Lines about the held-out section, the best choice of genes first."""
    groups = results.groupby("genes", sort=False)[[*SHOWN, "cells without counts"]]
    mean, sd = groups.mean(), groups.std(ddof=1)
    lines = ["| genes by | " + " | ".join(mean.columns) + " |", "|---" * (1 + mean.shape[1]) + "|"]
    for what in mean.sort_values("distance_spearman", ascending=False).index:
        values = [cell(mean.loc[what, c], sd.loc[what, c]) for c in mean.columns]
        lines.append(f"| {what} | " + " | ".join(values) + " |")
    return lines


def evaluate(
    model: al.AlphaSTomics,
    atlas: ad.AnnData,
    cells: ad.AnnData,
    others: dict[str, pd.Series],
    seed: int,
) -> tuple[list[dict[str, float | str]], pd.DataFrame]:
    """Scores of the held-out section by each choice of genes, and the importance of all genes."""
    for method in METHODS:
        al.tl.gene_importance(model, atlas, method=method, key_added=method, seed=seed)
    importance = atlas.var[list(METHODS)].copy()
    chosen = {"all genes": list(atlas.var_names)}
    chosen |= {f"importance by {m}": list(importance[m].nlargest(N_GENES).index) for m in METHODS}
    chosen["importance by gradients, in rounds of halves"] = in_rounds(model, atlas)
    chosen |= {what: list(score.nlargest(N_GENES).index) for what, score in others.items()}
    rows = [{"genes": what, **place(model, cells, genes)} for what, genes in chosen.items()]
    rng = np.random.default_rng(seed)
    drawn = [list(rng.permutation(atlas.var_names)[:N_GENES]) for _ in range(N_RANDOM)]
    random = pd.DataFrame([place(model, cells, genes) for genes in drawn])
    best = random.loc[random["distance_spearman"].idxmax()]
    rows.append({"genes": f"random, mean of {N_RANDOM}", **random.mean()})
    rows.append({"genes": f"random, best of {N_RANDOM} on the held-out section", **best})
    return [{**row, "seed": seed} for row in rows], importance


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", required=True, help="section to hold out")
    parser.add_argument("--layer_key", default="cell_type", help="annotated layers in obs")
    parser.add_argument("--max_steps", type=int, default=None)
    parser.add_argument("--models", type=Path, help="folder to keep trained models in")
    args = start(parser)

    adata = ad.read_h5ad(args.data)
    held_out = (adata.obs["section"].astype(str) == args.test).to_numpy()
    cells, atlas = adata[held_out].copy(), adata[~held_out].copy()
    others = other_choices(atlas, args.layer_key)
    rows, tables = [], {}
    for seed in args.seeds:
        of_seed, tables[seed] = evaluate(trained(atlas, seed, args), atlas, cells, others, seed)
        print(pd.DataFrame(of_seed).round(3).to_string(), flush=True)
        rows += of_seed
    report(pd.DataFrame(rows), tables, others, f"{args.data.stem}, {args.test}", args.out)


def report(
    results: pd.DataFrame,
    tables: dict[int, pd.DataFrame],
    others: dict[str, pd.Series],
    title: str,
    out: Path,
) -> None:
    """Write the tables and the figure."""
    importance = sum(tables.values()) / len(tables)
    layer, name = markers(importance.index)
    stem = f"gene_importance_{title.replace(', ', '_')}"
    results.round(5).to_csv(out / f"{stem}.csv", index=False)
    by_seed = {f"{m}, seed {s}": table[m] for s, table in tables.items() for m in METHODS}
    of_genes = pd.DataFrame({**by_seed, **others, "marker": layer, "name": name})
    of_genes.round(6).to_csv(out / f"{stem}_genes.csv")
    draw(importance, name, out / f"{stem}.png")
    ranked = importance.assign(**others).drop(columns="most variable")  # which has no order
    text = "\n".join(
        [
            f"# Genes that decide the position: {title} held out",
            "",
            f"The held-out section placed by {N_GENES} of {len(layer)} genes, chosen in the "
            f"training sections; mean ± sd over seeds {', '.join(map(str, tables))}.",
            "",
            *text_of_placement(results),
            "",
            *text_of_markers(ranked, layer, name),
            "",
            "Agreement, as Spearman's correlation over all genes and as common genes of the first "
            f"{N_GENES}:",
            "",
            agreement(list(tables.values())),
        ]
    )
    (out / f"{stem}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
