"""From raw data to placed cells, by commands."""

import json
import os
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import alphastomics as al
from alphastomics.main import app, train_app

SMALL = ["--d_model", "16", "--num_heads", "2", "--num-layers", "1", "--d_ff", "16"]
SMALL += ["--set_size", "32", "--sets_per_section", "4", "--batch-size", "4", "--logger", "none"]


def run(*arguments, code=0, of=app):
    result = CliRunner().invoke(of, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_what_a_run_leaves_behind(work):
    run_folder = work / "run"
    for name in ("config.yaml", "run.json", "history.csv", "loss.png", "checkpoints/last.ckpt"):
        assert (run_folder / name).is_file(), name
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert config["training"]["max_steps"] == 3
    assert config["TransformerLayer_setting"]["d_model"] == 16
    facts = json.loads((run_folder / "run.json").read_text())
    assert facts["seed"] == 0
    assert "torch" in facts["versions"]
    model = al.AlphaSTomics.load(run_folder / "checkpoints" / "best.ckpt")
    assert model.training_record.train_sections == ["section_0"]
    assert "unframed" in model.training_record.calibration


def test_statistics_are_those_of_training_in_memory(work, tissue):
    """Expression read from disk gives the transforms that expression in memory gives."""
    atlas = tissue[tissue.obs["section"] != "section_2"].copy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    model.train(max_steps=1, val_sections="section_1", progress_bar=False)
    stored = al.AlphaSTomics.load(work / "run" / "checkpoints" / "best.ckpt")
    order = model.genes.get_indexer(stored.genes)
    for name in ("mean", "std", "share"):
        mine = getattr(model.module.expression_transform, name)[order]
        theirs = getattr(stored.module.expression_transform, name)
        np.testing.assert_allclose(theirs, mine, rtol=1e-5, atol=1e-6)


def test_resume(work):
    checkpoint = work / "run" / "checkpoints" / "last.ckpt"
    run("train", "--resume", checkpoint, "--max_steps", 5)
    model = al.AlphaSTomics.load(checkpoint)
    assert model.training_record.steps == 5
    output = run("train", "--resume_from", checkpoint, "--d_model", 32, code=2)
    assert "has another configuration: d_model is 16 in the checkpoint and 32 now" in output
    output = run("train", "--resume", work / "no.ckpt", code=2)
    assert "--resume: there is no checkpoint" in output


def test_test(work):
    output = run("test", "--checkpoint", work / "run" / "checkpoints" / "best.ckpt")
    scores = json.loads((work / "run" / "test" / "metrics.json").read_text())["scores"]
    row = next(r for r in scores if r["task"] == "placement" and r["method"] == "predict")
    table = output.partition("Placement, section_2:\n")[2].splitlines()
    names = ["distance_spearman", "procrustes_rmse", "rigid_rmse", "spread"]
    assert table[0].split() == ["method", *names]
    printed = next(line for line in table if line.startswith("model: predict")).split()[2:]
    shown = [row[name] for name in (*names[:2], "rigid_rmse_units", "spread")]
    np.testing.assert_allclose([float(value) for value in printed], shown, rtol=2e-3, atol=6e-4)
    correlations = [float(line.split()[-4]) for line in table[1 : table.index("")]]
    assert correlations == sorted(correlations, reverse=True)
    assert "  rigid_rmse: error after superposition without scaling, in µm; 0 is best\n" in output
    assert all(f"\n  {name}: " in output for name in (*names, "pcc", "ssim"))
    printed = output.partition("Placement")[2].partition(str(work))[0]
    assert max(map(len, printed.splitlines())) <= 80
    tasks = {(row["task"], row["kind"]) for row in scores}
    assert tasks == {(t, k) for t in ("placement", "expression") for k in ("model", "baseline")}
    assert all(row["section"] == "section_2" for row in scores)
    assert (work / "run" / "test" / "section_2.png").is_file()


def test_sample(work, tissue):
    checkpoint = work / "run" / "checkpoints" / "best.ckpt"
    cells = tissue[tissue.obs["section"] == "section_2"].copy()
    cells.write_h5ad(work / "cells.h5ad")
    arguments = ("--checkpoint", checkpoint, "--input", work / "cells.h5ad")
    run(
        "sample", *arguments, "--mode", "expr_to_pos", "--n_samples", 2, "--output", work / "p.h5ad"
    )
    placed = ad.read_h5ad(work / "p.h5ad")
    assert placed.obsm["spatial_sampled"].shape == (300, 2)
    assert (placed.obsm["spatial"] == cells.obsm["spatial"]).all()
    output = run("sample", *arguments, "--output", work / "q.h5ad", code=2)
    assert "nothing" in output.lower()
    assert not (work / "q.h5ad").exists()


def test_generate(work):
    checkpoint = work / "run" / "checkpoints" / "best.ckpt"
    run("sample", "--checkpoint", checkpoint, "--num_samples", 50)
    assert ad.read_h5ad(work / "run" / "generated.h5ad").shape == (50, 40)


def test_info(work):
    assert "test  section_2: 300 cells" in run("info", work / "data")
    assert "16" in run("info", work / "run" / "checkpoints" / "best.ckpt")


def test_an_earlier_run_is_kept(work, monkeypatch):
    monkeypatch.chdir(work)
    arguments = ("--data_dir", "data", *SMALL, "--max_steps", 1, "--num_genes", 2000)
    arguments += ("--training_mode", "expr_to_pos", "--exp_name", "first")
    run("train", *arguments)
    with pytest.warns(UserWarning, match="2000 is more than the 40 genes"):
        run(*arguments, of=train_app)
    assert len(list((work / "outputs").glob("first*"))) == 2
    output = run("test", "--checkpoint", "best.ckpt")
    assert "Using outputs/first/checkpoints/best.ckpt" in output


def test_a_default_checkpoint_is_named_in_one_line(work, tmp_path, monkeypatch):
    """Of the latest run, also where the run of the default config is older."""
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("new", "config")):
        shutil.copytree(work / "run", Path("outputs") / name)
        path = Path("outputs", name, "checkpoints", "best.ckpt")
        os.utime(path, (path.stat().st_mtime - 100 * age,) * 2)
    line = "Using {}/checkpoints/best.ckpt, of the {}. Name another by {}.\n"
    latest = line.format("outputs/new", "latest run", "--checkpoint")
    for command in ("test", "predict", "sample", "impute", "calibrate"):
        source = "--data_dir" if command in ("test", "calibrate") else "--input"
        assert run(command, source, "none", code=2).count(latest) == 1
    assert line.format("outputs/new", "latest run", "its path") in run("info", "best.ckpt")
    Path("config.yaml").write_text("")
    words = ("predict", "--input", "none", "--config", "config.yaml")
    own = line.format("outputs/config", "run of config.yaml", "--checkpoint")
    assert own in run(*words, code=2)
    assert run("info", "outputs/new").startswith("Using outputs/new/checkpoints/best.ckpt.\n")
    assert "Using" not in run("info", "outputs/new/checkpoints/best.ckpt")
    shutil.copy("outputs/new/checkpoints/best.ckpt", "best.ckpt")
    assert "Using best.ckpt, in the current folder." in run("info", "best.ckpt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "--data_dir is missing"),
        (["train", "--data_dir", "nowhere"], "holds no processed data"),
        (["train", "--lr", "-1"], "training.learning_rate: must be greater than 0, found -1.0"),
        (["train", "--preset", "x"], "--preset: 'x' is none of research"),
        (["test", "--checkpoint", "no.ckpt"], "there is no 'no.ckpt'"),
        (["sample"], "give either --input"),
        (["info", "nowhere"], "there is no 'nowhere' in the current folder. Name"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = run(*arguments, code=2)
    assert message in output
    assert output.startswith("Error: ")
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


def test_fewer_genes(work):
    """The most variable ones, and `test` and `sample` go on with them."""
    how = ("--max_steps", 1, "--num_genes", 10, "--output_dir", work / "few")
    run("train", "--data_dir", work / "data", *SMALL, *how)
    checkpoint = work / "few" / "checkpoints" / "best.ckpt"
    genes = al.AlphaSTomics.load(checkpoint).genes
    assert len(genes) == 10
    stored = al.io.open_data(work / "data")
    assert genes.isin(stored.genes).all()
    assert "section_2" in run("test", "--checkpoint", checkpoint)
    run("sample", "--checkpoint", checkpoint, "--num_samples", 5)
    assert ad.read_h5ad(work / "few" / "generated.h5ad").shape == (5, 10)
