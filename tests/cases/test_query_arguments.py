"""Arguments of the methods that fill in cells: an error that names them, nothing written."""

import anndata as ad
import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

from alphastomics.main import app

QUIET = {"progress_bar": False}
POINTS = [[0.0, 0.0], [50.0, 20.0]]


@pytest.fixture
def call(small_model, cells, unchanged):
    """Call of a method of the model on cells that must stay as they are."""

    def on_cells(method, *args, **options):
        with unchanged(cells):
            return getattr(small_model, method)(cells, *args, **QUIET, **options)

    return on_cells


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        pytest.param(*case[1:], id=case[0])
        for case in (
            (
                "A153",
                "predict",
                {"max_cells_per_set": 64.0},
                TypeError,
                "max_cells_per_set must be",
            ),
            ("A154", "predict", {"max_cells_per_set": "64"}, TypeError, r"found '64' \(str\)"),
            ("A181", "sample", {"n_samples": 2.5}, TypeError, "n_samples must be a whole number"),
            ("A182", "sample", {"n_samples": "3"}, TypeError, "n_samples must be a whole number"),
            ("A183", "sample", {"n_samples": True}, TypeError, r"n_samples .* found True \(bool\)"),
            ("A186", "sample", {"n_steps": 2.0}, TypeError, "n_steps must be a whole number"),
            ("A187", "sample", {"seed": -1}, ValueError, "seed must be at least 0, found -1"),
            (
                "A188",
                "sample",
                {"seed": "0"},
                TypeError,
                "seed must be a whole number, found '0'",
            ),
            ("A189", "sample", {"seed": 1.5}, TypeError, "seed must be a whole number, found 1.5"),
            ("A200", "sample", {"n_samples": 10**9}, ValueError, "n_samples=1000000000 .* GB"),
            ("seed-beyond-64-bits", "sample", {"seed": 2**64}, ValueError, "seed must be at most"),
            (
                "steps-beyond-memory",
                "sample",
                {"n_steps": 10**12},
                ValueError,
                "n_steps must be at",
            ),
            ("rounds", "sample", {"n_rounds": "x"}, TypeError, "n_rounds must be a whole number"),
            ("point", "sample", {"point": ["medoid"]}, ValueError, "point must be 'medoid'"),
            ("mode", "predict", {"mode": ["auto"]}, ValueError, "mode must be one of"),
            ("output", "predict", {"output": np.zeros(2)}, ValueError, "output must be one of"),
            ("impute-seed", "impute", {"seed": 0.5}, TypeError, "seed must be a whole number"),
            ("impute-steps", "impute", {"n_steps": 0}, ValueError, "n_steps must be at least 1"),
            (
                "latent-set",
                "get_latent_representation",
                {"max_cells_per_set": 1},
                ValueError,
                "max_cells_per_set must be at least 2",
            ),
        )
    ],
)
def test_a_number_out_of_range_or_of_another_type_is_named(
    small_model, cells, unchanged, method, options, error, message
):
    needed = {"genes": ["gene_1"]} if method == "impute" else {"mode": "expr_to_pos"}
    quiet = {} if method == "get_latent_representation" else QUIET
    with unchanged(cells), pytest.raises(error, match=message):
        getattr(small_model, method)(cells, **{**needed, **options, **quiet})


@pytest.mark.parametrize(
    ("n_cells", "options", "error", "message"),
    [
        pytest.param(2.5, {}, TypeError, "n_cells must be a whole number, found 2.5", id="A273"),
        pytest.param("10", {}, TypeError, "n_cells must be a whole number, found '10'", id="A274"),
        pytest.param(10**12, {}, ValueError, r"n_cells=1000000000000 needs .* GB", id="A278"),
        pytest.param(3, {"seed": -1}, ValueError, "seed must be at least 0, found -1", id="A279"),
        pytest.param(3, {"seed": 1.5}, TypeError, "seed must be a whole number", id="A282"),
        pytest.param(3, {"n_steps": 0}, ValueError, "n_steps must be at least 1", id="steps"),
        pytest.param(2, {"labels": [["a"], "b"]}, ValueError, "labels", id="ragged-labels"),
    ],
)
def test_generate_names_a_bad_argument(small_model, n_cells, options, error, message):
    with pytest.raises(error, match=message):
        small_model.generate(n_cells, **QUIET, **options)


@pytest.mark.parametrize(
    ("positions", "error"),
    [
        pytest.param([["a", "b"]], ValueError, id="A255"),
        pytest.param([[0.0, 1.0], [2.0]], ValueError, id="A256"),
        pytest.param("AnnData", TypeError, id="A265"),
        pytest.param(None, ValueError, id="none"),
        pytest.param([1.0, 2.0], ValueError, id="flat"),
        pytest.param([[1j, 2.0]], ValueError, id="complex"),
        pytest.param({"x": 1}, ValueError, id="mapping"),
    ],
)
def test_positions_that_are_none_give_one_error(small_model, cells, positions, error):
    positions = cells if isinstance(positions, str) else positions
    with pytest.raises(error, match=r"positions must have shape \(n_cells, 2\)"):
        small_model.predict_expression(positions, **QUIET)


def test_seed_of_the_command_is_named(small_model, tmp_path):
    """D072."""
    folder = tmp_path / "model"
    small_model.save(folder)
    arguments = ["sample", "--checkpoint", str(folder), "--num_samples", "5", "--seed", "-1"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "new.h5ad")])
    assert done.exit_code == 2
    assert "--seed" in done.output
    assert "greater than or equal to 0" in " ".join(done.output.split())
    assert not (tmp_path / "new.h5ad").exists()


def test_sparse_positions_are_read_by_the_command(small_model, cells, tmp_path):
    """D087."""
    folder, query, output = (tmp_path / name for name in ("model", "query.h5ad", "placed.h5ad"))
    small_model.save(folder)
    cells.obsm["spatial"] = sparse.csr_matrix(cells.obsm["spatial"])
    cells.write_h5ad(query)
    arguments = ["sample", "--checkpoint", str(folder), "--mode", "expr_to_pos"]
    done = CliRunner().invoke(app, [*arguments, "--input", str(query), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert "spatial_sampled" in ad.read_h5ad(output).obsm


class TestGenes:
    @pytest.mark.parametrize(
        ("genes", "error", "message"),
        [
            pytest.param(
                ["gene_3", "gene_1", "gene_3"],
                ValueError,
                "genes names 'gene_3' more than once",
                id="A234",
            ),
            pytest.param(3, TypeError, "genes must be a list of names", id="number"),
            pytest.param([3], TypeError, "genes must be a list of names", id="numbers"),
            pytest.param({"gene_1": 1}, TypeError, "genes must be a list of names", id="mapping"),
        ],
    )
    def test_refused(self, call, genes, error, message):
        with pytest.raises(error, match=message):
            call("impute", genes=genes)

    def test_columns_are_in_the_order_asked_for(self, small_model, cells):
        """A235."""
        for key, genes in (("a", ["gene_5", "gene_2"]), ("b", ["gene_2", "gene_5"])):
            small_model.impute(cells, genes=genes, key_added=key, **QUIET)
            assert list(cells.obsm[key]) == genes
        np.testing.assert_array_equal(
            cells.obsm["a"][["gene_2", "gene_5"]], cells.obsm["b"][["gene_2", "gene_5"]]
        )
