"""What the package declares: dependencies, extras, addresses, the entry for scverse."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import anndata as ad
import pytest
import yaml
import zarr
from typer.testing import CliRunner

import alphastomics as al
from alphastomics._compat import MissingExtraError, require
from alphastomics.cli._loggers import choose_logger, loggers
from alphastomics.config import Config
from alphastomics.io._spatialdata import centroids
from alphastomics.main import app

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
META = yaml.safe_load((ROOT / "meta.yaml").read_text())
IMPORTED_AS = {"pyyaml": "yaml", "scikit-learn": "sklearn", "scvi-tools": "scvi"}
OPTIONAL = ("io", "wandb")


def modules(requirements):
    """Names under which distributions are imported."""
    names = [re.split(r"[\[<>=!~; ]", requirement)[0] for requirement in requirements]
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


HARD = modules(PROJECT["dependencies"])
EXTRAS = {e: modules(PROJECT["optional-dependencies"][e]) for e in OPTIONAL}
IN_EXTRAS = set().union(*EXTRAS.values())


def imported(nodes):
    """Packages that parts of a file import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "require":
            yield node.args[0].value.partition(".")[0]


TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
IMPORTED = {path: set(imported(ast.walk(tree))) for path, tree in TREES.items()}


@pytest.mark.parametrize("name", sorted(HARD | IN_EXTRAS))
def test_what_is_declared_is_imported(name):
    assert any(name in packages for packages in IMPORTED.values())


def test_what_is_imported_is_declared():
    # What pydantic, typer and matplotlib bring.
    also = {"alphastomics", "annotated_types", "mpl_toolkits", "rich"}
    declared = HARD | IN_EXTRAS | also | sys.stdlib_module_names
    for path, packages in IMPORTED.items():
        assert packages <= declared, path


def test_extras_are_imported_late():
    assert not HARD & IN_EXTRAS
    for path, tree in TREES.items():
        assert IN_EXTRAS.isdisjoint(imported(tree.body)), path


def test_cells_are_placed_without_extras():
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(IN_EXTRAS)}));"
        "import alphastomics, alphastomics.main, alphastomics.model, alphastomics.io"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_all_extras_are_in_all_and_tests_have_them():
    extras = PROJECT["optional-dependencies"]
    assert extras["all"] == [f"alphastomics[{','.join(OPTIONAL)}]"]
    assert "alphastomics[all]" in extras["test"]


@pytest.mark.parametrize(
    ("package", "extra", "purpose", "do"),
    [
        ("pyarrow", "io", "Reading Parquet", lambda: al.io.find_sections("a.parquet")),
        ("spatialdata", "io", "Reading SpatialData", lambda: al.io.find_sections("a.zarr")),
        ("spatialdata", "io", "Reading SpatialData", lambda: centroids(None, None)),
        ("spatialdata", "io", "Writing SpatialData", lambda: al.io.add_positions(None)),
    ],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, package, extra, purpose, do):
    monkeypatch.chdir(tmp_path)
    Path("a.parquet").touch()
    cells = al.datasets.simulate_tissue(n_sections=1, n_cells=10, n_genes=5)
    del cells.obsm["spatial"]
    ad.io.write_elem(zarr.open_group("a.zarr", mode="w"), "tables/table", cells)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as told:
        do()
    assert str(told.value) == f"{purpose} needs {package}: pip install 'alphastomics[{extra}]'."
    assert isinstance(told.value, ImportError)
    assert package in EXTRAS[extra]


def test_a_command_says_it_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    command = ["preprocess", "--raw_dir", "a.parquet", "--output_dir", "data"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "Error: Reading Parquet needs pyarrow: pip install 'alphastomics[io]'." in done.output


def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_one.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        require("broken_one", "io", "Reading")


def test_without_wandb_a_run_is_logged_to_csv(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert Config().training.logger == "auto"
    assert choose_logger("auto") == "csv"
    assert not any(capsys.readouterr())
    (logger,) = loggers(choose_logger("wandb"), Config(), tmp_path, "id")
    assert Path(logger.log_dir) == tmp_path / "csv"
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err == (
        "--logger wandb needs wandb: pip install 'alphastomics[wandb]'. Logging to CSV.\n"
    )


def test_addresses_are_stated():
    assert set(PROJECT["urls"]) >= {"Documentation", "Source", "Changelog", "Bug tracker"}
    assert all(address.startswith("https://") for address in PROJECT["urls"].values())


def test_the_entry_for_the_registry_of_scverse():
    required = {
        *("name", "description", "project_home", "documentation_home", "tutorials_home"),
        *("install", "tags", "license", "version", "contact", "test_command", "category"),
    }
    assert required <= set(META)
    assert all(META[key] for key in required)
    assert META["category"] == "ecosystem"
    assert META["install"] == {"pypi": PROJECT["name"]}
    assert (META["name"], META["license"]) == (PROJECT["name"], PROJECT["license"])
    assert META["project_home"] == PROJECT["urls"]["Source"]
    assert META["documentation_home"] == PROJECT["urls"]["Documentation"]


def test_versions_agree():
    assert PROJECT["version"] == al.__version__ == META["version"]


@pytest.mark.parametrize(
    "path",
    [".readthedocs.yaml", *(str(p.relative_to(ROOT)) for p in (ROOT / ".github").rglob("*.yml"))],
)
def test_files_of_services_can_be_read(path):
    assert isinstance(yaml.safe_load((ROOT / path).read_text()), dict)
