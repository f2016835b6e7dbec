"""Habits of scvi-tools on the model: each works, or one error says what to use."""

import inspect
import re

import numpy as np
import pytest
from scvi.model.base import BaseModelClass

import alphastomics as al
from alphastomics.model._scvi import ELSEWHERE

QUIET = {"mode": "expr_to_pos", "progress_bar": False}


@pytest.fixture(scope="module")
def folder(small_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("scvi") / "model"
    small_model.save(path)
    return path


@pytest.fixture
def loaded(folder):
    return al.AlphaSTomics.load(folder, adata=False)


def new_model(adata):
    al.AlphaSTomics.setup_anndata(adata)
    return al.AlphaSTomics(adata, d_model=16, num_layers=1, d_ff=16, num_heads=2)


# What the public names of scvi-tools' base class do here.
WORKS = {
    "adata": lambda m: m.adata.n_obs == 400,
    "adata_manager": lambda m: m.adata_manager.adata is m.adata,
    "deregister_manager": lambda m: m.deregister_manager() is None,
    "device": lambda m: m.device.type == "cpu",
    "get_anndata_manager": lambda m: m.get_anndata_manager(m.adata) is m.adata_manager,
    "get_setup_arg": lambda m: m.get_setup_arg("values") == "counts",
    "get_state_registry": lambda m: len(m.get_state_registry("X")["column_names"]) == 40,
    "history": lambda m: "train_loss" in m.history,
    "is_trained": lambda m: m.is_trained,
    "load": lambda m: callable(m.load),
    "load_registry": lambda m: callable(m.load_registry),
    "register_manager": lambda m: m.register_manager(m.adata_manager) is None,
    "registry": lambda m: m.registry["setup_args"]["values"] == "counts",
    "run_id": lambda m: m.run_id == "",
    "run_name": lambda m: m.run_name.startswith("run_"),
    "save": lambda m: callable(m.save),
    "setup_anndata": lambda m: callable(m.setup_anndata),
    "summary_string": lambda m: m.summary_string == repr(m),
    "to_device": lambda m: m.to_device("cpu") is None,
    "train": lambda m: callable(m.train),
    "view_anndata_setup": lambda m: m.view_anndata_setup() is None,
    "view_setup_args": lambda m: callable(m.view_setup_args),
    "view_setup_method_args": lambda m: m.view_setup_method_args() is None,
}
PUBLIC = sorted(name for name in dir(BaseModelClass) if not name.startswith("_"))


@pytest.mark.parametrize("name", PUBLIC)
def test_input_70_every_public_name_works_or_says_what_to_use(small_model, name):
    assert (name in WORKS) != (name in ELSEWHERE)
    if name in WORKS:
        assert WORKS[name](small_model)
        return
    for owner in (small_model, al.AlphaSTomics):
        with pytest.raises(AttributeError, match=f"AlphaSTomics has no {name}: "):
            getattr(owner, name)
    assert not hasattr(small_model, name)


@pytest.mark.parametrize("name", sorted(set(ELSEWHERE) - set(PUBLIC)))
def test_input_70_methods_of_other_models_name_ours(small_model, name):
    with pytest.raises(AttributeError, match=f"AlphaSTomics has no {name}: "):
        getattr(small_model, name)


def test_the_names_that_are_advised_exist(small_model):
    for name in re.findall(r"model\.(\w+)", " ".join(ELSEWHERE.values())):
        assert hasattr(small_model, name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, c: m.save("x", prefix="x_"), "save takes no prefix='x_': a model is a folder"),
        (lambda m, c: m.save("x", save_anndata=True), "save takes no save_anndata=True: write it"),
        (lambda m, c: m.load("x", prefix="x_"), "load takes no prefix='x_'"),
        (lambda m, c: m.load("x", device="cuda:0"), r"load takes no device=.*model\.to_device"),
        (lambda m, c: m.load("x", accelerator="gpu"), r"load takes no accel.*model\.to_device"),
        (lambda m, c: m.view_setup_args("x", prefix="x_"), "takes no prefix='x_'"),
        (lambda m, c: m.load_registry("x", prefix="x_"), "takes no prefix='x_'"),
        (lambda m, c: m.train(train_size=0.9), "train takes no train_size=0.9: .* val_sections="),
        (lambda m, c: m.train(plan_kwargs={"lr": 1}), "train takes no plan_kwargs=.*: pass lr="),
        (lambda m, c: m.train(use_gpu=True), "train takes no use_gpu=True: pass accelerator="),
        (lambda m, c: m.calibrate(train_size=0.9), "calibrate takes no train_size=0.9"),
        (lambda m, c: m.get_latent_representation(c, batch_size=9), "pass max_cells_per_set="),
        (lambda m, c: m.get_latent_representation(c, return_dist=True), "is not drawn"),
    ],
)
def test_input_70_options_of_scvi_are_refused_with_ours(small_model, cells, call, message):
    with pytest.raises(TypeError, match=message):
        call(small_model, cells)


def test_input_70_options_that_are_not_set_pass(small_model, folder, tmp_path):
    small_model.save(tmp_path / "m", prefix=None, save_anndata=False)
    model = al.AlphaSTomics.load(
        folder, adata=False, accelerator="auto", device="auto", prefix=None
    )
    assert model.adata is None


def test_input_70_setup_of_a_saved_model_is_printed(folder, capsys):
    al.AlphaSTomics.view_setup_args(folder)
    assert "'values': 'counts'" in capsys.readouterr().out
    assert al.AlphaSTomics.load_registry(folder)["setup_args"]["section_key"] == "section"
    with pytest.raises(FileNotFoundError, match="is not a saved alphastomics model"):
        al.AlphaSTomics.view_setup_args(folder / "none")


def test_input_70_setup_of_other_cells_is_an_error(small_model, loaded, cells):
    with pytest.raises(ValueError, match=r"adata was not set up: call AlphaSTomics.setup_anndata"):
        small_model.view_anndata_setup(cells)
    for call in (loaded.view_anndata_setup, loaded.deregister_manager):
        with pytest.raises(ValueError, match="this model was loaded without one"):
            call()


def test_input_70_training_cells_can_be_set(loaded, atlas, unchanged):
    few = atlas[:, :3].copy()
    with unchanged(few), pytest.raises(ValueError, match="adata lacks 37 of the model's 40 genes"):
        loaded.adata = few
    with pytest.raises(TypeError, match="adata must be an AnnData, found NoneType"):
        loaded.adata = None
    assert loaded.adata is None
    genes, other = loaded.genes, atlas[:, ::-1].copy()
    loaded.adata = other
    assert loaded.genes.equals(genes)
    loaded.view_anndata_setup()
    loaded.predict(**QUIET)
    assert other.obsm["spatial_predicted"].shape == (400, 2)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", 99, 1.5])
def test_input_70_a_device_that_is_not_there_is_named(small_model, device):
    with pytest.raises(ValueError, match=f"device={device!r} cannot be used on this machine"):
        small_model.to_device(device)
    assert small_model.device.type == "cpu"


def test_input_70_indices_choose_cells_in_the_context_of_their_section(small_model, cells):
    whole = small_model.get_latent_representation(cells)
    mask = np.arange(200) % 7 == 0
    for indices in ([5, 0, -1], np.array([3]), [], mask, range(4)):
        chosen = small_model.get_latent_representation(cells, indices=indices)
        expected = whole[np.asarray(indices, dtype=bool if indices is mask else int)]
        np.testing.assert_array_equal(chosen, expected)


@pytest.mark.parametrize(
    ("indices", "error"),
    [
        ([200], ValueError),
        ([-201], ValueError),
        (["cell_0"], TypeError),
        ([0.5], TypeError),
        ([[0]], TypeError),
        (np.ones(3, bool), TypeError),
        (3, TypeError),
    ],
)
def test_input_70_indices_out_of_range_are_named(small_model, cells, indices, error):
    with pytest.raises(error, match="indices must be"):
        small_model.get_latent_representation(cells, indices=indices)


def test_input_70_early_stopping_watches_our_validation_loss(atlas, capsys):
    model = new_model(atlas)
    model.train(
        max_epochs=6,
        set_size=32,
        sets_per_section=4,
        val_sections="section_1",
        early_stopping=True,
        early_stopping_patience=1,
        early_stopping_min_delta=100.0,
        accelerator="cpu",
        progress_bar=False,
    )
    assert len(model.history["validation_loss"]) == 2
    assert "validation_loss did not improve" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "early_stopping=True watches the validation loss: name sections .* val_sections="),
        ({"early_stopping_monitor": "elbo_validation"}, "early_stopping_monitor must be"),
    ],
)
def test_input_70_early_stopping_without_validation_says_what_it_needs(
    atlas, unchanged, options, message
):
    model = new_model(atlas)
    for call in (model.train, small_calibration(model)):
        with unchanged(atlas), pytest.raises((ValueError, RuntimeError), match=message):
            call(early_stopping=True, **options)
    assert not model.is_trained


def small_calibration(model):
    """Calibration of a model that counts as trained."""

    def call(**options):
        model.is_trained_ = True
        try:
            model.calibrate(**options)
        finally:
            model.is_trained_ = False

    return call


@pytest.mark.parametrize("owner", [al.AlphaSTomics, "model"])
def test_what_cannot_work_is_not_listed(small_model, owner):
    names = set(dir(small_model if owner == "model" else owner))
    assert not names & ELSEWHERE.keys()
    assert {"predict", "train", "setup_anndata", "get_latent_representation"} <= names


COPYING = {
    "predict": ("obsm", "spatial_predicted", QUIET),
    "sample": ("obsm", "spatial_sampled", QUIET),
    "impute": ("obsm", "expression_imputed", {"genes": ["gene_0"], "progress_bar": False}),
    "register": ("obsm", "spatial_registered", {}),
}


@pytest.mark.parametrize("method", COPYING)
def test_copy_leaves_the_cells_and_returns_others(small_model, cells, unchanged, method):
    store, key, options = COPYING[method]
    call = getattr(small_model, method)
    with unchanged(cells):
        copied = call(cells, copy=True, **options)
    assert call(cells, **options) is None
    written, expected = getattr(copied, store)[key], getattr(cells, store)[key]
    np.testing.assert_array_equal(np.asarray(written), np.asarray(expected))
    view = cells[:100]
    assert call(view, copy=True, **options).n_obs == 100
    assert view.is_view
    with pytest.raises(TypeError, match="copy must be True or False, found 'yes'"):
        call(cells, copy="yes", **options)


COMPUTING = {
    "predict": lambda m, c, **o: m.predict(c, **QUIET, **o),
    "sample": lambda m, c, **o: m.sample(c, n_steps=2, **QUIET, **o),
    "impute": lambda m, c, **o: m.impute(c, genes=["gene_0"], progress_bar=False, **o),
    "predict_expression": lambda m, c, **o: m.predict_expression(
        c.obsm["spatial"][:5], reference=c, progress_bar=False, **o
    ),
    "generate": lambda m, c, **o: m.generate(9, n_steps=2, progress_bar=False, **o),
    "get_latent_representation": lambda m, c, **o: m.get_latent_representation(c, **o),
    "register": lambda m, c, **o: m.register(c, **o),
}


@pytest.mark.parametrize("method", COMPUTING)
def test_every_method_that_computes_takes_a_device(small_model, cells, method):
    call = COMPUTING[method]
    call(small_model, cells, accelerator="cpu", devices=1)
    assert small_model.device.type == "cpu"
    for options, message in (
        ({"accelerator": "tpu"}, "accelerator must be one of 'auto', 'cpu', 'gpu'"),
        ({"devices": 0}, "devices must be 'auto', how many devices"),
        ({"devices": None}, "devices must be 'auto', how many devices"),
    ):
        with pytest.raises(ValueError, match=message):
            call(small_model, cells, **options)
    with pytest.raises(TypeError, match=f"{method} takes no batch_size=8: "):
        call(small_model, cells, batch_size=8)
    with pytest.raises(TypeError, match=f"{method} takes no acelerator='cpu'. Did you mean acc"):
        call(small_model, cells, acelerator="cpu")


@pytest.mark.parametrize("method", ["impute", "register", "get_latent_representation"])
def test_methods_of_one_device_refuse_several(small_model, cells, method):
    with pytest.raises(ValueError, match=r"devices=2 are several, but this method computes on one"):
        COMPUTING[method](small_model, cells, accelerator="cpu", devices=2)


def test_a_network_that_was_moved_for_a_call_can_be_trained_further(atlas, cells):
    model = new_model(atlas)
    few = {"max_steps": 1, "set_size": 32, "batch_size": 2, "progress_bar": False}
    model.train(**few)
    model.predict(cells, accelerator="cpu", devices=1, **QUIET)
    model.train(**few)
    assert model.training_record.steps == 2


def test_options_of_the_device_are_given_once(small_model, cells):
    with pytest.raises(ValueError, match="devices is given twice, in distributed= too"):
        small_model.predict(cells, devices=1, distributed={"devices": 1}, **QUIET)


@pytest.mark.parametrize(
    ("method", "parameter", "shown"),
    [
        ("predict", "mode", "Literal['auto', 'expr_to_pos', 'pos_to_expr', 'joint']"),
        ("sample", "point", "Literal['medoid', 'consensus']"),
        ("train", "precision", "Literal['32-true', 'bf16-mixed', '16-mixed']"),
        ("__init__", "frame", "Literal['learned', 'registered']"),
    ],
)
def test_signatures_show_literal_types(method, parameter, shown):
    signature = inspect.signature(getattr(al.AlphaSTomics, method))
    assert shown in str(signature.parameters[parameter])


def test_a_notebook_shows_a_table_of_the_model(small_model, atlas):
    table = small_model._repr_html_()
    for part in (
        "3 steps on 400 cells",
        "2 (section_0, section_1)",
        "40 (gene_0, gene_1",
        "d_model=16",
        "not calibrated: model.calibrate()",
        "counts in X",
    ):
        assert part in table
    assert len(table) < 5000
    assert "not trained" in new_model(atlas)._repr_html_()


def test_names_in_the_table_are_escaped(atlas):
    atlas.var_names = ["<script>", *atlas.var_names[1:]]
    assert "<script>" not in new_model(atlas)._repr_html_()


def test_warnings_name_the_line_of_the_user(small_model, cells):
    with pytest.warns(UserWarning, match="is a view of another AnnData") as caught:
        small_model.predict(cells[:50], **QUIET)
    assert {w.filename for w in caught} == {__file__}
    with pytest.warns(FutureWarning, match="max_set is now called") as caught:
        small_model.predict(cells, max_set=100, **QUIET)
    assert caught[0].filename == __file__
