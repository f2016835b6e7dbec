"""Private names of other packages that the library relies on."""

import lightning.pytorch as L
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
