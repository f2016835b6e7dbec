import pytest
import torch

from alphastomics.diffusion_model import MaskedDiffusionModule
from alphastomics.diffusion_model.levels import KNOWN, UNKNOWN, sampling_levels
from alphastomics.diffusion_model.losses import CellSets, placement_error, placement_loss
from alphastomics.diffusion_model.masks import hide_genes
from alphastomics.diffusion_model.sampler import sample_positions
from alphastomics.diffusion_model.transforms import ExpressionTransform, PositionTransform

B, N, G = 2, 12, 7


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def module(request):
    torch.manual_seed(0)
    module = MaskedDiffusionModule(
        G, request.param, d_model=16, num_heads=2, num_layers=2, d_ff=32
    ).eval()
    torch.nn.init.normal_(module.position_head.weight)
    return module


def inputs(module, generator=None):
    generator = generator or torch.Generator().manual_seed(0)
    expression = torch.randn(B, N, G, generator=generator)
    position = torch.randn(B, N, module.position_dim, generator=generator)
    visible = torch.rand(B, N, G, generator=generator) > 0.2
    return expression, visible, position


def test_known_positions_come_back_bit_for_bit(module):
    expression, visible, position = inputs(module)
    level = torch.full((B, N), UNKNOWN)
    level[:, :5] = KNOWN
    out = module(expression, visible, torch.zeros(B, N), position, level).position
    assert torch.equal(out[:, :5], position[:, :5])
    assert not torch.isclose(out[:, 5:], position[:, 5:]).all(-1).any()


def test_unknown_values_do_not_reach_the_network(module):
    expression, visible, position = inputs(module)
    levels = torch.zeros(B, N), torch.full((B, N), UNKNOWN)
    out = module(expression, visible, levels[0], position, levels[1]).position
    garbage = torch.full_like(position, torch.nan)
    torch.testing.assert_close(
        module(expression, visible, levels[0], garbage, levels[1]).position, out
    )
    hidden = torch.where(visible, expression, torch.full_like(expression, 1e3))
    torch.testing.assert_close(
        module(hidden, visible, levels[0], position, levels[1]).position, out
    )
    nothing_known = torch.full((B, N), UNKNOWN)
    torch.testing.assert_close(
        module(expression, visible, nothing_known, position, levels[1]).position,
        module(-expression, visible, nothing_known, position, levels[1]).position,
    )


def test_a_hidden_gene_differs_from_zero(module):
    expression, visible, _ = inputs(module)
    zero = torch.zeros_like(expression)
    assert not torch.allclose(module.place(zero, visible), module.place(zero, visible | True))


def test_levels_of_single_cells_matter(module):
    expression, visible, position = inputs(module)
    known, level = torch.zeros(B, N), torch.full((B, N), 0.5)
    before = module(expression, visible, known, position, level).position
    level[:, 0] = 0.7
    after = module(expression, visible, known, position, level).position
    assert not torch.isclose(before, after).all(-1).any()


def test_padding_and_order_change_nothing(module):
    expression, visible, position = inputs(module)
    known, level = torch.zeros(B, N), torch.full((B, N), 0.5)
    out = module(expression, visible, known, position, level).position
    order = torch.randperm(N)
    permuted = module(
        expression[:, order], visible[:, order], known, position[:, order], level
    ).position
    torch.testing.assert_close(permuted, out[:, order])

    def pad(x, value):
        return torch.cat([x, torch.full((B, 3, *x.shape[2:]), value, dtype=x.dtype)], 1)

    mask = torch.arange(N + 3).expand(B, -1) < N
    padded = module(
        pad(expression, 9.0),
        pad(visible, True),
        pad(known, 0.0),
        pad(position, 9.0),
        pad(level, 0.5),
        mask,
    ).position
    torch.testing.assert_close(padded[:, :N], out)


def sets(module, seed=0, padding=0):
    generator = torch.Generator().manual_seed(seed)
    n = N + padding
    values = torch.poisson(torch.rand(B, n, G, generator=generator) * 5, generator=generator)
    position = torch.randn(B, n, module.position_dim, generator=generator)
    mask = (torch.arange(n) < N).expand(B, -1)
    has_position = mask.clone()
    has_position[:, 0] = False
    return CellSets(values, torch.ones(B, n, G, dtype=torch.bool), position, has_position, mask)


def test_loss_does_not_see_the_frame_or_padding_or_missing_positions(module):
    some = sets(module, padding=3)
    error = placement_error(module, some)
    orthogonal = torch.linalg.qr(torch.randn(module.position_dim, module.position_dim)).Q
    moved = some._replace(position=some.position @ orthogonal + 5)
    torch.testing.assert_close(placement_error(module, moved), error, rtol=1e-4, atol=1e-5)
    garbage = some.position.clone()
    garbage[~some.has_position] = torch.nan
    garbage[~some.has_position] = 50.0
    torch.testing.assert_close(placement_error(module, some._replace(position=garbage)), error)
    unpadded = CellSets(*(field[:, :N] for field in some))
    torch.testing.assert_close(placement_error(module, unpadded), error)
    loud = some.values.clone()
    loud[:, N:] = 1e4
    torch.testing.assert_close(placement_error(module, some._replace(values=loud)), error)


def test_loss_of_an_untrained_network_is_one_at_every_level():
    torch.manual_seed(0)
    module = MaskedDiffusionModule(G, 2, d_model=16, num_heads=2, num_layers=1, d_ff=32)
    generator = torch.Generator().manual_seed(0)
    position = torch.randn(64, 50, 2, generator=generator) * module.sigma_data
    some = CellSets(
        torch.ones(64, 50, G),
        torch.ones(64, 50, G, dtype=torch.bool),
        position,
        torch.ones(64, 50, dtype=torch.bool),
        None,
    )
    loss = placement_loss(
        module,
        some,
        schedule="edm",
        expression_mask_ratio=0.3,
        expression_noise=0.5,
        generator=generator,
    )
    assert loss.unknown.item() == pytest.approx(1, abs=0.1)
    assert loss.noisy.item() == pytest.approx(1, abs=0.1)


def test_same_generator_same_loss(module):
    some = sets(module)
    options = {"schedule": "edm", "expression_mask_ratio": 0.3, "expression_noise": 0.5}
    losses = [
        placement_loss(module, some, **options, generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    ]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_sampler_draws_from_a_gaussian_it_knows():
    """With the exact denoiser of N(mu, s^2), draws have that mean and spread."""
    sigma_data, mu, s = 0.7, torch.tensor([1.0, -2.0]), 0.3
    levels = sampling_levels(40, "edm")

    def denoise(z, level):
        sigma = sigma_data * torch.tan(torch.pi / 2 * level)
        return (s**2 * z + sigma**2 * mu) / (s**2 + sigma**2)

    mean = mu.expand(1, 20_000, 2)
    drawn = sample_positions(
        denoise,
        mean,
        levels,
        sigma_data,
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(drawn.mean((0, 1)), mu, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std((0, 1)), torch.full((2,), s), atol=0.02, rtol=0)


def test_hide_genes_hides_its_share_and_never_reveals():
    visible = torch.rand(4, 50, 40) > 0.5
    kept = hide_genes(visible, 0.3, torch.Generator().manual_seed(0))
    assert not (kept & ~visible).any()
    assert (kept.sum() / visible.sum()).item() == pytest.approx(0.7, abs=0.03)
    assert torch.equal(hide_genes(visible, 0.0), visible)


class TestTransforms:
    def counts(self):
        rng = torch.Generator().manual_seed(0)
        return torch.poisson(torch.rand(500, G, generator=rng) * 8, generator=rng)

    def fitted(self, values="counts"):
        from scipy import sparse

        transform = ExpressionTransform(G, values)
        transform.fit(sparse.csr_matrix(self.counts().numpy()))
        return transform

    @pytest.mark.parametrize("values", ["counts", "lognorm", "intensity"])
    def test_training_cells_are_standardised(self, values):
        x = self.counts()
        out = self.fitted(values)(x, torch.ones_like(x, dtype=torch.bool))
        torch.testing.assert_close(out.mean(0), torch.zeros(G), atol=1e-4, rtol=0)
        torch.testing.assert_close(out.std(0), torch.ones(G), atol=1e-2, rtol=0)

    def test_depth_cancels_and_hidden_genes_do_not_matter(self):
        x = self.counts() + 1
        visible = torch.ones_like(x, dtype=torch.bool)
        visible[:, 0] = False
        transform = self.fitted()
        out = transform(x, visible)
        torch.testing.assert_close(transform(3 * x, visible), out)
        changed = x.clone()
        changed[:, 0] = 1e6
        torch.testing.assert_close(transform(changed, visible), out)
        assert (out[:, 0] == 0).all()

    def test_hiding_genes_keeps_the_others_in_place(self):
        x = self.counts()
        visible = torch.ones_like(x, dtype=torch.bool)
        transform = self.fitted()
        some = visible.clone()
        some[:, : G // 2] = False
        full, part = transform(x, visible)[:, G // 2 :], transform(x, some)[:, G // 2 :]
        assert (full - part).mean().abs() < 0.1

    def test_positions_keep_aspect_and_come_back(self):
        rng = torch.Generator().manual_seed(0)
        points = torch.randn(100, 2, generator=rng, dtype=torch.float64) * torch.tensor([300, 20])
        transform = PositionTransform()
        transform.fit([points.numpy()])
        standard = transform(points - points.mean(0))
        assert standard.square().sum(1).mean().sqrt() == pytest.approx(1)
        torch.testing.assert_close(transform.inverse(transform(points)), points)
        torch.testing.assert_close(
            standard.std(0) / standard.std(0)[1], points.std(0) / points.std(0)[1]
        )
