"""Diffusion heads: limits of the denoiser, its loss, and a distribution that it learns."""

import pytest
import torch

from alphastomics.diffusion_model.heads import DiffusionHead
from alphastomics.diffusion_model.noise_schedule import draw_sigmas, sampling_sigmas
from alphastomics.diffusion_model.sampler import sample

M, D = 6, 5


@pytest.fixture(params=[0, 4], ids=["values", "fourier"])
def head(request):
    """An untrained head whose network is not zero."""
    torch.manual_seed(0)
    head = DiffusionHead(2, D, 0.7, num_frequencies=request.param)
    for parameter in head.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return head


def test_almost_clean_values_come_back(head):
    values, condition = torch.randn(M, 2), head.condition(torch.randn(M, D))
    out = head(values, torch.full((M,), 1e-6), condition)
    torch.testing.assert_close(out, values, atol=1e-4, rtol=0)


def test_values_drowned_in_noise_change_nothing(head):
    condition = head.condition(torch.randn(M, D))
    first, second = (head(torch.randn(M, 2), torch.full((M,), 1e6), condition) for _ in range(2))
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    assert not torch.isclose(first, head(torch.randn(M, 2), torch.ones(M), condition)).any()


def test_an_untrained_head_knows_only_the_variance_of_the_data():
    """The denoiser of a Gaussian around 0 (EDM, c_skip of table 1)."""
    head = DiffusionHead(2, D, 0.7)
    noisy, sigma = torch.randn(M, 2), torch.rand(M) + 0.1
    out = head(noisy, sigma, head.condition(torch.randn(M, D)))
    torch.testing.assert_close(out, noisy / (1 + sigma[:, None] ** 2))


def test_context_and_noise_level_matter(head):
    values, tokens = torch.randn(M, 2), torch.randn(M, D)
    low, high = (torch.full((M,), sigma) for sigma in (0.5, 0.6))
    before = head(values, low, head.condition(tokens))
    assert not torch.isclose(head(values, low, head.condition(tokens + 1)), before).any()
    assert not torch.isclose(head(values, high, head.condition(tokens)), before).any()


def test_one_noise_level_stands_for_all_cells(head):
    values, condition = torch.randn(M, 2), head.condition(torch.randn(M, D))
    once, repeated = (head(values, torch.full((n,), 0.5), condition) for n in (1, M))
    torch.testing.assert_close(once, repeated)


def test_cells_are_independent_of_each_other_given_their_context(head):
    values, tokens, sigma = torch.randn(M, 2), torch.randn(M, D), torch.rand(M) + 0.1
    together = head(values, sigma, head.condition(tokens))
    for i in range(M):
        one = slice(i, i + 1)
        alone = head(values[one], sigma[one], head.condition(tokens[one]))
        torch.testing.assert_close(together[one], alone)


class TestLoss:
    @pytest.mark.parametrize("schedule", ["edm", "cosine"])
    def test_it_is_one_at_every_level_before_training(self, schedule):
        head = DiffusionHead(2, D, 0.7)
        generator = torch.Generator().manual_seed(0)
        n, levels = 4000, 4
        clean = 0.7 * torch.randn(n, 2, generator=generator)
        sigma = draw_sigmas(levels * n, schedule, generator).view(levels, n)
        with torch.no_grad():
            loss = head.loss(clean, torch.randn(n, D), sigma, generator)
        assert loss.shape == (levels, n, 2)
        for quarter in loss.mean(-1).flatten()[sigma.flatten().argsort()].chunk(4):
            assert quarter.mean() == pytest.approx(1, abs=0.1)

    def test_errors_are_weighted_by_the_scale_of_the_output(self, head, monkeypatch):
        """Each level counts as much: an error of c_out costs 1 (EDM, section 5)."""
        clean, sigma = torch.randn(M, 2), torch.rand(3, M) + 0.1
        c_out = 0.7 * sigma / (sigma**2 + 1).sqrt()
        monkeypatch.setattr(head, "forward", lambda *_: clean + c_out[..., None])
        loss = head.loss(clean, torch.randn(M, D), sigma)
        torch.testing.assert_close(loss, torch.ones(3, M, 2), rtol=1e-4, atol=1e-4)

    def test_values_are_denoised_that_have_the_noise_of_their_level(self, head, monkeypatch):
        clean, sigma = torch.randn(5000, 2), torch.tensor([[0.1], [2.0]]).expand(2, 5000)
        met = []
        monkeypatch.setattr(head, "forward", lambda z, *_: met.append(z) or z)
        head.loss(clean, torch.randn(5000, D), sigma)
        noise = (met[0] - clean).std((1, 2))
        torch.testing.assert_close(noise, torch.tensor([0.07, 1.4]), rtol=0.05, atol=0)

    def test_the_same_generator_gives_the_same_loss(self, head):
        arguments = torch.randn(M, 2), torch.randn(M, D), torch.rand(3, M) + 0.1
        first, again, other = (
            head.loss(*arguments, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.isclose(first, other).any()


@pytest.mark.parametrize("dim", [1, 2])
def test_it_learns_two_modes_whose_shares_depend_on_the_context(dim):
    """Of a cell on the left with a probability that is its token, else on the right."""
    torch.manual_seed(0)
    head = DiffusionHead(dim, 1, 1 / dim**0.5)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    modes, width = torch.tensor([-0.8, 0.9]), 0.05

    def draw(on_the_left):
        center = torch.where(torch.rand_like(on_the_left) < on_the_left, *modes)
        center = torch.cat([center, torch.zeros(len(center), dim - 1)], dim=1)
        return center + width * torch.randn_like(center)

    n_steps, n_cells = 300, 96
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, n_steps)
    for _ in range(n_steps):
        on_the_left = torch.rand(n_cells, 1)
        sigma = draw_sigmas(4 * n_cells, "edm").view(4, n_cells)
        loss = head.loss(draw(on_the_left), on_the_left, sigma).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    n = 1000
    for share in (0.2, 0.8):
        with torch.no_grad():
            condition = head.condition(torch.full((n, 1), share))
            drawn = sample(
                lambda z, sigma, condition=condition: head(z, sigma[None], condition),
                torch.zeros(n, dim),
                sampling_sigmas(16, "edm"),
                head.sigma_data,
            )
        left = drawn[:, 0] < 0
        assert left.float().mean() == pytest.approx(share, abs=0.1)
        for mode, cells in ((modes[0], left), (modes[1], ~left)):
            distance = (drawn[cells, 0] - mode).abs()
            assert distance.median() < 2 * width
            assert (distance < 0.3).float().mean() > 0.9
