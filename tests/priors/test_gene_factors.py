"""Gene factors: unknown genes predicted from known ones."""

import pytest
import torch

from alphastomics.nn.spatial_bias import KnownPositions
from alphastomics.priors import SectionSample
from alphastomics.priors.gene_factors import NOISE, GeneFactorModel
from alphastomics.priors.kernel_smoothing import KernelSmoother

G, N = 8, 500


@pytest.fixture
def fitted():
    """Genes of two factors, and a model fitted to them."""
    torch.manual_seed(0)
    loading = torch.randn(2, G)
    values = torch.randn(N, 2) @ loading + 0.3 * torch.randn(N, G)
    values = (values - values.mean(0)) / values.std(0)
    genes = GeneFactorModel(G, 4)
    genes.fit([values], seed=0)
    return genes, values


def test_the_prediction_is_the_conditional_mean_of_the_covariance(fitted):
    genes, values = fitted
    known = torch.arange(G) < 5
    covariance = values.T @ values / N
    of_known = covariance[:5, :5] + NOISE * torch.eye(5)
    expected = values[:, :5] @ torch.linalg.solve(of_known, covariance[:5, 5:])
    predicted = genes(values, known.expand(N, G))
    torch.testing.assert_close(predicted[:, 5:], expected, atol=1e-3, rtol=1e-3)
    assert torch.corrcoef(torch.stack([predicted[:, 6], values[:, 6]]))[0, 1] > 0.7


def test_every_cell_is_predicted_from_its_own_panel(fitted, monkeypatch):
    genes, values = fitted
    known = torch.rand(N, G) > 0.4
    together = genes(values[None], known[None])[0]
    for i in (0, 7, 99):
        alone = genes(values[i : i + 1], known[i : i + 1])
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=1e-4)
    monkeypatch.setattr("alphastomics.priors.gene_factors.PANELS_AT_A_TIME", 3)
    torch.testing.assert_close(genes(values, known), together)


def test_unknown_values_change_nothing_and_nothing_known_gives_zero(fitted):
    genes, values = fitted
    known = torch.rand(N, G) > 0.4
    known[3] = False
    predicted = genes(values, known)
    assert torch.equal(genes(torch.where(known, values, 1e3), known), predicted)
    assert (predicted[3] == 0).all()


def test_differences_between_sections_are_no_covariance_of_genes(fitted):
    genes, values = fitted
    apart = GeneFactorModel(G, 4)
    apart.fit([values[:250] + 100, values[250:] - 100], seed=0)
    covariance, expected = (model.loading @ model.loading.T for model in (apart, genes))
    torch.testing.assert_close(covariance, expected, atol=0.05, rtol=0)


def test_before_the_fit_everything_is_predicted_as_average():
    known = torch.rand(N, G) > 0.4
    assert (GeneFactorModel(G, 4)(torch.randn(N, G), known) == 0).all()


@pytest.fixture
def in_space(fitted):
    """A model with weights of surroundings, and a set in which some positions are known."""
    genes, values = fitted
    genes.self_weight.fill_(0.6)
    genes.smooth_weights.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    genes.lone_weight.fill_(0.8)
    values = values[:30].view(2, 15, G)
    where = KnownPositions(0.2 * torch.randn(2, 15, 2), torch.arange(15).expand(2, 15) < 10)
    return genes, values, torch.rand(2, 15, G) > 0.4, where


def test_known_positions_mix_in_the_predictions_of_the_surroundings(in_space):
    genes, values, known, (position, located) = in_space
    smoother = KernelSmoother(G, 8)
    alone = genes(values, known)
    expected = 0.8 * alone
    for b in range(2):
        square = torch.cdist(position[b, :10], position[b, :10]).square()
        expected[b, :10] = 0.6 * alone[b, :10]
        for width, weight in zip(smoother.width, genes.smooth_weights, strict=True):
            kernel = torch.exp(-square / (2 * width**2))
            mean = kernel / kernel.sum(1, keepdim=True) @ alone[b, :10]
            expected[b, :10] += weight * mean
    found = genes.smoothed(values, known, KnownPositions(position, located), smoother)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_without_known_positions_each_cell_is_predicted_by_itself(in_space):
    genes, values, known, where = in_space
    nowhere = where._replace(known=torch.zeros_like(where.known))
    for places in (None, nowhere):
        found = genes.smoothed(values, known, places, KernelSmoother(G, 8))
        torch.testing.assert_close(found, 0.8 * genes(values, known))


class TestFittedWeights:
    """Genes of two factors; in smooth tissue neighbors share them."""

    def section(self, n=200, *, smooth):
        """Cells with noise, and their expression without."""
        position = 2 * torch.rand(n, 2) - 1
        factors = 2 * position if smooth else 1.2 * torch.randn(n, 2)
        loading = torch.linspace(-1, 1, 2 * G).sin().view(2, G) + torch.eye(2, G)
        signal = factors @ loading
        values = signal + torch.randn(n, G)
        center, scale = values.mean(0), values.std(0)
        known = torch.ones(n, G, dtype=torch.bool)
        cells = SectionSample((values - center) / scale, known, position)
        return cells, (signal - center) / scale

    def fitted(self, *, smooth):
        torch.manual_seed(0)
        sections = [self.section(smooth=smooth)[0] for _ in range(2)]
        genes, smoother = GeneFactorModel(G, 4), KernelSmoother(G, 8)
        genes.fit([section.values for section in sections], seed=0)
        genes.fit_weights(sections, smoother, seed=0)
        return genes, smoother

    def test_surroundings_lower_the_error_where_tissue_is_smooth(self):
        genes, smoother = self.fitted(smooth=True)
        (values, known, position), signal = self.section(smooth=True)
        visible = known.clone()
        visible[:, ::2] = False
        where = KnownPositions(position[None], torch.ones(1, len(values), dtype=torch.bool))
        errors = [
            (genes.smoothed(values[None], visible[None], places, smoother)[0] - signal)[:, ::2]
            for places in (where, None)
        ]
        with_neighbors, alone = (error.square().mean() for error in errors)
        assert with_neighbors < 0.7 * alone

    def test_surroundings_have_no_weight_where_cells_are_mixed(self):
        genes, _ = self.fitted(smooth=False)
        assert genes.smooth_weights.abs().max() < 0.2
        assert genes.self_weight == pytest.approx(float(genes.lone_weight), abs=0.1)

    def test_the_same_seed_gives_the_same_fit(self):
        first, second = (self.fitted(smooth=True)[0].state_dict() for _ in range(2))
        for name, value in first.items():
            assert torch.equal(second[name], value)
