"""Ctrl-C and SIGTERM: what was learned stays, and the exit code says what happened."""

import signal
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch.plugins.environments import SLURMEnvironment
from typer.testing import CliRunner

import alphastomics as al
from alphastomics.cli.preprocess import preprocess
from alphastomics.main import app
from alphastomics.model._distributed import plugins_for
from alphastomics.model._plan import DenoisingPlan
from alphastomics.priors.reference_matching import ReferenceMatcher

FEW = {"set_size": 32, "batch_size": 2, "progress_bar": False}
SMALL = {"d_model": 16, "num_layers": 1, "d_ff": 16, "num_heads": 2}
TRAIN = """train --d_model 16 --num_heads 2 --num_layers 1 --d_ff 16 --set_size 16 --batch_size 2
 --training_mode pos_to_expr --logger none --max_steps 9 --data_dir data"""


class Signal(L.Callback):
    """A signal after a step, or an exception in its place."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            if self.number is None:
                raise KeyboardInterrupt
            signal.raise_signal(self.number)


@pytest.fixture(autouse=True)
def _terminal():
    """Ctrl-C as in a terminal; a job in the background ignores it. Handlers are restored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    signal.signal(signal.SIGINT, before)


def new_model(adata):
    al.AlphaSTomics.setup_anndata(adata)
    return al.AlphaSTomics(adata, **SMALL)


@pytest.mark.parametrize(
    "number", [pytest.param(None, id="A471"), pytest.param(signal.SIGINT, id="A475")]
)
def test_ctrl_c_keeps_the_average_of_the_steps_done(atlas, cells, number, monkeypatch):
    averages = []
    step = DenoisingPlan.optimizer_step

    def recorded(plan, *args, **kwargs):
        step(plan, *args, **kwargs)
        averages.append({k: v.clone() for k, v in plan.averaged_state().items()})

    monkeypatch.setattr(DenoisingPlan, "optimizer_step", recorded)
    model = new_model(atlas)
    with (
        pytest.warns(UserWarning, match=r"stopped by SIGINT after 3 of 8 steps") as warned,
        pytest.raises(KeyboardInterrupt),
    ):
        model.train(max_steps=8, callbacks=[Signal(3, number)], **FEW)
    assert next(w for w in warned if "stopped by" in str(w.message)).filename == __file__
    assert model.is_trained
    assert model.training_record.steps == 3
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, averages[2][name]), name
    assert not model.module.training
    assert not any(p.requires_grad for p in model.module.matcher.parameters())
    model.predict(cells, mode="expr_to_pos", progress_bar=False)
    assert np.isfinite(cells.obsm["spatial_predicted"]).all()
    assert "3 steps" in repr(model)
    model.train(max_steps=1, **FEW)
    assert model.training_record.steps == 4


def test_ctrl_c_in_a_second_training_adds_its_steps(atlas):
    """A473."""
    model = new_model(atlas)
    model.train(max_steps=2, **FEW)
    with (
        pytest.warns(UserWarning, match="after 1 of 5 steps"),
        pytest.raises(KeyboardInterrupt),
    ):
        model.train(max_steps=5, callbacks=[Signal(1, signal.SIGINT)], **FEW)
    assert model.training_record.steps == 3


def test_ctrl_c_in_the_last_step_is_not_lost(atlas):
    """A475: nor does the calibration begin."""
    model = new_model(atlas)
    with (
        pytest.warns(UserWarning, match="after 2 of 2 steps"),
        pytest.raises(KeyboardInterrupt),
    ):
        model.train(
            max_steps=2, val_sections="section_1", callbacks=[Signal(2, signal.SIGINT)], **FEW
        )
    assert model.training_record.steps == 2
    assert not model.training_record.calibration


def test_ctrl_c_before_the_first_step_leaves_the_model_as_it_was(atlas, monkeypatch):
    """A474: while it learns to compare cells."""
    model = new_model(atlas)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    monkeypatch.setattr(ReferenceMatcher, "_loss", lambda *args: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        model.train(max_steps=2, **FEW)
    assert not any(p.requires_grad for p in model.module.matcher.parameters())
    assert not model.is_trained
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_ctrl_c_in_calibrate_leaves_the_model_as_it_was(atlas):
    """A475."""
    model = new_model(atlas)
    model.train(max_steps=2, **FEW)
    record = model.training_record
    with (
        pytest.warns(UserWarning, match="stopped by SIGINT"),
        pytest.raises(KeyboardInterrupt),
    ):
        model.calibrate(max_steps=3, callbacks=[Signal(1, signal.SIGINT)], **FEW)
    assert model.training_record == record


@pytest.mark.parametrize(
    ("number", "code", "start"),
    [
        pytest.param(signal.SIGTERM, 143, "Stopped by SIGTERM.", id="E017"),
        pytest.param(signal.SIGINT, 130, "Interrupted.", id="A475"),
    ],
)
@pytest.mark.parametrize("slurm", [False, True], ids=["", "slurm"])
def test_train_writes_its_state_and_says_how_to_go_on(
    tmp_path, monkeypatch, number, code, start, slurm
):
    monkeypatch.chdir(tmp_path)
    if slurm:
        for name, value in {"NTASKS": 1, "JOB_ID": 7, "JOB_NAME": "x", "PROCID": 0}.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))
        for name in ("NODEID", "LOCALID"):
            monkeypatch.setenv(f"SLURM_{name}", "0")
        monkeypatch.setenv("SLURM_NODELIST", "localhost")
        assert not plugins_for({})[0].auto_requeue
    al.datasets.simulate_tissue(2, 40, 12).write_h5ad("raw.h5ad")
    preprocess("raw.h5ad", "data", progress=False)
    step = DenoisingPlan.optimizer_step

    def signaled(plan, *args, **kwargs):
        step(plan, *args, **kwargs)
        if plan.trainer.global_step == 4:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(DenoisingPlan, "optimizer_step", signaled)
        result = CliRunner().invoke(app, [*TRAIN.split(), "--output_dir", "run"])
    last = Path("run", "checkpoints", "last.ckpt")
    assert result.exit_code == code
    assert f"{start} Resume with --resume {last}.\n" in result.output
    assert "Traceback" not in result.output
    assert 4 <= al.AlphaSTomics.load(last).training_record.steps < 9
    result = CliRunner().invoke(app, ["train", "--resume", str(last)])
    assert result.exit_code == 0, result.output
    assert al.AlphaSTomics.load(last).training_record.steps == 9


@pytest.mark.parametrize("logger", ["csv", "wandb"])
def test_train_that_is_stopped_before_the_first_step_leaves_nothing(tmp_path, monkeypatch, logger):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    al.datasets.simulate_tissue(2, 40, 12).write_h5ad("raw.h5ad")
    preprocess("raw.h5ad", "data", progress=False)
    words = TRAIN.replace("pos_to_expr", "expr_to_pos").replace("none", logger).split()
    result = CliRunner().invoke(app, [*words, "--output_dir", "run", "--max_steps", "1"])
    assert result.exit_code == 0, result.output
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    monkeypatch.setattr(ReferenceMatcher, "_loss", lambda *args: signal.raise_signal(signal.SIGINT))
    for folder, kept in (("new", "new was removed"), ("run", "run is the earlier run")):
        result = CliRunner().invoke(app, [*words, "--output_dir", folder])
        assert result.exit_code == 130
        line = f"Interrupted. There was no checkpoint yet, so {kept}: start again."
        assert result.output.splitlines()[-1] == line
    assert {path.name for path in Path().iterdir()} == {"raw.h5ad", "data", "run"}
    assert {path: path.read_bytes() for path in before} == before
    wandb.finish()  # as the end of the process does


def test_requeueing_of_lightning_is_left_to_who_asks_for_it(monkeypatch):
    """E017: ``plugins=[SLURMEnvironment()]`` is passed on."""
    mine = SLURMEnvironment()
    assert plugins_for({"plugins": mine}) == [mine]
    assert plugins_for({}) == []


def test_a_missing_checkpoint_is_named(atlas):
    """A496."""
    with pytest.raises(FileNotFoundError, match=r"ckpt_path: there is no checkpoint '/nope\.ckpt'"):
        new_model(atlas).train(max_steps=1, ckpt_path="/nope.ckpt", **FEW)


def test_devices_that_are_not_there_are_refused_before_any_work(atlas, monkeypatch):
    """F040."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    model = new_model(atlas)
    monkeypatch.setattr(ReferenceMatcher, "_loss", lambda *args: pytest.fail("work was done"))
    for options in ({"accelerator": "gpu"}, {"accelerator": "gpu", "devices": 2}):
        with pytest.raises(ValueError, match=r"this machine.* cannot use .*accelerator='gpu'"):
            model.train(max_steps=1, **options, **FEW)
