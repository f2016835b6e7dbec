"""Options of `train` and `calibrate`: one error that names the option, before any work."""

import copy
import pickle

import lightning.pytorch as L
import numpy as np
import pytest
import torch

import alphastomics as al
from alphastomics.config import ConfigError, load_config
from alphastomics.model import _training

SMALL = {"d_model": 16, "num_layers": 1, "d_ff": 16, "num_heads": 2}
FEW = {"set_size": 32, "batch_size": 2, "progress_bar": False}
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def untrained(small_tissue):
    atlas = small_tissue[small_tissue.obs["section"] != "section_2"].copy()
    al.AlphaSTomics.setup_anndata(atlas)
    return al.AlphaSTomics(atlas, **SMALL)


@pytest.fixture
def no_work(monkeypatch):
    """Fail if anything is fitted."""

    def work(*args, **kwargs):
        raise AssertionError("work was begun")

    monkeypatch.setattr(_training, "fit_statistics", work)


BAD = [
    pytest.param({"lr": NAN}, ValueError, "lr must be a finite number, found nan", id="A481"),
    pytest.param({"lr": -1.0}, ValueError, "lr must be at least 0, found -1", id="A482"),
    pytest.param({"lr": "1e-3"}, ValueError, "lr must be a valid number, found '1e-3'", id="A483"),
    pytest.param({"lr": INF}, ValueError, "lr must be a finite number, found inf", id="D034"),
    pytest.param({"weight_decay": -1.0}, ValueError, "weight_decay must be at least 0", id="A484"),
    pytest.param({"max_steps": 2.5}, ValueError, "max_steps must be a valid integer", id="A485"),
    pytest.param({"max_steps": 0}, ValueError, "max_steps must be at least 1, found 0", id="A304"),
    pytest.param({"max_steps": -5}, ValueError, "max_steps must be at least 1", id="A305"),
    pytest.param({"max_epochs": "2"}, ValueError, "max_epochs must be a valid integer", id="A486"),
    pytest.param({"batch_size": 2.5}, ValueError, "batch_size must be a valid integer", id="A487"),
    pytest.param({"devices": 0}, ValueError, "devices must be .*, found 0", id="A490"),
    pytest.param({"devices": []}, ValueError, "devices must be .*, found \\[\\]", id="A490-list"),
    pytest.param({"devices": "two"}, ValueError, "devices must be .*, found 'two'", id="A490-text"),
    pytest.param({"devices": 1.5}, ValueError, "devices must be .*, found 1.5", id="A490-half"),
    pytest.param({"accelerator": "cpuu"}, ValueError, "accelerator must be one of", id="A492"),
    pytest.param({"batchsize": 4}, TypeError, "'batchsize'. Did you mean batch_size", id="A494"),
    pytest.param({"num_workers": -1}, ValueError, "num_workers must be at least 0", id="A495"),
    pytest.param({"accumulate_grad_batches": 0}, ValueError, "accumulate_grad_batches", id="zero"),
    pytest.param({"callbacks": 3}, TypeError, "callbacks must be callbacks of", id="callbacks"),
    pytest.param({"enable_checkpointing": True}, ValueError, "is not used", id="checkpointing"),
    pytest.param({"enable_progress_bar": True}, ValueError, "pass progress_bar=", id="other-name"),
]
if not torch.cuda.is_available():
    gpu = "accelerator='gpu'.*accelerator='auto'"
    BAD.append(pytest.param({"accelerator": "gpu"}, ValueError, gpu, id="A491"))


@pytest.mark.parametrize(("options", "error", "message"), BAD)
@pytest.mark.usefixtures("no_work")
def test_a_bad_option_is_named_before_any_work(untrained, small_model, options, error, message):
    for call in (untrained.train, small_model.calibrate):
        with pytest.raises(error, match=message):
            call(**{**FEW, **options})
    assert not untrained.is_trained


def test_a_callback_needs_no_list(fit, atlas):
    callback = L.Callback()
    callback.on_train_end = lambda *args: seen.append(1)
    seen = []
    for callbacks in (callback, (callback,), None):
        fit(atlas, steps=1, train={"callbacks": callbacks})
    assert seen == [1, 1]


@pytest.mark.usefixtures("no_work")
def test_calibrate_refuses_options_that_are_not_its_own(small_model):  # A303
    with pytest.raises(TypeError, match=r"no option 'batchsize'. Did you mean batch_size"):
        small_model.calibrate(batchsize=4)
    for name in ("val_sections", "ckpt_path", "checkpoint_dir"):
        with pytest.raises(TypeError, match=f"no option '{name}'"):
            small_model.calibrate(**{name: "section_0"})


def test_the_config_refuses_infinite_numbers(tmp_path):  # D034
    (tmp_path / "t.yaml").write_text("training: {learning_rate: .inf}")
    with pytest.raises(ConfigError, match=r"learning_rate: must be a finite number, found inf"):
        load_config(tmp_path / "t.yaml")


@pytest.mark.parametrize("lr", [1e6, 1e25])
def test_divergence_says_what_when_and_what_to_change(fit, atlas, lr):
    model = fit(atlas, steps=1)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    with pytest.raises(
        FloatingPointError, match=r"training diverged: the .* in step \d+ of 40"
    ) as e:
        model.train(max_steps=40, lr=lr, **FEW)
    assert f"lr={lr:g}" in str(e.value)
    assert "lower learning rate" in str(e.value)
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.filterwarnings("error:.*Mismatch dtype.*:UserWarning")
def test_mixed_precision_on_the_cpu_warns_of_nothing(fit, atlas):  # A499
    model = fit(atlas, steps=1, train={"precision": "bf16-mixed", "accelerator": "cpu"})
    assert torch.isfinite(model.module.mean_head.weight).all()


def placed(model, cells):
    cells = cells.copy()
    model.predict(cells, mode="expr_to_pos", progress_bar=False)
    return cells.obsm["spatial_predicted"]


def test_float64_by_default_changes_nothing(fit, atlas, cells):  # A460
    expected = placed(fit(atlas.copy(), steps=2), cells)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(placed(fit(atlas.copy(), steps=2), cells), expected)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_another_default_device_changes_nothing(fit, atlas, small_model, cells):  # A463
    expected = placed(small_model, cells)
    torch.set_default_device("meta")
    try:
        np.testing.assert_array_equal(placed(small_model, cells), expected)
        fit(atlas, steps=1)
    finally:
        torch.set_default_device("cpu")


def test_an_outer_autocast_changes_nothing(small_model, cells):  # A465
    expected = placed(small_model, cells)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(placed(small_model, cells), expected)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.filterwarnings("error:.*treespec.*")
def test_a_trained_model_is_copied_and_pickled(fit, atlas, cells, twin):  # A223
    model = fit(atlas, steps=1)
    again = twin(model)
    np.testing.assert_array_equal(placed(again, cells), placed(model, cells))
    again.train(max_steps=1, **FEW)
    assert again.training_record.steps == 2
    assert model.training_record.steps == 1


def test_labels_change_no_placement(fit, atlas, cells):  # B071
    architecture = {"training_mode": "expr_to_pos"}
    with_labels = fit(atlas.copy(), architecture=architecture, labels_key="cell_type")
    without = fit(atlas.copy(), architecture=architecture)
    np.testing.assert_array_equal(placed(with_labels, cells), placed(without, cells))


def test_labels_change_no_other_initial_weight(atlas):  # B071
    states = []
    for options in ({}, {"labels_key": "cell_type"}, {"batch_key": "section"}):
        al.AlphaSTomics.setup_anndata(atlas, **options)
        states.append(al.AlphaSTomics(atlas, **SMALL).module.state_dict())
    for state in states[1:]:
        for name, tensor in states[0].items():
            if name not in ("label.weight", "batch.weight"):
                assert torch.equal(tensor, state[name]), name


def test_a_model_needs_data_that_were_set_up(atlas, tmp_path):
    with pytest.raises(TypeError, match=r"adata must be an AnnData .* found None; .*load\("):
        al.AlphaSTomics()  # A520
    with pytest.raises(TypeError, match=r"adata must be an AnnData .* found 'path'"):
        al.AlphaSTomics("path")  # A523
    with pytest.raises(ValueError, match=r"not set up: call AlphaSTomics.setup_anndata\(adata"):
        al.AlphaSTomics(atlas)
    al.AlphaSTomics.setup_anndata(atlas)
    atlas.write_h5ad(tmp_path / "atlas.h5ad")
    import anndata as ad

    for copied in (atlas.copy(), ad.read_h5ad(tmp_path / "atlas.h5ad")):  # A522, A215
        with pytest.raises(ValueError, match="again for a copy or after reading it from a file"):
            al.AlphaSTomics(copied)
        al.AlphaSTomics.setup_anndata(copied)
        al.AlphaSTomics(copied, **SMALL)
