"""Records of sets of cells."""

import torch

from alphastomics.diffusion_model.batch import StandardizedCells

B, N, G = 2, 12, 7


def test_labels_are_a_condition_only_where_expression_is_unknown(new_batch):
    batch = new_batch(expression_known=7)
    label = batch._replace(label=torch.ones(B, N, dtype=torch.long)).label_condition()
    assert (label[:, :7] == 0).all()
    assert (label[:, 7:] == 1).all()


def test_padded_cells_are_not_real(new_batch):
    assert new_batch().real.all()
    real = new_batch(padding=3).real
    assert real[:, :N].all()
    assert not real[:, N:].any()


def cells(**fields):
    return StandardizedCells(
        expression=torch.randn(B, N, G),
        gene_known=torch.ones(B, N, G, dtype=torch.bool),
        position=torch.randn(B, N, 2),
        position_known=torch.arange(N).expand(B, N) % 2 == 0,
        **fields,
    )


def test_the_support_is_parted_from_the_cells_of_a_set():
    scope, label = torch.tensor([0, 1]), torch.arange(N).expand(B, N)
    whole = cells(scope=scope, label=label, n_support=4)
    own, support = whole.split()
    assert own.n_support == support.n_support == 0
    assert own.label.tolist() == label[:, :8].tolist()
    assert support.label.tolist() == label[:, 8:].tolist()
    assert own.scope is scope
    assert own.cell_mask is None
    for name in ("expression", "gene_known", "position", "position_known"):
        parts = [getattr(part, name) for part in (own, support)]
        assert torch.equal(torch.cat(parts, dim=1), getattr(whole, name))


def test_known_positions_are_finite_and_none_where_nothing_is_known():
    whole = cells()
    whole.position[:, 1::2] = torch.nan
    where = whole.where()
    assert torch.isfinite(where.position).all()
    assert torch.equal(where.position[where.known], whole.position[whole.position_known])
    nothing = torch.zeros_like(whole.position_known)
    assert whole._replace(position_known=nothing).where() is None
