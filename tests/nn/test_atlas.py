"""Cells of training kept with the model."""

import torch

from alphastomics.nn.atlas import Atlas
from alphastomics.nn.pointer import Pointer

G, D = 6, 8


def test_places_are_those_of_the_pointer_in_each_section():
    torch.manual_seed(0)
    pointer, atlas = Pointer(G, D).eval(), Atlas(2, D)
    assert atlas.places(pointer, torch.zeros(3, D)) == []
    everything = torch.ones(1, G, dtype=torch.bool)
    features = [pointer.features(torch.randn(n, G), everything.expand(n, G)) for n in (20, 30)]
    place = [torch.randn(n, 2) for n in (20, 30)]
    atlas.fill(features, place)
    cells = features[0][:5]
    for found, keys, at in zip(atlas.places(pointer, cells), features, place, strict=True):
        known = torch.ones(1, len(keys), dtype=torch.bool)
        expected = pointer(cells[None], keys[None], at[None], known).mode()[0]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_an_empty_atlas_takes_the_size_of_what_is_loaded():
    filled, empty = Atlas(2, D), Atlas(2, D)
    filled.fill([torch.randn(4, D), torch.randn(6, D)], [torch.randn(4, 2), torch.randn(6, 2)])
    empty.load_state_dict(filled.state_dict())
    assert torch.equal(empty.place, filled.place)
    assert empty.known.sum(1).tolist() == [4, 6]
