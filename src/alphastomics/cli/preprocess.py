"""Raw sections in, a folder that training reads out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alphastomics.cli._errors import told_plainly

if TYPE_CHECKING:
    from alphastomics.io import Manifest


class Values(StrEnum):
    """What the expression is."""

    counts = "counts"
    lognorm = "lognorm"
    intensity = "intensity"


def preprocess(
    raw_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    genes: str = "intersection",
    num_genes: int | None = None,
    min_genes: int = 0,
    min_counts: float = 0,
    min_cells: int = 0,
    values: str = "counts",
    layer: str | None = None,
    spatial_key: str = "spatial",
    section_key: str = "section",
    labels_key: str | None = None,
    batch_key: str | None = None,
    test_sections: Sequence[str] = (),
    val_sections: Sequence[str] = (),
    test_ratio: float = 0.0,
    val_ratio: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> Manifest:
    """Bring raw sections into the form that training reads.

    The steps are those of ``al.pp``, one section in memory at a time: genes of all sections,
    splits, cells with enough expression, genes that enough training cells express, the most
    variable of them. Values are not normalised. Interrupted, the same call goes on with the
    section that was not finished.

    Parameters
    ----------
    raw_dir
        File or folder of raw data, see :func:`alphastomics.io.find_sections`.
    output_dir
        Folder to write.
    genes
        ``"intersection"`` of what sections measure, ``"union"``, or a file with one gene a line.
    num_genes
        How many of the most variable genes to keep; all by default.
    min_genes, min_counts
        Least genes and total of a cell that is kept.
    min_cells
        Fewest training cells that express a gene that is kept.
    values
        What the expression is: ``"counts"``, ``"lognorm"`` or ``"intensity"``.
    layer
        Layer to read; by default ``.X``.
    spatial_key, section_key, labels_key, batch_key
        Names of coordinates in ``.obsm`` and of section, cell type and donor or platform in
        ``.obs``.
    test_sections, val_sections
        Names of sections to hold out.
    test_ratio, val_ratio
        Shares of sections with coordinates to hold out at random instead.
    seed
        Of the random splits and of the layout.
    overwrite
        Whether to replace what an earlier call wrote to ``output_dir``.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Manifest
        What was written; :func:`alphastomics.io.open_data` opens it.

    Raises
    ------
    DataError
        If data cannot be read or do not fit the options, or the folder holds other data.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> folder = tempfile.TemporaryDirectory()
    >>> raw, data = f"{folder.name}/raw.h5ad", f"{folder.name}/data"
    >>> al.datasets.simulate_tissue(n_sections=2, n_cells=50).write_h5ad(raw)
    >>> manifest = preprocess(raw, data, test_sections=["section_1"], progress=False)
    >>> [section.split for section in manifest.sections]
    ['train', 'test']
    >>> folder.cleanup()
    """
    from alphastomics.cli._preprocess_options import Options
    from alphastomics.cli._preprocess_run import run

    options = Options(
        genes=str(genes),
        num_genes=num_genes,
        min_genes=min_genes,
        min_counts=float(min_counts),
        min_cells=min_cells,
        values=str(values),
        layer=layer,
        spatial_key=spatial_key,
        section_key=section_key,
        labels_key=labels_key,
        batch_key=batch_key,
        test_sections=tuple(test_sections),
        val_sections=tuple(val_sections),
        test_ratio=float(test_ratio),
        val_ratio=float(val_ratio),
        seed=seed,
    )
    return run(Path(raw_dir), Path(output_dir), options, overwrite=overwrite, progress=progress)


def preprocess_command(
    raw_dir: Annotated[
        Path, typer.Option("--raw_dir", "--input_dir", help="File or folder of raw data.")
    ],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder to write.")],
    genes: Annotated[
        str, typer.Option(help="intersection, union, or a file with one gene a line.")
    ] = "intersection",
    num_genes: Annotated[
        int | None, typer.Option("--num_genes", help="Keep the most variable genes.")
    ] = None,
    min_genes: Annotated[int, typer.Option("--min_genes", help="Least genes of a cell.")] = 0,
    min_counts: Annotated[float, typer.Option("--min_counts", help="Least total of a cell.")] = 0,
    min_cells: Annotated[
        int, typer.Option("--min_cells", help="Least training cells that express a gene.")
    ] = 0,
    values: Annotated[Values, typer.Option(help="What the expression is.")] = Values.counts,
    layer: Annotated[str | None, typer.Option(help="Layer to read; by default X.")] = None,
    spatial_key: Annotated[
        str, typer.Option("--spatial_key", help="Coordinates in obsm.")
    ] = "spatial",
    section_key: Annotated[str, typer.Option("--section_key", help="Section in obs.")] = "section",
    labels_key: Annotated[
        str | None, typer.Option("--labels_key", help="Cell type in obs.")
    ] = None,
    batch_key: Annotated[
        str | None, typer.Option("--batch_key", help="Donor or platform in obs.")
    ] = None,
    test_sections: Annotated[
        list[str] | None, typer.Option("--test_sections", help="Hold out; may be repeated.")
    ] = None,
    val_sections: Annotated[
        list[str] | None, typer.Option("--val_sections", help="Hold out; may be repeated.")
    ] = None,
    test_ratio: Annotated[
        float, typer.Option("--test_ratio", help="Share of sections to hold out.")
    ] = 0.0,
    val_ratio: Annotated[
        float, typer.Option("--val_ratio", help="Share of sections to hold out.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of random splits and of the layout.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")
    ] = False,
) -> None:
    """Bring raw sections into the form that training reads; run again, it resumes."""
    with told_plainly("The same command goes on where this one stopped."):
        manifest = preprocess(
            raw_dir,
            output_dir,
            genes=genes,
            num_genes=num_genes,
            min_genes=min_genes,
            min_counts=min_counts,
            min_cells=min_cells,
            values=values.value,
            layer=layer,
            spatial_key=spatial_key,
            section_key=section_key,
            labels_key=labels_key,
            batch_key=batch_key,
            test_sections=test_sections or (),
            val_sections=val_sections or (),
            test_ratio=test_ratio,
            val_ratio=val_ratio,
            seed=seed,
            overwrite=overwrite,
        )
    n_cells = sum(section.n_cells for section in manifest.sections)
    typer.echo(
        f"{output_dir}: {len(manifest.sections)} sections, {n_cells:,} cells, "
        f"{len(manifest.genes):,} genes."
    )
