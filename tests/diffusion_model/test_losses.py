"""Losses of training: which values count, in which frame, and on what scale."""

import pytest
import torch

from alphastomics.diffusion_model import Encoding, MaskedDiffusionModule
from alphastomics.diffusion_model.alignment import kabsch, random_orthogonal
from alphastomics.diffusion_model.batch import CellBatch
from alphastomics.diffusion_model.corruption import Objective, Targets, make_targets
from alphastomics.diffusion_model.losses import (
    Losses,
    expression_loss,
    scale_loss,
    training_losses,
    validation_error,
)

B, N, G = 2, 12, 7
PLAIN = Objective(expression_mask_ratio=0.0, expression_noise=0.0, expression_shift=0.0)
NAMES = [name for name in Losses._fields if name != "poses"]


def loss(module, batch, objective=PLAIN, seed=0):
    return training_losses(module, batch, objective, torch.Generator().manual_seed(seed))


def as_tensor(losses):
    return torch.stack([getattr(losses, name) for name in NAMES])


class Oracle(MaskedDiffusionModule):
    """Knows the tissue in its own frame; where there are known cells it turns it onto them."""

    def __init__(self, truth, **options):
        size = {"d_model": 4, "num_heads": 1, "num_layers": 0, "d_ff": 4}
        super().__init__(G, truth.shape[-1], **size, **options)
        self.truth = truth

    def forward(self, cells):
        known = cells.position_known.float()
        turn = kabsch(self.truth, cells.position.nan_to_num(), known)
        turn = torch.where(known.any(1)[:, None, None], turn, torch.eye(turn.shape[-1]))
        return Encoding(
            tokens=torch.zeros(*known.shape, 4),
            position=self.truth @ turn,
            arrangement=self.truth,
            log_scale=torch.zeros_like(known),
            expression=cells.expression,
        )


def tissue(centered_on=N, d=2):
    torch.manual_seed(0)
    position = torch.randn(B, N, d)
    return position - position[:, :centered_on].mean(1, keepdim=True)


def random_turns(d=2):
    return random_orthogonal((B, d), torch.Generator().manual_seed(1))


class TestFrames:
    @pytest.mark.parametrize("d", [2, 3])
    @pytest.mark.parametrize("known", [0, 5])
    def test_a_section_may_come_in_any_frame(self, new_batch, known, d):
        position = tissue(known or N, d)
        oracle = Oracle(position)
        moved = position @ random_turns(d) + 3
        batch = new_batch(d, position_known=known)._replace(position=moved)
        losses = loss(oracle, batch)
        assert losses.position < 1e-8
        assert losses.arrangement < 0.15

    def test_known_cells_fix_the_frame(self, new_batch):
        position = tissue(5)
        turned = torch.where(torch.arange(N)[:, None] < 5, position, position @ random_turns())
        batch = new_batch(position_known=5)._replace(position=turned)
        for frame in ("learned", "registered"):
            assert loss(Oracle(position, frame=frame), batch).position > 0.1

    def test_registered_sections_are_compared_as_they_are(self, new_batch):
        position = tissue()
        oracle = Oracle(position, frame="registered")
        batch = new_batch()._replace(position=position)
        assert loss(oracle, batch).position < 1e-8
        turned = batch._replace(position=position @ random_turns())
        assert loss(oracle, turned).position > 0.1

    def test_mirror_images_cost_nothing_only_where_allowed(self, new_batch):
        position = tissue()
        mirrored = position * torch.tensor([1.0, -1.0])
        batch = new_batch()._replace(position=mirrored)
        assert loss(Oracle(position), batch).position < 1e-8
        assert loss(Oracle(position, allow_reflection=False), batch).position > 0.1

    def test_the_poses_of_sections_are_those_in_the_frame_of_the_mean(self, new_batch):
        position = tissue()
        oracle = Oracle(position)
        oracle.position_transform.scale.fill_(2.0)
        oracle.poses.start(2)
        moved = 2 * position @ random_turns() + 3
        oracle.poses.update(loss(oracle, new_batch()._replace(position=moved)).poses)
        pose = oracle.poses.pose(torch.arange(2), allow_reflection=True)
        torch.testing.assert_close(pose.apply(moved / 2), position, atol=1e-4, rtol=0)

    def test_poses_are_measured_where_no_position_is_known(self, new_batch):
        oracle = Oracle(tissue())
        oracle.poses.start(2)
        free = new_batch()
        for batch in (
            new_batch(position_known=5),
            new_batch(expression_known=5),
            free._replace(section=torch.full((B,), -1)),
        ):
            assert not loss(oracle, batch).poses.any()
        one = free._replace(section=torch.tensor([1, -1]))
        assert loss(oracle, one).poses[:, 0].tolist() == [0, N]

    def test_a_network_has_the_same_losses_in_any_frame_of_known_pose(self, module, new_batch):
        d = module.position_dim
        batch = new_batch(d)

        def losses_of(batch):
            module.poses.start(2)
            encoded = module(make_targets(module, batch, PLAIN)[1]).position
            module.poses.update(
                module.poses.measure(batch.section, batch.position, encoded, torch.ones(B, N))
            )
            return as_tensor(loss(module, batch))

        before = losses_of(batch)
        turned = batch._replace(position=batch.position @ random_turns(d) + 5)
        torch.testing.assert_close(losses_of(turned), before, rtol=1e-3, atol=1e-4)


class TestWhatCounts:
    def test_hidden_positions_only(self, new_batch):
        """Cells 0-3 are known, 4-9 hidden, 10 and 11 not located."""
        module = MaskedDiffusionModule(G, 2, d_model=16, num_layers=1, d_ff=16).eval()
        batch = new_batch(position_known=4, located=10)
        before = loss(module, batch)

        def moved(cells):
            position = batch.position.clone()
            position[:, cells] += torch.tensor([1.0, -1.0])[:, None]  # the center stays
            return loss(module, batch._replace(position=position))

        for name in ("position", "position_diffusion"):
            for cells in ([0, 1], [10, 11]):
                torch.testing.assert_close(getattr(moved(cells), name), getattr(before, name))
            assert abs(getattr(moved([6, 7]), name) - getattr(before, name)) > 1e-3

    def test_hidden_and_measured_genes_only(self, new_batch):
        module = MaskedDiffusionModule(G, 2, values="lognorm", d_model=16, num_layers=1, d_ff=16)
        module.factors.encoder.copy_(torch.eye(G, module.factors.n_factors))
        batch = new_batch(expression_known=6, located=0)
        measured = torch.ones(B, N, G, dtype=torch.bool)
        measured[..., -1] = False
        batch = batch._replace(measured=measured)
        objective = Objective(expression_mask_ratio=0.5)
        targets, cells = make_targets(module, batch, objective, torch.Generator().manual_seed(0))
        before = loss(module, batch, objective)
        for counts, where in (
            (False, cells.gene_known),
            (False, ~measured),
            (True, targets.gene_hidden),
        ):
            changed = batch._replace(values=batch.values + where)
            after = loss(module, changed, objective).expression
            assert torch.isclose(after, before.expression) != counts
        loud = batch._replace(values=batch.values + 5.0 * targets.gene_hidden)
        assert loss(module, loud, objective).expression_diffusion > before.expression_diffusion

    @pytest.mark.parametrize("known", [0, 4])
    @pytest.mark.parametrize("garbage", [50.0, torch.nan])
    def test_positions_that_were_not_measured_change_nothing(
        self, module, new_batch, known, garbage
    ):
        batch = new_batch(
            module.position_dim, padding=3, position_known=known, expression_known=8, located=10
        )
        expected = as_tensor(loss(module, batch, Objective()))
        position = batch.position.masked_fill(~batch.located[..., None], garbage)
        changed = as_tensor(loss(module, batch._replace(position=position), Objective()))
        torch.testing.assert_close(changed, expected, rtol=0, atol=0)

    @pytest.mark.parametrize("expression_known", [8, N])
    def test_genes_that_were_not_measured_change_nothing(self, module, new_batch, expression_known):
        batch = new_batch(
            module.position_dim, padding=3, position_known=4, expression_known=expression_known
        )
        measured = batch.measured.clone()
        measured[:, :6, :2] = False
        batch = batch._replace(measured=measured)
        expected = as_tensor(loss(module, batch, Objective()))
        loud = batch._replace(values=batch.values.masked_fill(~measured, 1e4))
        changed = as_tensor(loss(module, loud, Objective()))
        torch.testing.assert_close(changed, expected, rtol=0, atol=0)

    def test_what_is_hidden_does_not_reach_the_estimates(self, module, new_batch):
        batch = new_batch(module.position_dim, position_known=4, expression_known=N)
        objective = Objective(expression_mask_ratio=0.5, expression_noise=0.0, expression_shift=0.0)
        targets, cells = make_targets(module, batch, objective, torch.Generator().manual_seed(0))
        loud = cells._replace(
            expression=cells.expression + 100.0 * targets.gene_hidden,
            position=cells.position + 100.0 * targets.position_hidden[..., None],
        )
        torch.testing.assert_close(module(loud).tokens, module(cells).tokens, rtol=0, atol=0)

    def test_a_batch_without_anything_hidden_has_no_loss(self, module, new_batch):
        losses = loss(module, new_batch(module.position_dim, position_known=N))
        values = losses._asdict()
        for name in ("position", "expression", "arrangement", "scale"):
            assert values[name] == 0
        assert losses.position_diffusion == 0
        assert losses.expression_diffusion == 0
        losses.total().backward()
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)

    def test_experts_are_balanced_in_padded_sets(self, new_module, new_batch):
        module = new_module(num_experts=4)
        losses = loss(module, new_batch(padding=3))
        assert losses.routing > 0
        assert 0 <= losses.least_used <= 1
        dense = loss(new_module(), new_batch())
        assert dense.routing == 0
        assert dense.least_used == 1


class TestValidation:
    def test_padding_and_rotations_change_nothing(self, module, new_batch):
        d = module.position_dim
        batch = new_batch(d, padding=3, located=11)
        error = validation_error(module, batch, PLAIN, places_cells=True)
        per_set = ("section", "scope", "cell_mask", "n_support")
        per_cell = [name for name in CellBatch._fields if name not in per_set]
        unpadded = {name: getattr(batch, name)[:, :N] for name in per_cell}
        unpadded = batch._replace(**unpadded, cell_mask=None)
        moved = batch._replace(position=batch.position @ random_turns(d) + 2)
        for same in (unpadded, moved):
            found = validation_error(module, same, PLAIN, places_cells=True)
            torch.testing.assert_close(found, error, rtol=1e-4, atol=1e-5)

    def test_all_cells_are_placed_whatever_is_known_of_the_set(self, module, new_batch):
        d = module.position_dim
        error = validation_error(module, new_batch(d), PLAIN, places_cells=True)
        partly = new_batch(d, position_known=5, expression_known=3)
        found = validation_error(module, partly, Objective(), places_cells=True)
        torch.testing.assert_close(found, error)

    def test_the_error_of_expression_is_that_of_hidden_cells(self, new_module, new_batch):
        module = new_module(frame="registered", values="lognorm")
        batch = new_batch(position_known=N, expression_known=5)
        error = validation_error(module, batch, Objective(), places_cells=False)
        torch.testing.assert_close(error, loss(module, batch).expression)
        louder = batch.values.clone()
        louder[:, 7] += 10
        found = validation_error(
            module, batch._replace(values=louder), Objective(), places_cells=False
        )
        assert found > error


def untrained_sets(n_sets=64, n=50, *, position_known, expression_known):
    """Sets of standardized lognorm values and positions of RMS radius 1."""
    generator = torch.Generator().manual_seed(0)
    zeros = torch.zeros(n_sets, n, dtype=torch.long)
    cell = torch.arange(n).expand(n_sets, n)
    everything = torch.ones(n_sets, n, dtype=torch.bool)
    return CellBatch(
        values=torch.randn(n_sets, n, G, generator=generator),
        measured=everything[..., None].expand(-1, -1, G),
        position=torch.randn(n_sets, n, 2, generator=generator) / 2**0.5,
        located=everything,
        position_known=cell < position_known,
        expression_known=cell < expression_known,
        label=zeros,
        batch=zeros,
        section=torch.zeros(n_sets, dtype=torch.long),
        scope=torch.zeros(n_sets, dtype=torch.long),
        cell_mask=None,
    )


class TestUntrainedNetwork:
    @pytest.fixture
    def untrained(self):
        torch.manual_seed(0)
        module = MaskedDiffusionModule(
            G, 2, values="lognorm", d_model=16, num_heads=2, num_layers=1, d_ff=32
        )
        module.factors.encoder.copy_(torch.eye(G, module.factors.n_factors))
        return module

    @pytest.mark.parametrize("schedule", ["edm", "cosine"])
    @pytest.mark.parametrize("position_known", [0, 25])
    def test_losses_of_positions_are_one(self, untrained, schedule, position_known):
        batch = untrained_sets(position_known=position_known, expression_known=50)
        losses = loss(untrained, batch, Objective(schedule=schedule))
        assert losses.position.item() == pytest.approx(1, abs=0.1)
        assert losses.position_diffusion.item() == pytest.approx(1, abs=0.1)
        assert losses.expression_diffusion == 0  # hidden genes of cells to place are not drawn
        if not position_known:
            assert losses.arrangement.item() == pytest.approx(1, abs=0.1)

    @pytest.mark.parametrize("schedule", ["edm", "cosine"])
    def test_losses_of_expression_are_one(self, untrained, schedule):
        batch = untrained_sets(position_known=50, expression_known=0)
        losses = loss(untrained, batch, Objective(schedule=schedule))
        assert losses.expression.item() == pytest.approx(1, abs=0.1)
        assert losses.expression_diffusion.item() == pytest.approx(1, abs=0.1)
        assert losses.position_diffusion == 0

    def test_sets_with_nothing_hidden_of_a_modality_count_as_zero(self, untrained):
        """A batch of which a quarter is to be placed has a quarter of the loss."""
        batch = untrained_sets(position_known=0, expression_known=50)
        known = (torch.arange(64) % 4 > 0)[:, None]
        quarter = loss(untrained, batch._replace(position_known=known.expand(64, 50)))
        assert quarter.position.item() == pytest.approx(0.25, abs=0.05)
        assert quarter.position_diffusion.item() == pytest.approx(0.25, abs=0.05)
        assert quarter.arrangement.item() == pytest.approx(0.25, abs=0.05)


def test_the_same_generator_gives_the_same_losses(module, new_batch):
    batch = new_batch(module.position_dim, position_known=3, expression_known=8)
    first, again, other = (as_tensor(loss(module, batch, Objective(), s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class TestGradients:
    def reached(self, module, value):
        value.backward()
        gradients = {name: p.grad for name, p in module.named_parameters()}
        return {name for name, grad in gradients.items() if grad is not None and grad.any()}

    def test_the_scale_of_errors_is_learned_without_changing_positions(self, module, new_batch):
        losses = loss(module, new_batch(module.position_dim))
        reached = self.reached(module, losses.scale)
        assert reached
        assert all(name.startswith("scale_head") for name in reached)

    def test_every_other_loss_reaches_the_transformer_and_its_own_head(self, module, new_batch):
        batch = new_batch(module.position_dim)
        hidden = new_batch(module.position_dim, position_known=N, expression_known=5)
        for name, batch_, own in (
            ("position", batch, "mean_head"),
            ("position_diffusion", batch, "position_head"),
            ("arrangement", batch, "arrangement_head"),
            ("expression", hidden, "expression_mean_head"),
            ("expression_diffusion", hidden, "expression_head"),
        ):
            module.zero_grad(set_to_none=True)
            reached = self.reached(module, getattr(loss(module, batch_), name))
            heads = {part.split(".")[0] for part in reached if "head" in part.split(".")[0]}
            assert heads == {own}
            assert any(part.startswith("transformer") for part in reached)

    def test_the_loss_of_the_scale_is_least_at_the_error_of_hidden_cells(self):
        torch.manual_seed(0)
        true, hidden = torch.randn(B, 500, 2), (torch.arange(500) < 400).expand(B, 500)
        found = true + torch.where(hidden[..., None], 0.3, 5.0) * torch.randn_like(true)

        def value(scale):
            log_scale = torch.full((B, 500), scale).log()
            nothing = torch.zeros(B, 500, 1)
            return scale_loss(Encoding(nothing, found, found, log_scale, nothing), true, hidden)

        assert value(0.3) < min(value(0.25), value(0.36))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_of_expression_is_summed_in_single_precision(dtype):
    """A sum of thousands of squares overflows half precision and is coarse in the other."""
    torch.manual_seed(0)
    expression, nothing = 3 * torch.randn(2, 256, 80), torch.zeros(2, 256, 2)
    encoding = Encoding(nothing, nothing, nothing, nothing[..., 0], 0 * expression)
    everything, no_set = torch.ones(2, 256, 80).bool(), torch.zeros(2).bool()
    known = torch.ones(2, 256).bool()
    targets = Targets(expression, nothing, everything, known, known.float(), no_set, no_set)
    with torch.autocast("cpu", dtype):
        found = expression_loss(encoding, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expression.square().mean())
