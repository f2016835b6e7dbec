"""Common genes of sections whose panels differ."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, overload

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from alphastomics import _keys
from alphastomics._anndata import name_list, read_panels, sections_of
from alphastomics._output import check_key
from alphastomics._validate import check_choice, check_unique, require_adata, short

How = Literal["intersection", "union"]


def choose_genes(
    panels: Mapping[str, pd.Index], how: str = "intersection", genes: Sequence[str] | None = None
) -> pd.Index:
    """Genes of sections with given panels, in the order of the first section or of ``genes``."""
    check_choice("how", how, ("intersection", "union"))
    union = pd.Index(pd.unique(np.concatenate([list(panel) for panel in panels.values()])))
    if genes is not None:
        chosen = pd.Index(pd.unique(np.asarray(name_list("genes", genes), dtype=object)))
        if chosen.empty:
            raise ValueError("genes is empty: name the genes to keep, or pass None.")
        if unknown := list(chosen[~chosen.isin(union)]):
            raise ValueError(
                f"genes names {len(unknown)} that no section measures, {unknown[0]!r} among them; "
                f"measured are {len(union)}, such as {list(union[:3])}."
            )
        return chosen
    if how == "union":
        return union
    chosen = union
    for panel in panels.values():
        chosen = chosen[chosen.isin(panel)]
    if chosen.empty:
        shown = "; ".join(f"{name}: {list(panel[:3])}" for name, panel in list(panels.items())[:3])
        raise ValueError(
            f"the {len(panels)} sections have no gene in common ({shown}): bring their gene names "
            "into one form, or leave sections out."
        )
    return chosen


def panel_table(panels: Mapping[str, pd.Index], genes: pd.Index) -> pd.DataFrame:
    """Mask of the genes that each section measures, genes by sections."""
    return pd.DataFrame({name: genes.isin(panel) for name, panel in panels.items()}, index=genes)


@overload
def intersect_genes(
    sections: Mapping[str, AnnData] | Sequence[AnnData],
    *,
    how: How = ...,
    genes: Sequence[str] | None = ...,
    section_key: str = ...,
) -> AnnData: ...
@overload
def intersect_genes(
    sections: AnnData,
    *,
    how: How = ...,
    genes: Sequence[str] | None = ...,
    section_key: str = ...,
    copy: bool = ...,
) -> AnnData | None: ...
def intersect_genes(
    sections: AnnData | Mapping[str, AnnData] | Sequence[AnnData],
    *,
    how: How = "intersection",
    genes: Sequence[str] | None = None,
    section_key: str = _keys.SECTION,
    copy: bool = False,
) -> AnnData | None:
    """Restrict or extend several sections to the same genes.

    Separate AnnData, whose genes may differ, are joined into a new one. One AnnData, whose
    ``.varm["measured"]`` marks the genes that each section measures, is changed in place.

    Parameters
    ----------
    sections
        Sections by name, or a list of AnnData that name their sections in
        ``.obs[section_key]``, or one AnnData.
    how
        ``"intersection"`` keeps the genes that all sections measure, ``"union"`` those that any
        does.
    genes
        Keep these genes, whichever sections measure them, in this order, whatever ``how``.
    section_key
        Name in ``.obs`` of the section; written when sections are given by name.
    copy
        Whether to return a copy instead of changing ``sections``, when it is one AnnData.

    Returns
    -------
    AnnData or None
        Cells of all sections. Where some section lacks a gene, ``.varm["measured"]`` has a boolean
        column per section, and unmeasured values are 0 in ``.X``: the model treats them as unknown.
        Coordinates of sections without any are NaN; all others must be 2D, or all 3D.

    Examples
    --------
    >>> import alphastomics as al
    >>> tissue = al.datasets.simulate_tissue(n_sections=2, n_cells=50, n_genes=20)
    >>> one = tissue[tissue.obs["section"] == "section_0", :15].copy()
    >>> other = tissue[tissue.obs["section"] == "section_1", 5:].copy()
    >>> al.pp.intersect_genes([one, other]).n_vars
    10
    >>> atlas = al.pp.intersect_genes([one, other], how="union")
    >>> atlas.varm["measured"].sum().to_dict()
    {'section_0': 15, 'section_1': 15}
    """
    if isinstance(sections, AnnData):
        return _subset_genes(sections, how, genes, section_key, copy)
    check_key("section_key", section_key, {})
    by_name = _named_sections(sections, section_key)
    _check_expression(by_name)
    _check_coordinates(by_name)
    panels = {name: part.var_names for name, part in by_name.items()}
    chosen = choose_genes(panels, how, genes)
    tables = _common_tables(by_name)
    joined = ad.concat(
        [
            _with_plain_values(part[:, part.var_names.isin(chosen)], tables)
            for part in by_name.values()
        ],
        join="outer",
        uns_merge="same",
    )[:, chosen].copy()
    joined.obs[section_key] = pd.Categorical(
        np.repeat(list(by_name), [part.n_obs for part in by_name.values()]),
        categories=list(by_name),
    )
    table = panel_table(panels, chosen)
    if not table.all(axis=None):
        joined.varm[_keys.MEASURED] = table
    return joined


def _with_plain_values(part: AnnData, tables: Collection[str]) -> AnnData:
    """Copy with sparse expression, in which a gene that is missing becomes 0 and not NaN.

    Coordinates in a DataFrame become an array unless they are among the ``tables``.
    """
    part = part.copy()
    if part.X is not None:
        part.X = sparse.csr_matrix(part.X)
    for layer in part.layers:
        part.layers[layer] = sparse.csr_matrix(part.layers[layer])
    for key, values in dict(part.obsm).items():
        if isinstance(values, pd.DataFrame) and key not in tables:
            part.obsm[key] = values.to_numpy()
    return part


def _common_tables(by_name: Mapping[str, AnnData]) -> set[str]:
    """Names in ``.obsm`` under which all sections have a DataFrame."""
    return set.intersection(
        *(
            {key for key, values in part.obsm.items() if isinstance(values, pd.DataFrame)}
            for part in by_name.values()
        )
    )


def _check_expression(by_name: Mapping[str, AnnData]) -> None:
    """Raise if a layer or X is not in all sections: it would be 0 where it is missing."""
    held = {
        name: {
            *(["X"] if part.X is not None else []),
            *(f"layer {layer!r}" for layer in part.layers),
        }
        for name, part in by_name.items()
    }
    everything = set().union(*held.values())
    for name, present in held.items():
        if missing := sorted(everything - present):
            raise ValueError(
                f"section {name!r} has no {missing[0]}, but others have: add it or delete it from "
                "them."
            )


def _check_coordinates(by_name: Mapping[str, AnnData]) -> None:
    """Raise if values in ``.obsm`` differ in width: what is missing would be NaN."""
    first: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, part in by_name.items():
        for key, values in part.obsm.items():
            other, shape = first.setdefault(key, (name, values.shape[1:]))
            if values.shape[1:] != shape:
                raise ValueError(
                    f".obsm[{key!r}] has shape (n_cells, {_widths(shape)}) in section {other!r}, "
                    f"but (n_cells, {_widths(values.shape[1:])}) in section {name!r}: give all "
                    "sections the same dimensions, such as z = 0 to a flat one, or delete it."
                )


def _widths(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _check_genes(part: AnnData, name: str) -> None:
    require_adata(part, name)
    check_unique(part, "var", name)


def _named_sections(
    sections: Mapping[str, AnnData] | Sequence[AnnData], section_key: str
) -> dict[str, AnnData]:
    """Sections by name."""
    if isinstance(sections, str | bytes) or not isinstance(sections, Iterable):
        raise TypeError(
            "sections must be an AnnData, a list of AnnData, or a dict of them by name, found "
            f"{short(sections)} ({type(sections).__name__})."
        )
    by_name: dict[str, AnnData] = {}
    if isinstance(sections, Mapping):
        for name, part in sections.items():
            _check_genes(part, f"sections[{name!r}]")
        by_name = dict(zip(name_list("sections", list(sections)), sections.values(), strict=True))
        sections = []
    for i, part in enumerate(sections):
        _check_genes(part, f"sections[{i}]")
        section = sections_of(part, section_key)
        for name in pd.unique(section):
            if name in by_name:
                raise ValueError(
                    f"section {name!r} comes twice in sections: rename one of them in "
                    f".obs[{section_key!r}]."
                )
            by_name[name] = part[section == name]
    if not by_name:
        raise ValueError("sections is empty.")
    return by_name


def _subset_genes(
    adata: AnnData, how: str, genes: Sequence[str] | None, section_key: str, copy: bool
) -> AnnData | None:
    """Subset the genes of one AnnData by its table of panels."""
    _check_genes(adata, "sections")
    section = sections_of(adata, section_key)
    names, (panels, _) = map(str, pd.unique(section)), read_panels(adata, section)
    # Fewer panels than names, a single one, if all sections measure all genes.
    by_name = {n: adata.var_names[panel] for n, panel in zip(names, panels, strict=False)}
    chosen = choose_genes(by_name, how, genes)
    adata = adata.copy() if copy else adata
    adata._inplace_subset_var(chosen)
    if _keys.MEASURED in adata.varm and adata.varm[_keys.MEASURED].all(axis=None):
        del adata.varm[_keys.MEASURED]
    return adata if copy else None
