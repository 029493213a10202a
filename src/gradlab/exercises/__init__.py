"""Exercises of the lecture with automatic checks: `gradlab.check("bptt", bptt)`.

    exercise.py   an exercise as data: question, cases, the right answer, typical mistakes
    forward.py    unroll, joined
    layers.py     stack
    jacobians.py  step_jacobian, product
    backward.py   bptt
    windows.py    truncated
    clipping.py   clip
    gates.py      lstm, forget_bias
    answers.py    calling a student's function
    diagnosis.py  where an answer differs, and which mistake explains it
    phrases.py    the sentences of messages
    outcome.py    what a notebook shows

Right answers are NumPy in closed form. A mistake is data too: a function that makes it, and the
sentence that names it. It is recognised where the student's wrong parts are those of the function.
"""

from collections.abc import Callable
from typing import Any

from gradlab.exercises import phrases
from gradlab.exercises.answers import Unusable, answer_of
from gradlab.exercises.backward import BPTT
from gradlab.exercises.clipping import CLIP
from gradlab.exercises.diagnosis import message, same_structure, solution, wrong_parts
from gradlab.exercises.exercise import LANGUAGES, Exercise
from gradlab.exercises.forward import JOINED, UNROLL
from gradlab.exercises.gates import FORGET_BIAS, LSTM
from gradlab.exercises.jacobians import PRODUCT, STEP_JACOBIAN
from gradlab.exercises.layers import STACK
from gradlab.exercises.outcome import Outcome
from gradlab.exercises.windows import TRUNCATED

IN_ORDER = (UNROLL, JOINED, STACK, STEP_JACOBIAN, PRODUCT, BPTT, TRUNCATED, CLIP, LSTM, FORGET_BIAS)
EXERCISES = {exercise.name: exercise for exercise in IN_ORDER}


def check(
    name: str | None = None,
    function: Callable[..., Any] | None = None,
    *,
    language: str = "en",
) -> Outcome:
    """Check a function that answers an exercise; without one, show the exercise, or list all.

    The function is called with NumPy arrays (float64) on several random networks, and on sequences
    of one step and networks of one unit. It may compute with NumPy or JAX. Answers are compared to
    a relative precision of 1e-6 (of float32, 1e-4), part by part. Where the answer is wrong the
    message says which part, and the probable mistake if it is a typical one.

    Args:
        name: of the exercise: "unroll", "joined", "stack", "step_jacobian", "product", "bptt",
            "truncated", "clip", "lstm" or "forget_bias".
        function: the answer, which takes the arguments that the exercise names, in their order.
        language: of the message, "en" or "es".

    Returns:
        The message, which a notebook shows; true if the answer is right. A function that raises,
        or returns something else than it must, gets a message too.

    Raises:
        ValueError: there is no such exercise or language.
        TypeError: the name is no string, or the answer no function.

    Example:
        >>> gradlab.check("step_jacobian", lambda h, W_hh: W_hh * (1 - h**2))
        step_jacobian: not yet. With n = 3, the result differs.
        The result at [0, 2]: yours is 0.2461, ours 1.128.
        Probable mistake: φ′ is on the wrong side: it scales the columns of W_hh and
          must scale the rows, diag(φ′) W_hh.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}; got {language!r}.")
    if name is None and function is None:
        return Outcome(_list(language))
    if not isinstance(name, str):
        raise TypeError(
            'check takes the name of the exercise first, check("bptt", bptt); '
            f"got a value of type {type(name).__name__}."
        )
    if name not in EXERCISES:
        raise ValueError(f"there is no exercise {name!r}; there are {', '.join(EXERCISES)}.")
    exercise = EXERCISES[name]
    if function is None:
        return Outcome(_question(exercise, language))
    if not callable(function):
        raise TypeError(
            f"check needs the function itself, check({name!r}, {name}); "
            f"got a value of type {type(function).__name__}."
        )
    return _judge(exercise, function, language)


def _judge(exercise: Exercise, function: Callable[..., Any], language: str) -> Outcome:
    """Return the outcome of the first case whose answer is wrong, or that all are right."""
    cases = exercise.cases()
    for case in cases:
        try:
            answer = answer_of(exercise, function, case, language)
        except Unusable as unusable:
            return _not_yet(exercise, str(unusable), language)
        ours = solution(exercise, case)
        if not same_structure(answer, ours) or wrong_parts(exercise, answer, ours):
            return _not_yet(exercise, message(exercise, function, answer, case, language), language)
    text = phrases.RIGHT[language].format(name=exercise.name, count=len(cases))
    return Outcome(text, passed=True)


def _not_yet(exercise: Exercise, why: str, language: str) -> Outcome:
    return Outcome(phrases.NOT_YET[language].format(name=exercise.name) + why)


def _list(language: str) -> str:
    lines = [f"{exercise.call}: {exercise.idea[language]}" for exercise in EXERCISES.values()]
    return "\n".join([phrases.LIST[language], *lines])


def _question(exercise: Exercise, language: str) -> str:
    return phrases.QUESTION[language].format(
        call=exercise.call,
        idea=exercise.idea[language],
        question=exercise.question[language],
        takes=exercise.takes[language],
        returns=exercise.returns[language],
        name=exercise.name,
    )
