"""Imputed genes are stacked estimates: better than the parts, and of each section by itself."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import alphastomics as al
from alphastomics.model import _imputation

QUIET = {"progress_bar": False}
HIDDEN = [f"gene_{i}" for i in range(0, 40, 4)]
KEY = "expression_imputed"


@pytest.fixture(scope="module")
def imputed(trained):
    model, cells = trained
    cells = cells.copy()
    model.impute(cells, genes=HIDDEN, **QUIET)
    return cells


def accuracy(cells, values):
    visible = ~cells.var_names.isin(HIDDEN)
    counts = cells.X.toarray()
    total = np.maximum(counts[:, visible].sum(1, keepdims=True), 1)
    true = np.log1p(counts / total * np.median(total))[:, cells.var_names.get_indexer(HIDDEN)]
    return al.metrics.pcc(true, values).mean()


def test_no_part_is_better_than_the_stack(trained, imputed, monkeypatch):
    model, cells = trained
    visible = ~cells.var_names.isin(HIDDEN)
    atlas = model.adata
    expression = [np.log1p(adata.X.toarray().astype(float)) for adata in (cells, atlas)]
    hidden = expression[1][:, cells.var_names.get_indexer(HIDDEN)]
    parts = dict(
        al.tl.imputation_baselines(expression[0][:, visible], expression[1][:, visible], hidden)
    )
    monkeypatch.setattr(_imputation, "LEAST_CELLS", 10**9)
    alone = cells.copy()
    model.impute(alone, genes=HIDDEN, **QUIET)
    parts["network"] = alone.obsm[KEY].to_numpy()
    found = accuracy(cells, imputed.obsm[KEY].to_numpy())
    best = max(accuracy(cells, values) for values in parts.values())
    assert found > best
    assert found > 0.35
    # The network gives the mean of each gene.
    np.testing.assert_allclose(imputed.obsm[KEY].mean(), alone.obsm[KEY].mean(), atol=0.1)


def test_permuted_cells_have_permuted_results_and_a_call_repeats(trained, imputed):
    model, cells = trained
    order = np.random.default_rng(1).permutation(cells.n_obs)
    for rows in (order, np.arange(cells.n_obs)):
        again = cells[rows].copy()
        model.impute(again, genes=HIDDEN, **QUIET)
        pd.testing.assert_frame_equal(again.obsm[KEY], imputed.obsm[KEY].iloc[rows], rtol=1e-5)


def test_another_section_in_the_query_changes_nothing(trained, imputed):
    model, cells = trained
    other = model.adata[model.adata.obs["section"] == "section_0"].copy()
    both = ad.concat([cells, other], index_unique="-", keys=["new", "old"])
    model.impute(both, genes=HIDDEN, **QUIET)
    rows = both.obs["section"] == "section_2"
    np.testing.assert_allclose(both.obsm[KEY][rows], imputed.obsm[KEY], atol=1e-4)


def test_what_the_section_measures_of_hidden_genes_is_not_used(trained, imputed):
    model, cells = trained
    lacking = cells[:, ~cells.var_names.isin(HIDDEN)].copy()
    with pytest.warns(UserWarning, match="genes are missing"):
        model.impute(lacking, genes=HIDDEN, **QUIET)
    pd.testing.assert_frame_equal(lacking.obsm[KEY], imputed.obsm[KEY])


def test_few_cells_and_few_known_genes_are_imputed_by_the_network(trained, monkeypatch):
    model, cells = trained
    few, single = cells[:30].copy(), cells[:, 30:].copy()
    model.impute(few, genes=HIDDEN, **QUIET)
    with pytest.warns(UserWarning, match="genes are missing"):
        model.impute(single, genes=list(cells.var_names[:35]), **QUIET)
    monkeypatch.setattr(_imputation, "LEAST_CELLS", 10**9)
    for adata, genes in ((few, HIDDEN), (single, list(cells.var_names[:35]))):
        found = adata.obsm[KEY].copy()
        adata = adata.copy()
        model.impute(adata, genes=genes, **QUIET)
        pd.testing.assert_frame_equal(adata.obsm[KEY], found)


def test_cells_without_counts_are_imputed_by_their_position(trained, imputed):
    model, cells = trained
    blank = cells.copy()
    counts = blank.X.tolil()
    counts[0] = 0
    blank.X = counts.tocsr()
    model.impute(blank, genes=HIDDEN, **QUIET)
    assert np.isfinite(blank.obsm[KEY].to_numpy()).all()
    found, before = blank.obsm[KEY].to_numpy()[1:], imputed.obsm[KEY].to_numpy()[1:]
    assert np.corrcoef(found.ravel(), before.ravel())[0, 1] > 0.99


def test_a_loaded_model_imputes_the_same_without_its_training_cells(trained, imputed, tmp_path):
    model, cells = trained
    model.save(tmp_path / "model")
    loaded = al.AlphaSTomics.load(tmp_path / "model")
    again = cells.copy()
    loaded.impute(again, genes=HIDDEN, **QUIET)
    pd.testing.assert_frame_equal(again.obsm[KEY], imputed.obsm[KEY])


def test_reference_cells_around_a_cell_improve_its_hidden_genes(trained):
    model, cells = trained
    half = np.random.default_rng(0).permutation(cells.n_obs) < cells.n_obs // 2
    query, reference = cells[half].copy(), cells[~half].copy()
    model.impute(query, genes=HIDDEN, **QUIET)
    alone = accuracy(query, query.obsm[KEY].to_numpy())
    model.impute(query, genes=HIDDEN, reference=reference, **QUIET)
    assert accuracy(query, query.obsm[KEY].to_numpy()) > alone + 0.005
    model.impute(query, genes=HIDDEN, reference=reference[::-1].copy(), **QUIET)
    again = query.obsm[KEY].to_numpy()
    model.impute(query, genes=HIDDEN, reference=reference, **QUIET)
    np.testing.assert_allclose(again, query.obsm[KEY].to_numpy(), atol=1e-4)
