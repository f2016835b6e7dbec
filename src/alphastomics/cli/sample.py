"""Fill in what cells lack, or generate new ones."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphastomics._files import whole
from alphastomics.cli._errors import report_errors
from alphastomics.cli._run_folder import config_of_run, find_checkpoint, run_of
from alphastomics.config import ConfigError

if TYPE_CHECKING:
    from anndata import AnnData


class Method(StrEnum):
    """What is written."""

    sample = "sample"
    predict = "predict"


class Point(StrEnum):
    """What several draws are reduced to."""

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
    point: Annotated[Point, typer.Option(help="What draws are reduced to.")] = Point.medoid,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Fill in the positions or expression that cells lack, or generate new cells."""
    with report_errors("Nothing was written."):
        if (input is None) == (num_samples is None):
            raise ConfigError(
                "give either --input, cells to fill in, or --num_samples, the number of new cells."
            )
        found = find_checkpoint(checkpoint, config)
        if output is None:
            name = "generated" if input is None else f"{input.stem}_filled"
            output = run_of(found) / f"{name}.h5ad"
        run = config_of_run(found).diffusion
        how: dict[str, Any] = {
            "seed": seed,
            "n_rounds": n_rounds or run.sampling_rounds,
            "n_steps": n_steps or run.sampling_steps,
        }
        draws = {**how, "n_samples": n_samples, "point": None if point == "none" else point.value}
        from alphastomics.model import AlphaSTomics

        model = AlphaSTomics.load(found)
        if num_samples is not None:
            cells = model.generate(num_samples, **how)
        else:
            assert input is not None
            cells = read_cells(input, "--input")
            known = None if reference is None else read_cells(reference, "--reference")
            if method is Method.predict:
                model.predict(cells, mode=mode, reference=known)  # type: ignore[arg-type]
            else:
                model.sample(cells, mode=mode, reference=known, **draws)  # type: ignore[arg-type]
        write_cells(cells, output)
        typer.echo(f"{output}: {cells.n_obs:,} cells.")


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


def write_cells(cells: AnnData, path: Path) -> None:
    """Write an .h5ad file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        cells.write_h5ad(part)
