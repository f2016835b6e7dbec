"""Draws in rounds: known values, matched cells, counts, and what a round knows of the last."""

import copy

import numpy as np
import pytest
import torch
from scipy import sparse

from alphastomics.diffusion_model import MaskedDiffusionModule, rounds
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.rounds import (
    DrawSettings,
    draw_expression,
    draw_positions,
    round_ends,
)

N, G, LEVELS = 24, 12, 4
ONE_ROUND = DrawSettings(1, 1, n_steps=LEVELS, schedule="edm")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fitted(values="counts", position_dim=2, *, random_heads=True, silent_gene=False):
    """A network with priors and donors of cells of two factors; nothing else is trained."""
    torch.manual_seed(0)
    module = MaskedDiffusionModule(
        G, position_dim, values=values, d_model=16, num_heads=2, num_layers=1, d_ff=16
    )
    for name, parameter in module.named_parameters():
        if random_heads and "head" in name and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    rate = torch.exp(torch.randn(400, 2) @ torch.randn(2, G) * 0.5 + 1)
    counts = torch.poisson(rate * torch.exp(0.3 * torch.randn(400, 1)))
    if silent_gene:
        counts[:, 0] = 0
    if values != "counts":
        counts = torch.log1p(counts)
    transform, factors = module.expression_transform, module.factors
    transform.fit([(sparse.csr_matrix(counts.numpy()), np.ones(G, dtype=bool))])
    everything = torch.ones_like(counts, dtype=torch.bool)
    standardized = transform(counts, everything)
    module.genes.fit([standardized], seed=0)
    depth = transform.depth(counts, everything)
    factors.fit(standardized, depth, seed=0)
    of_no_type = np.zeros(400, dtype=np.int64)
    module.donors.fill(
        sparse.csr_matrix(counts.numpy()),
        np.ones((1, G), dtype=bool),
        of_no_type,
        factors.encode(standardized, everything, depth),
        of_no_type,
    )
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def counting():
    return fitted()


@pytest.fixture(scope="module")
def lognorm():
    return fitted("lognorm")


def some_cells(*, n=N, expressed=N, known=0, position_dim=2, seed=0):
    """A set whose first cells have an expression and whose last ones have a known position."""
    torch.manual_seed(seed)
    cell = torch.arange(n)[None]
    return StandardizedCells(
        expression=torch.randn(1, n, G),
        gene_known=(cell < expressed)[..., None].expand(1, n, G),
        position=torch.randn(1, n, position_dim),
        position_known=cell >= n - known,
    )


def passes(module, run):
    """Number of known positions and expressed cells at every pass of the transformer."""
    met = []
    hook = module.register_forward_pre_hook(
        lambda module, inputs: met.append(
            (int(inputs[0].position_known.sum()), int(inputs[0].gene_known.all(-1).sum()))
        )
    )
    run()
    hook.remove()
    return met


def drawn_positions(module, cells, *, n_rounds=1, schedule="edm", seed=0):
    settings = DrawSettings(n_rounds, n_rounds, LEVELS, schedule)
    return draw_positions(module, cells, settings, generator(seed)).cells


class TestPositions:
    @pytest.mark.parametrize("n_rounds", [1, 3])
    @pytest.mark.parametrize("schedule", ["edm", "cosine"])
    def test_all_positions_are_known_afterwards_and_known_ones_stay(
        self, counting, n_rounds, schedule
    ):
        cells = some_cells(expressed=8, known=6)
        position, known = cells.position.clone(), cells.position_known.clone()
        drawn = drawn_positions(counting, cells, n_rounds=n_rounds, schedule=schedule)
        assert drawn.position_known.all()
        assert torch.equal(drawn.position[:, -6:], position[:, -6:])
        assert torch.isfinite(drawn.position).all()
        assert not torch.isclose(drawn.position[:, :-6], position[:, :-6]).all(-1).any()
        assert torch.equal(drawn.expression, cells.expression)
        assert torch.equal(cells.position, position)  # what was given is left alone
        assert torch.equal(cells.position_known, known)

    def test_draws_spread_in_all_dimensions(self):
        module = fitted(position_dim=3)
        drawn = drawn_positions(module, some_cells(n=400, position_dim=3)).position[0]
        assert (drawn.std(0) > 0.3 / 3**0.5).all()
        assert (drawn.std(0) < 3 / 3**0.5).all()

    @pytest.mark.parametrize("n_rounds", [1, 4, 100])
    def test_every_round_takes_one_pass_and_knows_the_cells_of_those_before(
        self, counting, n_rounds
    ):
        cells = some_cells()
        met = passes(counting, lambda: drawn_positions(counting, cells, n_rounds=n_rounds))
        assert [known for known, _ in met] == [0, *round_ends(N, n_rounds)[:-1]]

    def test_cells_of_a_round_are_chosen_at_random(self, counting):
        known = []
        hook = counting.register_forward_pre_hook(
            lambda module, inputs: known.append(inputs[0].position_known[0].clone())
        )
        for seed in range(2):
            drawn_positions(counting, some_cells(), n_rounds=2, seed=seed)
        hook.remove()
        (_, first), (_, second) = known[:2], known[2:]
        assert first.sum() == second.sum()
        assert not torch.equal(first, second)
        assert not first[: int(first.sum())].all()

    @pytest.mark.parametrize("expressed", [8, N])
    @pytest.mark.parametrize("known", [0, 6])
    def test_the_same_seed_gives_the_same_draw(self, counting, expressed, known):
        cells = some_cells(expressed=expressed, known=known)
        first, again, other = (
            drawn_positions(counting, cells, n_rounds=3, seed=seed).position for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        drawn = ~cells.position_known
        assert not torch.isclose(first, other)[drawn].all(-1).any()

    def test_cells_that_match_known_ones_are_drawn_from_the_mixture(self, counting):
        """Many cells of one expression, among a few known ones."""
        cells = some_cells(n=2008, expressed=2008, known=8)
        cells.expression[:, :-8] = cells.expression[:, :1]
        mixture = counting.match(cells)
        drawn = drawn_positions(counting, cells).position[0, :-8]
        torch.testing.assert_close(drawn.mean(0), mixture.mean()[0, 0], atol=0.08, rtol=0)
        variance = float(mixture.variance()[0, 0])
        assert float(drawn.var(0).mean()) == pytest.approx(variance, rel=0.1)

    def test_cells_without_expression_are_drawn_given_those_that_were_matched(self, counting):
        cells = some_cells(known=6)
        gene_known = cells.gene_known.clone()
        gene_known[:, :5] = False
        cells = cells._replace(gene_known=gene_known)
        met = passes(counting, lambda: drawn_positions(counting, cells))
        assert met[-1][0] == N - 5

    def test_without_matching_all_cells_are_drawn_by_the_head(self, counting):
        cells = some_cells(known=6)
        met = passes(
            counting,
            lambda: draw_positions(
                counting, cells, DrawSettings(2, 2, LEVELS, "edm"), generator(), match=False
            ),
        )
        assert [known for known, _ in met] == [6, 6 + round_ends(N - 6, 2)[0]]

    def test_the_scale_of_errors_is_that_of_the_way_a_cell_is_drawn(self, counting):
        cells = some_cells(known=6)
        gene_known = cells.gene_known.clone()
        gene_known[:, :5] = False
        cells = cells._replace(gene_known=gene_known)
        scale = draw_positions(counting, cells, ONE_ROUND, generator()).scale
        assert scale.shape == (N,)
        by_head = counting(cells).log_scale[0].exp()
        matched = counting.match(cells).variance()[0].sqrt()
        torch.testing.assert_close(scale[:5], by_head[:5])
        torch.testing.assert_close(scale[5:-6], matched[5:-6])

    def test_the_support_is_matched_with_and_not_drawn(self, counting):
        cells = some_cells(known=6)
        support = cells._replace(n_support=4)
        drawn = drawn_positions(counting, support)
        assert drawn.position_known.all()
        assert torch.equal(drawn.position[:, -6:], cells.position[:, -6:])
        missing = cells.position_known.clone()
        missing[:, -1] = False
        apart = support._replace(position_known=missing)
        assert not drawn_positions(counting, apart).position_known[0, -1]

    @pytest.fixture
    def in_ring(self):
        """A network whose training tissue is a ring, with another pose in its frame."""
        module = fitted()
        angle, radius = torch.rand(2, 1500, generator=generator(3))
        angle, radius = 2 * torch.pi * angle, 0.7 + 0.6 * radius
        ring = torch.stack([2 * radius * angle.cos(), radius * angle.sin()], 1)
        module.support.fit([ring[:700].double().numpy(), ring[700:].double().numpy()], seed=0)
        pose = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
        module.poses.start(2)
        for section, points in enumerate((ring[:700], ring[700:])):
            number, weight = torch.tensor([section]), torch.ones(1, len(points))
            statistics = module.poses.measure(number, points[None], points[None] @ pose, weight)
            module.poses.update(statistics)
        return module, pose

    def test_cells_are_drawn_within_the_tissue_and_not_in_its_cavity(self, in_ring):
        module, pose = in_ring
        drawn = drawn_positions(module, some_cells(n=500)).position[0]
        radius = ((drawn @ pose.T) / torch.tensor([2.0, 1.0])).norm(dim=1)
        inside = (radius > 0.6) & (radius < 1.4)
        assert inside.float().mean() > 0.95  # a few are not drawn within in eight times
        free = draw_positions(
            module,
            some_cells(n=500)._replace(registered=torch.tensor([False])),
            ONE_ROUND,
            generator(),
        ).cells.position[0]
        radius = ((free @ pose.T) / torch.tensor([2.0, 1.0])).norm(dim=1)
        assert ((radius > 0.6) & (radius < 1.4)).float().mean() < 0.8

    def test_with_everything_known_nothing_is_drawn(self, counting):
        cells = some_cells(known=N)
        assert torch.equal(drawn_positions(counting, cells).position, cells.position)

    def test_values_that_are_not_finite_are_an_error_with_the_name_of_the_head(self):
        module = fitted()
        module.position_head.out.bias.fill_(torch.nan)
        with pytest.raises(FloatingPointError, match="the position head gave values that are not"):
            drawn_positions(module, some_cells())


def known_depth(cells):
    return torch.linspace(0.5, 2, cells.expression.shape[1])


def unmeasured(n):
    """Cells of known position and no expression."""
    return some_cells(n=n, expressed=0, known=n)


def stored(module):
    """Values of the donors, as measured and log-normalized."""
    values, measured = module.donors.measurement(torch.arange(len(module.donors)))
    return values, module.expression_transform.log(values, measured)


class TestExpression:
    def draw(self, module, cells, *, n_rounds=1, seed=0, n_steps=LEVELS):
        settings = DrawSettings(n_rounds, n_rounds, n_steps, "edm")
        depth = known_depth(cells)
        return draw_expression(module, cells, depth, settings, generator(seed))

    @pytest.fixture
    def partly(self):
        """Positions are known; cells 0-7 have all genes, 8-15 half of them, 16-23 none."""
        cells = some_cells(expressed=16, known=N)
        known = cells.gene_known.clone()
        known[:, 8:, ::2] = False
        return cells._replace(gene_known=known, expression=cells.expression.clamp(-0.5, 2))

    @pytest.mark.parametrize("values", ["counting", "lognorm"])
    @pytest.mark.parametrize("n_rounds", [1, 3])
    def test_known_genes_stay_and_all_others_are_drawn(self, request, partly, values, n_rounds):
        module = request.getfixturevalue(values)
        drawn = self.draw(module, partly, n_rounds=n_rounds)
        before = module.expression_transform.inverse(partly.expression[0])
        known = partly.gene_known[0]
        assert torch.equal(drawn.logged[known], before[known])
        assert not torch.isclose(drawn.logged[~known], before[~known]).all()
        assert torch.isfinite(drawn.logged).all()
        assert drawn.logged.shape == (N, G)
        assert drawn.depth.shape == (N,)

    def test_drawn_cells_have_whole_numbers_of_counts(self, counting, partly):
        drawn = self.draw(counting, partly)
        counts = (torch.expm1(drawn.logged) * drawn.depth[:, None])[16:]
        torch.testing.assert_close(counts, counts.round(), atol=2e-3, rtol=0)
        assert (counts == 0).any()
        assert (counts.round() > 1).any()

    def test_cells_with_known_genes_keep_their_depth_and_others_have_that_of_their_counts(
        self, counting, partly
    ):
        drawn = self.draw(counting, partly)
        depth = known_depth(partly)
        assert torch.equal(drawn.depth[:16], depth[:16])
        counts = (torch.expm1(drawn.logged) * drawn.depth[:, None]).round()[16:]
        everything = torch.ones_like(counts, dtype=torch.bool)
        own = counting.expression_transform.depth(counts, everything)
        torch.testing.assert_close(drawn.depth[16:], own)

    def test_drawn_cells_have_the_means_the_spread_and_the_depth_of_training(self):
        """An untrained head draws the standard normal that factors of training cells have."""
        module = fitted(random_heads=False)
        drawn = self.draw(module, unmeasured(600), n_steps=16)
        counts, logged = stored(module)
        torch.testing.assert_close(drawn.logged.mean(0), logged.mean(0), atol=0.2, rtol=0)
        torch.testing.assert_close(drawn.logged.std(0), logged.std(0), atol=0, rtol=0.3)
        zeros, expected = ((x == 0).float().mean(0) for x in (drawn.logged, counts))
        torch.testing.assert_close(zeros, expected, atol=0.1, rtol=0)
        correlation, expected = (x.T.corrcoef() for x in (drawn.logged, logged))
        assert (correlation - expected).abs().mean() < 0.1
        assert expected.abs().mean() > 0.3
        log_depth = drawn.depth.log()
        assert log_depth.mean() == pytest.approx(float(module.factors.log_depth_mean), abs=0.2)
        assert log_depth.std() == pytest.approx(float(module.factors.log_depth_std), rel=0.25)

    def test_drawn_lognorm_values_have_the_mean_and_spread_of_training(self):
        module = fitted("lognorm", random_heads=False)
        drawn = self.draw(module, unmeasured(600), n_steps=16)
        z = module.expression_transform.standardize(drawn.logged)
        torch.testing.assert_close(z.mean(0), torch.zeros(G), atol=0.2, rtol=0)
        torch.testing.assert_close(z.std(0), torch.ones(G), atol=0.25, rtol=0)
        assert torch.equal(drawn.depth, torch.ones(600))

    @pytest.mark.parametrize("n_rounds", [1, 4])
    def test_every_round_takes_one_pass_and_knows_the_cells_of_those_before(
        self, counting, n_rounds
    ):
        cells = some_cells(expressed=4, known=N)
        met = passes(counting, lambda: self.draw(counting, cells, n_rounds=n_rounds))
        ends = round_ends(N - 4, n_rounds)
        assert [expressed for _, expressed in met] == [4 + end for end in [0, *ends[:-1]]]

    @pytest.mark.parametrize("values", ["counting", "lognorm"])
    def test_the_same_seed_gives_the_same_draw(self, request, partly, values):
        module = request.getfixturevalue(values)
        first, again, other = (self.draw(module, partly, n_rounds=2, seed=s) for s in (1, 1, 2))
        assert torch.equal(first.logged, again.logged)
        assert torch.equal(first.depth, again.depth)
        assert not torch.equal(first.logged, other.logged)

    def test_with_everything_known_nothing_is_drawn(self, counting):
        cells = some_cells(known=N)
        drawn = self.draw(counting, cells)
        assert torch.equal(drawn.logged, counting.expression_transform.inverse(cells.expression[0]))
        assert torch.equal(drawn.depth, known_depth(cells))

    def test_values_that_are_not_finite_are_an_error_with_the_name_of_the_head(self, partly):
        module = fitted()
        module.expression_head.out.bias.fill_(torch.nan)
        with pytest.raises(FloatingPointError, match="the expression head gave values that are"):
            self.draw(module, partly)


class TestDonors:
    """What is measured of a drawn cell comes from the training cell most similar to it."""

    @pytest.fixture
    def draw_of(self, monkeypatch):
        """A function that draws the expression of cells, given what the head draws of them."""

        def draw(module, description, seed=0):
            order = torch.randperm(len(description), generator=generator(seed))  # of the cells
            monkeypatch.setattr(rounds, "sample", lambda *_: description[order])
            cells = unmeasured(len(description))
            return draw_expression(module, cells, known_depth(cells), ONE_ROUND, generator(seed))

        return draw

    @pytest.fixture(scope="class", params=["counts", "lognorm"])
    def average(self, request):
        """A network whose mean of every cell is that of training."""
        return fitted(request.param, random_heads=False)

    def test_a_cell_described_as_a_training_cell_has_its_values(self, average, draw_of):
        chosen = torch.tensor([3, 50, 51, 399])
        drawn = draw_of(average, average.donors.description[chosen])
        values, logged = stored(average)
        torch.testing.assert_close(drawn.logged, logged[chosen], atol=1e-5, rtol=0)
        if average.expression_transform.values == "counts":
            counts = torch.expm1(drawn.logged) * drawn.depth[:, None]
            torch.testing.assert_close(counts, values[chosen], atol=1e-3, rtol=0)

    def test_a_cell_that_expresses_more_than_its_donor_has_more_counts(self, draw_of):
        module = fitted(random_heads=False)
        donors, factors, transform = module.donors, module.factors, module.expression_transform
        nowhere = np.zeros(1, dtype=np.int64)
        everything = np.ones((1, G), dtype=bool)
        of_donor = torch.tensor([[0.3, -0.2, 0.1, 0.0]])
        many = sparse.csr_matrix(np.full((1, G), 100, dtype=np.float32))
        donors.fill(many, everything, nowhere, of_donor, nowhere)
        asked = torch.tensor([[1.2, 0.8, 0.0, 0.5]])
        rate, donor_rate = (
            transform.unlogged(transform.inverse(factors.decode(each)))[0]
            for each in (asked, of_donor)
        )
        drawn = draw_of(module, asked.expand(2000, -1))
        counts = torch.expm1(drawn.logged) * drawn.depth[:, None]
        ratio = counts.mean(0) / 100
        # A little of the mean expression is added to both rates.
        expected = rate / donor_rate
        torch.testing.assert_close(ratio.log(), expected.log(), atol=0.15, rtol=0.1)
        assert expected.max() > 1.5
        assert expected.min() < 0.8

    def test_counts_of_cells_with_known_genes_are_those_of_their_own_depth(self, monkeypatch):
        module = fitted(random_heads=False)
        donors, transform = module.donors, module.expression_transform
        nowhere, everything = np.zeros(1, dtype=np.int64), np.ones((1, G), dtype=bool)
        values = torch.full((1, G), 100.0)
        of_donor = torch.zeros(1, module.factors.size)
        donors.fill(sparse.csr_matrix(values.numpy()), everything, nowhere, of_donor, nowhere)
        n = 400
        cells = some_cells(n=n, expressed=n, known=n)
        known = cells.gene_known.clone()
        known[:, :, 6:] = False
        cells = cells._replace(gene_known=known, expression=torch.zeros(1, n, G))
        monkeypatch.setattr(rounds, "sample", lambda *_: torch.zeros(n, module.factors.size))
        depth = torch.full((n,), 0.4) * transform.depth(values, torch.ones(1, G).bool())
        drawn = draw_expression(module, cells, depth, ONE_ROUND, generator())
        counts = (torch.expm1(drawn.logged) * depth[:, None])[:, 6:]
        torch.testing.assert_close(counts, counts.round(), atol=1e-2, rtol=0)
        torch.testing.assert_close(counts.mean(0), torch.full((6,), 40.0), atol=2, rtol=0)

    def test_a_value_that_is_not_a_count_differs_as_without_noise(self, draw_of):
        module = fitted("lognorm", random_heads=False)
        of_donor = module.donors.description[7:8]
        asked = of_donor + torch.tensor([[0.01, -0.01, 0.0]])
        drawn = draw_of(module, asked).logged
        difference = module.factors.decode(asked - of_donor)
        expected = stored(module)[1][7:8] + difference * module.expression_transform.std
        torch.testing.assert_close(drawn, expected)

    def test_a_factor_that_makes_no_expression_does_not_choose_the_donor(self, average, draw_of):
        module = copy.deepcopy(average)
        module.factors.decoder[2] = 0
        description = module.donors.description[:20].clone()
        description[:, 2] = 100 * torch.randn(20, generator=generator())
        drawn = draw_of(module, description).logged
        torch.testing.assert_close(drawn, stored(module)[1][:20], atol=1e-5, rtol=0)

    def test_the_head_draws_the_deviation_from_the_mean(self, monkeypatch):
        """Known genes are part of the mean, which decides on the donor and on the values."""
        module = fitted("lognorm", random_heads=False)
        module.expression_mean_head.bias.fill_(0.5)
        cells = some_cells(known=N)
        known = cells.gene_known.clone()
        known[:, :, 6:] = False
        cells = cells._replace(gene_known=known)
        mean = module(cells).expression[0]
        assert (mean[:, 6:].abs() > 0.3).all()
        description = module.donors.description[:N]
        deviation = description - module.estimated_factors(mean)
        order = torch.randperm(N, generator=generator())
        monkeypatch.setattr(rounds, "sample", lambda *_: deviation[order])
        depth = known_depth(cells)
        drawn = draw_expression(module, cells, depth, ONE_ROUND, generator()).logged
        difference = mean + module.factors.decode(deviation - description)
        expected = stored(module)[1][:N] + difference * module.expression_transform.std
        torch.testing.assert_close(drawn[:, 6:], expected[:, 6:], atol=1e-4, rtol=0)

    def test_genes_that_the_donor_lacks_have_their_value_without_noise(self, average, draw_of):
        module = copy.deepcopy(average)
        module.donors.panels[:, :4] = False
        description = module.donors.description[:20]
        drawn = draw_of(module, description).logged
        transform = module.expression_transform
        expected = transform.inverse(module.factors.decode(description))
        torch.testing.assert_close(drawn[:, :4], expected[:, :4])
        assert not torch.isclose(drawn[:, 4:], expected[:, 4:]).all(0).any()

    def test_a_gene_that_no_training_cell_expressed_is_not_expressed(self):
        module = fitted(random_heads=False, silent_gene=True)
        drawn = TestExpression().draw(module, unmeasured(40))
        assert torch.isfinite(drawn.logged).all()
        assert not drawn.logged[:, 0].any()
