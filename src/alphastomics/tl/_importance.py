"""Importance of genes for placement."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from alphastomics import _keys
from alphastomics._anndata import gene_names
from alphastomics._computing import own_torch_state
from alphastomics._output import METHOD, Results, check_key
from alphastomics._validate import check_adata, check_choice, check_integer, check_seed
from alphastomics.model._importance import importance_by_gradients, importance_by_hiding
from alphastomics.model._model import AlphaSTomics
from alphastomics.model._task import MAX_SET, MIN_SET

ImportanceMethod = Literal["gradients", "hiding"]
# Passes of the network a set by default; see docs/gene-importance.md.
PASSES: dict[ImportanceMethod, int] = {"gradients": 16, "hiding": 200}


@own_torch_state()
def gene_importance(
    model: AlphaSTomics,
    adata: AnnData,
    *,
    method: ImportanceMethod = "gradients",
    n_cells: int = 2000,
    n_passes: int | None = None,
    key_added: str = _keys.POSITION_IMPORTANCE,
    seed: int | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Compute the importance of each gene for placement.

    Every cell is placed by its expression. The placement error is its distance from the true
    position, or in sections without true positions from the position predicted with all genes.

    Parameters
    ----------
    model
        Trained model that places cells.
    adata
        Cells to place, such as those of the training; genes are matched by name.
    method
        ``"gradients"``: integrated gradients of the error (Sundararajan et al. 2017, ICML), from
        the mean of each gene in training to its value. They add up to the effect of all genes on
        the error. ``"hiding"``: increase of the error when a gene is masked, the mean over random
        halves of the other genes that are masked, too (Banzhaf value), so that redundant genes
        share their importance; slower, and for a few hundred genes at most.
    n_cells
        Cells to place, a random sample of ``adata`` if it has more.
    n_passes
        Passes of the network: points of the path of integrated gradients, 16 by default, or random
        halves of genes, an even number, 200 by default.
    key_added
        Name in ``.var``. An entry of that name is replaced only if an earlier call wrote it.
    seed
        Of the sample of cells and of the halves; ``None`` for ``al.settings.seed``.
    copy
        Whether to return a copy instead of writing into ``adata``.

    Returns
    -------
    AnnData or None
        Writes ``.var[key_added]``, ``(n_genes,)``, in RMS radii of the training sections: the mean
        decrease of the error over cells, negative for an increase, 0 for genes that did not vary in
        training, NaN for genes that the model lacks. In ``.uns["alphastomics"]``,
        provenance.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        If the model places no cells, or if ``adata`` shares no gene with it.

    Examples
    --------
    >>> import alphastomics as al
    >>> atlas = al.datasets.simulate_tissue(n_sections=2, n_cells=100, n_genes=20)
    >>> al.AlphaSTomics.setup_anndata(atlas)
    >>> model = al.AlphaSTomics(atlas, d_model=32, num_layers=1)
    >>> model.train(max_steps=2, progress_bar=False)
    >>> al.tl.gene_importance(model, atlas)
    >>> atlas.var["position_importance"].shape
    (20,)
    """
    if not isinstance(model, AlphaSTomics):
        raise TypeError(f"model must be an AlphaSTomics, found {type(model).__name__}.")
    check_choice("method", method, tuple(PASSES))
    n_cells, seed = check_integer("n_cells", n_cells, MIN_SET), check_seed(seed)
    n_passes = PASSES[method] if n_passes is None else check_integer("n_passes", n_passes, 1)
    if method == "hiding" and n_passes % 2:
        raise ValueError(f"n_passes must be even for method='hiding', found {n_passes}.")
    check_key("key_added", key_added, {})
    check_adata(adata)
    adata = adata.copy() if copy else adata
    results = Results(adata)
    results.reserve("var", key_added, "key_added")

    by_name = np.argsort(adata.obs_names.astype(str), kind="stable")
    chosen = np.random.default_rng(seed).permutation(by_name)[:n_cells]
    sample = adata[np.sort(chosen)].copy()
    model._require_trained()
    task = model._reader.task(sample, "expr_to_pos", standardize="auto", predicts=True)
    if method == "gradients":
        found = importance_by_gradients(model.module, task, max_cells=MAX_SET, n_passes=n_passes)
    else:
        found = importance_by_hiding(
            model.module, task, max_cells=MAX_SET, n_passes=n_passes, seed=seed
        )
    importance = pd.Series(found, index=model.genes).reindex(gene_names(adata)).to_numpy()
    details = {METHOD: "gene_importance", "importance": method, "n_cells": len(sample)}
    details |= {"n_passes": n_passes, "seed": seed, "model": model._fingerprint()}
    results.put("var", key_added, importance)
    results.record(key_added, **details)
    results.write()
    return adata if copy else None
