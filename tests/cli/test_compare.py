"""The table of what configurations cost."""

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from alphastomics.cli.compare import compare
from alphastomics.diffusion_model import MaskedDiffusionModule
from alphastomics.diffusion_model.complexity import account
from alphastomics.main import app

SMALL = ["compare-configs", "--d_model", "16", "--d-ff", "32", "--num_layers", "1"]
SMALL += ["--num_genes", "10", "--n_cells", "32"]


@pytest.fixture(scope="module")
def table():
    return compare(n_cells=64)


def test_experts_compute_their_share(table):
    assert table.loc["MoE, 2 of 4", "FFN active %"] == 50
    assert table.loc["MoE, 2 of 8", "FFN active %"] == 25
    assert table.loc["MoE, 4 of 16", "FFN active %"] == 25
    assert table.loc["Gated + MoE, 2 of 8", "FFN active %"] == 25
    dense = table.loc["Baseline"]
    assert dense["active"] == dense["parameters"]
    # The router and the biases: 2 products, 2 operations, cells, width, experts, layers.
    router = 2 * 2 * 64 * 128 * 4 * 2 / 1e6
    assert table.loc["MoE, 2 of 4", "FFN MFLOP"] == pytest.approx(
        dense["FFN MFLOP"] / 2 + router, abs=0.1
    )


def test_a_gate_has_the_parameters_of_its_projection(table):
    added = table["parameters"] - table.loc["Baseline", "parameters"]
    assert added["Gated, headwise"] == 2 * (128 + 1) * 4
    assert added["Gated, elementwise"] == 2 * (128 + 1) * 128


def test_operations_of_attention_grow_with_the_square_of_the_cells():
    def flops(n_cells, **options):
        module = MaskedDiffusionModule(
            10, d_model=16, num_heads=2, num_layers=2, d_ff=32, **options
        )
        return account(module, n_cells).flops

    assert flops(200, attention="linear") == 2 * flops(100, attention="linear")
    products = 2 * 2 * 2 * 16  # layers, two products, operations, width
    assert flops(200) - 2 * flops(100) == products * (200**2 - 2 * 100**2)


def test_formats_hold_the_same_table():
    as_json = json.loads(CliRunner().invoke(app, [*SMALL, "--format", "json"]).stdout)
    lines = CliRunner().invoke(app, [*SMALL, "--format", "csv"]).stdout.splitlines()
    assert len(as_json) == len(lines) - 1
    assert set(lines[0].split(",")) == set(as_json[0])
    shown = CliRunner().invoke(app, SMALL).stdout
    assert all(row["configuration"] in shown for row in as_json)
    counted = pd.DataFrame(as_json)["parameters"]
    assert (counted > 0).all()


def test_the_size_may_come_from_a_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("TransformerLayer_setting: {d_model: 16, num_layers: 1, d_ff: 32}")
    options = ["--num_genes", "10", "--n_cells", "32", "--format", "csv"]
    tables = [
        CliRunner().invoke(app, [*size, *options]).stdout.splitlines()
        for size in (SMALL[:7], ["compare-configs", "--config", str(path)])
    ]
    for a, b in zip(*tables, strict=True):
        assert a.split(",")[:-2] == b.split(",")[:-2] or "configuration" in a
    missing = CliRunner().invoke(app, ["compare-configs", "--config", "none.yaml"])
    assert missing.exit_code == 2
    assert "there is no file" in missing.output


def test_an_impossible_size_is_one_clear_error():
    result = CliRunner().invoke(app, ["compare-configs", "--d_model", "10"])
    assert result.exit_code == 2
    assert "d_model=10 is not divisible by num_heads=4" in result.output
    assert "Traceback" not in result.output
