"""Sphinx configuration."""

import os
import shutil
from importlib.metadata import version as installed_version
from pathlib import Path

project = "alphastomics"
author = "The alphastomics developers"
copyright = "2026, the alphastomics developers"
release = version = installed_version("alphastomics")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_title = "alphastomics"

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = True
napoleon_google_docstring = False
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are committed as they ran, and run again by the tests
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}

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


HERE = Path(__file__).parent
# Sphinx reads what lies beside it only.
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", dirs_exist_ok=True)


def _link_here(app, path, document, content):
    # QUICKSTART.md is at the root, and the page that includes it here.
    content[0] = content[0].replace("(QUICKSTART.md)", "(docs/quickstart.md)")


def setup(app):
    app.connect("include-read", _link_here)
