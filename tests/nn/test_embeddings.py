"""Embeddings of values, of unknown values and of categories."""

import math

import pytest
import torch
from torch import nn

from alphastomics.nn.embeddings import (
    FourierFeatures,
    ModalityEmbedding,
    OptionalEmbedding,
    PositionEmbedding,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_fourier_features_are_values_with_their_sines_and_cosines():
    features = FourierFeatures(3, 16.0)
    x = torch.randn(4, 5, 2)
    out = features(x)
    assert out.shape == (4, 5, 2 * features.size)
    expected = [x]
    for function in (torch.sin, torch.cos):
        waves = [function(x[..., i, None] * torch.tensor([1.0, 4.0, 16.0])) for i in range(2)]
        expected.extend(waves)
    torch.testing.assert_close(out, torch.cat(expected, dim=-1), atol=1e-5, rtol=1e-5)


def test_without_frequencies_the_values_alone_are_the_features():
    features = FourierFeatures(0)
    x = torch.randn(4, 3)
    assert features.size == 1
    assert torch.equal(features(x), x)


def test_positions_that_differ_by_a_fraction_of_a_percent_have_different_features():
    near = torch.tensor([[0.5, 0.5], [0.503, 0.5]])
    features = FourierFeatures()(near)
    assert math.dist(*features.tolist()) > 10 * math.dist(*near.tolist())


@pytest.mark.parametrize("dim", [2, 3])
def test_an_unknown_position_is_one_learned_token(dim):
    embedding = PositionEmbedding(dim, 8)
    nn.init.normal_(embedding.unknown)
    known = torch.tensor([[True, False]])
    a, b = (embedding(torch.randn(1, 2, dim), known) for _ in range(2))
    assert torch.equal(a[:, 1], embedding.unknown[None])
    assert torch.equal(a[:, 1], b[:, 1])
    assert not torch.isclose(a[:, 0], b[:, 0]).any()


def test_a_known_value_of_zero_is_not_an_unknown_one():
    embedding = ModalityEmbedding(nn.Linear(3, 8), 8)
    x = torch.zeros(1, 1, 3)
    known, unknown = (embedding(x, torch.tensor([[state]])) for state in (True, False))
    assert not torch.isclose(known, unknown).any()


def test_a_category_that_is_not_given_adds_nothing():
    embedding = OptionalEmbedding(3, 8)
    assert (embedding(torch.zeros(2, 4, dtype=torch.long)) == 0).all()
    assert (embedding(torch.tensor([1, 2, 3])) != 0).any(-1).all()
    assert (OptionalEmbedding(0, 8)(torch.tensor([0])) == 0).all()


def test_a_category_that_is_not_given_is_never_trained():
    embedding = OptionalEmbedding(3, 8)
    embedding(torch.tensor([0, 1])).sum().backward()
    assert (embedding.weight.grad[0] == 0).all()
    assert (embedding.weight.grad[1] != 0).all()
