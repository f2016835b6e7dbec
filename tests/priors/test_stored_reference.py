"""Training cells stored with the model as a reference for arrangements."""

import torch

from alphastomics.priors import SectionSample
from alphastomics.priors.reference_matching import ReferenceMatcher, StoredReference

G, D = 6, 8


def two_sections():
    torch.manual_seed(0)
    matcher = ReferenceMatcher(G, D).eval()
    sections = [
        SectionSample(torch.randn(n, G), torch.rand(n, G) > 0.2, torch.randn(n, 2))
        for n in (20, 30)
    ]
    return matcher, sections


def test_places_are_those_of_the_matching_in_each_section():
    matcher, sections = two_sections()
    reference = StoredReference(2, D)
    assert len(reference) == 0
    assert reference.places(matcher, torch.zeros(3, D)) == []
    reference.fill(matcher, sections)
    assert len(reference) == 2
    cells = matcher.features(*sections[0][:2])[:5]
    for found, section in zip(reference.places(matcher, cells), sections, strict=True):
        keys = matcher.features(section.values, section.known)
        valid = torch.ones(1, len(keys), dtype=torch.bool)
        expected = matcher(cells[None], keys[None], section.position[None], valid).mode()[0]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_a_model_takes_the_number_of_stored_cells_from_what_is_loaded():
    matcher, sections = two_sections()
    filled, empty = StoredReference(2, D), StoredReference(2, D)
    filled.fill(matcher, sections)
    empty.load_state_dict(filled.state_dict())
    assert torch.equal(empty.place, filled.place)
    assert empty.valid.sum(1).tolist() == [20, 30]
