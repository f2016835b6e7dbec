"""Estimates are moved apart until they fill the known tissue."""

import pytest
import torch

from alphastomics.priors.transport import BLUR, LEAST_SPREAD, spread_out, transport

D = 2


def radius(points):
    return float((points - points.mean(0)).square().sum(1).mean().sqrt())


@pytest.fixture
def places():
    torch.manual_seed(0)
    return torch.rand(400, D) * torch.tensor([4.0, 1.0]) + 7


@pytest.fixture
def middle(places):
    """Points near the center, ordered as places that are known no more exactly than by noise."""
    chosen = places[torch.randperm(len(places))[:200]]
    return places.mean(0) + 0.2 * (chosen - places.mean(0)) + 0.02 * torch.randn(200, D)


def test_points_take_the_density_of_the_places(places, middle):
    moved = transport(middle, places)
    shares = torch.linspace(0.1, 0.9, 9)
    for axis in range(D):
        found, wanted = (x[:, axis].quantile(shares) for x in (moved, places))
        assert (found - wanted).abs().max() < BLUR**0.5 * radius(places)


def test_their_order_along_the_tissue_stays(places, middle):
    moved = transport(middle, places)
    rank = [x[:, 0].argsort().argsort().float() for x in (middle, moved)]
    assert torch.corrcoef(torch.stack(rank))[0, 1] > 0.98


def test_scale_and_center_of_the_points_change_nothing(places, middle):
    torch.testing.assert_close(
        transport(3 * middle - 5, places), transport(middle, places), atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize("move", [transport, spread_out])
def test_turned_places_turn_the_result(places, middle, move):
    turn = torch.linalg.qr(torch.randn(D, D)).Q
    moved = move(middle @ turn + 2, places @ turn + 2)
    torch.testing.assert_close(moved, move(middle, places) @ turn + 2, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("move", [transport, spread_out])
def test_the_order_of_the_cells_changes_nothing(places, middle, move):
    order, known = torch.randperm(len(middle)), torch.randperm(len(places))
    moved = move(middle[order], places[known])
    torch.testing.assert_close(moved, move(middle, places)[order], atol=1e-3, rtol=1e-4)


def test_points_are_moved_no_further_than_they_must(places, middle):
    assert radius(spread_out(middle, places)) == pytest.approx(
        LEAST_SPREAD * radius(places), rel=1e-3
    )
    assert torch.equal(spread_out(places, places), places)


@pytest.mark.parametrize("n", [1, 5])
def test_points_in_one_place_stay(places, n):
    points = torch.ones(n, D)
    assert torch.equal(spread_out(points, places), points)
