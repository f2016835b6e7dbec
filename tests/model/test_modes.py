"""What holds for every pattern of known and unknown."""

import numpy as np
import pytest

QUIET = {"progress_bar": False}
MODES = ("auto", "expr_to_pos", "pos_to_expr", "joint")


@pytest.fixture
def patchy(trained, half):
    """Cells of which some lack a position, some their expression, some both."""
    model, cells = trained
    cells = cells.copy()
    cells.obsm["spatial"][:60] = np.nan
    cells.obs["expression_known"] = (np.arange(300) < 30) | (np.arange(300) > 100)
    return model, cells


def results(model, cells, mode, **options):
    """Everything that predict and sample write."""
    cells = cells.copy()
    if mode != "joint":
        model.predict(cells, mode=mode, **QUIET, **options)
    model.sample(cells, mode=mode, n_samples=2, n_steps=3, **QUIET, **options)
    written = {k: v for k, v in cells.obsm.items() if k.startswith("spatial_")}
    return {**written, **cells.layers}


@pytest.mark.parametrize("mode", MODES)
def test_what_is_asked_for_is_written_for_every_cell(patchy, mode):
    model, cells = patchy
    written = results(model, cells, mode)
    asked = {"spatial_sampled"} if mode != "pos_to_expr" else set()
    asked |= {"expression_sampled"} if mode != "expr_to_pos" else set()
    asked |= {name.replace("sampled", "predicted") for name in asked if mode != "joint"}
    assert set(written) == asked
    assert all(np.isfinite(value).all() for value in written.values())


@pytest.mark.parametrize("mode", MODES)
def test_order_of_cells_and_genes_changes_nothing(patchy, mode):
    model, cells = patchy
    rng = np.random.default_rng(1)
    cell, gene = rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)
    expected = results(model, cells, mode)
    for key, value in results(model, cells[cell][:, gene].copy(), mode).items():
        other = expected[key][cell]
        if key.startswith("expression"):
            other = other[:, gene]
        np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_same_seed_same_draws(patchy, mode):
    model, cells = patchy
    draws = []
    for seed in (3, 3, 4):
        cells = cells.copy()
        model.sample(cells, mode=mode, n_steps=2, seed=seed, **QUIET)
        key = "spatial_sampled"
        draws.append(
            cells.layers["expression_sampled"] if mode == "pos_to_expr" else cells.obsm[key]
        )
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("max_cells_per_set", [2, 40, 170])
def test_sections_larger_than_a_set_are_filled_in_whole(patchy, half, mode, max_cells_per_set):
    model, cells = patchy
    if max_cells_per_set == 2:
        cells = cells[::10].copy()
    for value in results(model, cells, mode, max_cells_per_set=max_cells_per_set).values():
        assert np.isfinite(value).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("max_cells_per_set", [2, 40, 140])
def test_sections_and_references_larger_than_a_set(patchy, mode, max_cells_per_set):
    model, cells = patchy
    if max_cells_per_set == 2:
        cells = cells[::10].copy()
    query, reference = cells[::2].copy(), cells[1::2].copy()
    for value in results(
        model, query, mode, reference=reference, max_cells_per_set=max_cells_per_set
    ).values():
        assert np.isfinite(value).all()


def test_a_set_of_one_cell_is_refused_or_works(patchy):
    model, cells = patchy
    cells = cells[60::20].copy()
    try:
        model.predict(cells, max_cells_per_set=1, **QUIET)
    except ValueError as error:
        assert "max_cells_per_set must be at least" in str(error)  # noqa: PT017


def test_every_part_of_a_section_is_placed_in_its_frame(trained):
    """Also where the few cells of known position lack their expression."""
    model, cells = trained
    cells = cells.copy()
    cells.obsm["spatial"] += 1e6
    cells.obsm["spatial"][3:] = np.nan
    cells.obs["expression_known"] = np.arange(300) >= 3
    model.predict(cells, max_cells_per_set=50, **QUIET)
    assert (cells.obsm["spatial_predicted"] > 9e5).all()


@pytest.mark.parametrize("mode", MODES)
def test_sections_are_filled_in_apart(patchy, tissue, mode):
    model, cells = patchy
    both = tissue[tissue.obs["section"] != "section_0"].copy()
    both.obs["expression_known"] = np.r_[np.ones(300, bool), cells.obs["expression_known"]]
    both.obsm["spatial"][300:] = cells.obsm["spatial"]
    expected = results(model, cells, mode)
    for key, value in results(model, both, mode).items():
        np.testing.assert_allclose(value[300:], expected[key], rtol=1e-4, atol=1e-3)


def test_a_query_without_any_coordinates_is_one_whose_rows_are_nan(trained):
    model, cells = trained
    absent, missing = cells.copy(), cells.copy()
    del absent.obsm["spatial"]
    missing.obsm["spatial"][:] = np.nan
    first, second = (results(model, each, "auto") for each in (absent, missing))
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])
    np.testing.assert_array_equal(
        first["spatial_predicted"], results(model, cells, "expr_to_pos")["spatial_predicted"]
    )


def test_latent_representation(trained, half):
    model, cells = trained
    latent = model.get_latent_representation(cells)
    assert latent.shape == (300, 64)
    assert np.isfinite(latent).all()
    order = np.random.default_rng(0).permutation(300)
    turned = model.get_latent_representation(cells[order][:, cells.var_names[::-1]].copy())
    np.testing.assert_allclose(turned, latent[order], rtol=1e-3, atol=1e-4)
    without = cells.copy()
    del without.obsm["spatial"]
    np.testing.assert_array_equal(model.get_latent_representation(without), latent)
    by_position = model.get_latent_representation(cells, mode="pos_to_expr")
    assert not np.allclose(by_position, latent, atol=0.1)
    assert set(cells.obsm) == {"spatial"}
