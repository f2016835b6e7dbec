"""The network: what enters it, what does not, and what comes back."""

import pytest
import torch

from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.priors import SectionSample

B, N, G = 2, 12, 7


def some_cells(module, seed=0):
    """Sets with known and unknown genes and positions, one of them with all positions known."""
    generator = torch.Generator().manual_seed(seed)
    position_known = torch.rand(B, N, generator=generator) > 0.4
    position_known[1] = True
    return StandardizedCells(
        expression=torch.randn(B, N, G, generator=generator),
        gene_known=torch.rand(B, N, G, generator=generator) > 0.4,
        position=torch.randn(B, N, module.position_dim, generator=generator),
        position_known=position_known,
    )


def outputs(module, cells):
    out = module(cells)
    return out.position, out.arrangement, out.expression, out.log_scale, out.tokens


def per_cell(cells, change):
    """Change all fields that have a value for every cell."""
    return cells._replace(
        **{
            name: change(field)
            for name, field in cells._asdict().items()
            if isinstance(field, torch.Tensor) and field.ndim > 1
        }
    )


def assert_same(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_known_values_come_back_bit_for_bit(module):
    cells = some_cells(module)
    out = module(cells)
    known = cells.position_known
    assert torch.equal(out.position[known], cells.position[known])
    assert not torch.isclose(out.position[~known], cells.position[~known]).all(-1).any()
    known = cells.gene_known
    assert torch.equal(out.expression[known], cells.expression[known])
    assert not torch.isclose(out.expression[~known], cells.expression[~known]).any()


@pytest.mark.parametrize("garbage", [1e3, torch.nan, torch.inf])
def test_unknown_values_do_not_reach_the_network(module, garbage):
    cells = some_cells(module)
    changed = cells._replace(
        expression=cells.expression.masked_fill(~cells.gene_known, garbage),
        position=cells.position.masked_fill(~cells.position_known[..., None], garbage),
    )
    for a, b in zip(outputs(module, changed), outputs(module, cells), strict=True):
        assert torch.equal(a, b)
    of_changed, expected = (module.match(c) for c in (changed, cells))
    for found, other in zip(of_changed, expected, strict=True):
        assert torch.equal(found, other)


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf])
def test_unknown_values_do_not_reach_gradients(module, garbage):
    cells = some_cells(module)
    cells = cells._replace(
        expression=cells.expression.masked_fill(~cells.gene_known, garbage),
        position=cells.position.masked_fill(~cells.position_known[..., None], garbage),
    )
    module(cells).tokens.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_every_known_value_matters_to_all_cells(module):
    cells = some_cells(module)
    before = module(cells).tokens
    moved = cells.position + cells.position_known[..., None]
    louder = cells.expression + cells.gene_known
    for changed in (cells._replace(position=moved), cells._replace(expression=louder)):
        assert not torch.isclose(module(changed).tokens, before).all(-1).any()


def test_an_unknown_gene_differs_from_average_expression(module):
    cells = some_cells(module)
    cells = cells._replace(expression=torch.zeros_like(cells.expression))
    known = torch.ones_like(cells.gene_known)
    unknown = known.clone()
    unknown[..., 0] = False
    tokens = [module(cells._replace(gene_known=which)).tokens for which in (known, unknown)]
    assert not torch.isclose(*tokens).all(-1).any()


def test_an_unknown_position_differs_from_the_origin(module):
    cells = some_cells(module)
    cells = cells._replace(position=torch.zeros_like(cells.position))
    known = torch.ones_like(cells.position_known)
    tokens = [module(cells._replace(position_known=which)).tokens for which in (known, ~known)]
    assert not torch.isclose(*tokens).all(-1).any()


def test_permuting_the_cells_permutes_the_results(module):
    cells = some_cells(module)._replace(
        label=torch.randint(3, (B, N)), batch=torch.randint(3, (B, N))
    )
    order = torch.randperm(N)
    permuted = outputs(module, per_cell(cells, lambda field: field[:, order]))
    expected = [part[:, order] for part in outputs(module, cells)]
    assert_same(permuted, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("attention", ["softmax", "linear"])
@pytest.mark.parametrize("num_experts", [0, 4])
@pytest.mark.parametrize("known", [True, False])
def test_padding_changes_nothing(new_module, attention, num_experts, known):
    module = new_module(attention=attention, num_experts=num_experts)
    cells = some_cells(module)._replace(label=torch.ones(B, N, dtype=torch.long))

    def pad(field, value=0):
        more = torch.full((B, 3, *field.shape[2:]), value, dtype=field.dtype)
        return torch.cat([field, more], dim=1)

    padded = per_cell(cells, pad)._replace(
        expression=pad(cells.expression, 7.0),
        gene_known=pad(cells.gene_known, known),
        position=pad(cells.position, 0.1),  # near the others
        position_known=pad(cells.position_known, known),
        cell_mask=torch.arange(N + 3).expand(B, -1) < N,
    )
    out = [part[:, :N] for part in outputs(module, padded)]
    assert_same(out, outputs(module, cells), atol=1e-4, rtol=1e-4)
    found, expected = module.match(padded), module.match(cells)
    assert not found.valid[:, N:].any()
    assert_same((found.mean()[:, :N], found.valid[:, :N]), (expected.mean(), expected.valid))


def test_sets_of_a_batch_are_independent(module):
    cells = some_cells(module)
    together = outputs(module, cells)
    for i in range(B):
        alone = outputs(module, per_cell(cells, lambda field, i=i: field[i : i + 1]))
        assert_same([part[i : i + 1] for part in together], alone, atol=1e-5, rtol=1e-4)


def test_label_and_batch_matter_and_0_changes_nothing(module):
    cells = some_cells(module)
    plain = module(cells).tokens
    zero, one = torch.zeros(B, N, dtype=torch.long), torch.ones(B, N, dtype=torch.long)
    assert torch.equal(module(cells._replace(label=zero, batch=zero)).tokens, plain)
    for given in ({"label": one}, {"batch": one}, {"label": 2 * one}):
        assert not torch.isclose(module(cells._replace(**given)).tokens, plain).all(-1).any()


def test_the_scope_of_a_set_matters_to_all_its_cells(module):
    cells = some_cells(module)
    section, window = torch.tensor([0, 0]), torch.tensor([0, 1])
    tokens = [module(cells._replace(scope=scope)).tokens for scope in (section, window)]
    assert torch.equal(tokens[0][0], tokens[1][0])
    assert not torch.isclose(tokens[0][1], tokens[1][1]).all(-1).any()


def test_a_set_out_of_the_common_frame_is_marked_as_such(module):
    cells = some_cells(module)
    plain = module(cells).tokens
    both, one = torch.tensor([True, True]), torch.tensor([True, False])
    assert torch.equal(module(cells._replace(registered=both)).tokens, plain)
    tokens = module(cells._replace(registered=one)).tokens
    assert torch.equal(tokens[0], plain[0])
    assert not torch.isclose(tokens[1], plain[1]).all(-1).any()


class TestMatching:
    def placed(self, module, n_known=7):
        """Sets of which all genes and the last positions are known."""
        cells = some_cells(module)
        return cells._replace(
            gene_known=torch.ones_like(cells.gene_known),
            position_known=(torch.arange(N) >= N - n_known).expand(B, N),
        )

    def test_known_cells_are_equally_good_in_the_set_and_in_its_support(self, module):
        cells = self.placed(module)
        inside, support = (module.match(c) for c in (cells, cells._replace(n_support=4)))
        assert support.valid.shape == (B, N - 4)
        torch.testing.assert_close(support.mean()[:, :5], inside.mean()[:, :5])
        torch.testing.assert_close(support.variance()[:, :5], inside.variance()[:, :5])

    def test_the_support_does_not_enter_the_transformer(self, module):
        cells = self.placed(module)
        fewer = per_cell(cells, lambda field: field[:, : N - 4])
        found = outputs(module, cells._replace(n_support=4))
        assert_same(found, outputs(module, fewer), atol=0, rtol=0)

    def test_padding_in_the_support_changes_nothing(self, module):
        cells = self.placed(module)
        padded = per_cell(cells, lambda field: torch.cat([field, field[:, :2]], dim=1))
        padded.position[:, N:] += 9
        mask = (torch.arange(N + 2) < N).expand(B, -1)
        expected = module.match(cells._replace(n_support=4))
        found = module.match(padded._replace(cell_mask=mask, n_support=6))
        torch.testing.assert_close(found.mean(), expected.mean())

    def test_cells_with_expression_and_no_position_are_matched(self, module):
        cells = self.placed(module)
        cells.gene_known[0, 1] = False
        valid = module.match(cells).valid
        expected = ~cells.position_known
        expected[0, 1] = False
        assert torch.equal(valid, expected)

    def test_only_known_cells_with_expression_are_matched_with(self, module):
        cells = self.placed(module)
        cells.gene_known[0, -1] = False
        weight = module.match(cells).log_weight.exp()
        assert (weight[0, :, -1] == 0).all()
        assert (weight[:, :, : N - 7] == 0).all()
        assert (weight[1, :, -1] > 0).all()

    def test_without_known_or_unknown_cells_there_is_no_match(self, module):
        cells = self.placed(module)
        everything = torch.ones_like(cells.position_known)
        for known in (everything, ~everything):
            assert module.match(cells._replace(position_known=known)) is None
        nothing = torch.zeros_like(cells.gene_known)
        assert module.match(cells._replace(gene_known=nothing)) is None


class TestPriors:
    def test_expression_at_known_positions_starts_from_the_known_neighbors(self, new_module):
        module = new_module()
        for part in (module.expression_mean_head.weight, module.expression_mean_head.bias):
            torch.nn.init.zeros_(part)
        cells = some_cells(module)
        hidden = torch.arange(N) < 4
        known = (~hidden)[None, :, None].expand(B, N, G)
        cells = cells._replace(gene_known=known, position_known=torch.ones(B, N).bool())
        _, expected = module.smoother(cells.expression, known, cells.where())
        estimate = module(cells).expression
        torch.testing.assert_close(estimate[:, hidden], expected[:, hidden])
        assert (estimate[:, hidden] != 0).all()

    def test_unknown_genes_start_from_the_known_ones_of_the_cell(self, new_module):
        module = new_module()
        for part in (module.expression_mean_head.weight, module.expression_mean_head.bias):
            torch.nn.init.zeros_(part)
        cells = some_cells(module)
        cells = cells._replace(position_known=torch.zeros(B, N).bool())
        expected = module.genes.lone_weight * module.genes(cells.expression, cells.gene_known)
        unknown = ~cells.gene_known
        estimate = module(cells).expression
        torch.testing.assert_close(estimate[unknown], expected[unknown])


class TestUnframedPlacing:
    """Cells with expression are compared with stored cells of the training sections."""

    def encoded(self, module):
        section = SectionSample(
            torch.randn(30, G), torch.ones(30, G, dtype=torch.bool), torch.randn(30, 2)
        )
        module.reference.fill(module.matcher, [section])
        cells = some_cells(module)
        cells = cells._replace(
            gene_known=(torch.arange(N) < 8)[None, :, None].expand(B, N, G),
            position_known=torch.zeros_like(cells.position_known),
        )
        cells = per_cell(cells, lambda field: field[:1])
        encoding = module(cells)
        return cells, encoding._replace(position=torch.randn(1, N, 2))

    def test_cells_without_expression_stay_at_their_mean(self, new_module):
        module = new_module()
        cells, encoding = self.encoded(module)
        placed = module.place_unframed(cells, encoding, arrange=False)
        assert torch.equal(placed[:, 8:], encoding.position[:, 8:])
        assert not torch.isclose(placed[:, :8], encoding.position[:, :8]).all(-1).any()

    def test_the_arrangement_is_superposed_on_the_mean(self, new_module):
        module = new_module()
        cells, encoding = self.encoded(module)
        placed = module.place_unframed(cells, encoding, arrange=True)
        mean = module.place_unframed(cells, encoding, arrange=False)
        assert torch.isfinite(placed).all()
        torch.testing.assert_close(placed.mean(1), mean.mean(1), atol=1e-4, rtol=1e-4)

    def test_without_stored_cells_or_expression_the_mean_is_that_of_the_network(self, new_module):
        module = new_module()
        cells, encoding = self.encoded(module)
        nothing = cells._replace(gene_known=torch.zeros_like(cells.gene_known))
        for placed in (
            module.place_unframed(nothing, encoding, arrange=False),
            new_module().place_unframed(cells, encoding, arrange=False),
        ):
            assert torch.equal(placed, encoding.position)


def test_the_expression_head_reads_tokens_and_the_factors_of_the_mean(module):
    out = module(some_cells(module))
    context = module.expression_context(out)
    size = out.tokens.shape[-1]
    assert torch.equal(context[..., :size], out.tokens)
    factors = context[..., size : size + module.factors.n_factors]
    torch.testing.assert_close(factors, out.expression @ module.factors.encoder)
    assert (context[..., size + module.factors.n_factors :] == 0).all()  # the mean log depth
    assert module.expression_head.condition(context).shape[:2] == (B, N)
    context[..., size:].sum().backward(retain_graph=True)
    assert module.expression_mean_head.weight.grad is None
