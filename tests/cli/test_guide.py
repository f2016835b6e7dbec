"""Every command of the usage guide, in its order and spelling, on small data."""

import shlex
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import alphastomics as al
from alphastomics.config import load_config
from alphastomics.main import app, train_app

ROOT = Path(__file__).parents[2]
SMALL = """ --max_steps 2 --d_model 16 --num_heads 2 --num_layers 1 --d_ff 16 --set_size 32
 --sets_per_section 2 --sampling_steps 2 --logger none"""
SPELLINGS = {
    "python train.py": (train_app, []),
    "python -m alphastomics.main": (app, []),
    "python compare_configs.py": (app, ["compare-configs"]),
}
GUIDE_CONFIG = """
TransformerLayer_setting:
  d_model: 256
  num_heads: 8
  d_ff: 2048
  use_gated_attention: false
  gate_type: headwise
  use_moe: false
  num_experts: 8
  moe_top_k: 2
diffusion:
  diffusion_steps: 1000
training:
  batch_size: 64
  epochs: 100
  learning_rate: 1e-4
masking:
  enable: false
  expression_mask_ratio: 0.3
  position_mask_ratio: 0.33
training_mode: joint
"""


def typed(command, code=0):
    """Run a command as it is typed, in this process."""
    spelling = next(s for s in SPELLINGS if command.startswith(s))
    of, first = SPELLINGS[spelling]
    words = shlex.split(command.removeprefix(spelling))
    result = CliRunner().invoke(of, [*first, *words])
    assert result.exit_code == code, f"{command}\n{result.output}\n{result.exception!r}"
    return result.output


def network(run):
    return yaml.safe_load(Path(run, "config.yaml").read_text())["TransformerLayer_setting"]


def steps(checkpoint):
    return al.AlphaSTomics.load(checkpoint).training_record.steps


def follow_the_guide(held_out, n_genes):
    """Type the guide in a folder that has ``raw/``, and check what each command leaves behind."""
    # The guide names three folders of data, and holds out no section.
    for folder, more in (("processed_data", ""), ("data", f" --test_sections {held_out}")):
        typed(
            f"python -m alphastomics.main preprocess --raw_dir ./raw --output_dir ./{folder}{more}"
        )
    shown = (ROOT / "config.yaml").read_text()
    named = shown.replace("processed_data_dir: null", "processed_data_dir: ./processed_data")
    assert named != shown
    Path("config.yaml").write_text(named)

    with pytest.warns(UserWarning, match=f"2000 is more than the {n_genes} genes"):
        typed(
            "python train.py --config config.yaml --data_dir ./processed_data --num_genes 2000 "
            "--exp_name my_first_experiment" + SMALL
        )
    first = Path("outputs/my_first_experiment")
    for name in ("config.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "history.csv"):
        assert (first / name).is_file(), name
    typed(
        "python -m alphastomics.main train --config config.yaml --data_dir ./processed_data" + SMALL
    )
    assert not network("outputs/config")["use_moe"]

    with pytest.warns(UserWarning, match="2000"):
        typed(
            "python train.py --config config.yaml --data_dir ./data --num_genes 2000 "
            "--use_gated_attention --use_moe --num_experts 4 --moe_top_k 2 --exp_name my_experiment"
            + SMALL
        )
    assert network("outputs/my_experiment")["num_experts"] == 4
    typed("python -m alphastomics.main preprocess --raw_dir ./raw --output_dir ./processed")
    assert Path("processed/manifest.json").is_file()
    typed(
        "python -m alphastomics.main train --config config.yaml --use_gated_attention --use_moe "
        "--num_experts 4 --moe_top_k 2" + SMALL
    )
    made = network("outputs/config")
    assert made["use_gated_attention"]
    assert made["gate_type"] == "elementwise"
    with pytest.warns(UserWarning, match="no section was held out"):
        typed("python -m alphastomics.main test --config config.yaml --checkpoint best.ckpt")
    assert Path("outputs/config/test/metrics.json").is_file()
    typed("python -m alphastomics.main sample --checkpoint best.ckpt --num_samples 1000")
    generated = ad.read_h5ad("outputs/config/generated.h5ad")
    assert generated.shape == (1000, n_genes)
    assert np.isfinite(generated.obsm["spatial"]).all()

    with pytest.warns(UserWarning, match="2000"):
        typed(
            "python train.py --config config.yaml --data_dir ./data --num_genes 2000 "
            "--use_gated_attention --gate_type elementwise --use_moe --num_experts 8 --moe_top_k 2 "
            "--enable_masking --expression_mask_ratio 0.3 --position_mask_ratio 0.33 "
            "--batch_size 64 --epochs 100 --lr 1e-4 --exp_name full_featured" + SMALL
        )
    effective = load_config(Path("outputs/full_featured/config.yaml"))
    assert effective.training.learning_rate == 1e-4
    assert effective.training.batch_size == 64
    assert effective.masking.expression_mask_ratio == 0.3

    # As begun, with experts, although config.yaml has none; the folder is that of the run.
    last = "outputs/my_experiment/checkpoints/last.ckpt"
    for n, spelling in ((3, "python train.py"), (4, "python -m alphastomics.main train")):
        with pytest.warns(UserWarning, match="2000"):
            typed(f"{spelling} --config config.yaml --resume {last} --max_steps {n}")
        assert steps(last) == n
    assert network("outputs/my_experiment")["num_experts"] == 4
    assert "MoE, 2 of 4" in typed("python compare_configs.py --n_cells 32")


def test_the_guide_on_simulated_tissue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    tissue = al.datasets.simulate_tissue(n_sections=3, n_cells=60, n_genes=12)
    tissue.write_h5ad("raw/tissue.h5ad")
    follow_the_guide("section_2", n_genes=12)


def test_the_guide_on_a_real_tissue(tmp_path, monkeypatch, shared_data):
    """A hundred cells of every section of a MERFISH atlas."""
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    atlas = ad.read_h5ad(shared_data / "merfish_hypothalamus.h5ad")
    rng = np.random.default_rng(0)
    groups = atlas.obs.groupby("section", observed=True).indices.values()
    chosen = np.concatenate([rng.choice(cells, 100, replace=False) for cells in groups])
    atlas[chosen].write_h5ad("raw/merfish.h5ad")
    follow_the_guide("animal1_bregma+0.21", n_genes=atlas.n_vars)


def test_the_check_of_the_installation():
    from alphastomics.diffusion_model import MaskedDiffusionModule

    assert MaskedDiffusionModule is al.diffusion_model.MaskedDiffusionModule


def test_the_config_of_the_guide(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(GUIDE_CONFIG)
    config = load_config(path)
    assert config.training.learning_rate == 1e-4
    arguments = config.model_arguments()
    assert arguments["gate_type"] == "none"
    assert arguments["num_experts"] == arguments["position_mask_ratio"] == 0
