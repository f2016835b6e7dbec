"""Training that was interrupted goes on as if it had not been."""

import signal
from concurrent.futures import ThreadPoolExecutor

import lightning.pytorch as pl
import pytest
import torch

import alphastomics as al
from alphastomics.model._checkpoint import read_checkpoint

SMALL = {"d_model": 16, "num_heads": 2, "num_layers": 1, "d_ff": 16}
# Three batches an epoch, the last one short.
TRAIN = {"max_steps": 7, "batch_size": 4, "set_size": 32, "sets_per_section": 5}


class StopAfter(pl.Callback):
    """Stops as Ctrl-C would."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Ctrl-C as in a terminal; a job in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def new_model(tissue, training_mode="joint"):
    atlas = tissue.copy()
    al.AlphaSTomics.setup_anndata(atlas, labels_key="cell_type")
    return al.AlphaSTomics(atlas, training_mode=training_mode, seed=3, **SMALL)


def train(model, folder, *callbacks, **options):
    options = {**TRAIN, **options}
    model.train(
        callbacks=list(callbacks),
        checkpoint_dir=folder,
        val_sections=["section_2"],
        progress_bar=False,
        **options,
    )


@pytest.fixture(scope="module")
def uninterrupted(tissue, tmp_path_factory):
    model = new_model(tissue)
    train(model, tmp_path_factory.mktemp("whole"))
    return model


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_resumed_equals_uninterrupted(tissue, uninterrupted, tmp_path, step):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(new_model(tissue), tmp_path, StopAfter(step))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = new_model(tissue)
    train(resumed, tmp_path, ckpt_path=tmp_path / "last.ckpt")
    expected = uninterrupted.module.state_dict()
    state = resumed.module.state_dict()
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    assert resumed.training_record == uninterrupted.training_record
    assert list(resumed.history["train_loss"].index) == [0, 1, 2]
    assert resumed.trainer.max_epochs <= 5  # what the progress bar counts to


def test_checkpoint_is_a_model(tissue, uninterrupted, tmp_path):
    model = new_model(tissue)
    train(model, tmp_path)
    state, payload = read_checkpoint(tmp_path / "last.ckpt")
    assert payload["training"]["steps"] == 7
    loaded = al.AlphaSTomics.load(tmp_path / "last.ckpt")
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[name], tensor), name
        assert torch.equal(state[name], tensor), name
    cells = tissue[tissue.obs["section"] == "section_2"].copy()
    again = cells.copy()
    model.predict(cells, mode="expr_to_pos", progress_bar=False)
    loaded.predict(again, mode="expr_to_pos", progress_bar=False)
    assert (cells.obsm["spatial_predicted"] == again.obsm["spatial_predicted"]).all()


def test_best_has_the_lowest_validation_loss(tissue, tmp_path):
    model = new_model(tissue)
    train(model, tmp_path)
    loss = model.history["validation_loss"]["validation_loss"]
    _, payload = read_checkpoint(tmp_path / "best.ckpt")
    assert payload["training"]["steps"] == [3, 6, 7][int(loss.to_numpy().argmin())]


def test_bad_checkpoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint '.*missing.ckpt'"):
        al.AlphaSTomics.load(tmp_path / "missing.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"bad\.ckpt is not a checkpoint that alphastomics wrote"):
        al.AlphaSTomics.load(tmp_path / "bad.ckpt")


def test_a_checkpoint_of_a_newer_version_says_so(tmp_path):
    path = tmp_path / "newer.ckpt"
    payload = '{"format_version": 99}'
    torch.save({"alphastomics": {"model": payload}, "state_dict": {}}, path)
    with pytest.raises(ValueError, match=r"format 99.*upgrade alphastomics"):
        al.AlphaSTomics.load(path)


def test_training_in_a_thread_leaves_ctrl_c_alone(tissue, tmp_path):
    """Only the main thread may set what Ctrl-C does."""
    model = new_model(tissue)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(train, model, tmp_path).result()
    assert model.training_record.steps == 7


class SaveAfterEpoch(pl.Callback):
    """Saves as a user's own callback might."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def test_a_checkpoint_from_the_end_of_an_epoch_is_gone_on_with_to_the_end(tissue, tmp_path):
    model, resumed = (new_model(tissue, "expr_to_pos") for _ in range(2))
    saved = SaveAfterEpoch(tmp_path / "first.ckpt")
    model.train(callbacks=[saved], progress_bar=False, **TRAIN)
    resumed.train(ckpt_path=saved.path, progress_bar=False, **TRAIN)
    assert resumed.training_record.steps == TRAIN["max_steps"]
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], tensor), name
