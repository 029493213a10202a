"""docs/figures.md shows every figure; its commands and README's are what `gradlab figure` takes."""

import re
import shlex
from pathlib import Path

import pytest

from gradlab.figures import catalogue, command

PAGE = Path(__file__).parents[2] / "docs" / "figures.md"
TEXT = PAGE.read_text()
README = (PAGE.parents[1] / "README.md").read_text()
QUESTIONS = re.findall(r"^\| .*\? \| `(.+)` \|$", README, re.MULTILINE)
COMMANDS = re.findall(r"^python -m gradlab figure (.+)$", TEXT, re.MULTILINE)


def test_every_figure_has_a_section_with_its_command_and_a_small_picture() -> None:
    assert re.findall(r"^## (\w+)$", TEXT, re.MULTILINE) == list(catalogue.FIGURES)
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
    name, *words = shlex.split(line)
    parser, own = command.figure_parser(catalogue.entry_of(name), name)
    given = vars(parser.parse_args(words))
    assert set(own) <= set(given)
