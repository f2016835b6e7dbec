"""Fill in what cells lack, or generate new ones."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphastomics._files import require_writable, whole, whole_folder, writing
from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import (
    BEST,
    FILLED_SUFFIX,
    GENERATED,
    config_of_run,
    find_checkpoint,
    overlap,
    run_of,
)
from alphastomics.config import ConfigError

if TYPE_CHECKING:
    from anndata import AnnData


SUFFIXES = (".h5ad", ".zarr")
ZARR = (".zgroup", "zarr.json")  # in the folder of a store


class Method(StrEnum):
    """Kinds of results: draws or the best estimate."""

    sample = "sample"
    predict = "predict"


class Mode(StrEnum):
    """Values that are hidden and filled in; with auto those that are missing."""

    auto = "auto"
    expr_to_pos = "expr_to_pos"
    pos_to_expr = "pos_to_expr"
    joint = "joint"


class Point(StrEnum):
    """Summaries of several draws."""

    medoid = "medoid"
    consensus = "consensus"
    none = "none"


def sample_command(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Option(help="File or folder of a model.")] = Path(BEST),
    config: Annotated[
        Path | None, typer.Option(help="Config of the run, to find its checkpoint by.")
    ] = None,
    input: Annotated[
        Path | None, typer.Option("--input", help="Cells to fill in (.h5ad or .zarr).")
    ] = None,
    num_samples: Annotated[
        int | None, typer.Option("--num_samples", min=1, help="Number of new cells to generate.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to write, .h5ad or .zarr; by default in the run.")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="What to hide; auto: nothing.")] = Mode.auto,
    method: Annotated[Method, typer.Option(help="Draws, or the best estimate.")] = Method.sample,
    reference: Annotated[
        Path | None, typer.Option(help="Cells with coordinates to place the others among.")
    ] = None,
    n_samples: Annotated[int, typer.Option("--n_samples", min=1, help="Number of draws.")] = 1,
    n_rounds: Annotated[
        int | None, typer.Option("--n_rounds", min=1, help="Rounds of a draw; those of the run.")
    ] = None,
    n_steps: Annotated[
        int | None, typer.Option("--n_steps", min=1, help="Steps of the heads; those of the run.")
    ] = None,
    point: Annotated[Point, typer.Option(help="Summary of the draws.")] = Point.medoid,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
) -> None:
    """Fill in the positions or expression that cells lack, or generate new cells."""
    with report_errors("Nothing was written."):
        if (input is None) == (num_samples is None):
            raise ConfigError(
                "give either --input, cells to fill in, or --num_samples, the number of new cells."
            )
        _refuse_unused(context, generates=input is None, method=method)
        found = find_checkpoint(checkpoint, config)
        if output is None:
            name = GENERATED if input is None else f"{input.stem}{FILLED_SUFFIX}"
            output = run_of(found) / name
        _check_output(output, [found, input, reference], overwrite=overwrite)
        run = config_of_run(found).diffusion
        draw: dict[str, Any] = {
            "seed": seed,
            "n_rounds": n_rounds or run.sampling_rounds,
            "n_steps": n_steps or run.sampling_steps,
        }
        from alphastomics.model import AlphaSTomics

        model = AlphaSTomics.load(found)
        if input is None:
            assert num_samples is not None
            cells = model.generate(num_samples, **draw)
        else:
            cells = read_cells(input, "--input")
            task: dict[str, Any] = {"mode": mode.value, "reference": None}
            if reference is not None:
                task["reference"] = read_cells(reference, "--reference")
            if method is Method.predict:
                model.predict(cells, **task)
            else:
                draw["point"] = None if point is Point.none else point.value
                model.sample(cells, n_samples=n_samples, **task, **draw)
        _write(cells, output)
        typer.echo(f"{output}: {cells.n_obs:,} cells.")


def _refuse_unused(context: typer.Context, *, generates: bool, method: Method) -> None:
    """Raise if an option is given that has no effect with the others."""
    if generates:
        unused, why = ["mode", "method", "reference", "n_samples", "point"], "--num_samples"
    elif method is Method.predict:
        unused, why = ["n_samples", "n_rounds", "n_steps", "point", "seed"], "--method predict"
    else:
        return
    for name in unused:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name} has no effect with {why}: leave it out.")


def _check_output(output: Path, inputs: list[Path | None], *, overwrite: bool) -> None:
    """Raise if a file would be replaced unasked, or that is read, or cannot be written."""
    with writing("--output", output):
        require_writable(output)
    is_store = output.suffix == ".zarr" and any((output / name).is_file() for name in ZARR)
    if output.is_dir() and not is_store:
        raise ConfigError(f"--output: {output} is a folder: name a file in it.")
    if any(path is not None and overlap(output, path) for path in inputs):
        raise ConfigError(f"--output: {output} is read by this command: name another file.")
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"--output: {output} must end in {' or '.join(SUFFIXES)}.")
    if output.is_file() and output.suffix == ".zarr":
        raise ConfigError(f"--output: {output} is a file, and .zarr a folder: name another.")
    if output.exists() and not overwrite:
        raise ConfigError(
            f"--output: {output} exists already: name another file, or pass --overwrite."
        )


def _write(cells: AnnData, output: Path) -> None:
    """Write cells whole or not at all."""
    with writing("--output", output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix == ".zarr":
            with whole_folder(output) as part:
                cells.write_zarr(part)
        else:
            with whole(output) as part:
                cells.write_h5ad(part)


def read_cells(path: Path, option: str) -> AnnData:
    """Read an AnnData file."""
    import anndata as ad

    if not path.exists():
        raise ConfigError(f"{option}: there is no {str(path)!r}.")
    try:
        return ad.read_zarr(path) if path.is_dir() else ad.read_h5ad(path)
    except Exception as error:
        raise ConfigError(
            f"{option}: {path} cannot be read as AnnData ({type(error).__name__}): give an .h5ad "
            "file or a .zarr folder that anndata wrote."
        ) from None
