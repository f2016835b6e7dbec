"""What training hides."""

import numpy as np
import pytest
import torch

from alphastomics.diffusion_model.masks import (
    EXPRESSION_SHARE,
    TASKS,
    TRAINING_MODES,
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
    which_position, which_expression = TASKS[task]
    for _ in range(20):
        pattern = draw_pattern(task, position, located, 0.33, rng)
        assert not pattern.position_known[~located].any()
        hidden = located & ~pattern.position_known
        assert {
            "none": not hidden.any(),
            "some": 0 < hidden.sum() < n_located,
            "all": hidden.all() if n_located == N else hidden[located].all(),
        }[which_position]
        silent = ~pattern.expression_known
        assert {
            "none": not silent.any(),
            "some": 0 < silent.sum() < N,
            "same": (silent == hidden).all(),
            "all": silent.all(),
        }[which_expression]


def test_shares_have_the_mean_that_is_asked_for(rng):
    for mean in (0.1, 0.33, 0.5, 0.8):
        shares = [hidden_share(mean, rng) for _ in range(4000)]
        assert np.mean(shares) == pytest.approx(mean, abs=0.02)
        assert 0 <= min(shares) <= max(shares) <= 1
    position, located = rng.normal(size=(N, 2)), np.ones(N, dtype=bool)
    hidden = [
        1 - draw_pattern("repair", position, located, 0.33, rng).position_known.mean()
        for _ in range(2000)
    ]
    assert np.mean(hidden) == pytest.approx(0.33, abs=0.02)
    hidden = [
        1 - draw_pattern("complete", position, located, 0.33, rng).expression_known.mean()
        for _ in range(2000)
    ]
    assert np.mean(hidden) == pytest.approx(EXPRESSION_SHARE, abs=0.02)


@pytest.mark.parametrize("training_mode", TRAINING_MODES)
def test_tasks_of_a_training_mode(rng, training_mode):
    drawn = {draw_task(training_mode, 0.33, rng, located=True) for _ in range(500)}
    hides_positions = any(TASKS[task][0] != "none" for task in drawn)
    hides_expression = any(TASKS[task][1] != "none" for task in drawn)
    assert hides_positions == (training_mode != "pos_to_expr")
    assert hides_expression == (training_mode != "expr_to_pos")
    assert any(TASKS[task][0] == "some" for task in drawn) == (training_mode == "joint")
    assert {draw_task(training_mode, 0.33, rng, located=False) for _ in range(50)} == {"impute"}


@pytest.mark.parametrize("training_mode", TRAINING_MODES)
def test_without_a_position_mask_ratio_never_only_some_positions_are_hidden(rng, training_mode):
    drawn = {draw_task(training_mode, 0.0, rng, located=True) for _ in range(500)}
    assert drawn
    assert all(TASKS[task][0] != "some" for task in drawn)


def test_half_of_the_time_what_is_hidden_is_one_block(rng):
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
def test_at_least_one_and_never_all_are_hidden(rng, share):
    hidden = choose_some(share, rng.normal(size=(N, 2)), np.ones(N, dtype=bool), rng)
    assert hidden.sum() == (1 if share == 0 else N - 1)


def test_hide_genes_hides_its_share_and_never_reveals():
    generator = torch.Generator().manual_seed(0)
    visible = torch.rand(4, 50, 40, generator=generator) > 0.5
    each = torch.zeros(4, dtype=torch.bool)
    kept = hide_genes(visible, torch.full((4,), 0.3), each, generator)
    assert not (kept & ~visible).any()
    assert kept.sum() / visible.sum() == pytest.approx(0.7, abs=0.03)
    assert torch.equal(hide_genes(visible, torch.zeros(4), each, generator), visible)
    assert not torch.equal(kept[:, 0] | ~visible[:, 0], kept[:, 1] | ~visible[:, 1])


def test_all_cells_of_a_set_with_a_panel_lack_the_same_genes():
    generator = torch.Generator().manual_seed(0)
    visible = torch.ones(4, 50, 40, dtype=torch.bool)
    panel = torch.tensor([True, False, True, False])
    kept = hide_genes(visible, torch.full((4,), 0.3), panel, generator)
    same = (kept == kept[:, :1]).all((1, 2))
    assert torch.equal(same, panel)
    assert not torch.equal(kept[0, 0], kept[2, 0])
    visible[0, 7, 3] = False
    assert not hide_genes(visible, torch.zeros(4), panel, generator)[0, 7, 3]
