"""Plan of ``preprocess``, checked before anything is written."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._anndata import expression_known, select_genes
from alphastomics._coordinates import is_known
from alphastomics._hints import coordinate_columns
from alphastomics._validate import check_section, check_values
from alphastomics.config import PreprocessConfig
from alphastomics.io import DataError, RawSection
from alphastomics.pp._filter_cells import enough_expression
from alphastomics.pp._intersect_genes import choose_genes
from alphastomics.pp._split_sections import Split, deal_sections

HOW = ("intersection", "union")
SPLIT_ARGUMENT = re.compile(r"\b(test|val)_(sections|ratio)\b(?!')")


class Options(PreprocessConfig):
    """Options of :func:`alphastomics.cli.preprocess.preprocess`, checked."""

    def __init__(self, **values: Any) -> None:
        from alphastomics.io import DataError

        try:
            super().__init__(**values)
        except ValueError as error:
            raise DataError(f"--{error}") from None

    @property
    def how(self) -> str:
        """Combination of the genes of several panels, where they are not listed."""
        return self.genes if self.genes in HOW else "union"

    @cached_property
    def gene_list(self) -> list[str] | None:
        """Genes of the file that ``genes`` names, one per line."""
        from alphastomics.io import DataError

        if self.genes in HOW:
            return None
        path = Path(self.genes)
        if not path.is_file():
            raise DataError(
                "--genes must be intersection, union or a file with one gene per line; there is "
                f"no file {self.genes!r}."
            )
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except UnicodeDecodeError:
            raise DataError(f"--genes: {path} is not a text file with one gene per line.") from None
        if not any(lines):
            raise DataError(f"--genes: {path} names no gene.")
        return [line for line in lines if line]

    def fingerprint(self, stamps: list[tuple[str, int, int]]) -> str:
        """Checksum of the options and of the names, sizes and times of the raw files."""
        from alphastomics import __version__
        from alphastomics.io._manifest import FORMAT_VERSION

        content: list[Any] = [
            self.model_dump(),
            self.gene_list,
            stamps,
            FORMAT_VERSION,
            __version__,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """Sections in the order of the manifest, their genes and their splits."""

    sections: tuple[RawSection, ...]
    panels: pd.DataFrame  # whether each section measures each gene, genes by names of sections
    split: dict[str, Split]
    n_dims: Literal[2, 3]
    units: str | None

    @property
    def training(self) -> list[RawSection]:
        """Sections to learn from."""
        return [section for section in self.sections if self.split[section.name] == "train"]

    @property
    def shared(self) -> NDArray[np.bool_]:
        """Mask of genes that all training sections measure, ``(n_genes,)``."""
        return self.panels[[section.name for section in self.training]].all(axis=1).to_numpy()


@contextmanager
def _prefix_errors(prefix: str) -> Iterator[None]:
    """Name the option or file of an error."""
    try:
        yield
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{prefix}: {error}") from None


@contextmanager
def _name_options() -> Iterator[None]:
    """Spell the arguments of a split in an error as options."""
    try:
        yield
    except ValueError as error:
        raise DataError(SPLIT_ARGUMENT.sub(r"--\g<0>", str(error))) from None


def make_plan(sections: Sequence[RawSection], options: Options) -> Plan:
    """Decide genes and splits without reading the cells."""
    located = _located(sections, options.spatial_key)
    for option in ("labels_key", "batch_key"):
        key = getattr(options, option)
        if key is not None and not any(key in section.columns for section in sections):
            raise DataError(
                f"--{option}: {key!r} is in no section; the first one has "
                f"{', '.join(sections[0].columns) or 'no columns'}."
            )
    with _prefix_errors("--genes"):
        genes_of = {section.name: section.genes for section in sections}
        genes = choose_genes(genes_of, options.how, options.gene_list)
    with _name_options():
        split = deal_sections(
            list(genes_of),
            [section.name for section in located],
            test_sections=options.test_sections,
            val_sections=options.val_sections,
            test_ratio=options.test_ratio,
            val_ratio=options.val_ratio,
            seed=options.seed,
        )
    _check_coordinates(located)
    plan = Plan(
        tuple(sections),
        pd.DataFrame({name: genes.isin(panel) for name, panel in genes_of.items()}, index=genes),
        split,
        n_dims=cast(Literal[2, 3], located[0].n_dims),
        units=next((section.units for section in located if section.units is not None), None),
    )
    if not plan.shared.any():
        raise DataError(
            "--genes: no gene is measured by all training sections; at least one is needed to "
            "compare their depth."
        )
    return plan


def _located(sections: Sequence[RawSection], spatial_key: str) -> list[RawSection]:
    """Sections with coordinates; raise if there are none."""
    located = [section for section in sections if section.n_dims is not None]
    if located:
        return located
    columns = {column for section in sections for column in section.columns}
    hint = ""
    if pair := coordinate_columns(sorted(columns)):
        hint = (
            f" Columns {' and '.join(map(str, pair))} of obs look like them: write "
            f"adata.obsm[{spatial_key!r}] = adata.obs[{pair}].to_numpy()."
        )
    raise DataError(
        f"--spatial_key: none of the {len(sections)} sections has coordinates under "
        f"{spatial_key!r}; at least one needs them.{hint}"
    )


def _check_coordinates(sections: Sequence[RawSection]) -> None:
    """Raise if sections differ in dimensions or units."""
    first = sections[0]
    for other in sections:
        if other.n_dims != first.n_dims:
            raise DataError(
                f"--spatial_key: section {first.name!r} ({first.path}) has {first.n_dims}D and "
                f"section {other.name!r} ({other.path}) has {other.n_dims}D coordinates: process "
                "2D and 3D sections apart."
            )
    first, *others = [section for section in sections if section.units is not None] or [first]
    for other in others:
        if other.units != first.units:
            raise DataError(
                f"section {first.name!r} has coordinates in {first.units!r}, section "
                f"{other.name!r} in {other.units!r}: bring them to one unit first "
                "(al.pp.normalize_positions), or correct .uns['units']."
            )


def read_planned(section: RawSection, plan: Plan, options: Options) -> ad.AnnData:
    """Read a section: planned genes in their order, cells with enough expression."""
    raw, genes = section.load(), plan.panels.index
    matrix = select_genes(sparse.csr_matrix(raw.X), raw.var_names.get_indexer(genes))
    with _prefix_errors(str(section.path)):
        known = expression_known(raw.obs)
        matrix = check_values(
            matrix, options.values, f"section {section.name!r}: {options.layer or 'X'}"
        )
        keep = enough_expression(
            matrix,
            known,
            section.name,
            min_genes=options.min_genes,
            min_counts=options.min_counts,
        )
        cells = matrix if keep.all() else matrix[np.flatnonzero(keep)]
        adata = ad.AnnData(cells, obs=raw.obs[keep], var=pd.DataFrame(index=genes))
        if _keys.SPATIAL in raw.obsm:
            position = adata.obsm[_keys.SPATIAL] = raw.obsm[_keys.SPATIAL][keep]
            check_section(position[is_known(position)], section.name, options.spatial_key)
    return adata
