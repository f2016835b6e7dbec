"""Where known cells are that resemble a cell."""

import pytest
import torch

from alphastomics.nn.pointer import Pointed, Pointer

G, N, K, D = 6, 9, 40, 2


def mixture(log_weight, place):
    told = torch.ones(log_weight.shape[:2], dtype=torch.bool)
    return Pointed(log_weight.log_softmax(-1), place, told)


@pytest.fixture
def pointed():
    torch.manual_seed(0)
    return mixture(torch.randn(1, N, K), torch.randn(1, K, D))


def test_mean_and_variance_are_those_of_the_weights(pointed):
    weight, place = pointed.log_weight.exp()[0], pointed.place[0]
    mean = weight @ place
    square = (place[None] - mean[:, None]).square().sum(-1)
    torch.testing.assert_close(pointed.mean()[0], mean)
    torch.testing.assert_close(
        pointed.variance()[0], (weight * square).sum(1), atol=1e-5, rtol=1e-4
    )


def test_likelihood_of_one_part_is_a_gaussian():
    one = mixture(torch.zeros(1, 1, 1), torch.zeros(1, 1, D))
    at, width = torch.tensor([[[0.3, 0.4]]]), torch.tensor(0.5)
    density = torch.distributions.Normal(0.0, width).log_prob(at).sum(-1)
    constant = D / 2 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(one.log_likelihood(at, width), density + constant)


def test_denoiser_goes_from_the_mean_to_the_noisy_place(pointed):
    z, width = torch.randn(1, N, D), torch.tensor(0.3)

    def denoised(variance):
        return pointed.denoise(z, torch.full((1, N), variance), width)

    torch.testing.assert_close(denoised(torch.inf), pointed.mean())
    torch.testing.assert_close(denoised(0.0), z)


def test_denoiser_is_the_posterior_mean(pointed):
    """Of a mixture of Gaussians, by its definition."""
    z, width, variance = torch.randn(1, N, D), torch.tensor(0.3), 0.2
    total = width.square() + variance
    expected = torch.zeros(N, D)
    for n in range(N):
        weight = torch.zeros(K)
        for k in range(K):
            off = (z[0, n] - pointed.place[0, k]).square().sum()
            weight[k] = pointed.log_weight[0, n, k].exp() * torch.exp(-off / (2 * total))
        weight = weight / weight.sum()
        part = (variance * pointed.place[0] + width.square() * z[0, n]) / total
        expected[n] = weight @ part
    found = pointed.denoise(z, torch.full((1, N), variance), width)
    torch.testing.assert_close(found[0], expected)


def test_mode_is_one_of_two_distant_places_and_the_mean_of_near_ones():
    place = torch.tensor([[[-3.0, 0.0], [3.0, 0.0], [3.1, 0.0]]])
    apart = mixture(torch.tensor([[[0.4, 0.3, 0.3]]]).log(), place)
    torch.testing.assert_close(apart.mode()[0, 0], torch.tensor([3.05, 0.0]), atol=1e-3, rtol=0)
    near = mixture(torch.zeros(1, 1, 3), place * 0.01)
    torch.testing.assert_close(near.mode(), near.mean(), atol=1e-4, rtol=0)


def test_points_only_to_what_counts_whatever_is_in_the_rest():
    torch.manual_seed(0)
    pointer = Pointer(G, 8).eval()
    values, measured = torch.randn(1, N, G), torch.ones(1, N, G, dtype=torch.bool)
    measured[..., 0] = False
    features = pointer.features(values, measured)
    changed = values.clone()
    changed[..., 0] = torch.nan
    assert torch.equal(pointer.features(changed, measured), features)
    known = torch.arange(N)[None] < 5
    place = torch.randn(1, N, D)
    found = pointer(features, features, place, known)
    assert (found.log_weight.exp()[..., 5:] == 0).all()
    moved = place.clone()
    moved[:, 5:] = torch.nan
    torch.testing.assert_close(pointer(features, features, moved, known).mean(), found.mean())


def test_turning_and_shifting_the_known_cells_turns_and_shifts_all(pointed):
    turn = torch.linalg.qr(torch.randn(D, D)).Q
    moved = pointed._replace(place=pointed.place @ turn + 2)
    for estimate in (Pointed.mean, Pointed.mode):
        torch.testing.assert_close(
            estimate(moved), estimate(pointed) @ turn + 2, atol=1e-4, rtol=1e-4
        )
