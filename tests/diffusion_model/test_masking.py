"""What training hides."""

import numpy as np
import pytest
import torch

from alphastomics.diffusion_model.masking import (
    EXPRESSION_SHARE,
    TASK_SHARES,
    TASKS,
    choose_some,
    draw_pattern,
    draw_task,
    hidden_share,
    hide_genes,
)

N = 60


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n_located", [N, 40])
def test_a_task_hides_what_its_name_says(rng, task, n_located):
    position, located = rng.normal(size=(N, 2)), np.arange(N) < n_located
    for _ in range(30):
        pattern = draw_pattern(task, position, located, 0.33, rng)
        assert not pattern.position_known[~located].any()
        hidden = (located & ~pattern.position_known)[located]
        assert {
            "none": not hidden.any(),
            "some": 0 < hidden.sum() < n_located,
            "random": hidden.any(),
            "all": hidden.all(),
        }[TASKS[task].position]
        unknown = ~pattern.expression_known
        assert {
            "none": not unknown.any(),
            "some": 0 < unknown.sum() < N and not unknown[~located].any(),
            "same": (unknown == (located & ~pattern.position_known)).all(),
            "all": unknown.all(),
        }[TASKS[task].expression]


@pytest.mark.parametrize("task", ["place_among", "outline"])
def test_the_rounds_of_a_draw_are_met_at_every_stage(rng, task):
    """Any share of the positions may be known, none as well."""
    position, located = rng.normal(size=(N, 2)), np.ones(N, dtype=bool)
    known = [
        draw_pattern(task, position, located, 0.33, rng).position_known.mean() for _ in range(2000)
    ]
    assert np.quantile(known, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.05)
    assert 0 in known


def test_shares_have_the_mean_of_the_options(rng):
    for mean in (0.1, 0.33, 0.5, 0.8):
        shares = [hidden_share(mean, rng) for _ in range(4000)]
        assert np.mean(shares) == pytest.approx(mean, abs=0.02)
        assert 0 <= min(shares) <= max(shares) <= 1
    position, located = rng.normal(size=(N, 2)), np.ones(N, dtype=bool)
    patterns = [draw_pattern("repair", position, located, 0.33, rng) for _ in range(2000)]
    hidden = [1 - pattern.position_known.mean() for pattern in patterns]
    assert np.mean(hidden) == pytest.approx(0.33, abs=0.02)
    patterns = [draw_pattern("complete", position, located, 0.33, rng) for _ in range(2000)]
    hidden = [1 - pattern.expression_known.mean() for pattern in patterns]
    assert np.mean(hidden) == pytest.approx(EXPRESSION_SHARE, abs=0.02)


@pytest.mark.parametrize("training_mode", TASK_SHARES)
def test_tasks_of_a_training_mode_are_drawn_with_their_shares(rng, training_mode):
    drawn = [draw_task(training_mode, 0.33, rng, located=True) for _ in range(3000)]
    shares = TASK_SHARES[training_mode]
    assert sum(shares.values()) == pytest.approx(1)
    assert set(drawn) == set(shares)
    for task, share in shares.items():
        assert drawn.count(task) / len(drawn) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("training_mode", TASK_SHARES)
def test_a_training_mode_hides_what_it_predicts(training_mode):
    tasks = [TASKS[task] for task in TASK_SHARES[training_mode]]
    hides_positions = any(task.position != "none" for task in tasks)
    hides_expression = any(task.expression != "none" for task in tasks)
    assert hides_positions == (training_mode != "pos_to_expr")
    assert hides_expression == (training_mode != "expr_to_pos")


@pytest.mark.parametrize("training_mode", TASK_SHARES)
def test_without_positions_only_genes_are_hidden(rng, training_mode):
    assert {draw_task(training_mode, 0.33, rng, located=False) for _ in range(50)} == {"impute"}


@pytest.mark.parametrize("training_mode", TASK_SHARES)
def test_without_a_position_mask_ratio_all_positions_of_a_set_are_hidden_or_none(
    rng, training_mode
):
    drawn = {draw_task(training_mode, 0.0, rng, located=True) for _ in range(500)}
    assert drawn
    assert all(TASKS[task].position in ("none", "all") for task in drawn)


def test_half_of_the_time_the_hidden_cells_are_one_block(rng):
    position = rng.uniform(size=(N, 2))
    candidates = np.arange(N) % 4 > 0
    cells = np.flatnonzero(candidates)
    distance = np.linalg.norm(position[:, None] - position, axis=-1)

    def is_block(hidden):
        """Whether some cell has all the hidden ones nearer than any other candidate."""
        rest = cells[~hidden[cells]]
        return any(
            distance[c, hidden].max() < distance[c, rest].min() for c in np.flatnonzero(hidden)
        )

    drawn = [choose_some(0.4, position, candidates, rng) for _ in range(400)]
    assert all(hidden.sum() == round(0.4 * len(cells)) for hidden in drawn)
    assert not any(hidden[~candidates].any() for hidden in drawn)
    assert np.mean([is_block(hidden) for hidden in drawn]) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_at_least_one_cell_and_never_all_are_hidden(rng, share):
    hidden = choose_some(share, rng.normal(size=(N, 2)), np.ones(N, dtype=bool), rng)
    assert hidden.sum() == (1 if share == 0 else N - 1)


class TestHideGenes:
    def test_a_share_is_hidden_and_unmeasured_genes_stay_unknown(self):
        generator = torch.Generator().manual_seed(0)
        measured = torch.rand(4, 50, 40, generator=generator) > 0.5
        each = torch.zeros(4, dtype=torch.bool)
        visible = hide_genes(measured, torch.full((4,), 0.3), each, generator)
        assert not (visible & ~measured).any()
        assert visible.sum() / measured.sum() == pytest.approx(0.7, abs=0.03)
        assert torch.equal(hide_genes(measured, torch.zeros(4), each, generator), measured)
        assert not hide_genes(measured, torch.ones(4), each, generator).any()

    def test_every_set_has_its_own_share(self):
        generator = torch.Generator().manual_seed(0)
        measured, ratio = torch.ones(3, 50, 400, dtype=torch.bool), torch.tensor([0.1, 0.5, 0.9])
        visible = hide_genes(measured, ratio, torch.zeros(3, dtype=torch.bool), generator)
        torch.testing.assert_close(1 - visible.float().mean((1, 2)), ratio, atol=0.05, rtol=0)

    def test_cells_of_a_set_have_one_of_eight_panels(self):
        """Few panels: gene factors are solved once for each."""
        generator = torch.Generator().manual_seed(0)
        measured = torch.ones(2, 100, 40, dtype=torch.bool)
        each = torch.zeros(2, dtype=torch.bool)
        visible = hide_genes(measured, torch.full((2,), 0.5), each, generator)
        assert [len(of_set.unique(dim=0)) for of_set in visible] == [8, 8]

    def test_all_cells_of_a_set_with_one_panel_lack_the_same_genes(self):
        generator = torch.Generator().manual_seed(0)
        measured = torch.ones(4, 50, 40, dtype=torch.bool)
        panel = torch.tensor([True, False, True, False])
        visible = hide_genes(measured, torch.full((4,), 0.3), panel, generator)
        same = (visible == visible[:, :1]).all((1, 2))
        assert torch.equal(same, panel)
        assert not torch.equal(visible[0, 0], visible[2, 0])
        measured[0, 7, 3] = False
        assert not hide_genes(measured, torch.zeros(4), panel, generator)[0, 7, 3]
