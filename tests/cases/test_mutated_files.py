"""Damaged and hostile stores, models, checkpoints and configs: an error of ours, or equal content.

``python tests/cases/test_mutated_files.py SEED N`` runs N of each by hand and prints what came out.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

import alphastomics as al
from alphastomics.config import Config, load_config
from alphastomics.io import open_data
from alphastomics.io._files import checksum
from alphastomics.io._manifest import Manifest

PACKAGE = str(Path(al.__file__).parent)
STRANGE = [None, -1, 0, 10**15, 2**70, 1e300, 0.5, "x", "", [], {}, True, "../../etc", ["x"]]
FOLDERS = ("data", "model", "run", "config")
SEED, EACH = 0, 26  # of each kind in the suite


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def made(folder, tissue, model):
    """Data, a model, a checkpoint and a config, small and whole."""
    from alphastomics.cli.preprocess import preprocess

    folder.mkdir(exist_ok=True)
    tissue = tissue[np.arange(tissue.n_obs) % 5 == 0, :20].copy()
    tissue.write_h5ad(folder / "raw.h5ad")
    preprocess(folder / "raw.h5ad", folder / "data", progress=False, labels_key="cell_type")
    model.save(folder / "model")
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(Config().to_yaml())
    return folder


# What is done to a file.


def flip(path, rng):
    content = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def truncate(path, rng):
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])


def append(path, rng):
    path.write_bytes(path.read_bytes() + rng.bytes(8))


def delete(path, rng):
    path.unlink()


def rename(path, rng):
    path.rename(path.with_name(path.name + "_"))


def to_link(path, rng):
    path.unlink()
    path.symlink_to("/etc/hostname" if rng.random() < 0.5 else "/dev/zero")


def to_folder(path, rng):
    path.unlink()
    path.mkdir()


def to_pipe(path, rng):
    path.unlink()
    os.mkfifo(path)


def to_noise(path, rng):
    path.write_bytes(rng.bytes(100))


def to_brackets(path, rng):
    path.write_text("[" * 100_000)


ON_FILES = [
    *(flip, truncate, append, delete, rename),
    *(to_link, to_folder, to_pipe, to_noise, to_brackets),
]


def mutated(document, rng):
    """A JSON document with one value replaced, taken away or added."""
    places = []

    def visit(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                visit(node[key])

    visit(document)
    if not places:
        return {"more": 1}
    node, key = places[rng.integers(len(places))]
    act = rng.integers(4)
    if act == 0 and isinstance(node, dict):
        del node[key]
    elif act == 1 and isinstance(node, dict):
        node["more"] = 1
    else:
        node[key] = STRANGE[rng.integers(len(STRANGE))]
    return document


def on_json(path, rng):
    path.write_text(json.dumps(mutated(json.loads(path.read_text()), rng)))


def sign_data(folder):
    """Make all checksums right again, as an attacker would."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    for section in document["sections"]:
        section["checksum"] = checksum(folder / section["file"])
    path.write_text(json.dumps(document))
    document["sha256"] = Manifest.model_validate_json(path.read_bytes()).checksum()
    path.write_text(json.dumps(document))


def sign_model(folder):
    path = folder / "model.json"
    document = json.loads(path.read_text())
    if isinstance(document.get("payload"), dict):
        weights = (folder / "weights.safetensors").read_bytes()
        document["payload"]["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    document.pop("sha256", None)
    text = json.dumps(document, sort_keys=True)
    path.write_text(json.dumps({**document, "sha256": hashlib.sha256(text.encode()).hexdigest()}))


def on_tensors(folder, rng):
    path = folder / "weights.safetensors"
    state = safetensors.torch.load_file(path)
    name = list(state)[rng.integers(len(state))]
    tensor = state[name]
    state[name] = [
        lambda: tensor.double() if tensor.dtype != torch.float64 else tensor.float(),
        lambda: tensor.int() if tensor.is_floating_point() else tensor.float(),
        lambda: tensor[None].clone(),
        lambda: torch.cat([tensor, tensor]) if tensor.ndim else torch.zeros(3),
        lambda: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else -tensor.int(),
        lambda: (
            torch.full_like(tensor, torch.inf) if tensor.is_floating_point() else ~tensor.bool()
        ),
        lambda: torch.full_like(tensor, 100) if tensor.dtype != torch.bool else tensor,
        lambda: torch.zeros_like(tensor),
    ][rng.integers(8)]()
    act = rng.integers(8)
    if act == 0:
        del state[name]
    elif act == 1:
        state["evil"] = torch.zeros(3)
    safetensors.torch.save_file(state, path)


def on_header(folder, rng):
    """A header that promises too much."""
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    n = struct.unpack("<Q", content[:8])[0]
    header = mutated(json.loads(content[8 : 8 + n]), rng)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + n :])


def on_array(folder, rng):
    """Other numbers in an array of a store."""
    import zarr

    arrays = [p.parent for p in sorted((folder / "sections").rglob(".zarray"))]
    array = zarr.open_array(str(arrays[rng.integers(len(arrays))]), mode="r+", zarr_format=2)
    values = np.asarray(array[...])
    if values.ndim and values.dtype.kind in "iuf" and values.size:
        values.flat[rng.integers(values.size)] = [-5, 100, 10**6][rng.integers(3)] % 2**7
        array[...] = values


def on_metadata(folder, rng):
    files = [*folder.rglob(".zarray"), *folder.rglob(".zattrs"), *folder.rglob(".zgroup")]
    on_json(sorted(files)[rng.integers(len(files))], rng)


def pickled_chunk(folder, rng, marker):
    """A decoder that runs code."""
    arrays = sorted(folder.rglob(".zarray"))
    path = arrays[rng.integers(len(arrays))]
    document = json.loads(path.read_text())
    document |= {"compressor": None, "filters": [{"id": "pickle"}], "dtype": "|O", "shape": [1]}
    path.write_text(json.dumps({**document, "chunks": [1]}))
    (path.parent / "0").write_bytes(pickle.dumps(Evil(marker)))


def on_checkpoint(folder, rng, marker):
    path = folder / "last.ckpt"
    kind = rng.integers(6)
    if kind == 0:
        path.write_bytes(pickle.dumps(Evil(marker)))
    elif kind == 1:
        torch.save({"state_dict": Evil(marker)}, path)
    elif kind == 2:
        torch.save({"state_dict": Evil(marker)}, path, _use_new_zipfile_serialization=False)
    elif kind == 3:  # unpacks to 4 GB
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
            file.open("last/data.pkl", "w", force_zip64=True) as part,
        ):
            for _ in range(200):
                part.write(bytes(1 << 20))
    else:
        content = torch.load(path, weights_only=True)
        if kind == 4:
            payload = mutated(json.loads(content["alphastomics"]["model"]), rng)
            content["alphastomics"]["model"] = json.dumps(payload)
        else:
            names = sorted(content["state_dict"])
            name = names[rng.integers(len(names))]
            tensor = content["state_dict"][name]
            content["state_dict"][name] = torch.zeros(1, dtype=tensor.dtype).expand(10**12)
        torch.save(content, path)


def on_config(path, rng, marker):
    kind = rng.integers(6)
    document = yaml.safe_load(path.read_text())
    if kind == 0:
        text = path.read_text() + path.read_text().splitlines()[0]
    elif kind == 1:
        text = "a0: &a0 [x]\n" + "".join(
            f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
        )
    elif kind == 2:
        text = f"exp_name: !!python/object/apply:os.mkdir [{marker}]\n"
    elif kind == 3:
        text = "a: " + "[{a: " * int(rng.integers(20, 5000))
    else:
        text = yaml.safe_dump(mutated(document, rng))
    path.write_text(text)


def mutate(whole, folder, kind, rng, marker):
    """Damage a copy of what is whole; True if the checksums were made right again."""
    shutil.rmtree(folder, ignore_errors=True)
    if kind == "run":
        folder.mkdir()
        shutil.copy(whole / "run" / "last.ckpt", folder / "last.ckpt")
    else:
        shutil.copytree(whole / kind, folder)
    if rng.random() < 0.4:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        ON_FILES[rng.integers(len(ON_FILES))](files[rng.integers(len(files))], rng)
        return kind == "config"
    if kind == "run":
        on_checkpoint(folder, rng, marker)
        return True
    if kind == "config":
        on_config(folder / "config.yaml", rng, marker)
        return True
    signs = bool(rng.random() < 0.7)
    if kind == "data":
        act = [
            lambda: on_json(folder / "manifest.json", rng),
            lambda: on_metadata(folder, rng),
            lambda: on_array(folder, rng),
            lambda: pickled_chunk(folder, rng, marker),
        ][rng.integers(4)]
    else:
        act = [
            lambda: on_json(folder / "model.json", rng),
            lambda: on_tensors(folder, rng),
            lambda: on_header(folder, rng),
        ][rng.integers(3)]
    act()
    if signs:
        try:
            (sign_data if kind == "data" else sign_model)(folder)
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            signs = False  # so damaged that it cannot be signed
    return signs


def content(folder, kind, cells):
    """Everything that is read, and a prediction."""
    if kind == "config":
        return load_config(folder / "config.yaml").to_yaml()
    if kind == "data":
        data = open_data(folder)
        data.verify()
        parts = [data.manifest.model_dump_json(exclude={"format_version"})]
        for section in data.sections():
            parts.append(section.obs.to_csv())
            parts += [section.expression[:].toarray().tobytes(), section.blocks.tobytes()]
            parts.append(b"" if section.position is None else section.position.tobytes())
        return parts
    model = al.AlphaSTomics.load(folder if kind == "model" else folder / "last.ckpt")
    query = cells.copy()
    model.predict(query, mode="expr_to_pos", progress_bar=False)
    model.generate(5, progress_bar=False)
    return repr(model), query.obsm["spatial_predicted"].tobytes()


def outcome(whole, folder, kind, number, expected, cells, seed):
    """What comes of a mutation: a word, and what is wrong or None."""
    rng = np.random.default_rng([seed, FOLDERS.index(kind), number])
    marker = folder.with_name("executed")
    signed = mutate(whole, folder, kind, rng, str(marker))
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = content(folder, kind, cells)
    except (ValueError, FileNotFoundError) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        ours = frame.filename.startswith(PACKAGE) and len(str(error)) < 1500
        wrong = None if ours and "weights_only" not in str(error) else f"foreign: {error!r:.300}"
        word = "refused"
    except Exception as error:
        traceback.print_exc(file=printed)
        word, wrong = "crashed", f"{error!r:.300} {printed.getvalue()[-600:]}"
    else:
        word = "equal" if found == expected else "other content"
        wrong = None if word == "equal" or signed else "damage was not found"
        if kind in ("model", "run") and any("torch" in w.filename for w in caught):
            wrong = f"warning of torch: {caught[0].message}"
    if marker.exists():
        wrong = "code was executed"
    return word, wrong


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_tissue, fit):
    folder = tmp_path_factory.mktemp("files")
    model = fit(small_tissue[:, :20].copy(), train={"checkpoint_dir": folder / "run"})
    return made(folder, small_tissue, model)


@pytest.fixture(scope="module")
def expected(whole, small_tissue):
    query = small_tissue[:20].copy()
    return {kind: content(whole / kind, kind, query) for kind in FOLDERS}, query


@pytest.mark.parametrize("number", range(EACH))
@pytest.mark.parametrize("kind", FOLDERS)
def test_damage_is_found_or_changes_nothing(kind, number, whole, expected, tmp_path):
    contents, query = expected
    _, wrong = outcome(whole, tmp_path / "copy", kind, number, contents[kind], query, SEED)
    assert wrong is None


def run_by_hand(seed, n):
    """Run n mutations of each kind under a limit of memory, and print the outcomes."""
    folder = Path(tempfile.mkdtemp())
    tissue = al.datasets.simulate_tissue(n_sections=3, n_cells=200, n_genes=40)
    atlas = tissue[:, :20].copy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, d_model=16, num_layers=1, d_ff=16, num_heads=2)
    options = {"set_size": 32, "batch_size": 2, "progress_bar": False}
    model.train(max_steps=3, checkpoint_dir=folder / "run", **options)
    whole, query = made(folder, tissue, model), tissue[:20].copy()
    expected = {kind: content(whole / kind, kind, query) for kind in FOLDERS}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind in FOLDERS:
        words = Counter()
        for number in range(n):
            word, wrong = outcome(whole, folder / "copy", kind, number, expected[kind], query, seed)
            words[word] += 1
            if wrong is not None:
                print(f"{kind} {number}: {wrong}", flush=True)
        print(seed, kind, dict(words), flush=True)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory: {after / 1e6:.2f} GB, {(after - before) / 1e6:.2f} GB more than before")
    shutil.rmtree(folder)


if __name__ == "__main__":
    run_by_hand(*map(int, sys.argv[1:]))
