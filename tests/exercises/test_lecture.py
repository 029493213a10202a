"""The lecture's notebooks of exercises: skeletons that are not answers, solutions that are."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gradlab
from gradlab.exercises import EXERCISES
from gradlab.exercises.outcome import Outcome

SOURCES = Path(__file__).parents[2] / "docs" / "lecture" / "source"


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[tuple[str, Outcome]]]:
    """The exercises that a source checks, with the outcomes."""
    ours, outcomes = gradlab.check, []

    def noted(*arguments: Any, **options: Any) -> Outcome:
        outcomes.append((arguments[0] if arguments else "", ours(*arguments, **options)))
        return outcomes[-1][1]

    def run(source: str) -> list[tuple[str, Outcome]]:
        monkeypatch.setattr(gradlab, "check", noted, raising=False)
        exec((SOURCES / source).read_text(), {})
        return [(name, outcome) for name, outcome in outcomes if name]

    return run


def test_solutions_pass(checked: Callable[[str], list[tuple[str, Outcome]]]) -> None:
    outcomes = checked("11_solutions.py")
    assert [name for name, _ in outcomes] == list(EXERCISES)
    assert all(outcome for _, outcome in outcomes)


def test_skeletons_are_not_written_yet(
    checked: Callable[[str], list[tuple[str, Outcome]]],
) -> None:
    outcomes = checked("10_exercises.py")
    attempts = [i for i, (_, outcome) in enumerate(outcomes) if "Error probable" in repr(outcome)]
    assert len(attempts) == 1  # of bptt
    del outcomes[attempts[0]]
    assert [name for name, _ in outcomes] == list(EXERCISES)
    assert all("aún no está escrita" in repr(outcome) for _, outcome in outcomes)


def test_notebooks_state_what_check_states() -> None:
    text = re.sub(r"\n# +", " ", (SOURCES / "10_exercises.py").read_text()).replace("`", "")
    for exercise in EXERCISES.values():
        for language in ("en", "es"):
            assert f": {exercise.returns[language]}." in text
            assert exercise.takes[language] in text
