"""Training targets: frames of sections, hidden genes, and noise on expression."""

import pytest
import torch

from alphastomics.diffusion_model.alignment import Pose, random_orthogonal
from alphastomics.diffusion_model.corruption import (
    Objective,
    centered_positions,
    framed_positions,
    make_targets,
)

N, G = 12, 7
PLAIN = Objective(expression_mask_ratio=0.0, expression_noise=0.0, expression_shift=0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def register(module, pose):
    """Give the sections of a network their poses, ``(S, d, d)`` and ``(S, 1, d)``."""
    n_sections, _, d = pose.rotation.shape
    module.poses.start(n_sections)
    true = torch.randn(n_sections, 50, d, generator=generator(9))
    weight = torch.ones(n_sections, 50)
    section = torch.arange(n_sections)
    module.poses.update(module.poses.measure(section, true, pose.apply(true), weight))


def two_poses(d, seed=3):
    return Pose(random_orthogonal((2, d), generator(seed)), torch.randn(2, 1, d))


def distances(position):
    return torch.cdist(position, position)


class TestFrames:
    def test_positions_are_centered_on_the_known_cells_or_on_all(self, module, new_batch):
        module.position_transform.scale.fill_(2.0)
        batch = new_batch(module.position_dim, position_known=4, located=10)
        batch.position[:, 10:] = torch.nan
        batch.position_known[1] = False
        centered = centered_positions(module, batch)
        zero = torch.zeros(module.position_dim)
        torch.testing.assert_close(centered[0, :4].mean(0), zero, atol=1e-6, rtol=0)
        torch.testing.assert_close(centered[1, :10].mean(0), zero, atol=1e-6, rtol=0)
        torch.testing.assert_close(
            distances(centered[:, :10]), distances(batch.position[:, :10]) / 2
        )

    @pytest.mark.parametrize("position_known", [0, 5, N])
    def test_registered_coordinates_are_neither_turned_nor_mirrored(
        self, new_module, new_batch, position_known
    ):
        module = new_module(frame="registered")
        register(module, two_poses(2))
        batch = new_batch(position_known=position_known, expression_known=3)
        shown, registered = framed_positions(module, batch, generator())
        assert registered.all()
        torch.testing.assert_close(
            shown - shown[:, :1], batch.position - batch.position[:, :1], atol=1e-5, rtol=0
        )

    @pytest.mark.parametrize("position_known", [0, 5, N])
    def test_rotating_a_section_changes_nothing_once_its_pose_is_known(
        self, module, new_batch, position_known
    ):
        d = module.position_dim
        pose = two_poses(d)
        batch = new_batch(d, position_known=position_known)
        register(module, pose)
        shown, registered = framed_positions(module, batch, generator())
        assert registered.all()
        torch.testing.assert_close(shown, pose.apply(batch.position), atol=1e-4, rtol=0)

        turn, shift = random_orthogonal((2, d), generator(4)), torch.randn(2, 1, d)
        moved = batch._replace(position=batch.position @ turn + shift)
        rotation = turn.mT @ pose.rotation
        register(module, Pose(rotation, pose.shift - shift @ rotation))
        again, _ = framed_positions(module, moved, generator(1))
        torch.testing.assert_close(again, shown, atol=1e-4, rtol=0)

    def test_sets_with_known_positions_only_are_turned_at_random_half_of_them(
        self, module, new_batch
    ):
        """Expression is predicted in both frames, as a query without expression has no pose."""
        d = module.position_dim
        pose = two_poses(d)
        register(module, pose)
        batch = new_batch(d, n_sets=400, position_known=N, expression_known=0)
        shown, registered = framed_positions(module, batch, generator())
        assert registered.float().mean() == pytest.approx(0.5, abs=0.08)
        rotation, shift = (part[batch.section] for part in pose)
        expected = Pose(rotation, shift).apply(batch.position)
        torch.testing.assert_close(shown[registered], expected[registered], atol=1e-4, rtol=0)
        turned = ~registered
        assert not torch.isclose(shown[turned], expected[turned]).all((1, 2)).any()
        torch.testing.assert_close(distances(shown), distances(batch.position), atol=1e-3, rtol=0)
        center = shown[turned].mean(1)
        torch.testing.assert_close(center, torch.zeros_like(center), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("allow_reflection", [True, False])
    def test_sets_are_mirrored_only_where_sections_may_be(
        self, new_module, new_batch, allow_reflection
    ):
        module = new_module(allow_reflection=allow_reflection)
        batch = new_batch(n_sets=100, position_known=N)
        shown, _ = framed_positions(module, batch, generator())
        turn = torch.linalg.lstsq(centered_positions(module, batch), shown).solution
        mirrored = torch.linalg.det(turn) < 0
        assert mirrored.float().mean() == pytest.approx(0.5 * allow_reflection, abs=0.15)

    def test_sections_without_a_pose_are_never_registered(self, module, new_batch):
        d = module.position_dim
        batch = new_batch(d, n_sets=8, position_known=5)
        assert not framed_positions(module, batch, generator())[1].any()
        register(module, two_poses(d))
        query = batch._replace(section=torch.full((8,), -1))
        shown, registered = framed_positions(module, query, generator())
        assert not registered.any()
        torch.testing.assert_close(distances(shown), distances(batch.position), atol=1e-3, rtol=0)

    @pytest.mark.parametrize("garbage", [50.0, torch.nan])
    def test_cells_that_are_not_located_change_nothing(self, module, new_batch, garbage):
        d = module.position_dim
        register(module, two_poses(d))
        batch = new_batch(d, padding=2, position_known=4, located=10)
        position = batch.position.masked_fill(~batch.located[..., None], garbage)
        expected, _ = make_targets(module, batch, PLAIN, generator())
        found, cells = make_targets(module, batch._replace(position=position), PLAIN, generator())
        assert torch.equal(found.position, expected.position)
        assert (found.position[:, 10:] == 0).all()
        assert not cells.position_known[:, 10:].any()


class TestHiddenGenes:
    def test_hidden_genes_are_measured_and_unknown_to_the_network(self, module, new_batch):
        batch = new_batch(module.position_dim, padding=2, expression_known=6, located=0)
        measured = batch.measured.clone()
        measured[..., 0] = False
        batch = batch._replace(measured=measured)
        targets, cells = make_targets(module, batch, Objective(), generator())
        assert not (targets.gene_hidden & ~measured).any()
        assert targets.gene_hidden[:, 6:N, 1:].all()
        assert torch.equal(targets.gene_hidden | cells.gene_known, measured)
        assert not (targets.gene_hidden & cells.gene_known).any()

    @pytest.mark.parametrize("ratio", [0.0, 0.3, 0.8])
    def test_the_mean_share_is_that_of_the_objective_and_sets_differ(
        self, new_module, new_batch, ratio
    ):
        batch = new_batch(n_sets=500)
        targets, _ = make_targets(new_module(), batch, Objective("edm", 1000, ratio), generator())
        share = targets.gene_hidden.float().mean((1, 2))
        assert share.mean() == pytest.approx(ratio, abs=0.04)
        assert (share.std() > 0.1) == (ratio > 0)

    def test_next_to_hidden_cells_all_genes_are_known(self, module, new_batch):
        batch = new_batch(module.position_dim, position_known=N, expression_known=6)
        targets, cells = make_targets(module, batch, Objective(), generator())
        assert cells.gene_known[:, :6].all()
        assert targets.gene_hidden[:, 6:].all()

    def test_hiding_genes_keeps_the_values_of_the_others(self, module, new_batch):
        """Cells of equal counts have the same values and depth, whatever is hidden of them."""
        batch = new_batch(module.position_dim)
        batch = batch._replace(values=torch.full_like(batch.values, 3.0))
        targets, _ = make_targets(module, batch, Objective(), generator())
        plain, _ = make_targets(module, batch, PLAIN, generator())
        some_known = ~targets.gene_hidden.all(-1)
        torch.testing.assert_close(targets.depth[some_known], plain.depth[some_known])
        torch.testing.assert_close(targets.expression[some_known], plain.expression[some_known])

    def test_counts_of_hidden_genes_change_no_known_value(self, module, new_batch):
        """Size factors are those of the known genes."""
        batch = new_batch(module.position_dim)
        targets, cells = make_targets(
            module, batch, Objective(expression_noise=0.0, expression_shift=0.0), generator()
        )
        loud = batch._replace(values=batch.values + 50 * targets.gene_hidden)
        found, of_loud = make_targets(
            module, loud, Objective(expression_noise=0.0, expression_shift=0.0), generator()
        )
        known = cells.gene_known
        assert torch.equal(of_loud.gene_known, known)
        assert torch.equal(of_loud.expression[known], cells.expression[known])
        assert torch.equal(found.depth, targets.depth)

    def test_depth_is_that_of_the_counts_and_1_for_other_values(self, new_module, new_batch):
        batch = new_batch(expression_known=5)
        module = new_module()
        depth = make_targets(module, batch, PLAIN, generator())[0].depth
        expected = module.expression_transform.depth(batch.values, batch.measured)
        torch.testing.assert_close(depth, expected)
        lognorm = new_module(values="lognorm")
        assert (make_targets(lognorm, batch, PLAIN, generator())[0].depth == 1).all()


class TestNoise:
    def test_only_the_expression_of_cells_to_place_is_noisy(self, module, new_batch):
        """The target stays as it was measured; each set has its own strength of noise."""
        noisy = PLAIN.replace(expression_noise=0.4)
        d = module.position_dim
        to_place = new_batch(d, n_sets=200, position_known=3)
        targets, cells = make_targets(module, to_place, noisy, generator())
        plain, _ = make_targets(module, to_place, PLAIN, generator())
        assert torch.equal(targets.expression, plain.expression)
        strength = (cells.expression - targets.expression).std((1, 2))
        assert strength.mean() == pytest.approx(0.4, abs=0.05)
        assert strength.min() < 0.1 < 0.7 < strength.max() < 1
        one_placed = new_batch(d, position_known=3)
        one_placed.position_known[1] = True
        targets, cells = make_targets(module, one_placed, noisy, generator())
        assert not torch.isclose(cells.expression[0], targets.expression[0]).any()
        assert torch.equal(cells.expression[1], targets.expression[1])


@pytest.mark.parametrize(
    ("position_known", "expression_known", "placing", "free"),
    [(0, N, True, True), (5, N, True, False), (0, 5, False, False), (N, N, False, False)],
)
def test_sets_are_to_be_placed_where_all_expression_is_known(
    module, new_batch, position_known, expression_known, placing, free
):
    batch = new_batch(
        module.position_dim,
        padding=2,
        position_known=position_known,
        expression_known=expression_known,
    )
    batch = batch._replace(
        label=torch.ones_like(batch.label), batch=2 * torch.ones_like(batch.batch)
    )
    targets, cells = make_targets(module, batch, Objective(), generator())
    assert (targets.placing == placing).all()
    assert (targets.free == free).all()
    assert torch.equal(targets.position_hidden, batch.located & ~batch.position_known)
    assert torch.equal(cells.position_known, batch.position_known)
    assert torch.equal(cells.real, batch.real)
    assert torch.equal(cells.scope, batch.scope)
    assert torch.equal(cells.label, batch.label_condition())
    assert torch.equal(cells.batch, batch.batch)


def test_the_same_generator_gives_the_same_targets(module, new_batch):
    register(module, two_poses(module.position_dim))
    batch = new_batch(module.position_dim, n_sets=8, position_known=N, expression_known=0)
    first, again, other = (
        make_targets(module, batch, Objective(), generator(s)) for s in (1, 1, 2)
    )
    for a, b in zip(first[1], again[1], strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert not torch.equal(first[1].position, other[1].position)

    def test_cells_of_a_set_to_place_share_the_shift_of_their_genes(self, module, new_batch):
        shifted = PLAIN.replace(expression_shift=0.4)
        d = module.position_dim
        targets, cells = make_targets(
            module, new_batch(d, n_sets=200, position_known=3), shifted, generator()
        )
        difference = cells.expression - targets.expression  # (B, N, G)
        torch.testing.assert_close(difference, difference[:, :1].expand_as(difference))
        strength = difference[:, 0].std(-1)
        assert strength.mean() == pytest.approx(0.4, abs=0.1)
        placed = new_batch(d, position_known=3)
        placed.position_known[:] = True
        targets, cells = make_targets(module, placed, shifted, generator())
        assert torch.equal(cells.expression, targets.expression)
