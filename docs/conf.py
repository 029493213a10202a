"""Sphinx's settings of the site: sphinx-build -W docs site."""

import os
import sys
from importlib.metadata import version as version_of
from importlib.resources import files
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import repository

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.pop("MPLBACKEND", None)  # notebooks show their figures by a backend of their own
os.environ["GRADLAB_SLIDER_FRAMES"] = "1"  # the site's sliders have no Python behind them

project = "gradlab"
author = "The gradlab maintainers"
copyright = "2026, the gradlab maintainers"
version = release = version_of("gradlab")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "api_pages",
]
exclude_patterns = ["lecture/source"]

html_theme = "sphinx_book_theme"
html_title = "gradlab"
html_theme_options = {"use_download_button": True, "show_toc_level": 2}
html_css_files = ["site.css"]
# MathJax without a network. As an extension it would keep Sphinx from reading in parallel.
html_static_path = ["_static", str(files("sphinx-mathjax-offline") / "static")]
mathjax_path = "mathjax/tex-chtml.js"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # tables of results begin with a small heading
nb_execution_mode = "cache"
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_ipywidgets_js: dict[str, object] = {}
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/html", 0)]

napoleon_use_ivar, napoleon_attr_annotations = True, False
napoleon_custom_sections = [("Example", "examples_style")]
autodoc_typehints = "signature"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}  # of overloads, which api_pages does not reach
autoclass_content = "both"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
default_role = "py:obj"  # of docstrings: a name in backticks is a link where it has a page


def use_links_of_the_site(app: Sphinx, name: str, text: list[str]) -> None:
    """Turn links that leave docs/ to the site's pages; show the README's first screen."""
    page = Path(app.env.doc2path(name))
    if page.suffix == ".md":
        text[0] = repository.with_links_of_the_site(text[0], page, page)
        text[0] = text[0].replace(
            "<!-- the README's first screen -->", repository.first_screen(page)
        )


def setup(app: Sphinx) -> None:
    """Write the pages that are kept elsewhere, before Sphinx looks for them."""
    repository.write_pages()
    app.connect("source-read", use_links_of_the_site)
