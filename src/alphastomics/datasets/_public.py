"""Public data sets.

Addresses and hashes are those that squidpy states in its registry (``datasets/datasets.yaml`` of
squidpy 1.8.2).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import anndata as ad
from anndata import AnnData

from alphastomics._optional import require
from alphastomics._quiet import quiet

ADDRESS = "https://exampledata.scverse.org/squidpy/"
FOLDER_VARIABLE = "ALPHASTOMICS_DATA_DIR"


class PublicFile(NamedTuple):
    """A file and the SHA-256 of its bytes."""

    name: str
    sha256: str


MERFISH = PublicFile(
    "merfish.h5ad", "371723d48413ba76aba49ccf7ea24867b1db940529216fe2902484f5c2a48904"
)
SEQFISH = PublicFile(
    "seqfish.h5ad", "7e544c0ede7538067537da69c52748ad01522ef7fc8691e077fd73c9434019f7"
)
SLIDESEQV2 = PublicFile(
    "slideseqv2.h5ad", "224a0f2b3d4f6c0ac1583c93bb6bfa910a986df82302c4a927d61883b8b63d8b"
)
VISIUM_HNE = PublicFile(
    "visium_hne_adata.h5ad", "3571e6b84dd32c73ece8ae0bebbd4758e77c6fdd321b2bbe0d4ffa8ed56e1cbe"
)


def merfish(
    *, cache_dir: str | os.PathLike[str] | None = None, progress_bar: bool = True
) -> AnnData:
    """MERFISH of the mouse hypothalamic preoptic region, consecutive slices.

    Moffitt et al. 2018, https://doi.org/10.1126/science.aau5324, preprocessed by squidpy;
    ``merfish.h5ad``. To train on it: ``section_key="Bregma"``, ``labels_key="Cell_class"``.

    Parameters
    ----------
    cache_dir
        Folder to keep the file in; by default that of the environment variable
        ``ALPHASTOMICS_DATA_DIR``, else the user's cache. A file that is there is not downloaded.
    progress_bar
        Whether to show a progress bar.

    Returns
    -------
    AnnData
        73,655 cells and 161 genes, as squidpy publishes them. Slices are told apart by
        ``.obs["Bregma"]``; ``.obsm`` has ``"spatial"`` and ``"spatial3d"``.

    Raises
    ------
    ConnectionError
        If the file is not in the folder and cannot be downloaded; it says where to place it.
    ValueError
        If what was downloaded is not the file that was published.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.merfish()  # doctest: +SKIP
    """
    return _read(MERFISH, cache_dir, progress_bar)


def seqfish(
    *, cache_dir: str | os.PathLike[str] | None = None, progress_bar: bool = True
) -> AnnData:
    """Subset of seqFISH of mouse embryos at the 8-12 somite stage.

    Lohoff et al. 2022, https://doi.org/10.1038/s41587-021-01006-2, preprocessed by squidpy;
    ``seqfish.h5ad``. Cell types are in ``.obs["celltype_mapped_refined"]``.

    Parameters
    ----------
    cache_dir, progress_bar
        As in :func:`merfish`.

    Returns
    -------
    AnnData
        19,416 cells and 351 genes, as squidpy publishes them.

    Raises
    ------
    ConnectionError, ValueError
        As :func:`merfish`.

    Examples
    --------
    >>> import alphastomics as al
    >>> cells = al.datasets.seqfish()  # doctest: +SKIP
    """
    return _read(SEQFISH, cache_dir, progress_bar)


def slideseqv2(
    *, cache_dir: str | os.PathLike[str] | None = None, progress_bar: bool = True
) -> AnnData:
    """Slide-seqV2 of the mouse hippocampus.

    Stickels et al. 2021, https://doi.org/10.1038/s41587-020-0739-1, preprocessed by squidpy;
    ``slideseqv2.h5ad``. Expression is normalised: squidpy publishes no counts of it. Cell types are
    in ``.obs["cluster"]``.

    Parameters
    ----------
    cache_dir, progress_bar
        As in :func:`merfish`.

    Returns
    -------
    AnnData
        41,786 beads and 4,000 genes, as squidpy publishes them.

    Raises
    ------
    ConnectionError, ValueError
        As :func:`merfish`.

    Examples
    --------
    >>> import alphastomics as al
    >>> beads = al.datasets.slideseqv2()  # doctest: +SKIP
    """
    return _read(SLIDESEQV2, cache_dir, progress_bar)


def visium_hne(
    *, cache_dir: str | os.PathLike[str] | None = None, progress_bar: bool = True
) -> AnnData:
    """Visium of a coronal section of an adult mouse brain, stained with haematoxylin and eosin.

    10x Genomics, Visium demonstration 1.1.0 ``V1_Adult_Mouse_Brain``, preprocessed by squidpy;
    ``visium_hne_adata.h5ad``. Coordinates are pixels of the image; regions are in
    ``.obs["cluster"]``.

    Parameters
    ----------
    cache_dir, progress_bar
        As in :func:`merfish`.

    Returns
    -------
    AnnData
        2,688 spots and 18,078 genes, as squidpy publishes them.

    Raises
    ------
    ConnectionError, ValueError
        As :func:`merfish`.

    Examples
    --------
    >>> import alphastomics as al
    >>> spots = al.datasets.visium_hne()  # doctest: +SKIP
    """
    return _read(VISIUM_HNE, cache_dir, progress_bar)


def _read(
    file: PublicFile, cache_dir: str | os.PathLike[str] | None, progress_bar: bool
) -> AnnData:
    return ad.read_h5ad(_fetch(file, cache_dir, progress_bar))


def _fetch(file: PublicFile, cache_dir: str | os.PathLike[str] | None, progress_bar: bool) -> Path:
    """Give the path of a file in the cache, downloaded whole or not at all."""
    pooch = require("pooch", "datasets", "Downloading public data")
    requests = require("requests", "datasets", "Downloading public data")

    named = cache_dir or os.environ.get(FOLDER_VARIABLE) or pooch.os_cache("alphastomics")
    folder = Path(named).expanduser().absolute()
    address, place = ADDRESS + file.name, folder / file.name
    if place.exists() and not pooch.hashes.hash_matches(place, f"sha256:{file.sha256}"):
        raise ValueError(
            f"{place} is not the file that was published (SHA-256 {file.sha256}): it is damaged or "
            "another file. Move it away to download it, or name another folder by cache_dir=."
        )
    with quiet(pooch.get_logger()):
        try:
            pooch.retrieve(
                address,
                known_hash=f"sha256:{file.sha256}",
                fname=file.name,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=progress_bar, timeout=30),
            )
        except requests.RequestException as error:  # some are a ValueError as well
            raise ConnectionError(
                f"{file.name}, as published, is not in {folder} and could not be downloaded "
                f"({type(error).__name__}). Without a connection, get {address} elsewhere and "
                f"place it at {place}; or name the folder that has it by cache_dir= "
                f"or the environment variable {FOLDER_VARIABLE}."
            ) from error
        except ValueError as error:  # what pooch raises for a hash; it names both
            raise ValueError(
                f"{address} did not give the file that was published: the download was cut off, or "
                f"the file has changed. It was not kept; try again. {error}"
            ) from None
    return place
