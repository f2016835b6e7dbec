"""Training cells as donors: adjusted counts, the nearest donor, and what it measured."""

import numpy as np
import pytest
import torch
from scipy import sparse

from alphastomics.priors import donors as donors_module
from alphastomics.priors.donors import DonorCells, adjusted_counts

M, G, SIZE = 60, 9, 4


def some_counts(n=M):
    return np.random.default_rng(0).poisson(0.8, (n, G)).astype(np.float32)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def panels():
    """All genes, or all but the first three."""
    return np.stack([np.ones(G, dtype=bool), np.arange(G) >= 3])


@pytest.fixture
def filled(panels):
    """Cells of two panels and of the types 0 (not known), 1 and 2."""
    donors = DonorCells(G, SIZE)
    counts = some_counts()
    counts[::2, :3] = 0
    donors.fill(
        sparse.csr_matrix(counts),
        panels,
        (np.arange(M) + 1) % 2,
        torch.randn(M, SIZE, generator=generator()),
        np.arange(M) % 3,
    )
    return donors


class TestAdjustedCounts:
    @pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 1.6, 8.0])
    def test_their_expectation_is_the_ratio_times_the_counts(self, ratio):
        counts = torch.tensor([1.0, 5.0, 40.0]).expand(20_000, 3)
        drawn = adjusted_counts(counts, torch.full_like(counts, ratio), generator())
        torch.testing.assert_close(drawn.mean(0), ratio * counts[0], rtol=0.03, atol=0.01)

    def test_they_vary_less_than_counts_drawn_anew(self):
        """Part of the noise is that of the donor."""
        counts = torch.full((20_000, 1), 10.0)
        for ratio, variance in ((0.7, 10 * 0.7 * 0.3), (1.5, 10 * 0.5)):
            drawn = adjusted_counts(counts, torch.full_like(counts, ratio), generator())
            assert float(drawn.var()) == pytest.approx(variance, rel=0.05)

    def test_each_gene_of_each_cell_has_its_own_ratio(self):
        counts = torch.full((2000, 2), 50.0)
        ratio = torch.tensor([[0.5, 2.0], [2.0, 0.5]]).repeat(1000, 1)
        drawn = adjusted_counts(counts, ratio, generator())
        for i in range(2):
            torch.testing.assert_close(drawn[i::2].mean(0), 50 * ratio[i], rtol=0.03, atol=0)

    def test_they_are_whole_numbers_and_zeros_stay(self):
        counts = torch.from_numpy(some_counts(500))
        drawn = adjusted_counts(counts, 3 * torch.rand(500, G, generator=generator()), generator())
        assert torch.equal(drawn, drawn.round())
        assert (drawn >= 0).all()
        assert not drawn[counts == 0].any()

    def test_a_ratio_of_one_changes_nothing(self):
        counts = torch.from_numpy(some_counts())
        assert torch.equal(adjusted_counts(counts, torch.ones_like(counts)), counts)

    def test_the_generator_gives_the_draw_and_the_process_keeps_its_state(self):
        counts, ratio = torch.full((50, G), 6.0), torch.linspace(0.2, 3, G).expand(50, G)
        state = torch.get_rng_state()
        first, again, other = (adjusted_counts(counts, ratio, generator(s)) for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)


class TestNearest:
    def test_a_stored_cell_is_its_own_donor(self, filled):
        order = torch.randperm(M, generator=generator())
        found = filled.nearest(filled.description[order], torch.ones(SIZE))
        assert torch.equal(found, order)

    def test_it_has_the_least_weighted_distance(self, filled):
        asked = torch.randn(200, SIZE, generator=generator(1))
        weight = torch.tensor([3.0, 1.0, 0.5, 0.1])
        difference = (asked[:, None] - filled.description) * weight
        expected = difference.square().sum(-1).argmin(1)
        assert torch.equal(filled.nearest(asked, weight), expected)
        assert not torch.equal(filled.nearest(asked, torch.ones(SIZE)), expected)

    def test_a_value_of_weight_zero_does_not_count(self, filled):
        asked = filled.description.clone()
        asked[:, 2] += 100 * torch.randn(M, generator=generator(1))
        weight = torch.tensor([1.0, 1.0, 0.0, 1.0])
        assert torch.equal(filled.nearest(asked, weight), torch.arange(M))

    def test_any_number_of_cells_at_a_time_finds_the_same(self, filled, monkeypatch):
        asked = torch.randn(50, SIZE, generator=generator(1))
        expected = filled.nearest(asked, torch.ones(SIZE))
        monkeypatch.setattr(donors_module, "CELLS_AT_A_TIME", 7)
        assert torch.equal(filled.nearest(asked, torch.ones(SIZE)), expected)


class TestMeasurement:
    def test_it_is_what_was_stored(self, filled, panels):
        counts = some_counts()
        counts[::2, :3] = 0
        order = torch.tensor([5, 0, 59, 5, 12])
        found = filled.measurement(order)
        np.testing.assert_array_equal(found.values.numpy(), counts[order])
        np.testing.assert_array_equal(found.measured.numpy(), panels[(order.numpy() + 1) % 2])
        assert len(filled) == M

    def test_cells_without_a_count_are_stored_too(self):
        donors = DonorCells(G, SIZE)
        counts = np.zeros((3, G), dtype=np.float32)
        counts[1, 4] = 2
        panel, label = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
        everything = np.ones((1, G), dtype=bool)
        donors.fill(sparse.csr_matrix(counts), everything, panel, torch.zeros(3, SIZE), label)
        np.testing.assert_array_equal(donors.measurement(torch.arange(3)).values, counts)


class TestBootstrap:
    def test_any_cell_may_be_drawn_and_some_more_than_once(self, filled):
        drawn = filled.bootstrap(torch.zeros(20 * M, dtype=torch.int64), generator())
        times = torch.bincount(drawn, minlength=M)
        assert (times > 0).all()
        assert times.float().mean() == pytest.approx(20)
        assert times.float().var() == pytest.approx(20, rel=0.6)

    def test_types_are_respected(self, filled):
        label = torch.tensor([2, 1, 0, 1, 2] * 20)
        drawn = filled.label[filled.bootstrap(label, generator())]
        assert torch.equal(drawn[label > 0], label[label > 0])
        assert set(drawn[label == 0].tolist()) == {0, 1, 2}

    def test_a_type_without_a_stored_cell_is_an_error(self, filled):
        with pytest.raises(ValueError, match="no training cell of type number 7"):
            filled.bootstrap(torch.tensor([1, 7]))

    def test_the_generator_gives_the_draw_and_the_process_keeps_its_state(self, filled):
        label = torch.tensor([0, 1, 2] * 10)
        state = torch.get_rng_state()
        first, again, other = (filled.bootstrap(label, generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)


def test_a_model_takes_the_number_of_donors_from_what_is_loaded(filled):
    other = DonorCells(G, SIZE)
    assert len(other) == 0
    other.load_state_dict(filled.state_dict())
    assert len(other) == M
    everyone = torch.arange(M)
    for found, expected in zip(
        other.measurement(everyone), filled.measurement(everyone), strict=True
    ):
        assert torch.equal(found, expected)
    assert torch.equal(other.description, filled.description)
    assert torch.equal(other.label, filled.label)
