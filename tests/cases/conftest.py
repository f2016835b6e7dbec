"""A small tissue, a model of three steps, and what a user keeps: for cases that went wrong."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import alphastomics as al

SMALL = {"d_model": 16, "num_layers": 1, "d_ff": 16, "num_heads": 2}
FEW = {"set_size": 32, "batch_size": 2, "progress_bar": False}


def train_small(adata, steps=3, train=None, architecture=None, **setup):
    """Set up and train a small model for a few steps."""
    al.AlphaSTomics.setup_anndata(adata, **setup)
    model = al.AlphaSTomics(adata, **{**SMALL, **(architecture or {})})
    model.train(max_steps=steps, **{**FEW, **(train or {})})
    return model


def state(adata: AnnData) -> dict[str, object]:
    """Copy of everything that an AnnData holds."""
    fields = {"X": adata.X, "obs": adata.obs, "var": adata.var, "uns": dict(adata.uns)}
    for name in ("obsm", "varm", "layers", "obsp"):
        fields |= {f"{name}[{key}]": value for key, value in getattr(adata, name).items()}
    return copy.deepcopy(fields)


def assert_same_state(adata: AnnData, before: dict[str, object]) -> None:
    """Assert that an AnnData is what it was."""
    after = state(adata)
    assert list(after) == list(before)
    for name, value in before.items():
        _assert_same(after[name], value, name)


def _assert_same(now, before, name):
    assert type(now) is type(before), name
    if isinstance(before, dict):
        assert list(now) == list(before), name
        for key, value in before.items():
            _assert_same(now[key], value, f"{name}[{key}]")
    elif isinstance(before, pd.DataFrame | pd.Series):
        assert list(now) == list(before), name
        assert now.equals(before), name
    elif sparse.issparse(before):
        _assert_same(now.toarray(), before.toarray(), name)
    elif isinstance(before, np.ndarray):
        assert now.dtype == before.dtype, name
        if now.dtype == object:  # NaN equals itself
            now, before = now.astype(str), before.astype(str)
        np.testing.assert_array_equal(now, before, err_msg=name)
    else:
        assert np.array_equal(now, before) if np.ndim(before) else now is before or now == before


@pytest.fixture(scope="session")
def fit():
    """:func:`train_small`, for tests: modules of tests cannot import each other."""
    return train_small


@pytest.fixture
def unchanged():
    """Context in which an AnnData must stay what it was: ``with unchanged(adata): ...``."""

    @contextmanager
    def check(adata):
        before = state(adata)
        yield
        assert_same_state(adata, before)

    return check


@pytest.fixture(scope="session")
def same_as_before():
    """Maps an AnnData to a function that asserts that it is what it was; for hypothesis."""

    def remember(adata):
        before = state(adata)
        return lambda: assert_same_state(adata, before)

    return remember


@pytest.fixture(scope="session")
def small_tissue():
    """Three sections of 200 cells and 40 genes; copy before changing."""
    return al.datasets.simulate_tissue(n_sections=3, n_cells=200, n_genes=40)


@pytest.fixture
def atlas(small_tissue):
    """Two sections, to train on."""
    return small_tissue[small_tissue.obs["section"] != "section_2"].copy()


@pytest.fixture
def cells(small_tissue):
    """The third section, as a query."""
    return small_tissue[small_tissue.obs["section"] == "section_2"].copy()


@pytest.fixture(scope="session")
def small_model(small_tissue):
    """A joint model of three steps; not to be trained on or changed."""
    return train_small(small_tissue[small_tissue.obs["section"] != "section_2"].copy())
