"""Continual embedded Reber strings, against the grammar written as a regular expression."""

import re

import jax
import numpy as np
import pytest

from gradlab.components import ConfigError
from gradlab.tasks.reber import SYMBOLS, continual_reber

# From node 3 of Reber's graph: back to node 2 by X and on to node 3 by P, or to the end.
AFTER_3 = "(?:XT*VP)*(?:S|XT*VV)"
INNER = f"B(?:TS*X{AFTER_3}|PT*V(?:V|P{AFTER_3}))E"
STRING = re.compile(f"B([TP]){INNER}\\1E")
LENGTH = 300


def as_text(symbols: np.ndarray) -> list[str]:
    return ["".join(SYMBOLS[i] for i in row) for row in symbols]


def test_streams_are_embedded_strings_one_after_another() -> None:
    task = continual_reber(LENGTH, test_size=1)
    inputs, targets, weights = map(np.asarray, task.sample(jax.random.key(0), 100))
    np.testing.assert_array_equal(inputs.argmax(axis=2)[:, 1:], targets[:, :-1])
    assert (weights == 1).all()
    first_letters = []
    for text in as_text(targets):
        text = "B" + text  # targets leave out the first input
        end = 0
        while match := STRING.match(text, end):
            end = match.end()
            first_letters.append(match[1])
        assert LENGTH - end < 80, "the rest is the beginning of one string"
    assert np.mean([letter == "T" for letter in first_letters]) == pytest.approx(0.5, abs=0.05)


def test_held_out_streams_count_the_second_outer_symbol() -> None:
    test = continual_reber(LENGTH, test_size=50).test
    shown = as_text(np.asarray(test.inputs).argmax(axis=2))
    wanted = as_text(np.asarray(test.targets))
    for text, answers, weights in zip(shown, wanted, np.asarray(test.weights), strict=True):
        strings = list(STRING.finditer(text[:1] + answers))
        counted = [match.end() - 3 for match in strings]  # the step that shows the inner E
        assert counted == [step for step in np.flatnonzero(weights) if step <= counted[-1]]
        assert [answers[step] for step in counted] == [match[1] for match in strings]


def test_a_stream_without_room_for_a_string_is_refused() -> None:
    with pytest.raises(ConfigError, match="the shortest string"):
        continual_reber(9)
