"""Public data sets, loaded by :mod:`squidpy.datasets`."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from anndata import AnnData

from alphastomics._compat import quiet, squidpy
from alphastomics._settings import DATA_VARIABLE, settings

Folder = str | os.PathLike[str] | None


def _load(name: str, cache_dir: Folder, progress_bar: bool | None) -> AnnData:
    """Load a data set of squidpy, from a file in the folder if it is there."""
    sq = squidpy()
    folder = cache_dir or settings.data_dir
    if progress_bar is None:
        progress_bar = settings.progress_bar
    path = None if folder is None else Path(folder).expanduser().absolute() / f"{name}.h5ad"
    hidden = contextlib.nullcontext() if progress_bar else contextlib.redirect_stderr(io.StringIO())
    try:
        with quiet("spatialdata._logging"), hidden:
            return getattr(sq.datasets, name)(path=path)
    except (OSError, ExceptionGroup) as error:  # a group from squidpy 1.8 on
        if path is not None and path.exists():
            raise
        raise ConnectionError(
            f"{name}.h5ad could not be downloaded by squidpy. Without a connection, place it at "
            f"{path or 'a folder'}, named by cache_dir= or the environment variable "
            f"{DATA_VARIABLE}."
        ) from error


def merfish(*, cache_dir: Folder = None, progress_bar: bool | None = None) -> AnnData:
    """MERFISH of the mouse hypothalamic preoptic region, consecutive slices.

    Moffitt et al. 2018, https://doi.org/10.1126/science.aau5324, preprocessed by squidpy. To train
    on it: ``section_key="Bregma"``, ``labels_key="Cell_class"``.

    Parameters
    ----------
    cache_dir
        Folder with the file, or to put it in; by default ``al.settings.data_dir``, else squidpy's.
        A file that is there is not downloaded.
    progress_bar
        Whether to show a progress bar; ``None`` for ``al.settings.progress_bar``.

    Returns
    -------
    AnnData
        73,655 cells and 161 genes; ``.obsm`` has ``"spatial"`` and ``"spatial3d"``.

    Raises
    ------
    ConnectionError
        If the file is not in the folder and cannot be downloaded.

    Examples
    --------
    >>> cells = al.datasets.merfish()  # doctest: +SKIP
    """
    return _load("merfish", cache_dir, progress_bar)


def seqfish(*, cache_dir: Folder = None, progress_bar: bool | None = None) -> AnnData:
    """Subset of seqFISH of mouse embryos at the 8-12 somite stage.

    Lohoff et al. 2022, https://doi.org/10.1038/s41587-021-01006-2, preprocessed by squidpy.

    Parameters
    ----------
    cache_dir, progress_bar
        As in :func:`merfish`.

    Returns
    -------
    AnnData
        19,416 cells and 351 genes; cell types are in ``.obs["celltype_mapped_refined"]``.

    Examples
    --------
    >>> cells = al.datasets.seqfish()  # doctest: +SKIP
    """
    return _load("seqfish", cache_dir, progress_bar)


def slideseqv2(*, cache_dir: Folder = None, progress_bar: bool | None = None) -> AnnData:
    """Slide-seqV2 of the mouse hippocampus.

    Stickels et al. 2021, https://doi.org/10.1038/s41587-020-0739-1, preprocessed by squidpy.

    Parameters
    ----------
    cache_dir, progress_bar
        As in :func:`merfish`.

    Returns
    -------
    AnnData
        41,786 beads and 4,000 genes, normalized (there are no counts); cell types are in
        ``.obs["cluster"]``.

    Examples
    --------
    >>> beads = al.datasets.slideseqv2()  # doctest: +SKIP
    """
    return _load("slideseqv2", cache_dir, progress_bar)


def visium_hne(*, cache_dir: Folder = None, progress_bar: bool | None = None) -> AnnData:
    """Visium of a coronal section of an adult mouse brain, stained with hematoxylin and eosin.

    10x Genomics, Visium demonstration 1.1.0 ``V1_Adult_Mouse_Brain``, preprocessed by squidpy.

    Parameters
    ----------
    cache_dir, progress_bar
        As in :func:`merfish`.

    Returns
    -------
    AnnData
        2,688 spots and 18,078 genes; coordinates are pixels of the image, regions are in
        ``.obs["cluster"]``.

    Examples
    --------
    >>> spots = al.datasets.visium_hne()  # doctest: +SKIP
    """
    return _load("visium_hne_adata", cache_dir, progress_bar)
