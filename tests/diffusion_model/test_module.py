"""What goes in and out of the network."""

import pytest
import torch

from alphastomics.diffusion_model.interface import Context, NoisyCells
from alphastomics.diffusion_model.levels import KNOWN, UNKNOWN

B, N, G = 2, 12, 7


def noisy_cells(module, seed=0):
    """Cells with known, noisy and unknown genes and positions."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.tensor([KNOWN, 0.5, UNKNOWN])
    return NoisyCells(
        torch.randn(B, N, G, generator=generator),
        levels[torch.randint(3, (B, N, G), generator=generator)],
        torch.randn(B, N, module.position_dim, generator=generator),
        levels[torch.randint(3, (B, N), generator=generator)],
    )


def outputs(module, cells, context=None):
    out = module(cells, context)
    return out.position, out.expression, out.log_scale, out.tokens


def assert_same(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_what_is_known_comes_back_bit_for_bit(module):
    cells = noisy_cells(module)
    out = module(cells)
    known = cells.position_level == KNOWN
    assert torch.equal(out.position[known], cells.position[known])
    assert not torch.isclose(out.position[~known], cells.position[~known]).all(-1).any()
    known = cells.expression_level == KNOWN
    assert torch.equal(out.expression[known], cells.expression[known])
    assert not torch.isclose(out.expression[~known], cells.expression[~known]).any()


@pytest.mark.parametrize("garbage", [1e3, torch.nan, torch.inf])
def test_unknown_values_do_not_reach_the_network(module, garbage):
    cells = noisy_cells(module)
    unknown_gene = cells.expression_level == UNKNOWN
    unknown_position = cells.position_level == UNKNOWN
    changed = cells._replace(
        expression=cells.expression.masked_fill(unknown_gene, garbage),
        position=cells.position.masked_fill(unknown_position[..., None], garbage),
    )
    for a, b in zip(outputs(module, changed), outputs(module, cells), strict=True):
        assert torch.equal(a, b)


def test_what_is_not_unknown_reaches_the_network(module):
    cells = noisy_cells(module)
    before = module(cells).tokens
    for name in ("expression", "position"):
        level = getattr(cells, f"{name}_level")
        for value in (KNOWN, 0.5):
            changed = getattr(cells, name).clone()
            changed[level == value] += 1
            after = module(cells._replace(**{name: changed})).tokens
            assert not torch.isclose(after, before).all(-1).any()


def test_a_hidden_gene_differs_from_zero(module):
    cells = noisy_cells(module)
    cells = cells._replace(
        expression=torch.zeros_like(cells.expression),
        expression_level=torch.zeros_like(cells.expression_level),
    )
    hidden = cells.expression_level.clone()
    hidden[..., 0] = UNKNOWN
    assert not torch.allclose(
        module(cells).tokens, module(cells._replace(expression_level=hidden)).tokens
    )


def test_a_hidden_position_differs_from_the_origin(module):
    cells = noisy_cells(module)
    cells = cells._replace(position=torch.zeros_like(cells.position))
    tokens = [
        module(cells._replace(position_level=torch.full((B, N), level))).tokens
        for level in (KNOWN, UNKNOWN)
    ]
    assert not torch.isclose(*tokens).all(-1).any()


def test_levels_of_single_cells_matter_to_all(module):
    cells = noisy_cells(module)
    cells = cells._replace(position_level=torch.full((B, N), 0.5))
    before = module(cells).position
    level = cells.position_level.clone()
    level[:, 0] = 0.7
    after = module(cells._replace(position_level=level)).position
    assert not torch.isclose(before, after).all(-1).any()


def test_order_changes_nothing(module):
    cells = noisy_cells(module)
    order = torch.randperm(N)
    context = Context(label=torch.randint(3, (B, N)), batch=torch.randint(3, (B, N)))
    permuted = outputs(
        module,
        NoisyCells(*(part[:, order] for part in cells)),
        Context(label=context.label[:, order], batch=context.batch[:, order]),
    )
    expected = [part[:, order] for part in outputs(module, cells, context)]
    assert_same(permuted, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("level", [KNOWN, 0.5, UNKNOWN])
def test_padding_changes_nothing(module, level):
    cells = noisy_cells(module)

    def pad(x, value):
        return torch.cat([x, torch.full((B, 3, *x.shape[2:]), value, dtype=x.dtype)], 1)

    padded = NoisyCells(
        pad(cells.expression, 0.0),
        pad(cells.expression_level, UNKNOWN),  # nothing was measured there
        pad(cells.position, 9.0),
        pad(cells.position_level, level),
    )
    mask = torch.arange(N + 3).expand(B, -1) < N
    out = [part[:, :N] for part in outputs(module, padded, Context(mask))]
    assert_same(out, outputs(module, cells), atol=1e-4, rtol=1e-4)


def test_sets_of_a_batch_do_not_see_each_other(module):
    cells = noisy_cells(module)
    alone = outputs(module, NoisyCells(*(part[:1] for part in cells)))
    together = [part[:1] for part in outputs(module, cells)]
    assert_same(together, alone, atol=1e-5, rtol=1e-4)


def test_scope_label_and_batch_are_heard_and_0_is_silence(module):
    cells = noisy_cells(module)
    torch.nn.init.normal_(module.scope.weight)
    plain = module(cells).tokens
    zero, one = torch.zeros(B, N, dtype=torch.long), torch.ones(B, N, dtype=torch.long)
    assert torch.equal(module(cells, Context(label=zero, batch=zero)).tokens, plain)
    for context in (
        Context(label=one),
        Context(batch=one),
        Context(scope=torch.zeros(B, dtype=torch.long)),
    ):
        assert not torch.allclose(module(cells, context).tokens, plain)


def test_a_bank_is_as_good_as_known_cells_in_the_set(module):
    """Where cells sit among known ones does not depend on how many of those are in their set."""
    cells = noisy_cells(module)
    known = (torch.arange(N) >= 5).expand(B, N)
    cells = cells._replace(
        expression_level=torch.full_like(cells.expression_level, KNOWN),
        position_level=torch.where(known, KNOWN, UNKNOWN),
    )
    inside = module(cells)
    beside = module(cells, Context(n_bank=4))
    assert beside.position.shape[1] == beside.tokens.shape[1] == N - 4
    torch.testing.assert_close(beside.position[:, :5], inside.position[:, :5])
    torch.testing.assert_close(beside.log_scale[:, :5], inside.log_scale[:, :5])
    fewer = module(cells._replace(position_level=torch.where(known, 0.5, UNKNOWN)))
    assert fewer.pointed is None


def test_padding_in_a_bank_changes_nothing(module):
    cells = noisy_cells(module)._replace(
        position_level=torch.where((torch.arange(N) >= 5).expand(B, N), KNOWN, UNKNOWN)
    )
    padded = NoisyCells(*(torch.cat([field, field[:, :2] + 9], dim=1) for field in cells))
    mask = (torch.arange(N + 2) < N).expand(B, -1)
    expected = module(cells, Context(n_bank=4))
    found = module(padded, Context(cell_mask=mask, n_bank=6))
    torch.testing.assert_close(found.position, expected.position)
