"""Mixtures over the places of known cells with similar expression."""

import pytest
import torch

from alphastomics.priors import SectionSample
from alphastomics.priors.reference_matching import (
    WIDE_AND_NARROW,
    PositionMixture,
    ReferenceMatcher,
)

G, N, K, D = 6, 9, 40, 2
WIDTH = 0.3


def mixture_of(log_weight, place, width=WIDTH):
    valid = torch.ones(log_weight.shape[:2], dtype=torch.bool)
    return PositionMixture(log_weight.log_softmax(-1), place, valid, torch.tensor(width))


@pytest.fixture
def mixture():
    torch.manual_seed(0)
    return mixture_of(torch.randn(1, N, K), torch.randn(1, K, D))


def test_mean_and_variance_are_those_of_the_mixture(mixture):
    weight, place = mixture.log_weight.exp()[0], mixture.place[0]
    mean = weight @ place
    square = (place[None] - mean[:, None]).square().sum(-1)
    torch.testing.assert_close(mixture.mean()[0], mean)
    expected = (weight * square).sum(1) / D + WIDTH**2
    torch.testing.assert_close(mixture.variance()[0], expected, atol=1e-5, rtol=1e-4)


def test_variance_about_a_place_is_the_expected_squared_error_there(mixture):
    weight, place, at = mixture.log_weight.exp()[0], mixture.place[0], torch.randn(1, N, D)
    square = (place[None] - at[0, :, None]).square().sum(-1)
    expected = (weight * square).sum(1) / D + WIDTH**2
    torch.testing.assert_close(mixture.variance(at)[0], expected, atol=1e-4, rtol=1e-4)


def test_a_narrow_kernel_moves_the_mode_to_the_neighborhood_within_the_region():
    place = torch.tensor([[[0.0, 0.0], [0.02, 0.0], [0.6, 0.0], [0.9, 0.0], [5.0, 0.0]]])
    mixture = mixture_of(torch.tensor([[[0.2, 0.2, 0.15, 0.15, 0.3]]]).log(), place)
    wide, both = mixture.mode()[0, 0, 0], mixture.mode(WIDE_AND_NARROW)[0, 0, 0]
    assert 0.2 < wide < 0.5  # in the region of most weight, between its two groups
    assert 0 < both < wide


def test_modes_in_the_middle_are_moved_apart(mixture):
    place = torch.randn(1, K, D)
    flat = mixture_of(0.1 * torch.randn(1, N, K), place)
    moved = flat.spread_mode()[0]
    spread = [float((x - x.mean(0)).square().sum(1).mean().sqrt()) for x in (moved, place[0])]
    assert spread[0] > 0.8 * spread[1]


def test_draws_have_the_mean_variance_and_modes_of_the_mixture():
    place = torch.tensor([[[-3.0, 0.0], [3.0, 1.0]]])
    weight = torch.tensor([0.2, 0.8]).log().expand(1, 20_000, 2)
    mixture = mixture_of(weight, place)
    drawn = mixture.sample(torch.Generator().manual_seed(0))[0]
    torch.testing.assert_close(drawn.mean(0), mixture.mean()[0, 0], atol=0.05, rtol=0)
    spread = drawn.var(0).mean()
    torch.testing.assert_close(spread, mixture.variance()[0, 0], atol=0.05, rtol=0)
    on_the_left = drawn[drawn[:, 0] < 0]
    assert len(on_the_left) / len(drawn) == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(on_the_left.mean(0), place[0, 0], atol=0.02, rtol=0)
    assert on_the_left.std(0).tolist() == pytest.approx([WIDTH, WIDTH], abs=0.02)


def test_the_same_generator_gives_the_same_draw(mixture):
    first, again, other = (mixture.sample(torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).all(-1).any()


def test_the_likelihood_of_one_component_is_a_gaussian():
    one = mixture_of(torch.zeros(1, 1, 1), torch.zeros(1, 1, D), width=0.5)
    at = torch.tensor([[[0.3, 0.4]]])
    density = torch.distributions.Normal(0.0, 0.5).log_prob(at).sum(-1)
    constant = D / 2 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(one.log_likelihood(at), density + constant)


def test_the_likelihood_is_the_weighted_sum_of_those_of_the_components(mixture):
    at = torch.randn(1, N, D)
    components = torch.distributions.Normal(mixture.place[0], WIDTH)
    density = components.log_prob(at[0, :, None]).sum(-1).exp()  # (N, K)
    expected = (mixture.log_weight[0].exp() * density).sum(-1).log()
    constant = D / 2 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(mixture.log_likelihood(at)[0], expected + constant)


def test_the_mode_is_one_of_two_distant_places_and_the_mean_of_near_ones():
    place = torch.tensor([[[-3.0, 0.0], [3.0, 0.0], [3.1, 0.0]]])
    apart = mixture_of(torch.tensor([[[0.4, 0.3, 0.3]]]).log(), place)
    torch.testing.assert_close(apart.mode()[0, 0], torch.tensor([3.05, 0.0]), atol=1e-3, rtol=0)
    near = mixture_of(torch.zeros(1, 1, 3), place * 0.01)
    torch.testing.assert_close(near.mode(), near.mean(), atol=1e-4, rtol=0)


def test_turning_and_shifting_the_known_cells_turns_and_shifts_the_estimates(mixture):
    turn = torch.linalg.qr(torch.randn(D, D)).Q
    moved = mixture._replace(place=mixture.place @ turn + 2)
    for estimate in (PositionMixture.mean, PositionMixture.mode, PositionMixture.spread_mode):
        torch.testing.assert_close(
            estimate(moved), estimate(mixture) @ turn + 2, atol=1e-4, rtol=1e-4
        )


class TestMatcher:
    @pytest.fixture
    def matcher(self):
        torch.manual_seed(0)
        return ReferenceMatcher(G, 8).eval()

    @pytest.mark.parametrize("garbage", [1e3, torch.nan, torch.inf])
    def test_unknown_genes_and_invalid_places_change_nothing(self, matcher, garbage):
        values, measured = torch.randn(1, N, G), torch.ones(1, N, G, dtype=torch.bool)
        measured[..., 0] = False
        features = matcher.features(values, measured)
        changed = values.masked_fill(~measured, garbage)
        assert torch.equal(matcher.features(changed, measured), features)
        valid = torch.arange(N)[None] < 5
        place = torch.randn(1, N, D)
        found = matcher(features, features, place, valid)
        assert (found.log_weight.exp()[..., 5:] == 0).all()
        moved = place.masked_fill(~valid[..., None], garbage)
        for estimate in (PositionMixture.mean, PositionMixture.mode, PositionMixture.variance):
            again = estimate(matcher(features, features, moved, valid))
            torch.testing.assert_close(again, estimate(found))

    def test_an_unknown_gene_differs_from_a_gene_of_average_expression(self, matcher):
        values, known = torch.zeros(1, 1, G), torch.ones(1, 1, G, dtype=torch.bool)
        assert not torch.allclose(
            matcher.features(values, known), matcher.features(values, known.logical_not())
        )

    def test_a_cell_matches_the_known_cell_of_its_own_expression_best(self, matcher):
        features = matcher.features(torch.randn(1, N, G), torch.ones(1, N, G, dtype=torch.bool))
        valid = torch.ones(1, N, dtype=torch.bool)
        found = matcher(features, features, torch.randn(1, N, D), valid)
        assert found.log_weight[0].argmax(-1).tolist() == list(range(N))

    def test_a_mixture_is_valid_in_sets_with_something_to_match(self, matcher):
        features = matcher.features(torch.randn(2, N, G), torch.ones(2, N, G, dtype=torch.bool))
        valid = torch.stack([torch.arange(N) < 3, torch.zeros(N, dtype=torch.bool)])
        found = matcher(features, features, torch.randn(2, N, D), valid)
        assert found.valid.all(1).tolist() == [True, False]
        assert not found.valid[1].any()
        assert torch.isfinite(found.mean()).all()


class TestFit:
    """Genes 0 and 1 follow the coordinates, all others are noise of a larger scale."""

    @staticmethod
    def cells(step, n=60):
        generator = torch.Generator().manual_seed(step)
        position = torch.randn(n, D, generator=generator)
        values = 2 * torch.randn(n, G, generator=generator)
        values[:, :D] = position
        turn = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q
        return SectionSample(values, torch.ones(n, G, dtype=torch.bool), position @ turn)

    def fitted(self, seed=0):
        torch.manual_seed(0)
        matcher = ReferenceMatcher(G, 16)
        matcher.fit(self.cells, 0.5, seed, n_steps=80)
        return matcher

    def test_cells_are_placed_better_whatever_the_frame_of_the_section(self):
        torch.manual_seed(0)
        before, after = ReferenceMatcher(G, 16).eval(), self.fitted()
        likelihood = []
        for matcher in (before, after):
            values, known, position = self.cells(10_000, n=200)
            features = matcher.features(values, known)[None]
            valid = torch.ones(1, 100, dtype=torch.bool)
            found = matcher(features[:, 100:], features[:, :100], position[None, :100], valid)
            likelihood.append(found.log_likelihood(position[None, 100:]).mean())
        # The density of one standard normal around the center, which knows no expression, has -1.
        assert likelihood[1] > max(float(likelihood[0]), -1) + 0.3

    def test_it_is_constant_afterwards(self):
        matcher = self.fitted()
        assert not matcher.training
        assert not any(parameter.requires_grad for parameter in matcher.parameters())

    def test_it_follows_its_seed_and_leaves_that_of_the_process_alone(self):
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        matcher = ReferenceMatcher(G, 16)
        state = {name: value.clone() for name, value in matcher.state_dict().items()}
        torch.manual_seed(7)
        results = []
        for seed in (1, 1, 2):
            matcher.load_state_dict(state)
            matcher.fit(self.cells, 0.5, seed, n_steps=3)
            results.append(matcher.linear.weight.clone())
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])
        assert torch.equal(torch.rand(3), expected)
