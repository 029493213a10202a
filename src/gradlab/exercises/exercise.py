"""An exercise as data: its question, random cases, the right answer, and typical mistakes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

LANGUAGES = ("en", "es")
Words = Mapping[str, str]  # by language
Array = np.ndarray


class Case(NamedTuple):
    """The arguments of one call, and what tells it from the others: {"T": 4, "n": 3}."""

    about: Mapping[str, float]
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        """Return "T = 4, n = 3"."""
        return ", ".join(f"{name} = {value:.4g}" for name, value in self.about.items())


class Part(NamedTuple):
    """A part of an answer that is right or wrong by itself; its label is "" if there is one."""

    label: str
    values: Array


class Mistake(NamedTuple):
    """A typical mistake in words, and a function that makes it."""

    words: Words
    answer: Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """A function that students write, and all that is needed to check it.

    Attributes:
        name: of the exercise, and of the function.
        signature: the arguments' names, in their order.
        idea: what it is about, in one line.
        question: what the function is to compute.
        takes: what the arguments are.
        returns: what it must return, with the shape.
        cases: the calls by which an answer is judged, the most telling first.
        solve: the right answer.
        parts: of an answer; without it, the whole array.
        mistakes: typical ones, the most likely first.
        last_first: whether the last part that differs is shown, where work begins at the end.
    """

    name: str
    signature: tuple[str, ...]
    idea: Words
    question: Words
    takes: Words
    returns: Words
    cases: Callable[[], Sequence[Case]]
    solve: Callable[..., Any]
    mistakes: tuple[Mistake, ...]
    parts: Callable[[Any], list[Part]] = lambda answer: [Part("", np.asarray(answer))]
    last_first: bool = False

    @property
    def call(self) -> str:
        """The call as code: "bptt(h, W_hh, g)"."""
        return f"{self.name}({', '.join(self.signature)})"


def raised(number: int) -> str:
    """Return a number as the index of a state, "⁽¹²⁾"."""
    return "⁽" + str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) + "⁾"


def recurrent_weights(draw: np.random.Generator, n: int) -> Array:
    """Draw an n × n matrix whose spectral radius is about 1.2."""
    return draw.normal(size=(n, n)) * 1.2 / np.sqrt(n)
