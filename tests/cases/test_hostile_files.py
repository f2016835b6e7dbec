"""Stores, models, checkpoints and configs that others made: refused by name, before any work."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
import zarr
from typer.testing import CliRunner

import alphastomics as al
from alphastomics.cli._processed import read_atlas
from alphastomics.cli.preprocess import preprocess
from alphastomics.config import Config, ConfigError, load_config
from alphastomics.io import DataError, open_data
from alphastomics.io._files import checksum
from alphastomics.io._manifest import Manifest
from alphastomics.main import app


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


# Stores.


@pytest.fixture(scope="module")
def processed(tmp_path_factory, small_tissue):
    """Processed data of three sections; not to be changed."""
    folder = tmp_path_factory.mktemp("processed")
    tissue = small_tissue[np.arange(small_tissue.n_obs) % 4 == 0].copy()
    tissue.write_h5ad(folder / "raw.h5ad")
    preprocess(folder / "raw.h5ad", folder / "data", progress=False, test_sections=["section_2"])
    return folder / "data"


@pytest.fixture
def data(processed, tmp_path, monkeypatch):
    """Copy of the data in an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(processed, tmp_path / "data")
    return tmp_path / "data"


def store(data):
    return data / "sections" / "section_0.zarr"


def set_array(name, change):
    """Replace the numbers of an array."""

    def act(data, processed):
        array = zarr.open_array(str(store(data) / name), mode="r+", zarr_format=2)
        values = array[...]
        change(values)
        array[...] = values

    return act


def set_metadata(name, **changes):
    def act(data, processed):
        path = store(data) / name / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return act


def set_manifest(change):
    def act(data, processed):
        document = json.loads((data / "manifest.json").read_text())
        change(document)
        (data / "manifest.json").write_text(json.dumps(document))

    return act


def set_entry(**changes):
    return set_manifest(lambda manifest: manifest["sections"][0].update(changes))


def delete_chunk(data, processed):
    (store(data) / "X" / "data" / "0").unlink()


def link_store(data, processed):
    shutil.rmtree(store(data))
    store(data).symlink_to(store(processed))


def absolute(data, processed):
    set_entry(file=str(store(processed)))(data, processed)


def flip_byte(data, processed):
    path = store(data) / "obsm" / "spatial" / "0.0"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def decode_by_pickle(data, processed):
    set_metadata("obs/_index", filters=[{"id": "pickle"}], compressor=None)(data, processed)
    (store(data) / "obs" / "_index" / "0").write_bytes(pickle.dumps(Evil(data / "executed")))


def sign(data):
    """Make all checksums right, as who made the data on purpose would."""
    path = data / "manifest.json"
    document = json.loads(path.read_text())
    for section in document["sections"]:
        section["checksum"] = checksum(data / section["file"])
    path.write_text(json.dumps(document))
    document["sha256"] = Manifest.model_validate_json(path.read_bytes()).checksum()
    path.write_text(json.dumps(document))


def fill(value):
    def change(values):
        values[...] = value

    return change


def put(place, value):
    def change(values):
        values[place] = value

    return change


ALTERED, MISFIT = "was altered after preprocess wrote it", "does not fit the manifest"
OUTSIDE, CHECKSUM = "is not the name of a store in this folder", "does not match its checksum"
# What is done, the message, and the message when the checksums are right.
STORES = {
    "C101": (set_entry(file="../../../../etc"), OUTSIDE, None),
    "C102": (absolute, OUTSIDE, None),
    "C103": (link_store, "is a link that leaves the folder", None),
    "C107": (set_entry(n_cells=10**15), CHECKSUM, f"{MISFIT}: it has 50 cells, not 10{'0' * 14}"),
    "C108": (set_entry(n_cells=10), CHECKSUM, f"{MISFIT}: it has 50 cells, not 10"),
    "C111": (
        set_manifest(lambda manifest: manifest.update(genes=manifest["genes"][:10])),
        "statistics are of another number of genes",
        None,
    ),
    "C111-renamed": (
        set_manifest(lambda manifest: manifest.update(genes=manifest["genes"][::-1])),
        CHECKSUM,
        f"{MISFIT}: it has other genes",
    ),
    "C114": (
        set_manifest(lambda manifest: manifest["sections"].append(manifest["sections"][0])),
        "it has names of sections twice",
        None,
    ),
    "C115": (
        set_manifest(lambda manifest: manifest.update(sections=[])),
        "sections: List should have at least 1 item",
        None,
    ),
    "C116": (
        set_manifest(lambda manifest: manifest.update(values="lognorm")),
        "values are lognorm, but the options name others",
        None,
    ),
    "C122": (delete_chunk, ALTERED, ""),
    "C124": (flip_byte, ALTERED, ""),
    "C125": (set_metadata("X/indptr", shape=[10**12]), "declares 4,000,000,000,000 bytes", ""),
    "C125-chunk": (
        set_metadata("X/data", shape=[10**12], chunks=[10**12]),
        "declares 4,000,000,000,000 bytes",
        "",
    ),
    "C126": (
        set_array("X/indices", put(3, 10**6)),
        ALTERED,
        "it names genes beyond the 40 that there are",
    ),
    "C126-negative": (
        set_array("X/indices", put(3, -1)),
        ALTERED,
        "it names genes beyond the 40 that there are",
    ),
    "C127": (set_array("X/indptr", put(2, 10**4)), ALTERED, "rows end before they begin"),
    "C127-end": (set_array("X/indptr", put(-1, 10**4)), ALTERED, "rows begin or end outside"),
    "C128": (set_array("obsm/spatial", fill(np.nan)), ALTERED, f"{MISFIT}: it has no positions"),
    "C128-none": (set_entry(has_coordinates=False), CHECKSUM, f"{MISFIT}: it has positions"),
    "C129": (
        set_array("uns/alphastomics/blocks", put(-1, 10**6)),
        ALTERED,
        f"{MISFIT}: it has blocks that do not hold every cell once",
    ),
    "values": (set_array("X/data", put(3, 0.5)), ALTERED, "holds fractional values"),
    "dimension": (
        set_manifest(lambda manifest: manifest.update(n_dims=3)),
        CHECKSUM,
        f"{MISFIT}: it has 2D positions, not 3D",
    ),
    "pickle": (decode_by_pickle, "needs a decoder that preprocess does not use (pickle)", ""),
}


@pytest.mark.parametrize(("act", "message"), [v[:2] for v in STORES.values()], ids=STORES)
def test_a_damaged_store_ends_train_before_it_begins(act, message, data, processed):
    act(data, processed)
    done = CliRunner().invoke(
        app, ["train", "--data_dir", "data", "--logger", "none", "--max_steps", "1"]
    )
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert sorted(path.name for path in data.parent.iterdir()) == ["data"]
    assert not (data / "executed").exists()


@pytest.mark.parametrize(
    ("act", "message"),
    [(act, signed) for act, _, signed in STORES.values() if signed],
    ids=[name for name, case in STORES.items() if case[2]],
)
def test_content_is_compared_with_the_manifest_whatever_the_checksums(
    act, message, data, processed
):
    act(data, processed)
    sign(data)
    with pytest.raises(ValueError, match=r"section_0\.zarr") as error:
        open_data(data).verify()
    assert message in str(error.value)


def test_stores_are_verified_when_read_without_verify_too(data, processed):
    delete_chunk(data, processed)
    section = open_data(data).sections()[0]
    for name in ("expression", "obs", "position", "blocks"):
        with pytest.raises(DataError, match=ALTERED):
            getattr(section, name)


def test_a_manifest_without_a_checksum_of_earlier_versions_is_read(data):
    path = data / "manifest.json"
    document = json.loads(path.read_text()) | {"format_version": 1}
    del document["sha256"]
    path.write_text(json.dumps(document))
    open_data(data).verify()


def test_an_atlas_without_a_section_that_measures_all_genes_is_empty(tmp_path, small_tissue):
    """It was "No objects to concatenate"."""
    for i, genes in enumerate((slice(0, 30), slice(10, 40))):
        section = small_tissue[small_tissue.obs["section"] == f"section_{i}", genes].copy()
        (tmp_path / "raw").mkdir(exist_ok=True)
        section.write_h5ad(tmp_path / "raw" / f"{i}.h5ad")
    preprocess(tmp_path / "raw", tmp_path / "data", progress=False, genes="union")
    data = open_data(tmp_path / "data")
    atlas = read_atlas(data, data.genes)
    assert atlas.shape == (0, 40)
    assert not (atlas.obs["section"] == "section_0").any()


# Models.


@pytest.fixture(scope="module")
def saved(tmp_path_factory, small_model):
    """Folder of a saved model; not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    small_model.save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """Copy of the model."""
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def sign_model(folder, document):
    weights = (folder / "weights.safetensors").read_bytes()
    if isinstance(document.get("payload"), dict):
        document["payload"]["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    document.pop("sha256", None)
    text = json.dumps(document, sort_keys=True)
    document["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "model.json").write_text(json.dumps(document))


def deep(levels):
    nested = []
    for _ in range(levels):
        nested = [nested]
    return nested


def genes(payload):
    return payload["registry"]["field_registries"]["X"]["state_registry"]["column_names"]


def set_in(path, value):
    """Set a value deep in a document."""

    def change(document):
        *parents, last = path.split(".")
        for name in parents:
            document = document[name]
        document[last] = value

    return change


def delete_in(path):
    def change(document):
        *parents, last = path.split(".")
        for name in parents:
            document = document[name]
        del document[last]

    return change


INIT, SETUP = "payload.init_arguments", "payload.registry.setup_args"
TRAINING = "payload.training"
DOCUMENTS = {
    "C014": (set_in("format_version", float("inf")), "its format_version is inf"),
    "C017": (delete_in("payload"), "payload: it must hold keys and values"),
    "C018": (set_in("payload", []), "payload: it must hold keys and values"),
    "C022": (set_in("payload.more", deep(900)), "damaged or was altered"),
    "C024": (set_in(f"{INIT}.d_model", 10**6), "init_arguments: d_model=1000000.*implausibly"),
    "C025": (set_in(f"{INIT}.num_layers", 10**7), "num_layers=10000000.*implausibly large"),
    "C026": (set_in(f"{INIT}.d_model", "x"), "init_arguments: d_model must be a valid integer"),
    "C027": (set_in(f"{INIT}.evil", 1), "init_arguments: there is no option 'evil'"),
    "C029": (set_in(f"{INIT}.d_model", 64), "do not fit .* places in the network"),
    "C030": (set_in(f"{INIT}.adata", "x"), "init_arguments: there is no option 'adata'"),
    "C031": (delete_in("payload.registry"), "registry: Field required"),
    "C031-scvi": (
        set_in("payload.registry.field_registries.X.summary_stats", 1),
        "registry.field_registries.X.summary_stats: Input should be",
    ),
    "C031-more": (
        set_in("payload.registry.field_registries.more", 1),
        "registry.field_registries.more: Extra inputs",
    ),
    "C032": (set_in(f"{SETUP}.evil", 1), "registry.setup_args.evil: Extra inputs"),
    "C033": (
        lambda document: genes(document["payload"])["__array__"].pop(),
        "do not fit .* places in the network",
    ),
    "C035": (set_in(f"{TRAINING}.evil", 1), "training.evil: Extra inputs"),
    "C036": (
        set_in(f"{TRAINING}.calibration", {"framed": {"predict": float("nan")}}),
        "training.calibration.framed.predict: Input should be",
    ),
    "C037": (
        set_in(f"{TRAINING}.calibration", {"framed": {"predict": "x"}}),
        "training.calibration.framed.predict: Input should be a valid number",
    ),
    "C037-intervals": (
        set_in(f"{TRAINING}.intervals", {"genes": {"edges": [], "lower": [], "upper": [[1]]}}),
        "training.intervals.genes.upper.0: List should have at least",
    ),
    "C038": (set_in("payload.history", {"loss": [1]}), "history.loss: Input should be"),
    "C039": (
        set_in(f"{INIT}.d_model", {"__array__": [0] * 10**5}),
        "init_arguments: d_model must be a valid integer",
    ),
    "C039-genes": (
        lambda document: genes(document["payload"]).update(__array__=[0] * 10**5),
        "column_names.__array__.0: Input should be a valid string",
    ),
}


@pytest.mark.parametrize(("change", "message"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_field_of_a_saved_model_is_checked(change, message, folder):
    document = json.loads((folder / "model.json").read_text())
    change(document)
    sign_model(folder, document)
    with pytest.raises(ValueError, match=message) as error:
        al.AlphaSTomics.load(folder)
    assert str(folder) in str(error.value)
    assert len(str(error.value)) < 800


def test_brackets_without_end(folder):  # C021
    (folder / "model.json").write_text("[" * 10**6)
    with pytest.raises(ValueError, match="is not the complete JSON of a model"):
        al.AlphaSTomics.load(folder)


def changed(name, change):
    def act(state):
        state[name] = change(state[name])

    return act


def all_nan(state):
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = torch.full_like(tensor, torch.nan)


HEAD = "mean_head.weight"
TENSORS = {
    "C040": (lambda state: state.pop(HEAD), f"it lacks {HEAD}"),
    "C041": (
        lambda state: state.update(evil=torch.zeros(3)),
        "it has, which the network does not, evil",
    ),
    "C042": (all_nan, "values that are not finite"),
    "C042-one": (changed(HEAD, lambda t: t.index_fill(0, torch.tensor([0]), torch.inf)), HEAD),
    "C043": (changed(HEAD, torch.Tensor.double), rf"{HEAD} is .*torch.float64, not "),
    "C044": (changed(HEAD, lambda t: t.T.contiguous()), rf"{HEAD} is \[16, 2\].*not \[2, 16\]"),
    "C045": (changed(HEAD, torch.Tensor.int), rf"{HEAD} is .*torch.int32, not "),
    "C049": (
        changed("position_transform.scale", torch.zeros_like),
        "position_transform.scale must be above 0, found 0",
    ),
    "C049-gene": (
        changed("expression_transform.std", torch.zeros_like),
        "expression_transform.std must be above 0, found 0",
    ),
    "donors": (
        changed("donors.gene", lambda t: t + 100),
        "the parts of donors do not fit each other",
    ),
    "donors-rows": (
        changed("donors.start", lambda t: t.flip(0)),
        "the parts of donors do not fit each other",
    ),
}


@pytest.mark.parametrize(("change", "message"), TENSORS.values(), ids=TENSORS)
def test_weights_are_checked(change, message, folder):
    path = folder / "weights.safetensors"
    state = safetensors.torch.load_file(path)
    change(state)
    safetensors.torch.save_file(state, path)
    sign_model(folder, json.loads((folder / "model.json").read_text()))
    with pytest.raises(ValueError, match=message) as error:
        al.AlphaSTomics.load(folder)
    assert str(folder) in str(error.value)
    assert "state_dict" not in str(error.value)


HUGE = {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
HEADERS = {
    "C046": struct.pack("<Q", 2**60) + b"{}",
    "C047": struct.pack("<Q", len(json.dumps(HUGE))) + json.dumps(HUGE).encode(),
    "C048": b"",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_headers_of_weights_are_checked(content, folder):
    (folder / "weights.safetensors").write_bytes(content)
    sign_model(folder, json.loads((folder / "model.json").read_text()))
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged or was altered"):
        al.AlphaSTomics.load(folder)


def test_what_is_not_a_model(tmp_path, small_tissue):
    with pytest.raises(TypeError, match="found NoneType"):  # C064
        al.AlphaSTomics.load(None)
    path = tmp_path / "tissue.h5ad"  # C062
    small_tissue.write_h5ad(path)
    with pytest.raises(ValueError, match="is not a checkpoint that alphastomics wrote") as error:
        al.AlphaSTomics.load(path)
    assert "weights_only" not in str(error.value)


# Pickles.


def as_pickle(path, evil):
    path.write_bytes(pickle.dumps(evil))


def as_zip(path, evil):
    torch.save({"state_dict": evil, "alphastomics": {"model": "{}"}}, path)


def as_old_file(path, evil):
    torch.save(evil, path, _use_new_zipfile_serialization=False)


EVIL = "run/evil.ckpt"
INFO, SAMPLE = ["info", EVIL], ["sample", "--checkpoint", EVIL, "--num_samples", "3"]
RESUME = ["train", "--data_dir", "data", "--resume", EVIL, "--logger", "none"]


@pytest.mark.parametrize(
    ("write", "command"),
    [
        pytest.param(as_pickle, INFO, id="D058"),
        pytest.param(as_zip, INFO, id="D059"),
        pytest.param(as_old_file, INFO, id="D059-old"),
        pytest.param(as_zip, SAMPLE, id="D060"),
        pytest.param(as_zip, [*RESUME, "--max_steps", "3", "--output_dir", "new"], id="D061"),
    ],
)
def test_malicious_checkpoints_are_not_run(write, command, data):
    (data.parent / "run").mkdir()
    write(data.parent / EVIL, Evil(data.parent / "executed"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert "evil.ckpt is not a checkpoint that alphastomics wrote" in line
    assert "weights_only" not in line
    assert sorted(path.name for path in data.parent.iterdir()) == ["data", "run"]
    assert [path.name for path in (data.parent / "run").iterdir()] == ["evil.ckpt"]


# Configs.

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
CONFIGS = {
    "D032": (LAUGHS, r"line 2: .*aliases \(\*name\) are not read here"),
    "D033": ("TransformerLayer_setting: {d_model: 1e30}", "d_model: must be a valid integer"),
    "D034": ("training: {learning_rate: .inf}", "learning_rate: must be a finite number"),
    "D034-nan": ("training: {learning_rate: .nan}", "learning_rate: must be a finite number"),
    "D034-1e999": ("training: {learning_rate: 1e999}", "learning_rate: must be a finite number"),
    "D038": (b"\xff\xfe\x00a", r"c.yaml: not UTF-8 text \(byte 0\)"),
    "D039": ("exp_name: é".encode("latin1"), r"c.yaml: not UTF-8 text \(byte 10\)"),
    "D041": ("training: {}\ntraining: {}", "line 2: .*the key 'training' is there twice"),
    "D041-below": ("training: {seed: 1, seed: 2}", "the key 'seed' is there twice"),
    "D043": ("[" * 5000 + "]" * 5000, "nested more than 20 levels deep"),
    "D043-keys": ("{a: " * 5000, "nested more than 20 levels deep"),
    "digits": ("training: {seed: " + "9" * 5000 + "}", "not valid YAML: Exceeds the limit"),
    "seed": ("training: {seed: " + "9" * 30 + "}", r"training.seed: must be below 2\*\*63"),
    "date": ("exp_name: 2020-99-99", "not valid YAML: month must be in 1..12"),
    "long": ("x" * 2_000_000, "larger than 1,000,000 bytes"),
    "layers": ("TransformerLayer_setting: {num_layers: 1000000}", "implausibly large"),
    "number as a key": ("training: {1: 2}", "training.1: must be text, found 1"),
}


@pytest.mark.parametrize(("text", "message"), CONFIGS.values(), ids=CONFIGS)
def test_configs_of_others(text, message, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert len(str(error.value)) < 1000


def test_a_config_that_was_written_is_read(tmp_path):
    (tmp_path / "c.yaml").write_text(Config(exp_name="Ünïcode").to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "c.yaml").exp_name == "Ünïcode"


# Options of the constructor.

OPTIONS = {
    "A500": ({"d_model": 16.0}, "d_model must be a valid integer, found 16.0"),
    "A501": ({"d_model": "16"}, "d_model must be a valid integer, found '16'"),
    "A502": ({"seed": -1}, "seed must be at least 0, found -1"),
    "A503": ({"seed": "0"}, "seed must be a valid integer, found '0'"),
    "A504": ({"seed": 2**70}, r"seed must be below 2\*\*63, found 1180591620717411303424"),
    "A510": (
        {"expression_mask_ratio": "0.3"},
        "expression_mask_ratio must be a valid number, found '0.3'",
    ),
    "A512": ({"num_layers": 1000000}, "num_layers=1000000.* 1e.11 parameters.*implausibly large"),
    "A516": ({"allow_reflection": "no"}, "allow_reflection must be a valid boolean, found 'no'"),
    "nan": ({"expression_noise": float("nan")}, "expression_noise must be a finite number"),
    "true": ({"d_model": True}, "d_model must be a valid integer, found True"),
    "width": ({"d_model": 10**6}, "d_model=1000000.*implausibly large"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_of_a_model(options, message, atlas):
    al.AlphaSTomics.setup_anndata(atlas)
    with pytest.raises(ValueError, match=message) as error:
        al.AlphaSTomics(atlas, **options)
    assert len(str(error.value).splitlines()) == 1


def test_numbers_of_numpy_are_numbers(atlas):
    al.AlphaSTomics.setup_anndata(atlas)
    size = {"num_layers": np.int32(1), "d_ff": 16, "num_heads": 2}
    model = al.AlphaSTomics(atlas, d_model=np.int64(16), allow_reflection=np.bool_(False), **size)
    assert model.config.d_model == 16
    assert model.config.allow_reflection is False
