"""docs/figures.md shows every figure; its commands are taken, and its calls ask for the same."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from gradlab.figures import catalogue, command

PAGE = Path(__file__).parents[2] / "docs" / "figures.md"
TEXT = PAGE.read_text()
QUESTIONS = re.findall(r"^\| .*\? \| `(.+)` \|$", TEXT, re.MULTILINE)
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE))
COMMANDS = [
    line
    for section in SECTIONS.values()
    for line in re.findall(r"^python -m gradlab figure (.+)$", section, re.MULTILINE)
]


def settings_of_command(line: str) -> dict[str, Any]:
    """Return what a command asks of a figure's function, beyond its defaults."""
    name, *words = shlex.split(line)
    parser, own = command.figure_parser(catalogue.entry_of(name), name)
    given = vars(parser.parse_args(words))
    return {key: given[key] for key in own if given[key] != parser.get_default(key)}


def settings_of_call(section: str) -> dict[str, Any]:
    """Return the keywords of the call of a figure's function, levels as a command has them."""
    (block,) = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    keywords = {k.arg: ast.literal_eval(k.value) for call in calls for k in call.keywords}
    if "where" in keywords:
        keywords["where"] = {key: [str(level)] for key, level in keywords["where"].items()}
    return keywords


def test_every_figure_has_a_section_with_its_command_and_a_small_picture() -> None:
    assert list(SECTIONS) == list(catalogue.FIGURES)
    assert [line.split()[0] for line in COMMANDS] == list(catalogue.FIGURES)
    pictures = re.findall(r"^!\[(\w+)\]\((.+)\)$", TEXT, re.MULTILINE)
    assert [name for name, _ in pictures] == [
        name for name in catalogue.FIGURES if name != "explore"
    ]
    for name, path in pictures:
        assert f"--out docs/{path}" in next(line for line in COMMANDS if line.startswith(name))
        assert (PAGE.parent / path).stat().st_size < 100_000


def test_ten_questions_are_a_command_each() -> None:
    assert len(QUESTIONS) == 10


@pytest.mark.parametrize("line", [f"{words} --runs runs/gallery" for words in QUESTIONS] + COMMANDS)
def test_a_command_of_the_page_is_taken(line: str) -> None:
    settings_of_command(line)


@pytest.mark.parametrize("name", catalogue.FIGURES)
def test_a_call_of_the_page_asks_what_its_command_asks(name: str) -> None:
    section = SECTIONS[name]
    (line,) = (line for line in COMMANDS if line.split()[0] == name)
    entry = catalogue.entry_of(name)
    assert f"{entry.function.split('.')[-1].removesuffix('_figure')}(" in section
    called = settings_of_call(section)
    if not entry.has_runs:  # its function has no defaults of its own
        parser, _ = command.figure_parser(entry, name)
        called = {key: x for key, x in called.items() if x != parser.get_default(key)}
    assert called == settings_of_command(line)
