"""Sphinx configuration."""

import inspect
import os
import shutil
import sys
import tomllib
from importlib import import_module
from pathlib import Path

from sphinx.util.inspect import signature

from alphastomics import AlphaSTomics

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "alphastomics"
author = "The alphastomics developers"
copyright = "2026, the alphastomics developers"
release = version = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"][
    "version"
]
REPOSITORY = "https://github.com/alphastomics/alphastomics"

extensions = [
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "_extensions"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = f"alphastomics {version}"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_math_renderer = "mathml"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": f"alphastomics <small>{version}</small>"},
    "navbar_persistent": ["search-button"],
    "navbar_end": ["language-switch", "theme-switcher", "navbar-icon-links"],
    "header_links_before_dropdown": 6,
    "icon_links": [{"name": "Repository", "url": REPOSITORY, "icon": "fa-brands fa-github"}],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["version"],
}
html_sidebars = {"index": [], "installation": [], "get-started": [], "benchmarks": []}

autosummary_generate = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = True
napoleon_google_docstring = False
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are committed as they ran, and run again by the tests
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

intersphinx_mapping = (
    {}
    if os.environ.get("DOCS_OFFLINE") == "1"
    else {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scvi-tools": ("https://docs.scvi-tools.org/en/stable/", None),
        "squidpy": ("https://squidpy.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
)

# Sphinx reads only files of its own folder.
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", dirs_exist_ok=True)

# A page and its translation; other pages lead to the first page of the other language.
TRANSLATIONS = {"index": "README.zh", "quickstart": "QUICKSTART.zh", "faq": "faq.zh"}


def members_of(fullname):
    """Directives and names of the public members that alphastomics defines for a class."""
    module, _, name = fullname.rpartition(".")
    found = {}
    for owner in getattr(import_module(module), name).__mro__:
        if owner.__module__.startswith("alphastomics"):
            for member, value in vars(owner).items():
                function = getattr(value, "fget", getattr(value, "__func__", value))
                if not member.startswith("_") and inspect.isfunction(function):
                    kind = "autoattribute" if isinstance(value, property) else "automethod"
                    found.setdefault(member, kind)
    return [(kind, member) for member, kind in found.items()]


# Its metaclass hides the types of its arguments from autodoc.
AlphaSTomics.__signature__ = signature(AlphaSTomics.__init__, bound_method=True)

autosummary_context = {"members_of": members_of}
suppress_warnings = ["config.cache"]  # it holds a function


def _link_here(app, path, document, content):
    # QUICKSTART.md is at the root, and the page that includes it here.
    content[0] = content[0].replace("(QUICKSTART.md)", "(docs/quickstart.md)")


def _switch_language(app, page, template, context, doctree):
    if ".zh" in page or page == "zh":
        english = {there: here for here, there in TRANSLATIONS.items()}
        context["other_language"] = ("English", "en", english.get(page, "index"))
    else:
        context["other_language"] = ("中文", "zh", TRANSLATIONS.get(page, "README.zh"))


def setup(app):
    app.connect("include-read", _link_here)
    app.connect("html-page-context", _switch_language)
