"""The lecture's notebooks are what their sources say, and its figures are drawn for slides."""

import ast
import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import jax
import pytest

LECTURE = Path(__file__).parents[2] / "docs" / "lecture"
SOURCES = sorted((LECTURE / "source").glob("*.py"))
SOURCE = """\
# %% [markdown] lang="en"
# # Title
# %% [markdown] lang="es"
# # Título
# %% lang="en"
WORD = "gradient"
# %% lang="es"
WORD = "gradiente"
# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
# %% name="left"
figure, ax = plt.subplots()
ax.set_title(f"{WORD} {jnp.zeros(1).dtype}")
# %% name="right"
import gradlab
jax.config.update("jax_enable_x64", True)
def draw(value):
    figure, ax = plt.subplots()
    ax.set_title(f"{WORD} {value}")
    return figure
gradlab.figures.Slider(draw, [1, 2], label="g", start=2)
"""

pytest.importorskip("jupytext", reason="Jupytext, which reads the lecture's sources, is missing")
import notebooks  # noqa: E402


def assigned(code: str) -> set[str]:
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def test_notebooks_in_the_repository_are_those_of_the_sources() -> None:
    written = notebooks.all_notebooks()
    kept = {path for language in notebooks.LANGUAGES for path in (LECTURE / language).glob("*")}
    assert {path for path in kept if path.suffix == ".ipynb"} == set(written)
    for path, text in written.items():
        assert path.read_text() == text, "run: python docs/lecture/notebooks.py"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_both_languages_have_the_same_cells(source: Path) -> None:
    english, spanish = (notebooks.notebook_of(source, language) for language in ("en", "es"))
    assert [c.cell_type for c in english.cells] == [c.cell_type for c in spanish.cells]
    for one, other in zip(english.cells, spanish.cells, strict=True):
        if one.cell_type == "markdown":
            assert one.source != other.source
        elif one.source != other.source:  # the words of its figures
            names = [assigned(cell.source) for cell in (one, other)]
            assert names[0] == names[1]
    names = [cell.metadata["name"] for cell in english.cells if "name" in cell.metadata]
    assert names == list(dict.fromkeys(names))


def test_slides_have_the_figure_of_every_named_cell_in_the_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for section in ("01_words.py", "02_words.py"):  # the second starts as the first did
        (tmp_path / section).write_text(SOURCE)
    monkeypatch.setattr(notebooks, "SOURCES", tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["slides.py", "--language", "es", "--out", f"{tmp_path}/slides"]
    )
    try:
        runpy.run_path(str(LECTURE / "slides.py"), run_name="__main__")
    finally:
        jax.config.update("jax_enable_x64", False)
    pictures = sorted((tmp_path / "slides").glob("*"))
    names = ["01_words-left", "01_words-right", "02_words-left", "02_words-right"]
    assert [path.stem for path in pictures] == names
    for path, title in zip(pictures, ("gradiente float32", "gradiente 2") * 2, strict=True):
        ElementTree.parse(path)
        assert f"<!-- {title} -->" in path.read_text()  # Matplotlib's text, before its glyphs
