"""Which cells see each other where a section is larger than a set."""

import numpy as np
import pytest

from alphastomics.model._data import SetupArgs, read_training
from alphastomics.model._request import make_request
from alphastomics.model._sets import inference_sets


@pytest.fixture(scope="module")
def request_of(tissue):
    """All positions of a section of 300 cells asked for, given expression."""
    section = tissue[(tissue.obs["section"] == "section_0").to_numpy()].copy()
    data = read_training(section, SetupArgs(None, "counts", "spatial", "section", None))
    return make_request(data, None, "expr_to_pos", spatial_key="spatial", predicts=False)


@pytest.mark.parametrize("max_set", [2, 3, 64, 299])
def test_every_set_ends_with_the_anchors(request_of, max_set):
    first, *others = inference_sets(request_of, max_set, anchored=True)
    anchors = first.cells
    assert first.leads
    assert len(anchors) == max(1, max_set // 4)
    assert first.fill.all()
    for one in others:
        assert not one.leads
        assert len(one.cells) <= max_set
        assert np.array_equal(one.cells[-len(anchors) :], anchors)
        assert np.array_equal(one.fill, np.arange(len(one.cells)) < len(one.cells) - len(anchors))
    filled = np.concatenate([one.cells[one.fill] for one in (first, *others)])
    assert np.array_equal(np.sort(filled), np.arange(300))


def test_a_section_that_fits_has_no_anchors(request_of):
    (one,) = inference_sets(request_of, 300, anchored=True)
    assert not one.leads
    assert not any(one.leads for one in inference_sets(request_of, 64))
