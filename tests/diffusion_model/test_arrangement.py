"""Arrangements and their refinement."""

import pytest
import torch

from alphastomics.diffusion_model import arrangement
from alphastomics.diffusion_model.arrangement import distance_correlation, refine

N, D = 40, 2


def test_an_arrangement_that_agrees_with_all_places_stays():
    x = torch.randn(N, D) * 3
    x = x - x.mean(0)
    turn = torch.linalg.qr(torch.randn(D, D)).Q
    torch.testing.assert_close(refine(x, [2 * x + 1, x @ turn]), x, atol=1e-3, rtol=1e-3)


def test_cells_that_are_near_elsewhere_come_nearer():
    torch.manual_seed(0)
    truth, noise = torch.randn(2, N, D)
    refined = refine(truth + noise, [truth])

    def error(x):
        return (torch.cdist(x, x) - torch.cdist(truth, truth)).square().mean()

    assert error(refined) < 0.8 * error(truth + noise)
    assert torch.isfinite(refined).all()


def test_it_does_not_see_frames_and_order():
    torch.manual_seed(0)
    x, place = torch.randn(2, N, D)
    x = x - x.mean(0)
    turn, order = torch.linalg.qr(torch.randn(D, D)).Q, torch.randperm(N)
    moved = refine(x[order] @ turn, [5 * place[order] - 1])
    torch.testing.assert_close(moved, refine(x, [place])[order] @ turn, atol=1e-3, rtol=1e-3)


def test_cells_at_one_place_stay_finite():
    x = torch.zeros(N, D)
    x[0] = 1
    assert torch.isfinite(refine(x, [torch.zeros(N, D)])).all()


@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-5])
def test_cells_on_each_other_do_no_harm(apart):
    """Cells at one place, or nearly, once sent all the others astray."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator) + 10
    x[1::2] = x[::2] + apart * torch.randn(150, 2, generator=generator)
    place = x + 0.1 * torch.randn(300, 2, generator=generator)
    refined = refine(x, [place, place])
    before, after = torch.cdist(x, x), torch.cdist(refined, refined)
    correlation = torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1]
    assert correlation > 0.99
    assert after.mean() == pytest.approx(float(before.mean()), rel=0.05)


def test_large_sets_are_refined_in_parts(monkeypatch):
    torch.manual_seed(0)
    x, *places = torch.randn(3, N, D)
    whole = refine(x, places)
    monkeypatch.setattr(arrangement, "ROWS", 7)
    torch.testing.assert_close(refine(x, places), whole)


def test_some_cells_stand_for_all_in_the_correlation_of_distances(monkeypatch):
    torch.manual_seed(0)
    true, noise = torch.randn(2, 1, 600, D)
    everyone = torch.ones(1, 600, dtype=torch.bool)
    some = distance_correlation(true + noise, true, everyone)
    monkeypatch.setattr(arrangement, "CORRELATED", 600)
    whole = distance_correlation(true + noise, true, everyone)
    assert 0 < abs(float(some - whole)) < 0.05
