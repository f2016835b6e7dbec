"""What ``preprocess`` will do, decided and checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._anndata import expression_known, select_genes
from alphastomics._validate import check_section, check_values
from alphastomics.cli._preprocess_options import Options
from alphastomics.io import DataError, RawSection
from alphastomics.pp._filter_cells import enough_expression
from alphastomics.pp._intersect_genes import choose_genes
from alphastomics.pp._split_sections import Split, deal_sections


@dataclass(frozen=True)
class Plan:
    """Sections, their genes and their splits.

    Attributes
    ----------
    sections
        In the order of the manifest.
    genes
        Of all sections, before any are dropped for their values.
    split
        Of each section.
    n_dims
        Of the coordinates.
    units
        Of the coordinates, if the files say.
    """

    sections: tuple[RawSection, ...]
    genes: pd.Index
    split: dict[str, Split]
    n_dims: Literal[2, 3]
    units: str | None

    @property
    def training(self) -> list[RawSection]:
        """Sections to learn from."""
        return [section for section in self.sections if self.split[section.name] == "train"]

    def panel(self, section: RawSection) -> NDArray[np.bool_]:
        """Whether a section measures each gene, ``(n_genes,)``."""
        return np.asarray(self.genes.isin(section.genes))

    def shared(self) -> NDArray[np.bool_]:
        """Whether all training sections measure each gene, ``(n_genes,)``."""
        return np.all([self.panel(section) for section in self.training], axis=0)


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Say which option an error is about."""
    try:
        yield
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{option}: {error}") from None


def make_plan(sections: Sequence[RawSection], options: Options) -> Plan:
    """Decide genes and splits from what is known without reading the cells.

    Raises
    ------
    DataError
        If sections do not go together, or an option names what is not there.
    """
    located = [section for section in sections if section.n_dims is not None]
    if not located:
        raise DataError(
            f"--spatial_key: none of the {len(sections)} sections has coordinates under "
            f"{options.spatial_key!r}; at least one needs them."
        )
    for option, key in (("labels_key", options.labels_key), ("batch_key", options.batch_key)):
        if key is not None and not any(key in section.columns for section in sections):
            raise DataError(
                f"--{option}: {key!r} is in no section; the first one has "
                f"{', '.join(sections[0].columns) or 'no columns'}."
            )
    with _named("--genes"):
        panels = {section.name: section.genes for section in sections}
        genes = choose_genes(panels, options.how, options.gene_list)
    with _named("split"):
        split = deal_sections(
            [section.name for section in sections],
            [section.name for section in located],
            test_sections=options.test_sections,
            val_sections=options.val_sections,
            test_ratio=options.test_ratio,
            val_ratio=options.val_ratio,
            seed=options.seed,
        )
    plan = Plan(tuple(sections), genes, split, _one_n_dims(located), _one_unit(located))
    if not plan.shared().any():
        raise DataError(
            "--genes: no gene is measured by all training sections; at least one is needed to "
            "compare their depth."
        )
    return plan


def _one_n_dims(sections: Sequence[RawSection]) -> Literal[2, 3]:
    first = sections[0]
    for other in sections:
        if other.n_dims != first.n_dims:
            raise DataError(
                f"--spatial_key: section {first.name!r} ({first.path}) has {first.n_dims}D and "
                f"section {other.name!r} ({other.path}) has {other.n_dims}D coordinates: process "
                "2D and 3D sections apart."
            )
    return cast(Literal[2, 3], first.n_dims)


def _one_unit(sections: Sequence[RawSection]) -> str | None:
    named = [section for section in sections if section.units is not None]
    for other in named:
        if other.units != named[0].units:
            raise DataError(
                f"section {named[0].name!r} has coordinates in {named[0].units!r}, section "
                f"{other.name!r} in {other.units!r}: bring them to one unit first "
                "(al.pp.normalize_positions), or correct .uns['units']."
            )
    return named[0].units if named else None


def read_planned(section: RawSection, plan: Plan, options: Options) -> ad.AnnData:
    """Read a section: planned genes in their order, cells with enough expression."""
    raw = section.load()
    matrix = select_genes(sparse.csr_matrix(raw.X), raw.var_names.get_indexer(plan.genes))
    where = f"{section.path}: section {section.name!r}"
    try:
        known = expression_known(raw.obs)
        check_values(matrix, options.values, f"{where}: {options.layer or 'X'}")
        keep = enough_expression(
            matrix,
            known,
            section.name,
            min_genes=options.min_genes,
            min_counts=options.min_counts,
        )
    except ValueError as error:
        message = str(error)
        raise DataError(message if where in message else f"{section.path}: {message}") from None
    kept = matrix if keep.all() else matrix[np.flatnonzero(keep)]
    adata = ad.AnnData(kept, obs=raw.obs[keep], var=pd.DataFrame(index=plan.genes))
    if _keys.SPATIAL in raw.obsm:
        position = raw.obsm[_keys.SPATIAL][keep]
        located = ~np.isnan(position).any(1)
        with _named(str(section.path)):
            check_section(position[located], section.name, options.spatial_key)
        adata.obsm[_keys.SPATIAL] = position
    return adata
