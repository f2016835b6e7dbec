"""What known genes tell of unknown ones."""

import pytest
import torch

from alphastomics.nn.genes import NOISE, GeneGuess

G, N = 8, 500


@pytest.fixture
def fitted():
    """Genes of two factors, and a guess fitted to them."""
    torch.manual_seed(0)
    loading = torch.randn(2, G)
    values = torch.randn(N, 2) @ loading + 0.3 * torch.randn(N, G)
    values = (values - values.mean(0)) / values.std(0)
    genes = GeneGuess(G, 4)
    genes.fit(values)
    return genes, values


def test_it_is_the_conditional_mean_of_the_covariance(fitted):
    genes, values = fitted
    known = torch.arange(G) < 5
    covariance = values.T @ values / N
    seen = covariance[:5, :5] + NOISE * torch.eye(5)
    expected = values[:, :5] @ torch.linalg.solve(seen, covariance[:5, 5:])
    guess = genes(values, known.expand(N, G))
    torch.testing.assert_close(guess[:, 5:], expected, atol=1e-3, rtol=1e-3)
    assert torch.corrcoef(torch.stack([guess[:, 6], values[:, 6]]))[0, 1] > 0.7


def test_every_cell_is_guessed_by_its_own_panel(fitted):
    genes, values = fitted
    known = torch.rand(N, G) > 0.4
    together = genes(values[None], known[None])[0]
    for i in (0, 7, 99):
        alone = genes(values[i : i + 1], known[i : i + 1])
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=1e-4)


def test_unknown_values_change_nothing_and_nothing_known_gives_zero(fitted):
    genes, values = fitted
    known = torch.rand(N, G) > 0.4
    known[3] = False
    guess = genes(values, known)
    assert torch.equal(genes(torch.where(known, values, 1e3), known), guess)
    assert (guess[3] == 0).all()


def test_there_is_nothing_to_guess_from_before_the_fit(fitted):
    assert fitted[0].is_fitted
    assert not GeneGuess(G, 4).is_fitted
