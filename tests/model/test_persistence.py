import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import alphastomics as al

QUIET = {"mode": "expr_to_pos", "progress_bar": False}


@pytest.fixture
def saved(trained, tmp_path):
    model, cells = trained
    model.save(tmp_path / "model")
    return model, cells.copy(), tmp_path / "model"


def test_same_coordinates_bit_for_bit_in_a_new_process_without_the_atlas(saved, tmp_path):
    model, cells, folder = saved
    model.predict(cells, **QUIET)
    model.sample(cells, n_steps=3, **QUIET)
    query = cells.copy()
    for key in list(query.obsm):
        del query.obsm[key]
    query.write_h5ad(tmp_path / "query.h5ad")
    code = (
        "import sys, anndata, numpy, torch, alphastomics as al;"
        f"torch.set_num_threads({torch.get_num_threads()});"
        "model = al.AlphaSTomics.load(sys.argv[1]);"
        "cells = anndata.read_h5ad(sys.argv[2]);"
        "model.predict(cells, progress_bar=False);"
        "model.sample(cells, n_steps=3, progress_bar=False);"
        "numpy.savez(sys.argv[3], **{k: cells.obsm[k] for k in cells.obsm})"
    )
    out = tmp_path / "out.npz"
    subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "query.h5ad"), str(out)],
        check=True,
    )
    for key, placed in np.load(out).items():
        np.testing.assert_array_equal(placed, cells.obsm[key])


def test_everything_comes_back(saved):
    model, _, folder = saved
    loaded = al.AlphaSTomics.load(folder)
    assert repr(loaded) == repr(model)
    assert loaded.genes.equals(model.genes)
    assert loaded.training_record == model.training_record
    for name, frame in model.history.items():
        np.testing.assert_allclose(
            loaded.history[name][name].to_numpy(float), frame[name].to_numpy(float)
        )
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, loaded.module.state_dict()[name])
    loaded.save(folder.with_name("again"))
    first, second = (
        json.loads((f / "model.json").read_text())["payload"]
        for f in (folder, folder.with_name("again"))
    )
    assert first == second


def test_files_are_safetensors_and_json(saved):
    _, _, folder = saved
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]
    json.loads((folder / "model.json").read_text())
    with safe_open(folder / "weights.safetensors", "pt") as weights:
        assert "mean_head.weight" in list(weights.keys())


def test_nothing_is_unpickled(saved, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("load un-pickled something")

    _, _, folder = saved
    for owner, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    al.AlphaSTomics.load(folder)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "alter"])
def test_damage_is_detected(saved, name, damage):
    _, _, folder = saved
    content = bytearray((folder / name).read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif name == "model.json":
        content = content.replace(b'"num_heads": 2', b'"num_heads": 4')
    else:
        content[-10] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged or was altered"):
        al.AlphaSTomics.load(folder)


def test_a_newer_format_is_refused_by_name(saved):
    _, _, folder = saved
    document = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(
        json.dumps({"format": document["format"], "format_version": 99, "other": 1})
    )
    with pytest.raises(ValueError, match=r"has model format 99, .* reads formats up to 3: upgrade"):
        al.AlphaSTomics.load(folder)


def test_a_model_of_the_network_before_diffusion_heads_names_its_version(saved):
    _, _, folder = saved
    document = json.loads((folder / "model.json").read_text())
    document |= {"format_version": 1, "payload": {"versions": {"alphastomics": "0.1.0"}}}
    (folder / "model.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"load it with alphastomics==0\.1\.0, or train"):
        al.AlphaSTomics.load(folder)


def test_missing_folder_and_overwriting(saved, tmp_path):
    model, _, folder = saved
    with pytest.raises(FileNotFoundError, match=r"is not a saved alphastomics model.*model\.json"):
        al.AlphaSTomics.load(tmp_path / "nothing")
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        model.save(folder)
    (folder / "notes.txt").write_text("mine")
    model.save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    al.AlphaSTomics.load(folder)


def test_a_loaded_model_trains_further_on_sections_with_genes_in_another_order(saved, tissue):
    model, cells, folder = saved
    model_steps = model.training_record.steps
    loaded = al.AlphaSTomics.load(folder)
    with pytest.raises(ValueError, match=r"adata is missing.*load\(folder, adata\)"):
        loaded.train(max_steps=1, progress_bar=False)
    atlas = tissue[:, ::-1].copy()
    loaded = al.AlphaSTomics.load(folder, atlas)
    loaded.train(max_steps=1, set_size=32, lr=0.0, weight_decay=0.0, progress_bar=False)
    assert loaded.training_record.steps == model_steps + 1
    fresh = al.AlphaSTomics.load(folder)
    for model in (loaded, fresh):
        model.predict(cells, key_added=str(model is fresh), **QUIET)
    np.testing.assert_allclose(cells.obsm["True"], cells.obsm["False"], rtol=1e-4)
    with pytest.raises(ValueError, match="adata lacks 1 of the model's 40 genes"):
        al.AlphaSTomics.load(folder, tissue[:, 1:].copy())
    volume = al.datasets.simulate_tissue(2, 50, 40, n_dims=3)
    with pytest.raises(ValueError, match="has 3 columns, but the model is 2D"):
        al.AlphaSTomics.load(folder, volume)


@pytest.mark.parametrize("mode", ["auto", "pos_to_expr", "joint"])
def test_a_loaded_model_fills_in_the_same_in_every_mode(saved, half, mode):
    model, cells, folder = saved
    loaded = al.AlphaSTomics.load(folder)
    reference = cells[~half].copy()
    filled = []
    for each in (model, loaded):
        query = cells[half].copy()
        query.obsm["spatial"][:50] = np.nan
        query.obs["expression_known"] = np.arange(query.n_obs) < 100
        each.predict(query, mode=mode, reference=reference, progress_bar=False)
        each.sample(query, mode=mode, n_steps=2, n_samples=2, progress_bar=False)
        filled.append(query)
    first, second = filled
    assert set(first.obsm) == set(second.obsm)
    assert set(first.layers) == set(second.layers)
    for part in ("obsm", "layers"):
        for key, value in getattr(first, part).items():
            np.testing.assert_array_equal(getattr(second, part)[key], value)
    assert str(first.uns["alphastomics"]) == str(second.uns["alphastomics"])


def test_saving_leaves_files_of_users_alone(trained, tmp_path):
    model = trained[0]
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes\.txt.*choose another folder"):
        model.save(folder)
    with pytest.raises(FileExistsError, match="is a file"):
        model.save(folder / "notes.txt", overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]
    model.save(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    al.AlphaSTomics.load(folder)


def test_a_model_stays_if_writing_its_successor_fails(trained, tmp_path, monkeypatch):
    model = trained[0]
    folder = tmp_path / "model"
    model.save(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    replace = os.replace

    def fails(source, target):
        if Path(target).name == "model" and not str(source).endswith(".old"):
            raise OSError("no space left")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        model.save(folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
