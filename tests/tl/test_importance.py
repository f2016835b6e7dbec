"""Importance of genes: the genes that decide the position of a simulated tissue are found."""

import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import alphastomics as al
from alphastomics.model._importance import placed_sets
from alphastomics.model._set_reader import SetReader

mpl.use("Agg")
N_CELLS, N_GENES = 250, 16
GRADED = ["gene_0", "gene_1", "gene_2", "gene_3"]  # along x, x, y, y
CONSTANT = "gene_15"


def graded_tissue():
    """Two sections in which four genes are graded, one is constant, and the others are noise."""
    rng = np.random.default_rng(0)
    place = rng.uniform(-1, 1, (2 * N_CELLS, 2)) * [2, 1]
    values = rng.normal(size=(2 * N_CELLS, N_GENES))
    values[:, :4] = 0.3 * values[:, :4] + place[:, [0, 0, 1, 1]] * [1, -1, 2, -2]
    values[:, -1] = 3
    values += 10  # log-normalized values are not negative
    return AnnData(
        values.astype(np.float32),
        obs=pd.DataFrame(
            {"section": np.repeat(["a", "b"], N_CELLS)},
            index=[f"cell_{i}" for i in range(2 * N_CELLS)],
        ),
        var=pd.DataFrame(index=[f"gene_{i}" for i in range(N_GENES)]),
        obsm={"spatial": 100 * place},
    )


@pytest.fixture(scope="module")
def graded():
    """A model of that tissue, and the tissue; copy before changing."""
    atlas = graded_tissue()
    al.AlphaSTomics.setup_anndata(atlas, values="lognorm")
    model = al.AlphaSTomics(
        atlas, training_mode="expr_to_pos", d_model=32, num_heads=2, num_layers=1, d_ff=32
    )
    model.train(max_steps=80, lr=3e-3, batch_size=4, set_size=128, progress_bar=False)
    return model, atlas


def importance(model, cells, **options):
    return al.tl.gene_importance(model, cells, copy=True, **options).var["position_importance"]


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("method", ["gradients", "hiding"])
def test_genes_that_decide_the_position_are_first(graded, method, truth):
    model, cells = graded[0], graded[1].copy()
    if not truth:
        del cells.obsm["spatial"]
    found = importance(model, cells, method=method, n_passes=60)
    assert set(found.nlargest(4).index) == set(GRADED)
    noise = found.drop([*GRADED, CONSTANT])
    assert found[GRADED].min() > 3 * noise.abs().max()
    assert found[CONSTANT] == 0


@pytest.mark.parametrize("method", ["gradients", "hiding"])
def test_the_order_of_genes_and_cells_changes_nothing(graded, method):
    model, cells = graded
    rng = np.random.default_rng(0)
    shuffled = cells[rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)].copy()
    options = {"method": method, "n_passes": 4, "n_cells": 300}
    found, again = importance(model, cells, **options), importance(model, shuffled, **options)
    assert list(again.index) == list(shuffled.var_names)
    np.testing.assert_allclose(again[found.index], found, atol=1e-5)


def test_gradients_add_up_to_the_error_that_expression_saves(graded):
    model, cells = graded
    cells = cells[:N_CELLS].copy()
    total = importance(model, cells, method="gradients", n_passes=100).sum()
    task = model._reader.task(cells, "expr_to_pos", predicts=True)
    (placed,) = placed_sets(SetReader(model.module, task), 2048)
    with torch.no_grad():
        known = placed.cells
        blank = known._replace(expression=torch.zeros_like(known.expression))
        saved = placed.error(model.module, blank) - placed.error(model.module, known)
    np.testing.assert_allclose(total, float(saved.mean()), rtol=0.02)


def test_genes_that_say_the_same_share_their_importance(graded):
    """Each of the two genes along x matters, though the other could stand in for it."""
    found = importance(*graded, method="hiding", n_passes=60)
    assert found["gene_0"] > 0.05
    assert found["gene_1"] > 0.05
    assert 0.5 < found["gene_0"] / found["gene_1"] < 2


def test_genes_that_the_model_does_not_know_are_nan(graded):
    model, cells = graded
    other = cells[:, 1:].copy()
    other.var_names = [*other.var_names[:-1], "unknown"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = importance(model, other, n_passes=2)
    assert list(found.index[found.isna()]) == ["unknown"]


def test_what_is_written_is_named_and_replaced_only_if_it_is_ours(graded):
    model, cells = graded[0], graded[1].copy()
    assert al.tl.gene_importance(model, cells, n_passes=2) is None
    first = cells.var["position_importance"].copy()
    record = cells.uns["alphastomics"]["position_importance"]
    assert (record["importance"], record["n_cells"]) == ("gradients", 2 * N_CELLS)
    al.tl.gene_importance(model, cells, n_passes=4)
    assert not np.array_equal(first, cells.var["position_importance"])
    cells.var["mine"] = 1.0
    with pytest.raises(ValueError, match=r"adata.var\['mine'\] is there already"):
        al.tl.gene_importance(model, cells, key_added="mine")
    assert (cells.var["mine"] == 1).all()


def test_a_copy_leaves_the_cells_alone(graded):
    model, cells = graded
    before = cells.copy()
    state = torch.get_rng_state()
    importance(model, cells, method="hiding", n_passes=2, n_cells=100)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(cells.var) == list(before.var)
    assert "alphastomics" not in cells.uns
    np.testing.assert_array_equal(cells.X, before.X)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "shapley"}, ValueError, "method must be one of 'gradients', 'hiding'"),
        ({"n_passes": 0}, ValueError, "n_passes must be at least 1"),
        ({"method": "hiding", "n_passes": 3}, ValueError, "n_passes must be even"),
        ({"n_cells": 1}, ValueError, "n_cells must be at least 2"),
        ({"n_cells": 1.5}, TypeError, "n_cells must be a whole number"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"key_added": "a/b"}, ValueError, "key_added"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_written(graded, options, error, message):
    model, cells = graded[0], graded[1].copy()
    with pytest.raises(error, match=message):
        al.tl.gene_importance(model, cells, **options)
    assert list(cells.var) == []
    assert "alphastomics" not in cells.uns


def test_cells_and_models_that_do_not_fit_are_errors(graded):
    model, cells = graded[0], graded[1].copy()
    with pytest.raises(TypeError, match="model must be an AlphaSTomics, found AnnData"):
        al.tl.gene_importance(cells, model)
    cells.var_names = [f"other_{i}" for i in range(N_GENES)]
    with pytest.raises(ValueError, match="shares no gene with the model"):
        al.tl.gene_importance(model, cells)
    al.AlphaSTomics.setup_anndata(cells, values="lognorm")
    with pytest.raises(RuntimeError, match="not trained"):
        al.tl.gene_importance(al.AlphaSTomics(cells), cells)
    assert list(cells.var) == []


def test_the_figure_shows_the_most_important_genes_first(graded, tmp_path):
    cells = graded[1].copy()
    cells.var["position_importance"] = [*range(N_GENES - 1), np.nan]
    cells.var["symbol"] = [f"S{i}" for i in range(N_GENES)]
    ax = al.pl.gene_importance(cells, 3, gene_symbols="symbol", save=tmp_path / "figure.png")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["S14", "S13", "S12"]
    assert [bar.get_width() for bar in ax.patches] == [14, 13, 12]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first at the top
    assert (tmp_path / "figure.png").stat().st_size > 5_000
    assert len(al.pl.gene_importance(cells, 100).patches) == N_GENES - 1
    plt.close("all")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "nothing"}, KeyError, "key 'nothing' is not in adata.var"),
        ({"key": "empty"}, ValueError, r"adata.var\['empty'\] has no value"),
        ({"key": "text"}, TypeError, r"adata.var\['text'\] must hold numbers"),
        ({"key": "full", "gene_symbols": "no"}, KeyError, "gene_symbols 'no' is not in adata.var"),
        ({"key": "full", "n_genes": 0}, ValueError, "n_genes must be at least 1"),
    ],
)
def test_a_figure_of_nothing_is_an_error(options, error, message):
    cells = graded_tissue()
    cells.var["empty"], cells.var["full"], cells.var["text"] = np.nan, 1.0, "a"
    with pytest.raises(error, match=message):
        al.pl.gene_importance(cells, **options)
