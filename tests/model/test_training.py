import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import alphastomics as al
from alphastomics.diffusion_model.masking import Pattern
from alphastomics.model._data import SetupArgs, read_training
from alphastomics.model._datamodule import SectionSets, SetOptions, cell_batch, collate
from alphastomics.model._plan import learning_rate_share

TINY = {"d_model": 16, "num_heads": 2, "num_layers": 1, "d_ff": 16}
SETUP = SetupArgs(None, "counts", "spatial", "section", None)


def tiny_model(tissue, **options):
    atlas = tissue.copy()
    al.AlphaSTomics.setup_anndata(atlas)
    return al.AlphaSTomics(atlas, **TINY, **options)


def test_max_epochs_and_max_steps(tissue):
    model = tiny_model(tissue)
    model.train(max_epochs=2, set_size=16, sets_per_section=4, batch_size=4, progress_bar=False)
    assert model.training_record.steps == 2 * 3
    assert model.training_record.epochs == 2
    model = tiny_model(tissue)
    model.train(2, 4, set_size=16, sets_per_section=4, batch_size=4, progress_bar=False)
    assert model.training_record.steps == 4


def test_validation_sections_are_not_trained_on(tissue):
    model = tiny_model(tissue)
    model.train(2, val_sections="section_1", set_size=16, sets_per_section=4, progress_bar=False)
    assert model.training_record.train_sections == ["section_0", "section_2"]
    assert len(model.history["validation_loss"]) == 2
    training = (tissue.obs["section"] != "section_1").to_numpy()
    share = np.asarray(tissue.X[training].sum(0)).ravel()
    np.testing.assert_allclose(
        model.module.expression_transform.share, share / share.sum(), rtol=1e-5
    )


def test_training_goes_on(tissue):
    model = tiny_model(tissue)
    options = {"max_steps": 3, "batch_size": 4, "set_size": 16, "sets_per_section": 4}
    options["progress_bar"] = False
    model.train(**options)
    scale = model.module.position_transform.scale.clone()
    weights = model.module.mean_head.weight.clone()
    model.train(**options)
    assert model.training_record.steps == 6
    assert len(model.history["train_loss"]) == 2
    assert torch.equal(scale, model.module.position_transform.scale)
    assert not torch.equal(weights, model.module.mean_head.weight)
    assert not model.module.training


def test_training_leaves_the_users_random_state_and_data_alone(tissue):
    atlas = tissue.copy()
    al.AlphaSTomics.setup_anndata(atlas)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    al.AlphaSTomics(atlas, **TINY).train(max_steps=1, set_size=16, progress_bar=False)
    assert torch.rand(1) == expected
    assert (atlas.X != tissue.X).nnz == 0
    assert list(atlas.obs) == list(tissue.obs)
    np.testing.assert_array_equal(atlas.obsm["spatial"], tissue.obsm["spatial"])


def test_sets_hold_cells_with_positions(tissue):
    atlas = tissue.copy()
    atlas.obsm["spatial"][5:300] = np.nan
    data = read_training(atlas, SETUP)
    sets = SectionSets(data, ["section_0"], SetOptions("joint", 0.33, 20, 40, seed=0))
    for i in range(40):
        one = sets[i]
        assert len(one.values) == 20 or one.located.all()  # a window holds located cells only
        assert one.located.sum() >= 3
        assert not (one.position_known & ~one.located).any()
        assert torch.isfinite(one.position).all()


def test_a_failed_training_leaves_the_model_as_it_was(tissue):
    model = tiny_model(tissue)
    options = {"set_size": 16, "progress_bar": False}
    model.train(max_steps=3, **options)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}

    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 2:
                raise RuntimeError("broken")

    callbacks = [Stop()]
    with pytest.raises(RuntimeError, match="broken"):
        model.train(max_steps=5, callbacks=callbacks, **options)
    assert len(callbacks) == 1
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not model.module.training
    with pytest.raises(TypeError):
        model.train(max_steps=5, learning_rate=3, **options)
    assert not model.module.training
    assert model.training_record.steps == 3


def test_weights_are_the_moving_average(tissue):
    raw = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, plan, *args):
            raw.append(plan.module.mean_head.weight.detach().clone())

    model = tiny_model(tissue)
    model.train(max_steps=3, set_size=16, callbacks=[Keep()], progress_bar=False)
    # decay (1 + n) / (10 + n) after the first, which is taken as it is
    average = raw[0]
    for n, new in enumerate(raw[1:], start=1):
        average = average + (new - average) * (1 - (1 + n) / (10 + n))
    torch.testing.assert_close(model.module.mean_head.weight, average)


def test_accumulated_batches_count_as_one_step(tissue):
    model = tiny_model(tissue)
    model.train(
        max_steps=6,
        set_size=16,
        batch_size=1,
        sets_per_section=4,
        accumulate_grad_batches=2,
        progress_bar=False,
    )
    assert model.training_record.steps == 6


def test_validation_on_sections_seen_before_is_refused(tissue):
    model = tiny_model(tissue)
    options = {"max_steps": 1, "set_size": 16, "progress_bar": False}
    model.train(val_sections=["section_1"], **options)
    with pytest.raises(ValueError, match=r"\['section_0'\], on which the model was trained"):
        model.train(val_sections="section_0", **options)
    model.train(**options)
    assert model.training_record.train_sections == ["section_0", "section_1", "section_2"]


def test_sections_may_be_numbers(tissue):
    atlas = tissue.copy()
    atlas.obs["section"] = atlas.obs["section"].cat.codes.to_numpy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, **TINY)
    options = {"set_size": 16, "sets_per_section": 4, "progress_bar": False}
    model.train(1, val_sections=[0, 1], **options)
    assert model.training_record.train_sections == ["2"]
    assert "validation_loss" in model.history


def test_bf16_trains_and_a_lossy_precision_is_refused(tissue):
    model = tiny_model(tissue, allow_reflection=False)
    model.train(max_steps=2, set_size=16, precision="bf16-mixed", progress_bar=False)
    cells = tissue.copy()
    model.predict(cells, mode="expr_to_pos", progress_bar=False)
    assert np.isfinite(cells.obsm["spatial_predicted"]).all()
    with pytest.raises(ValueError, match="precision must be one of '32-true', 'bf16-mixed'"):
        model.train(precision="bf16-true")


@pytest.mark.parametrize("option", [{"activation_checkpointing": True}, {"num_workers": 2}])
def test_options_of_speed_and_memory_leave_the_weights_as_they_are(tissue, option):
    plain, other = tiny_model(tissue), tiny_model(tissue)
    for model, options in ((plain, {}), (other, option)):
        model.train(max_steps=3, set_size=32, batch_size=2, progress_bar=False, **options)
    weights = other.module.state_dict()
    for name, value in plain.module.state_dict().items():
        torch.testing.assert_close(value, weights[name], atol=1e-6, rtol=0)


def test_training_goes_through_the_compiler_when_asked_to(tissue, monkeypatch):
    model = tiny_model(tissue)
    asked = []
    monkeypatch.setattr(
        type(model.module.transformer), "compile", lambda self, **_: asked.append(1)
    )
    model.train(max_steps=1, set_size=16, progress_bar=False)
    assert not asked
    model.train(max_steps=1, set_size=16, compile=True, progress_bar=False)
    assert asked


def test_sets_are_of_one_section_and_the_same_for_the_same_seed_and_epoch(tissue):
    data = read_training(tissue, SETUP)
    sections = ["section_0", "section_2"]
    options = SetOptions("joint", 0.33, 50, 3, seed=1)
    sets = SectionSets(data, sections, options)
    assert len(sets) == 6
    same = SectionSets(data, sections, options)[4]
    assert torch.equal(sets[4].values, same.values)
    sets.epoch = 1
    assert not torch.equal(sets[4].values, same.values)
    rows = {tuple(row) for row in data.expression[data.cells_of("section_0")].toarray()}
    assert all(tuple(row) in rows for row in sets[4].values.numpy())


def test_collate_pads_and_masks(tissue):
    data = read_training(tissue, SETUP)

    def first(n):
        return cell_batch(data, np.arange(n), Pattern(np.arange(n) < 2, np.arange(n) > 0))

    batch = collate([first(5), first(8)])
    assert batch.values.shape == (2, 8, tissue.n_vars)
    assert batch.cell_mask.sum(1).tolist() == [5, 8]
    for field in (batch.located, batch.measured, batch.position_known, batch.expression_known):
        assert not field[0, 5:].any()
    assert batch.position_known.sum(1).tolist() == [2, 2]
    assert collate([first(5)] * 2).cell_mask is None


def test_learning_rate_rises_then_falls():
    shares = [learning_rate_share(step, 1000) for step in range(1001)]
    assert np.argmax(shares) == pytest.approx(49, abs=2)
    assert shares[-1] == pytest.approx(0.05)


def test_repr_tells_what_it_was_trained_on(trained):
    model, _ = trained
    text = repr(model)
    assert "trained 160 steps on 600 cells of 2 sections (section_0, section_1)" in text
    assert "40 genes (counts), 2D" in text


def test_a_model_trained_further_on_other_sections_draws(tissue):
    tissue = tissue.copy()
    al.AlphaSTomics.setup_anndata(tissue)
    model = al.AlphaSTomics(tissue, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    options = {"max_steps": 2, "batch_size": 2, "set_size": 64, "progress_bar": False}
    model.train(val_sections="section_0", **options)
    model.train(**options)
    n_sections = tissue.obs["section"].nunique()
    assert len(model.module.poses) == n_sections
    assert sorted(model.module.support.section.unique().tolist()) == list(range(n_sections))
    cells = tissue[:50].copy()
    model.sample(cells, mode="expr_to_pos", n_steps=2, progress_bar=False)
    assert np.isfinite(cells.obsm["spatial_sampled"]).all()
