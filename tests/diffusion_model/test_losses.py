"""What training asks for."""

import pytest
import torch

from alphastomics.diffusion_model import MaskedDiffusionModule
from alphastomics.diffusion_model.geometry import kabsch, random_orthogonal
from alphastomics.diffusion_model.interface import Denoised
from alphastomics.diffusion_model.levels import KNOWN
from alphastomics.diffusion_model.losses import denoising_loss, placement_error
from alphastomics.diffusion_model.sets import CellSets
from alphastomics.diffusion_model.targets import Objective, make_targets

B, N, G = 2, 12, 7
PLAIN = Objective(expression_mask_ratio=0.0, expression_noise=0.0)


def some_sets(module, *, seed=0, padding=0, position_known=0, expression_known=N, located=N):
    """Sets whose first cells have a known position, a known expression, a position at all."""
    generator = torch.Generator().manual_seed(seed)
    n = N + padding
    values = torch.poisson(torch.rand(B, n, G, generator=generator) * 5, generator=generator)
    position = torch.randn(B, n, module.position_dim, generator=generator)
    cell = torch.arange(n).expand(B, n)
    mask = cell < N
    return CellSets(
        values=values,
        measured=mask[..., None].expand_as(values),
        position=position,
        located=cell < located,
        position_known=cell < position_known,
        expression_known=cell < expression_known,
        label=torch.zeros(B, n, dtype=torch.long),
        batch=torch.zeros(B, n, dtype=torch.long),
        scope=torch.zeros(B, dtype=torch.long),
        cell_mask=mask if padding else None,
    )


def loss(module, sets, objective=PLAIN, seed=0):
    return denoising_loss(module, sets, objective, torch.Generator().manual_seed(seed))


class Oracle(MaskedDiffusionModule):
    """Knows the tissue; turns it as the known cells, if there are any, say."""

    def __init__(self, truth):
        super().__init__(G, truth.shape[-1], d_model=4, num_heads=1, num_layers=0, d_ff=4)
        self.truth = truth

    def forward(self, cells, context=None):
        known = (cells.position_level == KNOWN).float()
        truth = self.truth[: len(known)]
        turn = kabsch(truth, cells.position.nan_to_num(), known)
        turn = torch.where(known.any(1)[:, None, None], turn, torch.eye(truth.shape[-1]))
        other = dict.fromkeys(
            ("log_scale", "tokens", "embedded"), torch.zeros_like(cells.position[..., 0])
        )
        answer = {"position": truth @ turn, "expression": cells.expression}
        return Denoised(**{**other, "arrangement": truth, **answer})


def centred(position, on):
    return position - position[:, :on].mean(1, keepdim=True)


class TestFrames:
    @pytest.mark.parametrize("frame", ["learned", "invariant"])
    @pytest.mark.parametrize("known", [0, 5])
    def test_a_section_may_come_in_any_frame(self, frame, known):
        position = centred(torch.randn(B, N, 2), known or N)
        oracle = Oracle(position)
        turn = random_orthogonal((B, 2), torch.Generator().manual_seed(1))
        sets = some_sets(oracle, position_known=known)._replace(position=position @ turn + 3)
        losses = loss(oracle, sets, Objective(frame=frame))
        assert losses.position < 1e-8
        assert losses.noisy_position < 1e-6

    @pytest.mark.parametrize("frame", ["learned", "invariant", "registered"])
    def test_with_known_cells_their_frame_is_asked_for(self, frame):
        position = centred(torch.randn(B, N, 2), 5)
        oracle = Oracle(position)
        turn = random_orthogonal((B, 2), torch.Generator().manual_seed(1))
        turned = torch.where(torch.arange(N)[:, None] < 5, position, position @ turn)
        sets = some_sets(oracle, position_known=5)._replace(position=turned)
        assert loss(oracle, sets, Objective(frame=frame)).position > 0.1

    def test_registered_sections_are_taken_as_they_are(self):
        position = centred(torch.randn(B, N, 2), N)
        oracle = Oracle(position)
        sets = some_sets(oracle)._replace(position=position)
        turn = random_orthogonal((B, 2), torch.Generator().manual_seed(1))
        objective = Objective(frame="registered")
        assert loss(oracle, sets, objective).position < 1e-8
        turned = sets._replace(position=position @ turn)
        assert loss(oracle, turned, objective).position > 0.1

    def test_mirror_images_count_only_where_allowed(self):
        position = centred(torch.randn(B, N, 2), N)
        oracle = Oracle(position)
        mirrored = position * torch.tensor([1.0, -1.0])
        sets = some_sets(oracle)._replace(position=mirrored)
        assert loss(oracle, sets, Objective()).position < 1e-8
        assert loss(oracle, sets, Objective(allow_reflection=False)).position > 0.1

    def test_a_network_gives_the_same_loss_in_any_frame(self, module):
        sets, before = some_sets(module), torch.stack(loss(module, some_sets(module)))
        registered = Objective(expression_mask_ratio=0.0, expression_noise=0.0, frame="registered")
        changes = []
        for seed in range(3):
            turn = random_orthogonal((B, module.position_dim), torch.Generator().manual_seed(seed))
            moved = sets._replace(position=sets.position @ turn + 5)
            after = torch.stack(loss(module, moved))
            torch.testing.assert_close(after, before, rtol=5e-5, atol=1e-5)
            unturned, turned = (loss(module, s, registered).position for s in (sets, moved))
            changes.append(abs(turned / unturned - 1))
        assert max(changes) > 2e-4


def zero_heads(module):
    for head in (module.position_head, module.expression_head):
        torch.nn.init.zeros_(head.weight)
    return module


class TestWhatIsAskedFor:
    def test_hidden_positions_only(self, module):
        """Cells 0-3 are known, 4-9 hidden, 10 and 11 not located."""
        sets = some_sets(zero_heads(module), position_known=4, located=10)
        before = loss(module, sets)

        def moved(cells):
            position = sets.position.clone()
            position[:, cells] += torch.tensor([1.0, -1.0])[:, None]  # the centre stays
            return loss(module, sets._replace(position=position))

        torch.testing.assert_close(moved([10, 11]).position, before.position)
        assert abs(moved([6, 7]).position - before.position) > 1e-3
        assert abs(moved([6, 7]).noisy_position - before.noisy_position) > 1e-3

    def test_hidden_and_measured_genes_only(self):
        module = MaskedDiffusionModule(G, 2, values="lognorm", d_model=16, num_layers=1, d_ff=16)
        sets = some_sets(module, expression_known=6, located=0)
        measured = torch.ones(B, N, G, dtype=torch.bool)
        measured[..., 0] = False
        sets = sets._replace(measured=measured)
        objective = Objective(expression_mask_ratio=0.5)
        generator = torch.Generator().manual_seed(0)
        targets = make_targets(module, sets, objective, generator)
        assert not targets.gene_hidden[..., 0].any()
        assert targets.gene_hidden[:, 6:, 1:].all()
        assert not (targets.gene_hidden & targets.gene_visible).any()
        before = loss(module, sets, objective).expression
        for asked, where in (
            (False, targets.gene_visible),
            (False, ~measured),
            (True, targets.gene_hidden),
        ):
            changed = sets._replace(values=sets.values + where)
            after = loss(module, changed, objective).expression
            assert torch.isclose(after, before) != asked

    @pytest.mark.parametrize("known", [0, 4])
    @pytest.mark.parametrize("garbage", [50.0, torch.nan])
    def test_what_was_not_measured_changes_nothing(self, module, known, garbage):
        sets = some_sets(module, padding=3, position_known=known, expression_known=8, located=10)
        expected = torch.stack(loss(module, sets, Objective()))
        position = sets.position.masked_fill(~sets.located[..., None], garbage)
        changed = torch.stack(loss(module, sets._replace(position=position), Objective()))
        torch.testing.assert_close(changed, expected, rtol=0, atol=0)

    def test_values_of_unmeasured_genes_change_nothing(self, module):
        sets = some_sets(module, padding=3, position_known=4, expression_known=8)
        measured = sets.measured.clone()
        measured[:, :6, :2] = False
        sets = sets._replace(measured=measured)
        expected = torch.stack(loss(module, sets, Objective()))
        loud = sets._replace(values=sets.values.masked_fill(~measured, 1e4))
        changed = torch.stack(loss(module, loud, Objective()))
        torch.testing.assert_close(changed, expected, rtol=0, atol=0)

    def test_padding_changes_no_placement_error(self, module):
        sets = some_sets(module, padding=3, located=11)
        error = placement_error(module, sets, PLAIN)
        unpadded = sets._replace(
            **{
                name: getattr(sets, name)[:, :N]
                for name in CellSets._fields
                if name not in ("scope", "cell_mask", "n_bank")
            },
            cell_mask=None,
        )
        torch.testing.assert_close(placement_error(module, unpadded, PLAIN), error)
        moved = sets._replace(position=sets.position @ random_orthogonal((B, module.position_dim)))
        torch.testing.assert_close(
            placement_error(module, moved, PLAIN), error, rtol=1e-4, atol=1e-5
        )

    def test_validation_asks_for_placement_whatever_the_set_shows(self, module):
        error = placement_error(module, some_sets(module), PLAIN)
        shown = some_sets(module, position_known=5, expression_known=3)
        torch.testing.assert_close(placement_error(module, shown, Objective()), error)

    def test_labels_are_told_only_where_expression_is_unknown(self, module):
        sets = some_sets(module, expression_known=7)
        label = sets._replace(label=torch.ones(B, N, dtype=torch.long)).context().label
        assert (label[:, :7] == 0).all()
        assert (label[:, 7:] == 1).all()


@pytest.mark.parametrize("schedule", ["edm", "cosine"])
@pytest.mark.parametrize("position_known", [0, 25])
def test_loss_of_an_untrained_network_is_one_at_every_level(schedule, position_known):
    torch.manual_seed(0)
    module = MaskedDiffusionModule(
        G, 2, values="lognorm", d_model=16, num_heads=2, num_layers=1, d_ff=32
    )
    generator = torch.Generator().manual_seed(0)
    n_sets, n = 64, 50
    sets = CellSets(
        values=torch.randn(n_sets, n, G, generator=generator),
        measured=torch.ones(n_sets, n, G, dtype=torch.bool),
        position=torch.randn(n_sets, n, 2, generator=generator) * module.sigma_data,
        located=torch.ones(n_sets, n, dtype=torch.bool),
        position_known=(torch.arange(n) < position_known).expand(n_sets, n),
        expression_known=torch.zeros(n_sets, n, dtype=torch.bool),
        label=torch.zeros(n_sets, n, dtype=torch.long),
        batch=torch.zeros(n_sets, n, dtype=torch.long),
        scope=torch.zeros(n_sets, dtype=torch.long),
        cell_mask=None,
    )
    losses = denoising_loss(module, sets, Objective(schedule=schedule), generator)
    # Where some positions are known, the first guess is a mean of a few of them: error 1 + 1 / few.
    for value in losses[:4]:
        assert value.item() == pytest.approx(1, abs=0.2 if position_known else 0.1)


def test_same_generator_same_loss(module):
    sets = some_sets(module, position_known=3, expression_known=8)
    losses = [loss(module, sets, Objective(), seed) for seed in (3, 3, 4)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_the_error_scale_is_learned_beside_the_positions(module):
    """It has the best likelihood at the true error, and its gradient reaches only its head."""
    losses = loss(module, some_sets(module))
    losses.scale.backward()
    reached = {name for name, p in module.named_parameters() if p.grad is not None}
    reached = {name for name in reached if module.get_parameter(name).grad.abs().sum() > 0}
    assert reached
    assert all(name.startswith("scale_head") for name in reached)
