"""The API's pages: every public name stands on one, with its parameters and an example."""

import inspect
import re
from pathlib import Path
from typing import Any

import api_pages
import pytest
import yaml

import gradlab
from gradlab import cells, figures
from gradlab.components import targets_of

DOCS = Path(__file__).parents[2] / "docs"
CONF = DOCS.parent / "conf"
NAMES = [name for _, name in api_pages.documented()]


def _named(name: str) -> Any:
    if name.startswith("gradlab.integrations.lightning"):
        pytest.importorskip("lightning")
    return api_pages.located(name)


def _targets() -> set[str]:
    """Return what the configs name of gradlab's own, studies apart."""
    found = set()
    for path in CONF.rglob("*.yaml"):
        plain = yaml.safe_load(path.read_text())
        found |= {target for _, target in targets_of(plain)}
    return {x for x in found if x.startswith("gradlab.") and ".studies." not in x}


@pytest.mark.parametrize(
    "public",
    [
        *(f"gradlab.{name}" for name in gradlab.__all__ if name != "figures"),
        *(f"gradlab.figures.{name}" for name in figures.__all__),
        *(f"gradlab.cells.{name}" for name in cells.__all__),
        *sorted(_targets()),
    ],
)
def test_every_public_name_is_on_a_page(public: str) -> None:
    if f".. py:data:: {public}\n" in (DOCS / "api/cells.md").read_text():
        return
    documented = [api_pages.located(name) for name in NAMES if "lightning" not in name]
    assert any(api_pages.located(public) is named for named in documented)


def test_a_figure_has_its_second_name_on_the_page() -> None:
    page = (DOCS / "api/figures.md").read_text()
    missing = [name for name in figures.__all__ if not re.search(rf"[`.]{name}\b", page)]
    assert not missing


def test_each_name_is_on_one_page() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_documented_name_has_its_parameters_and_an_example(name: str) -> None:
    named = _named(name)
    text = inspect.getdoc(named) or ""
    if isinstance(named, type):
        text += "\n" + (inspect.getdoc(api_pages.called(named)) or "")
    assert re.search(r"^Example:\n(    .*\n)*    >>> ", text, re.MULTILINE)
    if isinstance(named, type) and hasattr(named, "_fields"):
        return  # its attributes have comments
    parameters = [p.lstrip("*") for p in inspect.signature(api_pages.called(named)).parameters]
    missing = [p for p in parameters if p != "self" and not re.search(rf"\b{p}\b.*:", text)]
    assert not missing


def test_the_index_lists_each_page_with_its_names() -> None:
    index = (DOCS / "api/index.md").read_text()
    pages = {path.stem for path in (DOCS / "api").glob("*.md")} - {"index"}
    assert set(api_pages.MARK.findall(index)) == pages
    for page in pages:
        assert f"]({page}.md)" in index


def test_tables_have_a_sentence_for_each_name() -> None:
    rows = [
        row
        for page in {p for p, _ in api_pages.documented()}
        for row in api_pages.public_table(page).splitlines()[2:]
    ]
    assert len(rows) == len(NAMES)
    assert all(re.fullmatch(r"\| \{py:obj\}`\S+ <\S+>` \| \S.* \|", row) for row in rows)


def test_signatures_are_short() -> None:
    signature, returned = api_pages.signature_of(gradlab.jacobian_log_norms)
    assert "inputs: Float[Array, '*batch T features']" in signature
    assert "jaxtyping" not in signature
    assert returned is not None
    assert returned.startswith("Float[Array, '*batch T//stride+1 T//stride+1']")


def test_formulas_references_and_returns_become_what_napoleon_reads() -> None:
    text = """Return |x|.

    y = s*

Example:
    >>> 1
    1

Returns:
    A number: the norm.

References:
    Werbos 1990, Backpropagation
    through time.
    Elman 1990, Finding structure in time."""
    lines = api_pages.rewritten(text.splitlines())
    assert r"Return \|x\|." in lines
    assert lines.index("    y = s*") == lines.index(".. code-block:: text") + 3
    assert "    : A number: the norm." in lines
    assert [line for line in lines if line.startswith("    - ")] == [
        "    - Werbos 1990, Backpropagation",
        "    - Elman 1990, Finding structure in time.",
    ]
    assert lines.index("Example:") > lines.index("Returns:")
