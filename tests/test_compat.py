"""Private names of other packages that the library relies on."""

import lightning.pytorch as L
from scvi.train import Trainer

from alphastomics._compat import copies_process, ends_step, epoch_logger


def test_the_logger_holds_logged_values_by_epoch():
    logger = epoch_logger()
    logger.log_metrics({"epoch": 0, "loss": 2.0}, step=0)
    logger.log_metrics({"epoch": 1, "loss": 1.0}, step=1)
    assert logger.history["loss"].index.name == "epoch"
    assert logger.history["loss"]["loss"].tolist() == [2.0, 1.0]


def test_strategies_that_copy_the_process():
    options = {"accelerator": "cpu", "devices": 2, "logger": False}
    assert copies_process(L.Trainer(strategy="ddp_spawn", **options))
    assert not copies_process(L.Trainer(strategy="ddp", **options))


def test_a_step_ends_when_its_gradients_were_accumulated():
    trainer = Trainer(accelerator="cpu", devices=1, accumulate_grad_batches=2)
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    for progress.ready in range(1, 5):
        assert ends_step(trainer) == (progress.ready % 2 == 0)
