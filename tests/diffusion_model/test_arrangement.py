"""Correlation of arranged distances with the ranks of the true ones, and refinement."""

import pytest
import torch
from scipy.stats import spearmanr

from alphastomics.diffusion_model import arrangement
from alphastomics.diffusion_model.arrangement import distance_correlation, refine, smooth

N, D = 40, 2


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def all_cells(n=N):
    return torch.ones(1, n, dtype=torch.bool)


def test_it_is_the_correlation_of_distances_with_ranks_cell_by_cell():
    true, noise = torch.randn(2, 1, N, D)
    found = distance_correlation(true + noise, true, all_cells())
    arranged, distance = (torch.cdist(x, x)[0] for x in (true + noise, true))
    rows = [torch.stack([arranged[i], distance[i].argsort().argsort().float()]) for i in range(N)]
    expected = torch.stack([row.corrcoef()[0, 1] for row in rows]).mean()
    torch.testing.assert_close(found[0], expected, atol=1e-3, rtol=0)
    both_ranked = [spearmanr(arranged[i], distance[i]).statistic for i in range(N)]
    assert float(found) == pytest.approx(sum(both_ranked) / N, abs=0.05)


def test_rotation_mirror_image_shift_and_scale_change_nothing():
    true, noise = torch.randn(2, 1, N, D)
    turn = torch.linalg.qr(torch.randn(D, D)).Q * torch.tensor([1.0, -1.0])
    before = distance_correlation(true + noise, true, all_cells())
    moved = distance_correlation(3 * (true + noise) @ turn + 2, 0.5 * true @ turn - 1, all_cells())
    torch.testing.assert_close(moved, before, atol=1e-3, rtol=0)
    assert distance_correlation(true, true, all_cells()) > 0.95


def test_cells_that_do_not_count_change_nothing():
    true, noise = torch.randn(2, 1, N + 5, D)
    counts = (torch.arange(N + 5) < N)[None]
    expected = distance_correlation((true + noise)[:, :N], true[:, :N], all_cells())
    noise[:, N:] += 100
    torch.testing.assert_close(distance_correlation(true + noise, true, counts), expected)


@pytest.mark.parametrize("n_cells", [0, 1, 2, N])
def test_gradients_are_finite_even_where_cells_lie_on_each_other(n_cells):
    place = torch.zeros(1, N, D, requires_grad=True)
    cells = (torch.arange(N) < n_cells)[None]
    value = distance_correlation(place, torch.randn(1, N, D), cells)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(place.grad).all()
    if n_cells < 2:
        assert value == 0


def test_gradients_improve_an_arrangement():
    true = torch.randn(1, N, D)
    place = torch.randn(1, N, D, requires_grad=True)
    optimizer = torch.optim.Adam([place], lr=0.1)
    for _ in range(60):
        loss = 1 - distance_correlation(place, true, all_cells()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert distance_correlation(place, true, all_cells()) > 0.8


def test_part_of_the_cells_stands_for_all(monkeypatch):
    true, noise = torch.randn(2, 1, 600, D)
    part = distance_correlation(true + noise, true, all_cells(600))
    monkeypatch.setattr(arrangement, "CORRELATED", 600)
    whole = distance_correlation(true + noise, true, all_cells(600))
    assert 0 < abs(float(part - whole)) < 0.05


class TestRefinement:
    def test_an_arrangement_that_agrees_with_all_places_stays(self):
        x = torch.randn(N, D) * 3
        x = x - x.mean(0)
        turn = torch.linalg.qr(torch.randn(D, D)).Q
        torch.testing.assert_close(refine(x, [2 * x + 1, x @ turn]), x, atol=1e-3, rtol=1e-3)

    def test_cells_that_are_near_in_other_sections_come_nearer(self):
        truth, noise = torch.randn(2, N, D)
        refined = refine(truth + noise, [truth])

        def error(x):
            return (torch.cdist(x, x) - torch.cdist(truth, truth)).square().mean()

        assert error(refined) < 0.8 * error(truth + noise)
        assert torch.isfinite(refined).all()

    def test_frames_of_the_places_and_order_of_the_cells_change_nothing(self):
        x, place = torch.randn(2, N, D)
        x = x - x.mean(0)
        turn, order = torch.linalg.qr(torch.randn(D, D)).Q, torch.randperm(N)
        moved = refine(x[order] @ turn, [5 * place[order] - 1])
        torch.testing.assert_close(moved, refine(x, [place])[order] @ turn, atol=1e-3, rtol=1e-3)

    def test_cells_at_one_place_stay_finite(self):
        x = torch.zeros(N, D)
        x[0] = 1
        assert torch.isfinite(refine(x, [torch.zeros(N, D)])).all()

    @pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-5])
    def test_cells_on_each_other_do_not_move_the_others(self, apart):
        x = torch.randn(300, 2) + 10
        x[1::2] = x[::2] + apart * torch.randn(150, 2)
        place = x + 0.1 * torch.randn(300, 2)
        refined = refine(x, [place, place])
        before, after = torch.cdist(x, x), torch.cdist(refined, refined)
        correlation = torch.corrcoef(torch.stack([before.flatten(), after.flatten()]))[0, 1]
        assert correlation > 0.99
        assert after.mean() == pytest.approx(float(before.mean()), rel=0.05)

    @pytest.mark.parametrize("constant", ["ROWS", "MAX_STORED"])
    def test_large_sets_are_refined_in_parts(self, monkeypatch, constant):
        x, *places = torch.randn(3, N, D)
        whole = refine(x, places)
        monkeypatch.setattr(arrangement, constant, 7)
        torch.testing.assert_close(refine(x, places), whole)


class TestSmoothing:
    def test_noise_of_similar_cells_is_averaged(self):
        torch.manual_seed(0)
        truth = torch.randn(400, 2)
        features = torch.nn.functional.normalize(
            torch.cat([truth, torch.ones(400, 1)], dim=1), dim=-1
        )
        noisy = truth + 0.5 * torch.randn(400, 2)
        error = (smooth(noisy, features) - truth).square().mean()
        assert error < 0.75 * (noisy - truth).square().mean()

    def test_equivariant_to_order_and_frame(self):
        torch.manual_seed(0)
        x, features = torch.randn(60, 2), torch.nn.functional.normalize(torch.randn(60, 5), dim=-1)
        order, turn = torch.randperm(60), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        moved = smooth(x[order] @ turn + 3, features[order])
        torch.testing.assert_close(moved, smooth(x, features)[order] @ turn + 3)

    def test_few_cells(self):
        x = torch.randn(3, 2)
        features = torch.nn.functional.normalize(torch.randn(3, 4), dim=-1)
        torch.testing.assert_close(smooth(x, features), 0.7 * x + 0.3 * x.mean(0))
