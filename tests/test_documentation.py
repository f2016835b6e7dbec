"""Every public name is documented: listed, with shapes and an example."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import alphastomics as al

NAMESPACES = ("datasets", "io", "metrics", "pl", "pp", "tl")
DOCS = Path(__file__).parents[1] / "docs"
PAGES = "\n".join((DOCS / name).read_text() for name in ("api.md", "api-developers.md"))
LISTED = re.findall(r"^   ([A-Za-z_]\w*(?:\.\w+)*)$", PAGES, re.MULTILINE)
METHODS = [
    name
    for name, member in inspect.getmembers(al.AlphaSTomics, callable)
    if not name.startswith("_") and member.__module__.startswith("alphastomics")
]


def found(name):
    """The thing that a name of the page stands for."""
    parts = f"alphastomics.{name}".split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing
    raise AssertionError(name)


def page(name):
    """Text of a file of the repository."""
    return (DOCS.parent / name).read_text()


def has_sections(thing):
    """Sections that a docstring must have, and whether it has them."""
    text = inspect.getdoc(thing) or ""
    needed = ["Examples"]
    if inspect.isroutine(thing):
        signature = inspect.signature(thing)
        if set(signature.parameters) - {"self", "cls"}:
            needed.append("Parameters")
        if signature.return_annotation not in (None, "None"):
            needed.append("Returns")
    return [section for section in needed if f"{section}\n---" not in text]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_public_names_are_on_a_page(namespace):
    names = found(namespace).__all__
    missing = [name for name in names if f"{namespace}.{name}" not in LISTED]
    assert not missing


@pytest.mark.parametrize("name", LISTED)
def test_listed_names_have_shapes_and_an_example(name):
    assert not has_sections(found(name))


@pytest.mark.parametrize("name", METHODS)
def test_methods_have_shapes_and_an_example(name):
    assert not has_sections(getattr(al.AlphaSTomics, name))


def test_the_page_lists_what_there_is():
    assert len(LISTED) > 60
    assert {"predict", "sample", "train", "impute", "load"} < set(METHODS)


def test_files_of_the_architecture_exist():
    root = DOCS.parent / "src" / "alphastomics"
    named = re.findall(r"`((?:\w+/)?\w+\.py)`", page("docs/architecture.md"))
    assert len(named) > 20
    for name in named:
        assert (root / name).exists() or (DOCS.parent / name).exists(), name


def test_the_citation_names_this_version():
    version = tomllib.loads(page("pyproject.toml"))["project"]["version"]
    assert f"\nversion: {version}\n" in page("CITATION.cff")
    assert f"version = {{{version}}}" in page("docs/cite.md")


TRANSLATIONS = {
    "README.md": "docs/README.zh.md",
    "QUICKSTART.md": "docs/QUICKSTART.zh.md",
    "docs/faq.md": "docs/faq.zh.md",
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """Language and lines of each block of code, without comments, which are translated."""
    for language, code in BLOCK.findall(text):
        lines = (re.sub(r"(^|\s+)# .*$", "", line) for line in code.splitlines())
        yield language, [line for line in lines if line]


def headings(text):
    return re.findall(r"^(#+) ", BLOCK.sub("", text), re.MULTILINE)


def images(text):
    return [Path(image).name for image in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)]


@pytest.mark.parametrize(("english", "chinese"), TRANSLATIONS.items())
def test_translations_have_the_same_commands_and_headings(english, chinese):
    original, translated = page(english), page(chinese)
    assert list(blocks(translated)) == list(blocks(original))
    assert headings(translated) == headings(original)
    assert images(translated) == images(original)
    assert translated.count("\n|") == original.count("\n|"), "rows of tables"


@pytest.mark.parametrize(
    "name",
    ["README.md", "QUICKSTART.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))],
)
def test_commands_fit_the_page(name):
    """A long command is divided by a backslash: the page is about 90 characters wide."""
    commands = [code for language, code in BLOCK.findall(page(name)) if language == "bash"]
    lines = [line for code in commands for line in code.splitlines()]
    assert [line for line in lines if len(line) > 90] == []
