"""Support of the tissue: which positions lie where training cells do."""

import numpy as np
import pytest
import torch

from alphastomics.priors.support import MAX_CELLS, MAX_SECTIONS, TissueSupport


def squares(n_sections=3, n=800, d=2):
    """Sections of cells in a square of side 2."""
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, size=(n, d)) for _ in range(n_sections)]


def fitted(sections):
    support = TissueSupport(sections[0].shape[1])
    support.fit(sections, seed=0)
    return support


@pytest.mark.parametrize("n_sections", [1, 3])
@pytest.mark.parametrize("d", [2, 3])
def test_other_cells_of_the_tissue_lie_in_it_and_distant_ones_do_not(n_sections, d):
    support = fitted(squares(n_sections, d=d))
    region = support.region(support.place)
    other = torch.from_numpy(squares(n_sections + 1, d=d)[-1])
    assert region.contains(other).float().mean() > 0.93
    assert not region.contains(torch.full((1, d), 1.5)).any()


def test_a_cavity_is_not_part_of_the_tissue():
    sections = [points[np.linalg.norm(points, axis=1) > 0.5] for points in squares()]
    support = fitted(sections)
    assert not support.region(support.place).contains(torch.zeros(1, 2)).any()


def test_sections_that_differ_widen_the_region():
    alike, shifted = squares(2), [p + 0.3 * i for i, p in enumerate(squares(2))]
    reach = [s.region(s.place).reach for s in map(fitted, (alike, shifted))]
    assert reach[1] > 1.5 * reach[0]


def test_it_is_asked_in_the_frame_of_the_given_positions():
    support = fitted(squares())
    turned = support.place @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]]) + 10
    region = support.region(turned)
    assert region.contains(torch.tensor([[10.0, 10.0]])).all()
    assert not region.contains(torch.zeros(1, 2)).any()


def test_a_bounded_number_of_cells_and_sections_is_stored():
    support = fitted([*squares(MAX_SECTIONS + 2, n=10), np.zeros((0, 2))])
    assert len(support.place) == 10 * MAX_SECTIONS
    assert len(support.section.unique()) == MAX_SECTIONS
    assert len(fitted(squares(1, n=MAX_CELLS + 5)).place) == MAX_CELLS


def test_it_is_saved_with_any_number_of_cells_and_says_when_it_is_not_fitted():
    support, other = fitted(squares()), TissueSupport(2)
    assert other.region(other.place) is None
    other.load_state_dict(support.state_dict())
    assert torch.equal(other.place, support.place)
    assert torch.equal(other.section, support.section)
