"""Fill in what cells lack, or generate new ones."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphastomics._files import whole
from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import (
    FILLED_SUFFIX,
    GENERATED,
    config_of_run,
    find_checkpoint,
    run_of,
)
from alphastomics.config import ConfigError

if TYPE_CHECKING:
    from anndata import AnnData


class Method(StrEnum):
    """Kinds of results: draws or the best estimate."""

    sample = "sample"
    predict = "predict"


class Point(StrEnum):
    """Summaries of several draws."""

    medoid = "medoid"
    consensus = "consensus"
    none = "none"


def sample_command(
    checkpoint: Annotated[Path, typer.Option(help="File or folder of a model.")] = Path(
        "best.ckpt"
    ),
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
        Path | None, typer.Option(help="File to write (.h5ad); by default beside the checkpoint.")
    ] = None,
    mode: Annotated[str, typer.Option(help="auto, expr_to_pos, pos_to_expr or joint.")] = "auto",
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
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
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
            task: dict[str, Any] = {"mode": mode, "reference": None}
            if reference is not None:
                task["reference"] = read_cells(reference, "--reference")
            if method is Method.predict:
                model.predict(cells, **task)
            else:
                draw["point"] = None if point is Point.none else point.value
                model.sample(cells, n_samples=n_samples, **task, **draw)
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole(output) as part:
            cells.write_h5ad(part)
        typer.echo(f"{output}: {cells.n_obs:,} cells.")


def _check_output(output: Path, inputs: list[Path | None], *, overwrite: bool) -> None:
    """Raise if a file would be replaced unasked, or that is read."""
    if output.resolve() in [path.resolve() for path in inputs if path is not None]:
        raise ConfigError(f"--output: {output} is read by this command: name another file.")
    if output.is_dir():
        raise ConfigError(f"--output: {output} is a folder: name a file in it.")
    if output.exists() and not overwrite:
        raise ConfigError(
            f"--output: {output} exists already: name another file, or pass --overwrite."
        )


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
