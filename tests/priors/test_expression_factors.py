"""Cells drawn from those of training."""

import pytest
import torch

from alphastomics.nn.bootstrap import Bootstrap


@pytest.fixture
def bootstrap():
    one = Bootstrap(3, 2)
    one.fill(torch.arange(8.0).view(4, 2), torch.tensor([1.0, 2, 3, 4]), torch.tensor([1, 1, 2, 0]))
    return one


def test_drawn_cells_are_kept_ones(bootstrap):
    drawn = bootstrap.draw(torch.zeros(200, dtype=torch.int64), torch.Generator().manual_seed(0))
    assert set(drawn.depth.tolist()) == {1, 2, 3, 4}
    torch.testing.assert_close(drawn.factors[:, 0], 2 * (drawn.depth - 1))


def test_types_are_respected(bootstrap):
    drawn = bootstrap.draw(torch.tensor([2, 1, 1, 2]), torch.Generator().manual_seed(0))
    assert drawn.depth[[0, 3]].tolist() == [3, 3]
    assert set(drawn.depth[[1, 2]].tolist()) <= {1, 2}
    with pytest.raises(ValueError, match="no training cell of type number 7"):
        bootstrap.draw(torch.tensor([7]))


def test_it_takes_the_size_of_what_is_loaded(bootstrap):
    other = Bootstrap(3, 2)
    other.load_state_dict(bootstrap.state_dict())
    torch.testing.assert_close(other.factors, bootstrap.factors)
