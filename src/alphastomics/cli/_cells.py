"""Cells that commands read and write: AnnData files, processed data, and tables of results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alphastomics import _keys
from alphastomics._files import content, require_writable, whole, whole_folder, writing
from alphastomics.cli._run_folder import MANIFEST, overlap
from alphastomics.config import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

TABLE = ".csv"
SUFFIXES = (".h5ad", ".zarr", TABLE)
ZARR = (".zgroup", "zarr.json")  # in the folder of a store
AXES = ("x", "y", "z")
GIVE = "give an .h5ad file, a .zarr folder that anndata wrote, or one that preprocess wrote"
LONGEST = 200  # characters of an error of AnnData
DIGITS = "%.7g"  # of a number in a table


class Mode(StrEnum):
    """Values that are hidden and estimated; with auto, those that are missing."""

    auto = "auto"
    expr_to_pos = "expr_to_pos"
    pos_to_expr = "pos_to_expr"
    joint = "joint"


class Standardize(StrEnum):
    """Statistics by which genes of the query are standardized."""

    auto = "auto"
    training = "training"
    query = "query"


# Options that several commands have.
QUERY = "Query: cells with missing positions or expression (.h5ad, .zarr or processed data)."
Checkpoint = Annotated[
    Path,
    typer.Option(
        "--checkpoint",
        "--model",
        help="Checkpoint, folder of a run, or folder of a saved model. [default: best.ckpt of the "
        "latest run]",
        show_default=False,
        rich_help_panel="Model",
    ),
]
RunConfig = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Config of the run, to find its checkpoint.", rich_help_panel="Model"
    ),
]
Query = Annotated[
    Path,
    typer.Option(
        "--input",
        help=QUERY,
        rich_help_panel="Cells",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        help="Cells with coordinates in one frame (.h5ad, .zarr or processed data), into which the "
        "query is placed.",
        rich_help_panel="Cells",
    ),
]
ModeOption = Annotated[
    Mode,
    typer.Option(
        "--mode",
        help="Values to estimate: auto, missing ones; expr_to_pos, all positions; pos_to_expr, all "
        "expression; joint, both.",
        rich_help_panel="Cells",
    ),
]
StandardizeOption = Annotated[
    Standardize,
    typer.Option(
        "--standardize",
        help="Statistics to standardize genes by: of training; of the query itself (another "
        "platform); auto, by its depth.",
        rich_help_panel="Cells",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        help="File to write: .h5ad, .zarr, or .csv (the estimates alone); by default in the folder "
        "of the run.",
        rich_help_panel="Output",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the output if it exists.", rich_help_panel="Output"),
]


def is_store(folder: Path) -> bool:
    """True for the folder of a zarr store."""
    return any((folder / name).is_file() for name in ZARR)


def check_output(output: Path, inputs: list[Path | None], *, overwrite: bool) -> None:
    """Raise if a file would be replaced unasked, or is read, or cannot be written."""
    with writing("--output", output):
        require_writable(output)
    if output.is_dir() and not (output.suffix == ".zarr" and is_store(output)):
        raise ConfigError(f"--output: {output} is a folder: name a file in it.")
    if any(path is not None and overlap(output, path) for path in inputs):
        raise ConfigError(f"--output: {output} is read by this command: name another file.")
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"--output: {output} must end in .h5ad, .zarr or .csv.")
    if output.is_file() and output.suffix == ".zarr":
        raise ConfigError(f"--output: {output} is a file, and .zarr a folder: name another.")
    if output.exists() and not overwrite:
        raise ConfigError(
            f"--output: {output} exists already: name another file, or pass --overwrite."
        )


def check_table_of_positions(output: Path, cells: AnnData, mode: Mode, spatial_key: str) -> None:
    """Raise if a table is to be written, which holds positions, and none are estimated."""
    import numpy as np

    if output.suffix != TABLE or mode in (Mode.expr_to_pos, Mode.joint):
        return
    known = cells.obsm.get(spatial_key)
    if mode is Mode.auto and (known is None or np.isnan(np.asarray(known, dtype=float)).any()):
        return
    hint = " Pass --mode expr_to_pos to place all cells." if mode is Mode.auto else ""
    raise table_error("none are estimated here", hint)


def table_error(why: str, hint: str = "") -> ConfigError:
    """Error of results that a table cannot hold."""
    return ConfigError(
        f"--output: a .csv file holds one estimated position per cell, and {why}: name an .h5ad or "
        f".zarr file.{hint}"
    )


def require_cells(input: Path | None, reference: Path | None) -> None:
    """Raise unless files of cells exist, before imports that take seconds."""
    for option, path in (("--input", input), ("--reference", reference)):
        if path is not None and not path.exists():
            raise ConfigError(f"{option}: there is no {str(path)!r}.")


def read_cells(path: Path, option: str) -> AnnData:
    """Read an AnnData file, or all sections of processed data."""
    if (path / MANIFEST).is_file():
        from alphastomics.cli._processed import read_sections

        return read_sections(path)
    if path.is_dir() and not is_store(path):
        raise ConfigError(f"{option}: {path} is not an AnnData store, it {content(path)}: {GIVE}.")
    import anndata as ad

    try:
        return ad.read_zarr(path) if path.is_dir() else ad.read_h5ad(path)
    except Exception as error:
        why = " ".join(str(error).split())[:LONGEST]
        raise ConfigError(f"{option}: {path} cannot be read as AnnData ({why}): {GIVE}.") from None


def read_reference(path: Path | None) -> AnnData | None:
    """Read the cells of ``--reference``, if it is given."""
    return None if path is None else read_cells(path, "--reference")


def position_table(cells: AnnData, key: str) -> pd.DataFrame:
    """Table of estimated positions: section, coordinates and radius of each cell."""
    import pandas as pd

    points = cells.obsm[key]
    table = pd.DataFrame(points, index=cells.obs_names, columns=list(AXES[: points.shape[1]]))
    if _keys.SECTION in cells.obs:
        table.insert(0, _keys.SECTION, cells.obs[_keys.SECTION])
    if key + _keys.RADIUS_SUFFIX in cells.obs:
        table["radius"] = cells.obs[key + _keys.RADIUS_SUFFIX]
    return table.rename_axis("cell")


def write_cells(cells: AnnData, output: Path, table: pd.DataFrame | None = None) -> None:
    """Write cells, or a table where a table is wanted, whole or not at all."""
    with writing("--output", output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix == ".zarr":
            with whole_folder(output) as part:
                cells.write_zarr(part)
        else:
            with whole(output) as part:
                if output.suffix == TABLE:
                    assert table is not None
                    table.to_csv(part, float_format=DIGITS)
                else:
                    cells.write_h5ad(part)
    typer.echo(f"{output}: {cells.n_obs:,} cells.")
