"""Several devices and processes, and memory that does not suffice."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alphastomics.model._distributed import OutOfMemoryError, uniform_out_of_memory, world_size
from alphastomics.model._draws import SetSampler, draw_settings
from alphastomics.model._sets import inference_sets

QUIET = {"progress_bar": False}
SCRIPT = Path(__file__).with_name("several_processes.py")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Run the script with two processes on one thread each: its folder, exit code and errors."""
    folder = tmp_path_factory.mktemp("two")
    done = subprocess.run(
        [sys.executable, SCRIPT, "2", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        timeout=300,  # does not hang
    )
    return folder, done.returncode, done.stderr


@pytest.fixture(scope="module")
def one_and_two(two, tmp_path_factory):
    """What one process gives that takes two batches a step, and each of two processes."""
    folder = tmp_path_factory.mktemp("one")
    torch.set_num_threads(1)
    load_script().learn_and_place(1, folder)
    files = [folder / "0.pt", two[0] / "0.pt", two[0] / "1.pt"]
    assert all(file.is_file() for file in files), two[2]
    return [torch.load(file, weights_only=True) for file in files]


def load_script():
    spec = importlib.util.spec_from_file_location("several_processes", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_two_processes_have_the_gradients_of_one(one_and_two):
    alone, *together = one_and_two
    assert len(alone["gradients"]) == 6
    for process in together:
        for mine, theirs in zip(alone["gradients"], process["gradients"], strict=True):
            assert mine.keys() == theirs.keys()
            for name in mine:
                torch.testing.assert_close(mine[name], theirs[name], atol=1e-6, rtol=0)


def test_two_processes_learn_the_weights_of_one(one_and_two):
    alone, *together = one_and_two
    for process in together:
        for name, weights in alone["weights"].items():
            torch.testing.assert_close(weights, process["weights"][name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("what", ["predicted", "sampled", "expression", "together"])
def test_two_processes_fill_in_what_one_does_bit_for_bit(one_and_two, what):
    alone, *together = one_and_two
    assert torch.isfinite(alone[what]).all()
    for process in together:
        assert torch.equal(alone[what], process[what])


def test_when_a_process_fails_the_others_stop_with_its_error(two):
    folder, code, said = two
    assert code != 0
    assert "this process is out of luck" in said
    assert not (folder / "survived").exists()


def test_processes_that_would_lose_their_results_are_refused(trained):
    model, cells = trained
    spawned = {"accelerator": "cpu", "devices": 2, "strategy": "ddp_spawn"}
    untrained = type(model)(model.adata, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    with pytest.raises(ValueError, match="put the lines in a script"):
        untrained.train(max_steps=1, **QUIET, **spawned)
    with pytest.raises(ValueError, match="put the lines in a script"):
        model.predict(cells.copy(), mode="expr_to_pos", distributed=spawned, **QUIET)


def test_options_of_devices_are_checked(trained):
    model, cells = trained
    with pytest.raises(TypeError, match=r"distributed must be a dictionary.*found 2"):
        model.predict(cells.copy(), mode="expr_to_pos", distributed=2, **QUIET)
    half = {"precision": "bf16-true"}
    with pytest.raises(ValueError, match="precision must be one of '32-true'"):
        model.predict(cells.copy(), mode="expr_to_pos", distributed=half, **QUIET)
    with pytest.raises(ValueError, match=r"distributed holds \['logger'\]"):
        model.predict(cells.copy(), mode="expr_to_pos", distributed={"logger": True}, **QUIET)


@pytest.mark.parametrize("strategy", ["deepspeed", "fsdp"])
def test_strategies_that_shard_weights_are_refused(trained, strategy):
    model, cells = trained
    one = {"max_steps": 1, "set_size": 16, **QUIET}
    untrained = type(model)(model.adata, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    with pytest.raises(
        ValueError, match=f"strategy='{strategy}' shards the weights, but not their"
    ):
        untrained.train(strategy=strategy, **one)
    shared = {"strategy": strategy}
    with pytest.raises(
        ValueError, match=f"strategy='{strategy}' shards the weights, but not their"
    ):
        model.predict(cells.copy(), mode="expr_to_pos", distributed=shared, **QUIET)


@pytest.mark.parametrize(
    ("options", "n"),
    [
        ({}, 1),
        ({"devices": "auto", "num_nodes": 2}, 2),
        ({"accelerator": "cpu", "devices": 3, "num_nodes": 2}, 6),
    ],
)
def test_processes_are_counted(options, n):
    assert world_size(options) == n


def limit_memory(monkeypatch, module, most):
    """Let the network fail as a GPU does for more than so many cells."""
    forward = module.forward

    def limited(cells):
        if cells.position.shape[1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.20 GiB")
        return forward(cells)

    monkeypatch.setattr(module, "forward", limited)


@pytest.mark.parametrize("call", ["predict", "sample"])
def test_sets_that_do_not_fit_are_halved_and_it_is_said_once(trained, monkeypatch, call):
    model, cells = trained
    smaller, halved = cells.copy(), cells.copy()
    getattr(model, call)(smaller, mode="expr_to_pos", max_cells_per_set=75, **QUIET)
    limit_memory(monkeypatch, model.module, 80)
    with pytest.warns(UserWarning, match="A set of 300 cells does not fit the memory") as said:
        getattr(model, call)(halved, mode="expr_to_pos", **QUIET)
    assert len(said) == 1
    key = "spatial_predicted" if call == "predict" else "spatial_sampled"
    assert np.array_equal(smaller.obsm[key], halved.obsm[key])


def test_memory_that_suffices_for_nothing_is_an_error_and_nothing_is_written(trained, monkeypatch):
    model, cells = trained
    limit_memory(monkeypatch, model.module, 1)
    cells = cells.copy()
    with (
        pytest.warns(UserWarning, match="fit"),
        pytest.raises(OutOfMemoryError, match="memory of cpu does"),
    ):
        model.predict(cells, mode="expr_to_pos", **QUIET)
    assert "spatial_predicted" not in cells.obsm


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_every_device_says_it_in_its_own_way(error):
    with pytest.raises(OutOfMemoryError), uniform_out_of_memory(torch.device("cpu")):
        raise error


@pytest.mark.parametrize("kind", [RuntimeError, torch.linalg.LinAlgError, NotImplementedError])
def test_other_errors_are_not_of_memory(kind):
    with pytest.raises(kind, match="shapes"), uniform_out_of_memory(torch.device("cpu")):
        raise kind("shapes cannot be multiplied")


def test_a_model_that_placed_cells_through_a_trainer_can_be_trained_further(trained):
    model = type(trained[0])(trained[0].adata, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    model.train(max_steps=1, set_size=16, **QUIET)
    cells = trained[1].copy()
    one = {"accelerator": "cpu", "devices": 1}
    model.predict(cells, mode="expr_to_pos", distributed=one, **QUIET)
    alone = trained[1].copy()
    model.predict(alone, mode="expr_to_pos", **QUIET)
    assert np.array_equal(cells.obsm["spatial_predicted"], alone.obsm["spatial_predicted"])
    model.train(max_steps=1, set_size=16, **QUIET)


def test_a_chunk_of_one_is_refused(trained):
    model, cells = trained
    with pytest.raises(ValueError, match="max_cells_per_set must be at least 2, found 1"):
        model.predict(cells.copy(), mode="expr_to_pos", max_cells_per_set=1, **QUIET)


def test_all_sets_of_a_draw_have_the_first_one_as_their_context(trained, monkeypatch):
    model, cells = trained
    shown = []
    forward = model.module.forward

    def watched(cells):
        shown.append((cells.position.clone(), cells.position_known.clone()))
        return forward(cells)

    monkeypatch.setattr(model.module, "forward", watched)
    options = {"max_cells_per_set": 128, "n_steps": 4, "n_rounds": 2}
    model.sample(cells.copy(), mode="expr_to_pos", **options, **QUIET)
    *_, (_, of_leader), _ = shown[:3]
    assert of_leader.shape[1] == 32  # of 300 cells, the others in three sets
    others = [(position, known) for position, known in shown if position.shape[1] > 32]
    context = others[0][0][:, -32:]
    for position, known in others:
        assert known[:, -32:].all()
        assert torch.equal(position[:, -32:], context)


def test_a_process_without_the_first_set_draws_it_itself(trained):
    model, cells = trained
    task = model._reader.task(cells, "expr_to_pos", predicts=False)
    sets = list(inference_sets(task, 128, shared_context=True))
    settings = draw_settings("edm", 3, 2)
    with torch.inference_mode():
        sampler = SetSampler(model.module, task, settings, 0, sets)
        in_order = [sampler(cell_set, 0).position for cell_set in sets][2]
        alone = SetSampler(model.module, task, settings, 0, sets)(sets[2], 0).position
    np.testing.assert_array_equal(in_order, alone)
