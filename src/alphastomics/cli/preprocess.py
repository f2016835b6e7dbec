"""Raw sections in, a folder that training reads out."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alphastomics.cli._errors import report_errors
from alphastomics.cli._options import with_options
from alphastomics.config import PreprocessConfig

if TYPE_CHECKING:
    from alphastomics.io import Manifest


# Titles of the help, each by the first option of the group.
GROUPS = {
    "genes": "Genes and cells",
    "values": "Content of the raw data",
    "test_sections": "Held-out sections",
}


def preprocess(
    raw_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Manifest:
    """Convert raw sections into processed data, which training reads.

    The steps are those of ``al.pp``, one section in memory at a time: genes of all sections,
    splits, cells with enough expression, genes that enough training cells express, the most
    variable of them. Values are not normalized. After an interruption, the same call resumes
    with the section that was not finished.

    Parameters
    ----------
    raw_dir
        File or folder of raw data, see :func:`alphastomics.io.find_sections`.
    output_dir
        Folder to write.
    overwrite
        Whether to replace what an earlier call wrote to ``output_dir``.
    progress
        Whether to print which files of an instrument were read, and show a progress bar.
    genes
        ``"intersection"`` of what sections measure, ``"union"``, or a file with one gene per line.
    num_genes
        Number of the most variable genes to keep; all by default.
    min_genes, min_counts
        Minimum number of genes, and of counts, per cell.
    min_cells
        Minimum number of training cells that express a gene.
    values
        Kind of the expression: ``"counts"``, ``"lognorm"`` or ``"intensity"``.
    layer
        Layer to read; by default ``.X``.
    spatial_key, section_key, labels_key, batch_key
        Names of coordinates in ``.obsm`` and of section, cell type and donor or platform in
        ``.obs``; by default ``"spatial"``, ``"section"`` and none.
    bin_size
        Bin size, in µm for Visium HD (8 by default) or DNBs for Stereo-seq (50).
    test_sections, val_sections
        Names of sections to hold out.
    test_ratio, val_ratio
        Fractions of sections with coordinates to hold out at random instead.
    seed
        Seed of the random splits and of the layout.

    Returns
    -------
    Manifest
        Content of the folder; :func:`alphastomics.io.open_data` opens it.

    Raises
    ------
    DataError
        If data cannot be read or do not fit the options, or the folder holds other data.

    Examples
    --------
    >>> import tempfile
    >>> import alphastomics as al
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     al.datasets.simulate_tissue(2, 50).write_h5ad(f"{folder}/raw.h5ad")
    ...     held_out = {"test_sections": ["section_1"], "progress": False}
    ...     manifest = preprocess(f"{folder}/raw.h5ad", f"{folder}/data", **held_out)
    >>> [section.split for section in manifest.sections]
    ['train', 'test']
    """
    from alphastomics.cli._preprocess_plan import Options
    from alphastomics.cli._preprocess_run import run

    checked = Options(**options)
    return run(Path(raw_dir), Path(output_dir), checked, overwrite=overwrite, progress=progress)


@with_options(PreprocessConfig, GROUPS)
def preprocess_command(
    raw_dir: Annotated[
        Path, typer.Option("--raw_dir", "--input_dir", help="File or folder of raw data.")
    ],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder to write.")],
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")
    ] = False,
    overrides: dict[str, Any],
) -> None:
    """Convert raw sections into processed data.

    Training reads these. After an interruption, the same command resumes with the section that was
    not finished.
    """
    with report_errors("The same command resumes where this one stopped."):
        manifest = preprocess(raw_dir, output_dir, overwrite=overwrite, **overrides)
    n_cells = sum(section.n_cells for section in manifest.sections)
    typer.echo(
        f"{output_dir}: {len(manifest.sections)} sections, {n_cells:,} cells, "
        f"{len(manifest.genes):,} genes."
    )


def _signature() -> inspect.Signature:
    """Signature of :func:`preprocess`, with its options by name."""
    first, second, *others, _ = inspect.signature(preprocess).parameters.values()
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=field.annotation,
        )
        for name, field in PreprocessConfig.model_fields.items()
    ]
    return inspect.signature(preprocess).replace(parameters=[first, second, *options, *others])


preprocess.__signature__ = _signature()  # type: ignore[attr-defined]
