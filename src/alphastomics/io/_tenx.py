"""10x outputs: matrices (h5, mtx), Visium, Visium HD and Xenium; images are not read."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from scipy import sparse
from scipy.io import mmread

from alphastomics.io._delimited import as_text, column_names, is_parquet, read_whole
from alphastomics.io._files import DataError
from alphastomics.io._instruments import (
    MICROMETRES,
    PIXELS,
    Output,
    Sample,
    by_id,
    drop_genes,
    join,
    take_positions,
)

GENE = "Gene Expression"
H5_MATRIX = r"((filtered|raw)_)?feature_bc_matrix\.h5"
MTX_MATRIX = r"matrix\.mtx(\.gz)?"
XENIUM_FOLDER = "cell_feature_matrix"
XENIUM_MATRIX = r"cell_feature_matrix\.h5"
CELLS = ("cells.parquet", r"cells\.csv(\.gz)?")
SPOTS = tuple(
    f"{folder}{name}"
    for folder in ("spatial/", "")
    for name in (r"tissue_positions\.parquet", r"tissue_positions(_list)?\.csv(\.gz)?")
)
HD_BINS = re.compile(r"square_0*(\d+)um")
FACTORS = (r"spatial/scalefactors_json\.json", r"scalefactors_json\.json")
SPOT_COLUMNS = (
    *("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"),
)


def read_tenx(sample: Sample) -> Output:
    """Read a 10x matrix, with the positions of spots, bins or cells if there are any."""
    if sample.matrix.parent.name == XENIUM_FOLDER:
        return read_xenium(sample)
    left_out: list[str] = []
    matrix, barcodes, genes, files = _counts(sample, left_out)
    spots = sample.find(*SPOTS)
    if spots is None and replace(sample, alone=True).find(*SPOTS) is not None:
        raise DataError(
            f"{sample.folder} has a folder 'spatial', but several matrices: which of them it "
            "belongs to is not clear. Move each matrix to a folder of its own."
        )
    if spots is None:
        obs = pd.DataFrame(index=barcodes)
        return Output("10x counts", None, matrix, obs, genes, None, files, left_out)
    table = _spots(spots)
    matrix, obs = join(matrix, barcodes, genes, table, (sample.matrix, spots), [])
    inside = obs["in_tissue"].astype(int).to_numpy() > 0
    if len(obs) < len(barcodes):
        left_out.append(f"{len(barcodes) - len(obs):,} spots without position")
    if not inside.all():
        left_out.append(f"{int((~inside).sum()):,} spots outside the tissue")
    matrix, obs = matrix[inside], obs[inside]
    size = HD_BINS.fullmatch(sample.folder.name)
    scale = _pixel_size(sample) if size else None
    if size is not None:
        others = {HD_BINS.fullmatch(f.name) for f in sample.folder.resolve().parent.iterdir()}
        sizes = sorted({int(o[1]) for o in others if o is not None} - {int(size[1])})
        left_out += [f"bins of {' and '.join(map(str, sizes))} µm"] if sizes else []
    columns = ("pxl_col_in_fullres", "pxl_row_in_fullres")
    obs, position = take_positions(obs, columns, spots, 1.0 if scale is None else scale)
    kind = "Visium" if size is None else f"Visium HD, bins of {size[1]} µm"
    units = PIXELS if scale is None else MICROMETRES
    return Output(kind, units, matrix, obs, genes, position, (*files, spots), left_out)


def read_xenium(sample: Sample) -> Output:
    """Read matrix and cells of a Xenium output."""
    left_out: list[str] = []
    matrix, barcodes, genes, files = _counts(sample, left_out)
    cells = sample.need("Xenium", *CELLS)
    table = by_id(read_whole(cells, text=["cell_id"]), "cell_id", cells)
    matrix, obs = join(matrix, barcodes, genes, table, (sample.matrix, cells), left_out)
    obs, position = take_positions(obs, ("x_centroid", "y_centroid"), cells)
    return Output("Xenium", MICROMETRES, matrix, obs, genes, position, (*files, cells), left_out)


def _pixel_size(sample: Sample) -> float | None:
    """µm in a pixel of the image, where the scale factors have it."""
    path = sample.find(*FACTORS)
    factors = json.loads(path.read_text()) if path is not None else {}
    size = factors.get("microns_per_pixel")
    return None if size is None else float(size)


def _spots(path: Path) -> pd.DataFrame:
    """Positions of spots by barcode; older files have no header."""
    names = column_names(path)
    if is_parquet(path) or "barcode" in [name.lower() for name in names]:
        table = read_whole(path, text=["barcode"])
    elif len(names) != len(SPOT_COLUMNS):
        raise DataError(
            f"{path} has {len(names)} columns; positions of spots have {', '.join(SPOT_COLUMNS)}."
        )
    else:
        names = list(SPOT_COLUMNS)
        table = pd.read_csv(path, header=None, names=names, dtype={"barcode": str})
    return by_id(table, "barcode", path)


def _counts(
    sample: Sample, left_out: list[str]
) -> tuple[sparse.csr_matrix, pd.Index, pd.Index, tuple[Path, ...]]:
    """Counts of genes ``(n_cells, n_genes)``, barcodes, genes, and the files they are from."""
    if sample.matrix.suffix == ".h5":
        matrix, barcodes, features, files = _h5(sample.matrix)
    else:
        matrix, barcodes, features, files = _mtx(sample)
    kinds = features["kind"]
    matrix, genes = drop_genes(
        matrix,
        pd.Index(features["name"]),
        ((kinds == GENE) | kinds.isna()).to_numpy(dtype=bool),
        "features that are no genes",
        left_out,
    )
    if genes.has_duplicates:  # gene symbols may come twice
        genes = make_index_unique(genes)
    return matrix, barcodes, genes, files


def _h5(
    path: Path,
) -> tuple[sparse.csr_matrix, pd.Index, pd.DataFrame, tuple[Path, ...]]:
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names that come twice
        adata = sc.read_10x_h5(path, gex_only=False)
    kinds = adata.var.get("feature_types", pd.Series(GENE, adata.var_names)).to_numpy()
    features = pd.DataFrame({"name": adata.var_names, "kind": kinds})
    return sparse.csr_matrix(adata.X), adata.obs_names, features, (path,)


def _mtx(
    sample: Sample,
) -> tuple[sparse.csr_matrix, pd.Index, pd.DataFrame, tuple[Path, ...]]:
    near = Sample(sample.matrix.parent, sample.prefix, sample.matrix)
    barcodes = near.need("10x mtx", r"barcodes\.tsv(\.gz)?")
    features = near.need("10x mtx", r"features\.tsv(\.gz)?", r"genes\.tsv(\.gz)?")
    names, table = _lines(barcodes)[0], _lines(features)
    # (n_features, n_barcodes)
    matrix = sparse.csc_matrix(mmread(sample.matrix))
    shape = (len(table), len(names))
    if matrix.shape != shape:
        turned = matrix.shape == shape[::-1]
        raise DataError(
            f"{sample.matrix} has {matrix.shape[0]:,} rows and {matrix.shape[1]:,} columns, but "
            f"{features.name} names {shape[0]:,} features and {barcodes.name} {shape[1]:,} cells"
            + (
                ": it is transposed, rows of a 10x matrix are features."
                if turned
                else ": these files do not belong together, or one is incomplete."
            )
        )
    found = pd.DataFrame(
        {
            "name": table[1 if 1 in table else 0],
            "kind": table[2] if 2 in table else np.full(len(table), np.nan, dtype=object),
        }
    )
    return matrix.T.tocsr(), pd.Index(names), found, (sample.matrix, barcodes, features)


def _lines(path: Path) -> pd.DataFrame:
    """Columns of a file without header, as text."""
    table = pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False)
    return table.apply(as_text)
