"""Imports run down only, and no two files import each other."""

import ast
import importlib
from pathlib import Path

import pytest

import alphastomics

ROOT = Path(alphastomics.__file__).parent
# A package may import from those below it, and from private modules at the top of the package.
LAYERS = [
    {"config", "metrics"},
    {"nn"},
    {"priors"},
    {"diffusion_model"},
    {"model", "datasets"},
    {"io", "pp", "tl", "pl"},
    {"cli"},
    {"main", "__main__"},
]
ARRAYS_ONLY = {"nn", "priors", "metrics"}


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in ROOT.rglob("*.py")}


def imported_by(path):
    """Names of all modules that a file imports, in functions too, but for type checking."""
    tree = ast.parse(path.read_text())
    only_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


OURS = {
    name: {other for other in imported_by(path) if other in MODULES and other != name}
    for name, path in MODULES.items()
}


def layer_of(name):
    part = name.split(".")[1] if "." in name else ""
    return next((i for i, layer in enumerate(LAYERS) if part in layer), None)


@pytest.mark.parametrize("name", sorted(OURS))
def test_no_import_runs_up(name):
    for other in OURS[name]:
        here, there = layer_of(name), layer_of(other)
        if there is not None and here is not None:
            assert there <= here, f"{name} imports {other}"
        if here is None and name != "alphastomics":  # private modules at the top
            assert there in (None, 0), f"{name} imports {other}"


def test_no_circles():
    done = set()

    def visit(name, path):
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in OURS[name] - {"alphastomics"}:
                visit(other, [*path, name])
            done.add(name)

    for name in OURS:
        visit(name, [])


@pytest.mark.parametrize(
    "name", [n for n in MODULES if n.split(".")[1:2] and n.split(".")[1] in ARRAYS_ONLY]
)
def test_arrays_only(name):
    for other in imported_by(MODULES[name]):
        assert other.split(".")[0] not in ("anndata", "scanpy", "squidpy", "scvi")
        assert not other.startswith(("alphastomics.model", "alphastomics._anndata"))


SCRIPTS = sorted(
    p for folder in ("benchmarks", "docs") for p in ROOT.parents[1].glob(f"{folder}/*.py")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_only_what_exists(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alphastomics"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
