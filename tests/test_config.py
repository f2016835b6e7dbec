"""The configuration: what may be in it, and what is said of what may not."""

import inspect
import runpy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from typer.main import get_command

import alphastomics as al
from alphastomics.config import (
    PRESETS,
    Config,
    ConfigError,
    ModelConfig,
    TrainConfig,
    load_config,
)
from alphastomics.main import app


def written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_command_line_over_yaml_over_preset_over_default(tmp_path):
    path = written(tmp_path, "training: {batch_size: 7, epochs: 3}")
    config = load_config(path, {"training": {"epochs": 4}}, preset="research")
    assert config.training.epochs == 4
    assert config.training.batch_size == 7
    assert config.training.learning_rate == 5e-4
    assert config.training.set_size == Config().training.set_size


def test_exponents_are_numbers(tmp_path):
    config = load_config(written(tmp_path, "training: {learning_rate: 1e-4, weight_decay: 1E3}"))
    assert config.training.learning_rate == 1e-4
    assert config.training.weight_decay == 1000


def test_defaults_are_those_of_the_class(tissue):
    atlas = tissue.copy()
    al.AlphaSTomics.setup_anndata(atlas)
    assert dict(al.AlphaSTomics(atlas).config) == Config().model_arguments()


@pytest.mark.parametrize(
    ("method", "options"),
    [(al.AlphaSTomics.__init__, ModelConfig), (al.AlphaSTomics.train, TrainConfig)],
)
def test_signatures_are_those_of_the_list_of_options(method, options):
    parameters = inspect.signature(method, eval_str=True).parameters
    for name, field in options.model_fields.items():
        default, annotation = field.default, field.annotation
        if name == "seed":  # None for that of al.settings
            assert al.settings.seed == default
            default, annotation = None, int | None
        assert parameters[name].default == default, name
        assert parameters[name].annotation == annotation, name
        assert name in method.__doc__ if method.__doc__ else name in al.AlphaSTomics.__doc__


def test_keys_of_the_file_have_the_types_of_the_options():
    sections = {
        f.annotation for f in Config.model_fields.values() if isinstance(f.annotation, type)
    }
    options = {**ModelConfig.model_fields, **TrainConfig.model_fields}
    for section in (s for s in sections if issubclass(s, BaseModel)):
        for name in section.model_fields.keys() & options.keys():
            assert section.model_fields[name].annotation == options[name].annotation, name


def test_switches_of_the_guide():
    def arguments(**settings):
        return load_config(None, {"TransformerLayer_setting": settings}).model_arguments()

    assert arguments(gate_type="headwise")["gate_type"] == "none"
    assert arguments(use_gated_attention=True)["gate_type"] == "elementwise"
    assert arguments(use_gated_attention=True, gate_type="headwise")["gate_type"] == "headwise"
    assert arguments(num_experts=4)["num_experts"] == 0
    assert arguments(use_moe=True, num_experts=4)["num_experts"] == 4
    off = load_config(None, {"masking": {"enable": False}}).model_arguments()
    assert off["expression_mask_ratio"] == off["position_mask_ratio"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training: {lerning_rate: 1}",
            "lerning_rate: unknown key. Did you mean learning_rate?",
        ),
        ("traning: {}", "traning: unknown key. Did you mean training?"),
        ("training: {epochs: many}", "training.epochs: must be a valid integer, found 'many'"),
        ("training: {batch_size: 1.5}", "training.batch_size: must be a valid integer, found 1.5"),
        ("training: {learning_rate: -1}", "learning_rate: must be greater than 0, found -1"),
        ("masking: {expression_mask_ratio: 1}", "expression_mask_ratio: must be less than 1"),
        ("training_mode: foo", "training_mode: must be 'joint', 'expr_to_pos' or 'pos_to_expr'"),
        ("training: {logger: foo}", "'auto', 'wandb', 'tensorboard', 'csv' or 'none', found 'foo'"),
        ("TransformerLayer_setting: {d_model: 10}", "d_model=10 is not divisible by num_heads=4"),
        (
            "TransformerLayer_setting: {use_moe: true, num_experts: 2, moe_top_k: 4}",
            "moe_top_k=4 is more than num_experts=2",
        ),
        ("masking: {enable: maybe}", "masking.enable: must be a valid boolean, found 'maybe'"),
        ("[1, 2]", "expected keys and values, found list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_errors_name_key_value_and_choices(tmp_path, text, message):
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, text))
    assert message in str(error.value)


def test_every_wrong_key_is_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, "training: {epochs: 0, batch_size: 0}\nfoo: 1"))
    assert len(str(error.value).splitlines()) == 3


def test_a_missing_file_and_an_unknown_preset(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="'foo' is none of research, production, moe, expressive"):
        load_config(preset="foo")


def test_the_file_of_the_repository_documents_every_key():
    path = Path(__file__).parents[1] / "config.yaml"
    text = path.read_text()
    assert text.partition("\n\n")[2] == Config().commented()
    assert load_config(path) == Config()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_can_be(preset):
    assert load_config(preset=preset) != Config()


@given(
    st.fixed_dictionaries(
        {
            "training_mode": st.sampled_from(["joint", "expr_to_pos", "pos_to_expr"]),
            "exp_name": st.none() | st.from_regex(r"\A[^/\\\0\s.][^/\\\0]{,7}\Z"),
            "training": st.fixed_dictionaries(
                {
                    "learning_rate": st.floats(1e-12, 1e3),
                    "epochs": st.none() | st.integers(1, 10**9),
                    "devices": st.integers(1, 8) | st.sampled_from(["auto", "1"]),
                }
            ),
            "masking": st.fixed_dictionaries({"enable": st.booleans()}),
        }
    )
)
def test_yaml_and_back_is_the_identity(values):
    config = Config.model_validate(values)
    assert Config.model_validate(yaml.safe_load(config.to_yaml())) == config


def test_the_page_of_errors_is_what_a_user_sees():
    """Written by ``python docs/config_errors.py``."""
    docs = Path(__file__).resolve().parents[1] / "docs"
    namespace = runpy.run_path(str(docs / "config_errors.py"))
    assert (docs / "config-errors.md").read_text() == namespace["page"]()


def test_help_shows_every_default():
    command = get_command(app)
    shown = {
        name: {option.name: option.help for option in sub.params}
        for name, sub in command.commands.items()
    }
    assert shown["train"]["TransformerLayer_setting__attention"].endswith("(default softmax).")
    assert shown["train"]["training__learning_rate"].endswith("(default 0.001).")
    assert shown["preprocess"]["genes"].endswith("(default intersection).")
