"""An extension of Sphinx for the pages of the API: short signatures, docstrings, the list of names.

Docstrings are written to be read as they are, with formulas that are indented, units in the prose
of Returns, and references a line or two each. Here they become what Napoleon expects.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

PAGES = Path(__file__).parent / "api"
DIRECTIVE = re.compile(r"^\.\. auto(?:function|class|data):: (\S+)$", re.MULTILINE)
MARK = re.compile(r"<!-- names of (\w+) -->")
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Warns|References|Example):$")
LAST = ("References", "Example")
ENTRY = re.compile(r"^[A-ZÀ-Ž].*?\b(1[89]|20)\d\d\b")
SHORT = (  # of annotations that are written out at runtime
    (r"(?<![\w.])(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", ""),
    (r"_Buffer \| .*?\| complex \| bytes \| str \| _NestedSequence\[[^]]*\]", "ArrayLike"),
    (r"\[\[\.\.\.\], ", "[..., "),
    (r"Initializer \| Callable\[\.\.\., Any\]", "Initializer"),
    (r"Callable\[\[PyTree, Array\], tuple\[PyTree, Any\]\]", "StepFunction"),
)


def documented() -> Iterator[tuple[str, str]]:
    """Yield each page of the API, by its file's name, with each name that it documents."""
    for path in sorted(PAGES.glob("*.md")):
        for name in DIRECTIVE.findall(path.read_text()):
            yield path.stem, name


def located(name: str) -> Any:
    """Return what a dotted name names.

    Raises:
        AttributeError: there is nothing of that name.
    """
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AttributeError(f"there is no {name}.")


def called(named: Any) -> Callable[..., Any]:
    """Return what has the parameters: a function itself, a class's own __init__ if it has one."""
    # The metaclass of Flax's modules hides the parameters of __init__.
    own = isinstance(named, type) and named.__init__ is not object.__init__  # type: ignore[misc]
    return named.__init__ if own else named


def short(annotation: Any) -> str:
    """Return an annotation as the source has it, without the modules' names."""
    text = stringify_annotation(annotation)
    for long, brief in SHORT:
        text = re.sub(long, brief, text)
    return text


def default_of(parameter: inspect.Parameter, function: Any) -> str:
    """Return a default as text; a function by its name in the module that it is a default in."""
    value = parameter.default
    if callable(value):
        names = getattr(inspect.unwrap(function), "__globals__", {})
        return next((name for name, x in names.items() if x is value), "…")
    if isinstance(value, int) and value > 2**20 and value.bit_count() == 1:
        return f"2**{value.bit_length() - 1}"  # bytes
    return repr(value)


def signature_of(named: Any) -> tuple[str, str | None]:
    """Return the parameters, with short types, and the type that is returned."""
    function = called(named)
    signature = inspect.signature(function)
    try:
        hints = get_type_hints(function)  # without the limits that configs are checked against
    except (NameError, TypeError):
        hints = {}
    shown = []
    for name, parameter in signature.parameters.items():
        if name == "self":
            continue
        hint = hints.get(name, parameter.annotation)
        given = parameter.default is not parameter.empty
        text = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        text += "" if hint is parameter.empty else f": {short(hint)}"
        text += f" = {default_of(parameter, function)}" if given else ""
        shown.append((parameter, text))
    words: list[str] = []
    for parameter, text in shown:
        if parameter.kind is parameter.KEYWORD_ONLY and not any(w.startswith("*") for w in words):
            words.append("*")
        words.append(text)
    returned = hints.get("return", signature.return_annotation)
    bare = isinstance(named, type) or returned is signature.empty
    return f"({', '.join(words)})", None if bare else short(returned)


def sections_of(lines: list[str]) -> list[tuple[str, list[str]]]:
    """Return a docstring's sections with their titles; prose has the title "" ."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for line in lines:
        if found := SECTION.match(line):
            sections.append((found[1], []))
        elif sections[-1][0] and line and not line.startswith(" "):
            sections.append(("", [line]))
        else:
            sections[-1][1].append(line)
    return sections


def prose(lines: list[str]) -> list[str]:
    """Return prose whose formulas, which are indented, are blocks of their own."""
    made: list[str] = []
    formula, before = False, "."
    for line in lines:
        indented = line.startswith("    ")
        if indented and not formula and not before.strip() and not last_is_item(made):
            formula = True
            made += [".. code-block:: text", "   :class: formula", ""]
        formula = formula and (indented or not line.strip())
        made.append(line if formula else escaped(line))
        before = line
    return made


def last_is_item(lines: list[str]) -> bool:
    """Return whether the last line that is not empty belongs to an item of a list."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.startswith(("  ", "- "))


def escaped(line: str) -> str:
    """Return a line in which |x| and s* are no marks of reStructuredText."""
    return re.sub(r"[|*]", r"\\\g<0>", line)


def reference_list(lines: list[str]) -> list[str]:
    """Return references as a list: a new one begins with names and a year after a full stop."""
    made: list[str] = []
    ended = True
    for line in lines:
        text = line.strip()
        new = ended and ENTRY.match(text)
        made.append(f"    - {text}" if new else f"      {text}" if text else "")
        ended = text.endswith(".") or not text
    return made


def rewritten(lines: list[str]) -> list[str]:
    """Return a docstring as Napoleon reads it, references and the example last."""
    made: list[str] = []
    lines = [line for line in lines if not line.startswith("Create new instance of")]  # NamedTuple
    for title, body in sorted(sections_of(lines), key=lambda section: section[0] in LAST):
        if not title:
            made += [*prose(body), ""]
            continue
        if title != "Example":
            body = [escaped(line) for line in body]
        if title == "Returns" and body:  # else a colon in its first line would part a type from it
            body = [f"    : {body[0].strip()}", *body[1:]]
        if title == "References":
            body = reference_list(body)
        made += [f"{title}:", *body, ""]
    return made


def public_table(page: str) -> str:
    """Return a table in Markdown of the names on a page of the API, a sentence each."""
    rows = ["| name | what it is |", "| --- | --- |"]
    for of, name in documented():
        if of == page:
            first = (inspect.getdoc(located(name)) or "").split("\n\n")[0]
            brief = name.removeprefix("gradlab.")
            sentence = escaped(" ".join(first.split()))
            rows.append(f"| {{py:obj}}`{brief} <{name}>` | {sentence} |")
    return "\n".join(rows)


def add_tables(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the tables of all names in the index, where each theme's page is linked."""
    del app
    if page == "api/index":
        parts = MARK.split(source[0])
        source[0] = "".join(
            public_table(part) if place % 2 else part for place, part in enumerate(parts)
        )


def shorten(
    app: Sphinx, what: str, name: str, named: Any, *_: Any
) -> tuple[str, str | None] | None:
    """Give autodoc the short signature."""
    del app, name
    return signature_of(named) if what in ("function", "class", "method") else None


def rewrite(app: Sphinx, what: str, name: str, named: Any, options: Any, lines: list[str]) -> None:
    """Give Napoleon the docstring that it reads well."""
    del app, what, name, named, options
    lines[:] = rewritten(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the functions above to autodoc, before Napoleon."""
    app.connect("source-read", add_tables)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", rewrite, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
