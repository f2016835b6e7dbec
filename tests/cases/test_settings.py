"""Settings that hold for all calls, the logger, and progress: a bar, a few lines, or nothing."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

import alphastomics as al
from alphastomics import _progress
from alphastomics._progress import Reporter
from alphastomics._threads import allowed_threads, limited_threads

QUIET = {"mode": "expr_to_pos", "progress_bar": False}


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    """Settings of a new session; one process."""
    for rank in _progress.RANKS:
        monkeypatch.delenv(rank, raising=False)
    yield
    al.settings.reset()


@pytest.fixture
def clock(monkeypatch):
    """Clock of the progress that moves when it is set."""
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("seed", -1, ValueError, "settings.seed must be a whole number of at least 0, found -1"),
        ("seed", 1.5, ValueError, "settings.seed must be a whole number"),
        ("threads", 0, ValueError, "settings.threads must be a whole number of at least 1"),
        ("verbosity", 3, ValueError, "settings.verbosity must be one of 'error', 'warning'"),
        ("progress_bar", "no", ValueError, "settings.progress_bar must be True or False"),
        ("progressbar", False, AttributeError, "Did you mean progress_bar"),
    ],
)
def test_settings_are_checked(name, value, error, message):
    before = repr(al.settings)
    with pytest.raises(error, match=message):
        setattr(al.settings, name, value)
    assert repr(al.settings) == before


def test_the_seed_of_the_settings_is_that_of_calls_without_one(small_model, cells):
    def placed(**options):
        small_model.sample(cells, **options, **QUIET)
        return cells.obsm["spatial_sampled"].copy()

    first, other = placed(seed=0), placed(seed=5)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(placed(), first)
    al.settings.seed = 5
    np.testing.assert_array_equal(placed(), other)
    np.testing.assert_array_equal(placed(seed=0), first)


def test_initial_weights_follow_the_seed_of_the_settings(atlas):
    al.AlphaSTomics.setup_anndata(atlas)
    small = {"d_model": 16, "num_layers": 1, "d_ff": 16, "num_heads": 2}
    al.settings.seed = 3
    one, two = al.AlphaSTomics(atlas, **small), al.AlphaSTomics(atlas, seed=3, **small)
    assert one.config == two.config
    for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_threads_of_the_settings_hold_in_calls_only():
    before = torch.get_num_threads()
    al.settings.threads = 3
    assert allowed_threads() == 3
    with limited_threads():
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_methods_of_a_model_keep_to_the_number_of_threads(small_model, cells):
    found = set()
    hook = small_model.module.register_forward_pre_hook(
        lambda *_: found.add(torch.get_num_threads())
    )
    before = torch.get_num_threads()
    al.settings.threads = before + 1
    try:
        small_model.predict(cells, **QUIET)
        small_model.get_latent_representation(cells)
        small_model.register(cells)
        small_model.sample(cells, n_steps=1, **QUIET)
    finally:
        hook.remove()
    assert found == {before + 1}
    assert torch.get_num_threads() == before


def test_the_data_folder_is_a_setting_or_a_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("ALPHASTOMICS_DATA", raising=False)
    for name in ("ALPHASTOMICS_DATA_DIR", "ALPHASTOMICS_DATA"):  # the name of version 0.1, first
        monkeypatch.setenv(name, str(tmp_path / name))
        assert al.settings.data_dir == tmp_path / name
    al.settings.data_dir = tmp_path
    assert al.settings.data_dir == tmp_path


def test_long_calls_say_in_one_line_what_they_did(atlas, fit, caplog):
    caplog.set_level(logging.INFO, logger="alphastomics")
    model = fit(atlas, labels_key="cell_type")
    (line,) = caplog.messages
    assert line.startswith("setup_anndata: 400 cells, 40 genes (counts), 2 sections, 2D positions")
    caplog.clear()
    model.calibrate(max_steps=2, progress_bar=False)
    (line,) = caplog.messages
    assert line.startswith("calibrate: 90 % radius of a cell: ")
    assert "40 genes" in line
    assert "folds: 2" in line
    caplog.clear()
    model.generate(30, n_steps=2, progress_bar=False)
    assert caplog.messages == [
        "generate: 30 cells with 40 genes (lognorm), drawn from 400 training cells, with positions "
        "in obsm['spatial']"
    ]


def test_messages_go_to_stderr_once_and_can_be_silenced():
    code = (
        "import logging, sys, alphastomics as al\n"
        "log = logging.getLogger('alphastomics')\n"
        "al.settings; log.info('one')\n"
        "al.settings.verbosity = 'warning'; log.info('silent')\n"
        "al.settings.reset(); logging.basicConfig(stream=sys.stdout, format='root %(message)s')\n"
        "log.info('two')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stderr, done.stdout) == ("one\n", "root two\n")


def lines_of(clock, caplog, *, total=1000, seconds_per_unit=1.0, unit="cells", first=0):
    caplog.set_level(logging.INFO, logger="alphastomics")
    with Reporter(shown=True, prefix="fold 1 of 4, ").bar("stage 1 of 2: x", total, unit) as bar:
        bar.start_at(first)
        for _ in range(total - first):
            clock[0] += seconds_per_unit
            bar.update(1, "loss 4.3" if bar.is_due else "")
    return caplog.messages


def test_a_log_gets_few_lines_with_the_time_left(clock, caplog):
    lines = lines_of(clock, caplog)
    assert 5 <= len(lines) <= 12
    assert lines[0] == (
        "Fold 1 of 4, stage 1 of 2: x: 10 of 1,000 cells, 1 %, 16 min 30 s left, loss 4.3"
    )
    assert lines[-1] == "Fold 1 of 4, stage 1 of 2: x: 1,000 of 1,000 cells, 16 min 40 s, loss 4.3"


def test_a_log_gets_nothing_of_what_takes_seconds(clock, caplog):
    assert lines_of(clock, caplog, seconds_per_unit=0.001) == []


def test_a_log_names_each_stage_of_training(clock, caplog):
    lines = lines_of(clock, caplog, seconds_per_unit=0.001, unit="steps")
    assert lines == ["Fold 1 of 4, stage 1 of 2: x: 1,000 steps"]


def test_a_log_tells_the_steps_of_a_resumed_training_from_earlier_ones(clock, caplog):
    lines = lines_of(clock, caplog, total=20, unit="steps", first=10)
    start = "Fold 1 of 4, stage 1 of 2: x resumed from step 10: steps 11 to 20"
    assert lines[0] == start
    assert lines[-1] == f"{start} of 20, 10 s, loss 4.3"


def test_a_bar_names_the_step_that_training_was_resumed_from(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "_is_interactive", lambda: True)
    with Reporter(shown=True).bar("training", 20, "steps") as bar:
        bar.start_at(10)
        bar.update(10)
    assert "Training resumed from step 10: 100%" in capsys.readouterr().err


def test_a_bar_of_what_is_soon_over_is_not_shown(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "_is_interactive", lambda: True)
    with Reporter(shown=True).bar("verifying", 2, "sections", delay=60) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shown", [False, True])
def test_bars_of_terminals_are_closed_by_errors(monkeypatch, capsys, shown):
    monkeypatch.setattr(_progress, "_is_interactive", lambda: True)
    al.settings.progress_bar = shown

    def interrupted():
        with Reporter.of(None).bar("stage 2 of 2: network", 10) as bar:
            bar.update(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    written = capsys.readouterr().err
    if not shown:
        assert written == ""
        return
    assert written.rstrip(" ").endswith("\n")  # so that nothing writes on this line again
    assert "Stage 2 of 2: network:  30%" in written
    assert "cells/s" in written
    assert "it/s" not in written


def test_only_the_first_process_shows_progress(monkeypatch):
    assert Reporter.of(True).shown
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not Reporter.of(True).shown


def test_training_names_its_stages_without_internals_of_lightning(
    atlas, fit, monkeypatch, capsys, recwarn
):
    monkeypatch.setattr(_progress, "_is_interactive", lambda: True)
    monkeypatch.setattr(_progress, "REFRESH", 0.0)
    model = fit(atlas, train={"progress_bar": True, "check_val_every_n_epoch": 1})
    written = capsys.readouterr().err
    assert "Stage 1 of 2: cell similarity: 100%" in written
    assert "Stage 2 of 2: network: 100%" in written
    assert "3/3 steps" in written
    assert "cells/s, loss " in written
    model.train(max_steps=1, set_size=32, batch_size=2)
    written += capsys.readouterr().err
    assert "Training: 100%" in written
    for internal in ("v_num", "it/s", "Epoch", "across ranks"):
        assert internal not in written
    assert not [w for w in recwarn if "lightning" in w.filename]


def test_a_bar_of_lightning_takes_the_place_of_ours(atlas, fit, monkeypatch, capsys):
    from lightning.pytorch.callbacks import TQDMProgressBar

    monkeypatch.setattr(_progress, "_is_interactive", lambda: True)
    fit(atlas, train={"progress_bar": True, "callbacks": [TQDMProgressBar()]})
    assert "Stage 2 of 2" not in capsys.readouterr().err


def test_imports_in_a_notebook_without_widgets_print_nothing():
    code = (
        "import IPython\n"
        "class Shell: config = {'IPKernelApp': {}}\n"
        "IPython.get_ipython = Shell\n"
        "import alphastomics as al\n"
        "al.AlphaSTomics, al.pl, al.datasets, al.tl, al.settings\n"
        "from alphastomics._compat import squidpy\n"
        "squidpy()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
