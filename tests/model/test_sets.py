"""Partition of sections that are larger than a set."""

import numpy as np
import pytest

from alphastomics.model._data import SetupArgs, read_training
from alphastomics.model._sets import inference_sets
from alphastomics.model._task import make_task


@pytest.fixture(scope="module")
def task(tissue):
    """All positions of a section of 300 cells, to be estimated from expression."""
    section = tissue[(tissue.obs["section"] == "section_0").to_numpy()].copy()
    data = read_training(section, SetupArgs(None, "counts", "spatial", "section", None))
    return make_task(
        data,
        None,
        "expr_to_pos",
        training_mode="joint",
        spatial_key="spatial",
        predicts=False,
    )


@pytest.mark.parametrize("max_cells_per_set", [2, 3, 64, 299])
def test_every_set_ends_with_the_shared_context(task, max_cells_per_set):
    first, *others = inference_sets(task, max_cells_per_set, shared_context=True)
    shared = first.cells
    assert first.leads
    assert len(shared) == max(1, max_cells_per_set // 4)
    assert first.fill.all()
    for part in others:
        assert not part.leads
        assert len(part.cells) <= max_cells_per_set
        assert np.array_equal(part.cells[-len(shared) :], shared)
        assert np.array_equal(part.fill, np.arange(len(part.cells)) < len(part.cells) - len(shared))
    filled = np.concatenate([part.targets for part in (first, *others)])
    assert np.array_equal(np.sort(filled), np.arange(300))


def test_a_section_that_fits_has_no_shared_context(task):
    (single,) = inference_sets(task, 300, shared_context=True)
    assert not single.leads
    assert not any(part.leads for part in inference_sets(task, 64))
