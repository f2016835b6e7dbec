"""Sections unlike those of training are recognized, and their radius is that of chance."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.nn.functional import normalize

import alphastomics as al
from alphastomics.priors.reference_matching import StoredReference

QUIET = {"progress_bar": False}
UNLIKE = "is unlike the training sections: its cells differ [1-9]"


def unlike(cells):
    """Cells of another kind: the genes of the tissue exchanged at random."""
    other = cells.copy()
    order = np.random.default_rng(0).permutation(cells.n_vars)
    other.X = sparse.csr_matrix(cells.X)[:, order]
    return other


def stored(*sections):
    reference = StoredReference(2, sections[0].shape[1])
    n = max(map(len, sections))
    reference.features = torch.stack(
        [torch.cat([s, torch.zeros(n - len(s), s.shape[1])]) for s in sections]
    )
    reference.place = torch.zeros(len(sections), n, 2)
    reference.valid = torch.stack([torch.arange(n) < len(s) for s in sections])
    return reference


def directions(n, *, around=0.0, spread=0.5):
    return normalize(around + spread * torch.randn(n, 32), dim=-1)


def test_novelty_of_a_like_section_is_about_1_whatever_its_composition():
    torch.manual_seed(0)
    # A tight and a wide type of cells; queries have both or one of them.
    tight, wide = 4 * torch.eye(32)[0], 4 * torch.eye(32)[1]

    def section(n_tight, n_wide):
        return torch.cat(
            [directions(n_tight, around=tight, spread=0.15), directions(n_wide, around=wide)]
        )

    reference = stored(section(300, 300), section(300, 280))
    for like in (section(200, 200), section(0, 200), section(200, 0)):
        assert reference.novelty(like) == pytest.approx(1.08, abs=0.07)
    assert reference.novelty(directions(200)) > 2


def test_novelty_needs_two_sections():
    assert stored(directions(50)).novelty(directions(50)) is None


def test_a_section_of_other_genes_has_a_warning_and_the_radius_of_chance(placer, monkeypatch):
    model, cells = placer
    tiny = {"unframed": {"predict": 1e-6, "sample": 1e-6}}
    monkeypatch.setattr(model, "training_record", replace(model.training_record, calibration=tiny))
    query, plain = unlike(cells), cells.copy()
    with pytest.warns(UserWarning, match=f"section .*{UNLIKE}"):
        model.predict(query, mode="expr_to_pos", **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(plain, mode="expr_to_pos", **QUIET)
    placed, radius = query.obsm["spatial_predicted"], query.obs["spatial_predicted_radius"]
    by_chance = np.hypot(model.module.tissue_radius(0.9), np.linalg.norm(placed, axis=1))
    np.testing.assert_allclose(radius, by_chance)
    assert (plain.obs["spatial_predicted_radius"] < 0.01 * by_chance.min()).all()


def test_a_single_training_section_is_compared_by_mean_expression():
    tissue = al.datasets.simulate_tissue(n_sections=2, n_cells=200)
    first = (tissue.obs["section"] == "section_0").to_numpy()
    atlas, cells = tissue[first].copy(), tissue[~first].copy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, training_mode="expr_to_pos")
    model.train(max_steps=1, **QUIET)
    with pytest.warns(UserWarning, match=r"its mean expression correlates -?0\.[0-8]\d with"):
        model.predict(unlike(cells), mode="expr_to_pos", **QUIET)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is unlike")
        model.predict(cells, mode="expr_to_pos", **QUIET)


def test_a_draw_of_such_a_section_has_the_warning_and_an_embedding_has_not(placer):
    model, cells = placer
    with pytest.warns(UserWarning, match=UNLIKE):
        model.sample(unlike(cells), mode="expr_to_pos", n_steps=2, **QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.get_latent_representation(unlike(cells))


def test_cells_placed_among_others_have_no_warning(placer):
    model, cells = placer
    query = unlike(cells)
    query.obsm["spatial"][::2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(query, **QUIET)


def test_the_tissue_radius_holds_its_share_of_the_cells(placer):
    model, cells = placer
    centered = cells.obsm["spatial"] - cells.obsm["spatial"].mean(0)
    share = (np.linalg.norm(centered, axis=1) < model.module.tissue_radius(0.9)).mean()
    assert share == pytest.approx(0.9, abs=0.05)
    assert al.metrics.rms_radius(centered) < model.module.tissue_radius(0.9)


def test_cells_that_a_reference_does_not_cover_have_a_warning(placer):
    model, cells = placer
    common = cells.obs["cell_type"].value_counts().index[:3]
    covered = cells.obs["cell_type"].isin(common).to_numpy()

    def place(within, query):
        reference, rest = cells[within].copy(), cells[query].copy()
        reference.obs_names = [f"r{name}" for name in reference.obs_names]
        model.predict(rest, reference=reference, mode="expr_to_pos", **QUIET)

    half = np.arange(cells.n_obs) % 2 == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        place(half, ~half)
    with pytest.warns(UserWarning, match="is unlike the reference: .*covers them"):
        place(covered, ~covered)
