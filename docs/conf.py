"""Sphinx's settings of the site: sphinx-build -W docs site."""

import os
import re
import sys
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

os.environ.setdefault("JAX_PLATFORMS", "cpu")
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
]
exclude_patterns = ["lecture/source", "examples"]

html_theme = "sphinx_book_theme"
html_title = "gradlab"
html_theme_options = {"use_download_button": True, "show_toc_level": 2}
# MathJax without a network. As an extension it would keep Sphinx from reading in parallel.
html_static_path = [str(Path(str(find_spec("sphinx-mathjax-offline").origin)).parent / "static")]
mathjax_path = "mathjax/tex-chtml.js"

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "text/html", 0)]

napoleon_custom_sections = [("Example", "examples_style")]
autodoc_typehints = "signature"


def link_to_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Let links to Markdown that is no page, such as ../CONTRIBUTING.md, lead to the file.

    In a code host they are relative links; on the site they would lead nowhere.
    """
    folder = Path(app.env.doc2path(page)).parent

    def mend(link: re.Match[str]) -> str:
        target = (folder / link["path"]).resolve()
        is_page = target.is_relative_to(HERE) and not target.is_relative_to(HERE / "examples")
        return f"](path:{link['path']})" if target.exists() and not is_page else link[0]

    source[0] = re.sub(r"\]\((?P<path>[\w./-]+\.md)(?:#[\w-]+)?\)", mend, source[0])


def setup(app: Sphinx) -> None:
    """Have Sphinx call the functions above."""
    app.connect("source-read", link_to_files)
