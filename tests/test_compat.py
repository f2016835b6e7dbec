"""Private names of other packages that the library relies on."""

import lightning.pytorch as L
import numpy as np
import torch
from anndata import AnnData
from scvi.model.base import BaseModelClass
from scvi.train import Trainer

from alphastomics._compat import SimpleLogger, _MultiProcessingLauncher


def test_the_logger_keeps_what_is_logged_by_epoch():
    logger = SimpleLogger()
    logger.log_metrics({"epoch": 0, "loss": 2.0}, step=0)
    logger.log_metrics({"epoch": 1, "loss": 1.0}, step=1)
    assert logger.history["loss"].index.name == "epoch"
    assert logger.history["loss"]["loss"].tolist() == [2.0, 1.0]


def test_strategies_that_copy_the_process_have_their_launcher():
    options = {"accelerator": "cpu", "devices": 2, "logger": False}
    copies = L.Trainer(strategy="ddp_spawn", **options)
    assert isinstance(copies.strategy.launcher, _MultiProcessingLauncher)
    scripts = L.Trainer(strategy="ddp", **options)
    assert not isinstance(scripts.strategy.launcher, _MultiProcessingLauncher)


def test_the_loop_says_when_gradients_were_accumulated():
    loop = Trainer(accelerator="cpu", devices=1).fit_loop.epoch_loop
    assert callable(loop._accumulated_batches_reached)


def test_anndata_is_cut_and_replaced_in_place():
    cells = AnnData(np.eye(3, dtype=np.float32))
    view = cells[:2]
    view._init_as_actual(view.copy())
    assert not view.is_view
    cells._inplace_subset_obs(np.array([True, False, True]))
    cells._inplace_subset_var(["2"])
    assert cells.X.tolist() == [[0], [1]]


def test_scvi_tools_collects_the_arguments_of_setup():
    collected = BaseModelClass._get_setup_method_args(cls=BaseModelClass, adata=None, layer="a")
    assert collected["setup_args"] == {"layer": "a"}


def test_torch_compiles_in_place_and_averages():
    assert torch.nn.Identity()._compiled_call_impl is None
    assert issubclass(torch._dynamo.exc.TorchDynamoException, RuntimeError)
    average = [torch.zeros(2)]
    torch._foreach_lerp_(average, [torch.ones(2)], 0.25)
    assert average[0].tolist() == [0.25, 0.25]
    assert hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")
