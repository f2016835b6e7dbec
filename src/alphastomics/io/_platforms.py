"""Outputs of MERSCOPE, CosMx, Slide-seq and Stereo-seq: tables of counts and of positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alphastomics.io._delimited import (
    as_text,
    column_names,
    expression,
    numbers,
    read_chunks,
    read_whole,
    table_form,
)
from alphastomics.io._files import DataError
from alphastomics.io._instruments import (
    MICROMETRES,
    PIXELS,
    Output,
    Sample,
    by_id,
    drop_genes,
    join,
    require_columns,
    take_positions,
)

MERSCOPE_MATRIX = r"cell_by_gene\.csv(\.gz)?"
COSMX_MATRIX = r"exprMat_file\.csv(\.gz)?"
SLIDESEQ_MATRIX = r"(digital_expression\.txt|MappedDGEForR\.csv)(\.gz)?"
GEM_MATRIX = r"(gem(\.txt)?|(gem|GEM)(_\w+)?\.(tsv|txt))(\.gz)?"

COSMX_NAMES = ("fov", "cell_ID")
COSMX_OTHER = ("cell", "cell_id", "slide_ID", "slide_ID_numeric", "Run_Tissue_name")
CONTROLS = "NegPrb|Negative|SystemControl|FalseCode|NegControl|Custom_Neg"
POSITIONS_MM, POSITIONS_PX = (
    ("x_slide_mm", "y_slide_mm"),
    (*("CenterX_global_px", "CenterY_global_px"),),
)
# STOmics chips: centers of DNBs are 500 nm apart.
DNB = 0.5  # µm
BIN = 50  # DNBs
COUNTS = ("MIDCount", "MIDCounts", "UMICount")
CELL = ("CellID", "cell")
LINES_AT_ONCE = 1_000_000


def read_merscope(sample: Sample) -> Output:
    """Read the cells of a MERSCOPE region."""
    left_out: list[str] = []
    path = sample.need("MERSCOPE", r"cell_metadata\.csv(\.gz)?")
    matrix, ids, genes = _matrix(sample.matrix)
    blank = genes.str.contains("blank", case=False)
    matrix, genes = drop_genes(matrix, genes, ~blank, "blanks", left_out)
    names = column_names(path)
    key = "EntityID" if "EntityID" in names else names[0]
    table = by_id(read_whole(path, text=[key]), key, path)
    matrix, obs = join(matrix, ids, genes, table, (sample.matrix, path), left_out)
    obs, position = take_positions(obs, ("center_x", "center_y"), path)
    files = (sample.matrix, path)
    return Output("MERSCOPE", MICROMETRES, matrix, obs, genes, position, files, left_out)


def read_cosmx(sample: Sample) -> Output:
    """Read the cells of all fields of view of a CosMx slide."""
    left_out: list[str] = []
    path = sample.need("CosMx", r"metadata_file\.csv(\.gz)?")
    matrix, ids, genes = _matrix(sample.matrix, COSMX_NAMES, COSMX_OTHER)
    control = genes.str.match(CONTROLS)
    matrix, genes = drop_genes(matrix, genes, ~control, "controls", left_out)
    inside = ~ids.str.endswith("_0")
    if not inside.all():
        left_out.append(f"counts outside cells (cell_ID 0) of {int((~inside).sum()):,} FOVs")
    table = read_whole(path, text=COSMX_NAMES)
    table = table.set_axis(_joint_names(table, COSMX_NAMES, path))
    matrix, obs = join(matrix[inside], ids[inside], genes, table, (sample.matrix, path), left_out)
    in_mm = all(column in obs for column in POSITIONS_MM)
    columns, units = (POSITIONS_MM, MICROMETRES) if in_mm else (POSITIONS_PX, PIXELS)
    obs, position = take_positions(obs, columns, path, 1000.0 if in_mm else 1.0)
    files = (sample.matrix, path)
    return Output("CosMx", units, matrix, obs, genes, position, files, left_out)


def read_slideseq(sample: Sample) -> Output:
    """Read the beads of a Slide-seq puck."""
    left_out: list[str] = []
    path = sample.need(
        "Slide-seq", r"(bead_locations|BeadLocationsForR|matched_bead_locations)\.(csv|txt)(\.gz)?"
    )
    turned, genes, beads = _matrix(sample.matrix)
    names = column_names(path)
    table = by_id(read_whole(path, text=names[:1]), names[0], path)
    matrix, obs = join(turned.T.tocsr(), beads, genes, table, (sample.matrix, path), left_out)
    obs, position = take_positions(obs, ("xcoord", "ycoord"), path)
    files = (sample.matrix, path)
    return Output("Slide-seq", PIXELS, matrix, obs, genes, position, files, left_out)


def _matrix(
    path: Path, names: tuple[str, ...] = (), other: tuple[str, ...] = ()
) -> tuple[sparse.csr_matrix, pd.Index, pd.Index]:
    """Matrix of a table with its row names, by default the first column, and column names."""
    columns = column_names(path)
    names = names or (columns[0],)
    genes = [column for column in columns if column not in (*names, *other)]
    parts, found, start = [], [], 0
    for chunk in read_chunks(path, text=names):
        found.append(_joint_names(chunk, names, path))
        parts.append(expression(chunk[genes], path, start))
        start += len(chunk)
    if not parts:
        raise DataError(f"{path} holds no cells.")
    return sparse.vstack(parts, format="csr"), found[0].append(found[1:]), pd.Index(genes)


def _joint_names(table: pd.DataFrame, columns: tuple[str, ...], path: Path) -> pd.Index:
    """Names of rows that are in some columns."""
    require_columns(table, columns, path)
    for column in columns:
        if table[column].isna().any():
            raise DataError(f"{path}: {column!r} is missing in a row: name all cells.")
    parts = [table[column].str.strip().to_numpy(dtype=object) for column in columns]
    return pd.Index(["_".join(row) for row in zip(*parts, strict=True)], dtype=object)


def read_stereoseq(sample: Sample) -> Output:
    """Read bins, or cells, of a GEM table of Stereo-seq."""
    path, left_out = sample.matrix, list[str]()
    columns = [name.strip() for name in column_names(path)]
    counts = next((name for name in COUNTS if name in columns), None)
    cell = next((name for name in CELL if name in columns), None)
    missing = {"geneID", "x", "y"} - set(columns)
    if missing or counts is None:
        raise DataError(
            f"{path} is no GEM table: it has no column {(*sorted(missing), 'MIDCount')[0]!r}, but "
            f"{', '.join(columns[:8])}."
        )
    size = 1 if cell is not None else _bin_size(sample)
    used = ["geneID", "x", "y", counts, *([] if cell is None else [cell])]
    molecules = _molecules(path, used, counts, cell, size)
    if cell is not None:
        outside = molecules["id"] == "0"
        if outside.any():
            left_out.append(f"{int(molecules['count'][outside].sum()):,} counts outside cells")
        molecules = molecules[~outside]
    row, ids = pd.factorize(molecules["id"])
    column, genes = pd.factorize(molecules["geneID"])
    count = molecules["count"].to_numpy()
    matrix = sparse.csr_matrix((count, (row, column)), shape=(len(ids), len(genes)))
    # Cells lie at the mean of their molecules, bins at their center.
    total = np.bincount(row, count, minlength=len(ids))
    position = (
        np.stack(
            [np.bincount(row, molecules[axis] * count, minlength=len(ids)) for axis in "xy"], axis=1
        )
        / np.maximum(total, 1)[:, None]
    )
    kind = "Stereo-seq cells" if cell else f"Stereo-seq, bins of {size} DNBs ({size * DNB:g} µm)"
    obs = pd.DataFrame(index=pd.Index(ids, name=None))
    position = (position + size / 2) * DNB
    return Output(kind, MICROMETRES, matrix, obs, pd.Index(genes), position, (path,), left_out)


def _molecules(
    path: Path, used: list[str], counts: str, cell: str | None, size: int
) -> pd.DataFrame:
    """Counts of each gene in each bin or at each place of a cell."""
    text = ["geneID"] if cell is None else ["geneID", cell]
    parts, start = [], 0
    for chunk in read_chunks(path, used, text, n_rows=LINES_AT_ONCE):
        if chunk[text].isna().any(axis=None):
            raise DataError(f"{path}: a row has no {' or no '.join(text)}.")
        values = numbers(chunk[["x", "y", counts]], path, start)
        if not np.isfinite(values).all():
            raise DataError(f"{path}: x, y or {counts} is missing in a row.")
        place: NDArray[np.int64] = np.floor(values[:, :2] / size).astype(np.int64) * size
        part = pd.DataFrame({"geneID": chunk["geneID"].to_numpy(), "count": values[:, 2]})
        part["x"], part["y"] = place.T
        part["id"] = "" if cell is None else chunk[cell].to_numpy()
        parts.append(part.groupby(["id", "x", "y", "geneID"])["count"].sum().reset_index())
        start += len(chunk)
    if not parts:
        raise DataError(f"{path} holds no counts.")
    joint = pd.concat(parts, ignore_index=True)
    if cell is None:
        joint["id"] = as_text(joint["x"]).str.cat(as_text(joint["y"]), sep="_")
    return joint


def _bin_size(sample: Sample) -> int:
    """DNBs along a bin, a multiple of that of the table."""
    header = dict(line[1:].split("=", 1) for line in table_form(sample.matrix).comments)
    stored = int(header["BinSize"]) if header.get("BinSize", "").isdigit() else 1
    size = sample.bin_size or (stored if stored > 1 else BIN)
    if size % max(stored, 1):
        raise DataError(
            f"--bin_size: {sample.matrix} has bins of {stored} DNBs, which cannot be joined to "
            f"bins of {size}: choose a multiple."
        )
    return size
