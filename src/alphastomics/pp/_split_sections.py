"""Split of sections into training, validation and test."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from alphastomics import _keys
from alphastomics._anndata import section_names, sections_of
from alphastomics._coordinates import is_known, point_set
from alphastomics._output import check_key
from alphastomics._validate import check_seed, check_share

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def deal_sections(
    sections: Sequence[str],
    located: Collection[str],
    *,
    test_sections: Sequence[str] | str = (),
    val_sections: Sequence[str] | str = (),
    test_ratio: float = 0.0,
    val_ratio: float = 0.0,
    seed: int = 0,
) -> dict[str, Split]:
    """Split of each section; of ``located`` ones, with coordinates, some at random by ratio."""
    held_out: dict[Split, Sequence[str]] = {
        "test": section_names("test_sections", test_sections, sections),
        "val": section_names("val_sections", val_sections, sections),
    }
    ratios: dict[Split, float] = {"test": test_ratio, "val": val_ratio}
    split: dict[str, Split] = dict.fromkeys(sections, "train")
    for kind, names in held_out.items():
        check_share(f"{kind}_ratio", ratios[kind])
        if len(names) and ratios[kind]:
            raise ValueError(f"{kind}_sections and {kind}_ratio were both given: give one of them.")
        for name in names:
            if split[name] not in ("train", kind):
                raise ValueError(f"section {name!r} is in both val_sections and test_sections.")
            split[name] = kind
    free = [name for name in sorted(located) if split[name] == "train"]
    drawn = iter(np.random.default_rng(seed).permutation(np.asarray(free, dtype=object)))
    for kind, ratio in ratios.items():
        for _ in range(max(1, round(ratio * len(located))) if ratio else 0):
            if (drawn_name := next(drawn, None)) is not None:
                split[drawn_name] = kind
    if not any(split[name] == "train" for name in located):
        raise ValueError(
            f"no section with coordinates is left to train on: of {len(located)} with coordinates "
            f"{sum(split[n] == 'val' for n in located)} are for validation and "
            f"{sum(split[n] == 'test' for n in located)} for the test. Hold out fewer."
        )
    return split


def split_sections(
    adata: AnnData,
    *,
    test_sections: Sequence[str] | str = (),
    val_sections: Sequence[str] | str = (),
    test_ratio: float = 0.0,
    val_ratio: float = 0.0,
    seed: int | None = None,
    spatial_key: str = _keys.SPATIAL,
    section_key: str = _keys.SECTION,
    key_added: str = _keys.SPLIT,
    copy: bool = False,
) -> AnnData | None:
    """Split sections, never cells, into training, validation and test.

    Parameters
    ----------
    adata
        Cells of several sections.
    test_sections, val_sections
        Names of the sections to hold out, one or several.
    test_ratio, val_ratio
        Shares of the sections with coordinates to hold out at random instead, in [0, 1); at least
        one section if above 0.
    seed
        Same seed and names, same split; ``None`` for ``al.settings.seed``.
    spatial_key
        Name in ``.obsm`` of the positions; sections without any are trained on unless named.
    section_key
        Name in ``.obs`` of the section.
    key_added
        Name of the column in ``.obs``.
    copy
        As in :func:`filter_cells`.

    Returns
    -------
    AnnData or None
        Writes ``.obs[key_added]``: ``train``, ``val`` or ``test``; ValueError if no section with
        coordinates is left for training.

    Examples
    --------
    >>> import alphastomics as al
    >>> atlas = al.datasets.simulate_tissue(n_sections=4, n_cells=50)
    >>> al.pp.split_sections(atlas, test_sections=["section_3"], val_ratio=0.25)
    >>> atlas.obs.groupby("split", observed=True)["section"].nunique().to_dict()
    {'train': 2, 'val': 1, 'test': 1}
    """
    section, seed = sections_of(adata, section_key), check_seed(seed)
    check_key("key_added", key_added, {section_key: "the names of the sections are"})
    located = set(section)
    if spatial_key in adata.obsm:
        located = set(section[is_known(point_set(adata, spatial_key, "spatial_key"))])
    split: Mapping[str, str] = deal_sections(
        list(pd.unique(section)),
        located,
        test_sections=test_sections,
        val_sections=val_sections,
        test_ratio=test_ratio,
        val_ratio=val_ratio,
        seed=seed,
    )
    adata = adata.copy() if copy else adata
    adata.obs[key_added] = pd.Categorical(
        [split[name] for name in section], categories=list(SPLITS)
    )
    return adata if copy else None
