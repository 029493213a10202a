"""Write the lecture's notebooks, in each language, from their sources.

    python docs/lecture/notebooks.py

A source is a Python file in Jupytext's percent format. Cells with `lang="en"` or `lang="es"` are
that language's, all others both languages'. The notebooks are kept in the repository without
outputs, so that Jupyter, Binder and Colab open them; the site runs them.
"""

from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).parent
SOURCES = HERE / "source"
LANGUAGES = ("en", "es")
PROMPTS = {  # of cells that the site folds
    "en": {},
    "es": {"code_prompt_show": "Mostrar el contenido", "code_prompt_hide": "Ocultar el contenido"},
}
PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}
SETUP = """\
# Where gradlab is missing, this cell installs it: from the checkout around this notebook, from a
# wheel beside it, or by its name.
from importlib.util import find_spec
from pathlib import Path

if find_spec("gradlab") is None:
    checkout = Path("../../..").resolve()
    found = [checkout] if (checkout / "conf").exists() else list(Path().glob("gradlab-*.whl"))
    gradlab = found[0] if found else "gradlab"
    %pip install --quiet "{gradlab}[notebook]"
%config InlineBackend.figure_format = "retina\""""


def notebook_of(source: Path, language: str) -> NotebookNode:
    """Return the notebook of a source in a language, without outputs: title, set-up, the rest."""
    setup = nbformat.v4.new_code_cell(SETUP, metadata={"tags": ["remove-cell"]})
    cells = [c for c in jupytext.read(source).cells if c.metadata.pop("lang", language) == language]
    cells.insert(1, setup)
    for place, cell in enumerate(cells):
        cell.id = f"cell-{place}"
    metadata = {"kernelspec": PYTHON, "mystnb": PROMPTS[language]}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def all_notebooks() -> dict[Path, str]:
    """Return the text of every notebook by its path."""
    return {
        HERE / language / f"{source.stem}.ipynb": nbformat.writes(notebook_of(source, language))
        for source in sorted(SOURCES.glob("*.py"))
        for language in LANGUAGES
    }


def main() -> None:
    """Write the notebooks whose text has changed, and delete those without a source."""
    notebooks = all_notebooks()
    for path, text in notebooks.items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(path.relative_to(HERE))
    for language in LANGUAGES:
        for path in set((HERE / language).glob("*.ipynb")) - set(notebooks):
            path.unlink()


if __name__ == "__main__":
    main()
