"""From raw data to placed cells, by commands."""

import json

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
    assert "section_2" in output
    scores = json.loads((work / "run" / "test" / "metrics.json").read_text())["scores"]
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
