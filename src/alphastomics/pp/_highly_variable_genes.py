"""Choice of genes that vary within sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics._anndata import (
    expression_known,
    matrix_name,
    read_matrix,
    read_panels,
    section_names,
    sections_of,
)
from alphastomics._output import check_key
from alphastomics._validate import check_integer, check_values

Array = NDArray[np.float64]


def residual_variance(
    matrix: sparse.csr_matrix, panel: NDArray[np.bool_], values: str = "counts"
) -> Array:
    """Variance of the Pearson residuals of each gene of one section, NaN where not measured."""
    import scanpy as sc

    counts = matrix[:, np.flatnonzero(panel)].astype(np.float64)
    if values == "lognorm":
        counts = counts.expm1()  # back to the scale of counts
    if counts.nnz and counts.data.min() < 0:
        raise ValueError(
            "highly variable genes need values of at least 0, found "
            f"{counts.data.min():g}: name a layer that is not centered."
        )
    counts = counts[np.asarray(counts.sum(1)).ravel() > 0]
    variance = np.full(len(panel), np.nan)
    if not counts.shape[0]:
        return variance
    section = ad.AnnData(counts)
    table = sc.experimental.pp.highly_variable_genes(
        section, n_top_genes=section.n_vars, check_values=False, inplace=False
    )
    variance[panel] = table["residual_variances"].to_numpy()
    return variance


def rank_genes(variances: Mapping[str, Array], n_top: int) -> pd.DataFrame:
    """Rank genes by the variance of their residuals in each section, ``(n_genes,)``.

    As scanpy with ``batch_key``: first genes among the ``n_top`` of most sections, then those of
    the lowest median rank (over those sections; NaN if none).
    """
    table = np.stack(list(variances.values()))  # (n_sections, n_genes)
    rank = pd.DataFrame(table).rank(axis=1, method="first", ascending=False).to_numpy() - 1
    rank[~(rank < n_top)] = np.nan
    n_sections = (~np.isnan(rank)).sum(0)
    median = np.full(table.shape[1], np.nan)
    found = n_sections > 0
    median[found] = np.nanmedian(rank[:, found], axis=0)
    order = np.lexsort((np.where(found, median, np.inf), -n_sections))
    chosen = np.zeros(table.shape[1], dtype=bool)
    chosen[order[:n_top]] = True
    return pd.DataFrame({"rank": median, "n_sections": n_sections, "highly_variable": chosen})


def highly_variable_genes(
    adata: AnnData,
    *,
    n_top_genes: int = 2000,
    values: str = "counts",
    sections: Sequence[str] | str | None = None,
    layer: str | None = None,
    section_key: str | None = _keys.SECTION,
    key_added: str = _keys.HIGHLY_VARIABLE,
    copy: bool = False,
) -> AnnData | None:
    """Select the genes that vary most within sections.

    Genes are ranked in each section by the variance of their analytic Pearson residuals (Lause et
    al. 2021, :func:`scanpy.experimental.pp.highly_variable_genes`), and the ranks are combined, so
    that differences between sections do not count. Nothing is normalized.

    Parameters
    ----------
    adata
        Cells of one or more sections, ``(n_cells, n_genes)``.
    n_top_genes
        Number of genes; all if there are fewer.
    values
        Kind of values in the layer: ``"counts"``, ``"lognorm"`` or ``"intensity"``.
    sections
        Sections to rank in. By default the training sections of ``.obs["split"]``, so that held-out
        sections do not count, or all sections where there is no such column.
    layer, section_key, copy
        As in :func:`filter_cells`.
    key_added
        Name of the boolean column in ``.var``.

    Returns
    -------
    AnnData or None
        Writes ``.var[key_added]``, ``.var[key_added + "_rank"]`` and
        ``.var[key_added + "_nbatches"]``: in how many sections the gene is among the first.

    Examples
    --------
    >>> import alphastomics as al
    >>> atlas = al.datasets.simulate_tissue(n_sections=2, n_cells=100, n_genes=30)
    >>> al.pp.highly_variable_genes(atlas, n_top_genes=10)
    >>> int(atlas.var["highly_variable"].sum())
    10
    """
    n_top_genes = check_integer("n_top_genes", n_top_genes, 1)
    check_key("key_added", key_added, {})
    matrix = check_values(read_matrix(adata, layer), values, matrix_name(layer))
    section, known = sections_of(adata, section_key), expression_known(adata.obs)
    panels, panel = read_panels(adata, section)
    variances = {
        name: residual_variance(
            matrix[np.flatnonzero((section == name) & known)],
            panels[panel[np.flatnonzero(section == name)[0]]],
            values,
        )
        for name in _ranking_sections(adata.obs, section, sections)
    }
    table = rank_genes(variances, n_top_genes)
    adata = adata.copy() if copy else adata
    adata.var[key_added] = table["highly_variable"].to_numpy()
    adata.var[f"{key_added}_rank"] = table["rank"].to_numpy()
    adata.var[f"{key_added}_nbatches"] = table["n_sections"].to_numpy()
    return adata if copy else None


def _ranking_sections(
    obs: pd.DataFrame, section: NDArray[np.str_], sections: Sequence[str] | str | None
) -> list[str]:
    """Names of the sections in which genes are ranked."""
    present = [str(name) for name in pd.unique(section)]
    if sections is not None:
        if not (names := section_names("sections", sections, present)):
            raise ValueError(f"sections is empty: name some of {present}, or pass None.")
        return names
    if _keys.SPLIT not in obs:
        return present
    training = set(section[(obs[_keys.SPLIT] == "train").to_numpy()])
    if not training:
        raise ValueError(
            f"adata.obs[{_keys.SPLIT!r}] holds out all {len(present)} sections, so that none is "
            f"left to rank genes in: name sections= of {present}."
        )
    return [name for name in present if name in training]
