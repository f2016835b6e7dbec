import pytest
import torch

from alphastomics.nn.geometry import Geometry
from alphastomics.nn.neighborhood import Neighborhood

N, G = 12, 5


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = Neighborhood(G, 8).eval()
    torch.nn.init.uniform_(network.weight)
    network.basis.copy_(torch.linalg.qr(torch.randn(G, G)).Q)
    return network


def surroundings(n=N, seed=1):
    """Values, some of them known, of cells of which some have a position."""
    torch.manual_seed(seed)
    values, known = torch.randn(2, n, G), (torch.rand(2, n, G) > 0.3).float()
    known[:, 3] = 0.0  # a cell whose expression is hidden
    certainty = (torch.arange(n) % 4 != 1).float().expand(2, n)
    position = 0.3 * torch.randn(2, n, 2)
    return values, known, Geometry(position, torch.zeros(2, n), certainty)


def naive_guess(network, values, known, geometry):
    """Kernel means over the known values, shrunk by one cell more, then the linear map."""
    guess = torch.zeros_like(values)
    located = geometry.certainty > 0
    for b, i, g in torch.cartesian_prod(*map(torch.arange, values.shape)).tolist():
        if not located[b, i]:
            continue
        for h, width in enumerate(network.width):
            square = (geometry.position[b, i] - geometry.position[b]).square().sum(-1)
            weight = torch.exp(-square / (2 * (width**2 + geometry.variance[b, i])))
            weight = weight * located[b] * known[b, :, g]
            mean = (weight * values[b, :, g]).sum() / (weight.sum() + 1)
            guess[b, i] += mean * network.basis[g] @ network.weight[h]
    return guess


def test_the_guess_is_a_linear_map_of_shrunk_kernel_means(network):
    network.width.uniform_(0.2, 0.6)
    values, known, geometry = surroundings()
    _, guess = network(values, known, geometry)
    expected = naive_guess(network, values, known, geometry)
    torch.testing.assert_close(guess, expected, atol=1e-4, rtol=1e-4)


def test_what_is_hidden_does_not_enter(network):
    values, known, geometry = surroundings()
    before = network(values, known, geometry)
    loud = torch.where(known > 0, values, 1e3)
    for a, b in zip(network(loud, known, geometry), before, strict=True):
        torch.testing.assert_close(a, b)
    far = geometry.position + 1e3 * (geometry.certainty == 0)[..., None]
    for a, b in zip(network(values, known, geometry._replace(position=far)), before, strict=True):
        torch.testing.assert_close(a, b)


def test_cells_of_unknown_position_have_no_surroundings(network):
    values, known, geometry = surroundings()
    token, guess = network(values, known, geometry)
    unknown = geometry.certainty == 0
    assert (token[unknown] == 0).all()
    assert (guess[unknown] == 0).all()
    assert (token[~unknown] != 0).any(-1).all()


def test_without_anything_known_there_is_nothing_to_tell(network):
    values, known, geometry = surroundings()
    for known_values, places in (
        (torch.zeros_like(known), geometry),
        (known, geometry._replace(certainty=torch.zeros_like(geometry.certainty))),
    ):
        for out in network(values, known_values, places):
            assert (out == 0).all()


def test_large_sets_are_computed_in_rows(network, monkeypatch):
    values, known, geometry = surroundings(50)
    whole = network(values, known, geometry)
    monkeypatch.setattr("alphastomics.nn.neighborhood.HELD", 7 * 40)
    for a, b in zip(network(values, known, geometry), whole, strict=True):
        torch.testing.assert_close(a, b)


def test_order_and_padding_change_nothing(network):
    values, known, geometry = surroundings()
    plain = network(values, known, geometry)
    order = torch.randperm(N)
    turned = Geometry(*(part[:, order] for part in geometry))
    for a, b in zip(network(values[:, order], known[:, order], turned), plain, strict=True):
        torch.testing.assert_close(a, b[:, order], atol=1e-5, rtol=1e-5)

    def pad(x, value):
        return torch.cat([x, torch.full_like(x[:, :4], value)], 1)

    padded = Geometry(*(pad(part, 0.0) for part in geometry))
    for a, b in zip(network(pad(values, 9.0), pad(known, 0.0), padded), plain, strict=True):
        torch.testing.assert_close(a[:, :N], b)


def test_cells_with_the_same_genes_are_summed_as_all_others_are(network, monkeypatch):
    values, known, geometry = surroundings(50)
    same = torch.zeros_like(known)
    same[:, ::2, 1:] = 1  # every second cell, without the first gene
    mean, _ = network.means(values, same, geometry)
    monkeypatch.setattr(torch.Tensor, "all", lambda *_: torch.tensor(False))
    slowly, _ = network.means(values, same, geometry)
    torch.testing.assert_close(mean, slowly)
