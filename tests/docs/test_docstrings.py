"""Examples of docstrings, run after what docs/api/index.md says that they begin with."""

import ast
import doctest
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

REPOSITORY = Path(__file__).parents[2]
PRELUDE, SWEEP = re.findall(
    r"```python\n(.*?)```", (REPOSITORY / "docs/api/index.md").read_text(), re.DOTALL
)
PEERS = ("keras", "lightning", "torch")  # which a user may have
# What a sweep or a watcher prints on its way, progress and times, is not its value.
PRINTS = re.compile(r"gradlab\.sweep\(|watcher\.finish\(\)|with gradlab\.watch\(")
ANY_OUTPUT = doctest.register_optionflag("ANY_OUTPUT")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples() -> Iterator[Any]:
    """Yield the docstrings in src/gradlab that have an example."""
    for path in sorted((REPOSITORY / "src").rglob("*.py")):
        if ">>>" in (source := path.read_text()):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.Module):
                    text = ast.get_docstring(node)
                    if text and ">>>" in text:
                        name = f"{path.stem}.{getattr(node, 'name', '')}"
                        if path.stem == "__init__":
                            name = f"{path.parent.stem}.{getattr(node, 'name', '')}"
                        yield pytest.param(text, id=name)


class Checker(doctest.OutputChecker):
    """Checks outputs, but for what is printed on the way."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return bool(optionflags & ANY_OUTPUT) or super().check_output(want, got, optionflags)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="session")
def prelude() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(PRELUDE, names)
    return names


@pytest.fixture(scope="session")
def with_runs(folder: Path, prelude: dict[str, Any]) -> dict[str, Any]:
    names = dict(prelude)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(SWEEP, names)
    assert set(names["runs"]["status"]) == {"done"}
    return names


@pytest.mark.parametrize("text", list(examples()))
def test_examples_have_the_outputs_that_they_show(
    text: str, folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for peer in PEERS:
        if re.search(rf">>> (import|from) {peer}\b", text) and find_spec(peer) is None:
            pytest.skip(f"{peer} is not installed")
    fixture = "with_runs" if re.search(r"\bruns\b(?!/(?!small))", _code(text)) else "prelude"
    names = dict(request.getfixturevalue(fixture))
    monkeypatch.chdir(folder)
    found = doctest.DocTestParser().get_doctest(text, names, request.node.name, None, 0)
    for example in found.examples:
        if not example.want and PRINTS.search(example.source):
            example.options[ANY_OUTPUT] = True
    written: list[str] = []
    result = doctest.DocTestRunner(Checker(), optionflags=OPTIONS).run(found, out=written.append)
    plt.close("all")
    assert result.attempted
    assert not result.failed, "".join(written)


def test_a_wrong_output_is_found() -> None:
    found = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(found, out=lambda _: None).failed == 1


def test_no_example_is_skipped_but_those_that_need_a_network_or_an_account() -> None:
    skipped = [text for parameter in examples() for text in parameter.values if "+SKIP" in text]
    assert all("W&B" in text for text in skipped)
    assert len(skipped) <= 1


def _code(text: str) -> str:
    """Return the examples of a docstring without their outputs."""
    return "\n".join(example.source for example in doctest.DocTestParser().get_examples(text))
