"""Kernel smoother of expression over known neighbors."""

import pytest
import torch

from alphastomics.nn.spatial_bias import KnownPositions
from alphastomics.priors import SectionSample
from alphastomics.priors.kernel_smoothing import KernelSmoother

N, G = 12, 5


@pytest.fixture
def smoother():
    torch.manual_seed(0)
    smoother = KernelSmoother(G, 8).eval()
    torch.nn.init.uniform_(smoother.weight)
    smoother.basis.copy_(torch.linalg.qr(torch.randn(G, G)).Q)
    return smoother


def surroundings(n=N, seed=1):
    """Values, some of them known, of cells of which three quarters have a known position."""
    torch.manual_seed(seed)
    values, known = torch.randn(2, n, G), (torch.rand(2, n, G) > 0.3).float()
    known[:, 3] = 0.0  # a cell whose expression is hidden
    located = (torch.arange(n) % 4 != 1).expand(2, n)
    return values, known, KnownPositions(0.3 * torch.randn(2, n, 2), located)


def naive_estimate(smoother, values, known, where):
    """Kernel means over the known values, shrunk by one cell more, then the linear map."""
    estimate = torch.zeros_like(values)
    for b, i, g in torch.cartesian_prod(*map(torch.arange, values.shape)).tolist():
        if not where.known[b, i]:
            continue
        for h, width in enumerate(smoother.width):
            square = (where.position[b, i] - where.position[b]).square().sum(-1)
            weight = torch.exp(-square / (2 * width**2)) * where.known[b] * known[b, :, g]
            mean = (weight * values[b, :, g]).sum() / (weight.sum() + 1)
            estimate[b, i] += mean * smoother.basis[g] @ smoother.weight[h]
    return estimate


def assert_same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_the_estimate_is_a_linear_map_of_shrunk_kernel_means(smoother):
    smoother.width.uniform_(0.2, 0.6)
    values, known, where = surroundings()
    _, estimate = smoother(values, known, where)
    expected = naive_estimate(smoother, values, known, where)
    torch.testing.assert_close(estimate, expected, atol=1e-4, rtol=1e-4)


def test_unknown_values_and_positions_change_nothing(smoother):
    values, known, where = surroundings()
    before = smoother(values, known, where)
    loud = torch.where(known > 0, values, 1e3)
    assert_same(smoother(loud, known, where), before)
    far = where.position + 1e3 * ~where.known[..., None]
    assert_same(smoother(values, known, where._replace(position=far)), before)


def test_cells_of_unknown_position_have_no_surroundings(smoother):
    values, known, where = surroundings()
    token, estimate = smoother(values, known, where)
    assert (token[~where.known] == 0).all()
    assert (estimate[~where.known] == 0).all()
    assert (token[where.known] != 0).any(-1).all()


def test_without_anything_known_the_estimate_is_zero(smoother):
    values, known, where = surroundings()
    nowhere = where._replace(known=torch.zeros_like(where.known))
    for known_values, places in ((torch.zeros_like(known), where), (known, nowhere)):
        for out in smoother(values, known_values, places):
            assert (out == 0).all()


def test_large_sets_are_computed_in_rows(smoother, monkeypatch):
    values, known, where = surroundings(50)
    whole = smoother(values, known, where)
    monkeypatch.setattr("alphastomics.priors.kernel_smoothing.MAX_ENTRIES", 7 * 50)
    assert_same(smoother(values, known, where), whole)


def test_order_and_padding_change_nothing(smoother):
    values, known, where = surroundings()
    plain = smoother(values, known, where)
    order = torch.randperm(N)
    permuted = KnownPositions(*(part[:, order] for part in where))
    expected = [part[:, order] for part in plain]
    found = smoother(values[:, order], known[:, order], permuted)
    assert_same(found, expected, atol=1e-5, rtol=1e-5)

    def pad(x, value):
        return torch.cat([x, torch.full_like(x[:, :4], value)], 1)

    padded = KnownPositions(pad(where.position, 0.0), pad(where.known, False))
    found = smoother(pad(values, 9.0), pad(known, 0.0), padded)
    assert_same([part[:, :N] for part in found], plain)


def test_cells_with_the_same_genes_are_summed_as_all_others_are(smoother, monkeypatch):
    values, known, where = surroundings(50)
    same = torch.zeros_like(known)
    same[:, ::2, 1:] = 1  # every second cell, without the first gene
    mean, _ = smoother.means(values, same, where)
    monkeypatch.setattr(torch.Tensor, "all", lambda *_: torch.tensor(False))
    slowly, _ = smoother.means(values, same, where)
    torch.testing.assert_close(mean, slowly)


def smooth_tissue(n=300, lacking=None):
    """Noisy expression that follows the coordinates; optionally one gene is not measured."""
    position = 2 * torch.rand(n, 2) - 1
    signal = torch.cat([position, position.square(), position.sum(1, keepdim=True).sin()], dim=1)
    values = (signal - signal.mean(0)) / signal.std(0) + 0.5 * torch.randn(n, G)
    known = torch.ones(n, G, dtype=torch.bool)
    if lacking is not None:
        known[:, lacking] = False
    return SectionSample(values * known, known, position)


class TestFit:
    def test_the_expression_of_another_section_is_predicted_from_its_neighbors(self):
        torch.manual_seed(0)
        smoother = KernelSmoother(G, 8)
        smoother.fit([smooth_tissue(), smooth_tissue()])
        values, known, position = smooth_tissue()
        hidden = torch.arange(len(values)) % 3 == 0
        where = KnownPositions(position[None], torch.ones(1, len(values), dtype=torch.bool))
        _, estimate = smoother(values[None], (known & ~hidden[:, None]).float()[None], where)
        error = (estimate[0] - values)[hidden].square().mean(0)
        # 0.25 is noise that nothing predicts, of a variance of 1.25.
        assert (error < 0.25 + 0.3).all()

    def test_a_gene_that_one_section_lacks_has_no_estimate(self):
        torch.manual_seed(0)
        smoother = KernelSmoother(G, 8)
        smoother.fit([smooth_tissue(), smooth_tissue(lacking=2)])
        assert (smoother.weight[..., 2] == 0).all()
        assert (smoother.weight[..., [0, 1, 3, 4]] != 0).all()
