"""A student's function called on a case: its answer as arrays, or a sentence on what is wrong."""

import copy
import inspect
import linecache
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlab.exercises import phrases
from gradlab.exercises.exercise import Case, Exercise

Answer = Any  # an array, or a tuple of arrays


class Unusable(Exception):
    """An answer that cannot be compared; the message says why, in the student's language."""


def answer_of(
    exercise: Exercise, function: Callable[..., Any], case: Case, language: str
) -> Answer:
    """Call a student's function on a case and return what it answers as arrays.

    Args:
        exercise: whose arguments it is given.
        function: the student's.
        case: the arguments; the function gets copies.
        language: of the message.

    Returns:
        An array, or a tuple of arrays.

    Raises:
        Unusable: the function takes other arguments, raises, changes its arguments, or returns
            something that is not made of real numbers.
        KeyboardInterrupt: it was interrupted; the message says on which case.
    """
    given = copy.deepcopy(case.arguments)
    _check_takes(exercise, function, given, language)
    try:
        returned = function(*given)
    except NotImplementedError:
        returned = ...
    except KeyboardInterrupt:  # of a loop that does not end, for one
        raise KeyboardInterrupt(phrases.INTERRUPTED[language].format(case=case)) from None
    except Exception as error:
        raise Unusable(_raised(error, function, case, language)) from None
    if _has_blank(returned):
        raise Unusable(phrases.UNWRITTEN[language])
    for name, before, after in zip(exercise.signature, case.arguments, given, strict=True):
        if not _equal(before, after):
            text = phrases.CHANGED[language].format(case=case, argument=name)
            raise Unusable(text)
    if returned is None:
        raise Unusable(phrases.NOTHING[language].format(returns=exercise.returns[language]))
    return _arrays(exercise, returned, case, language)


def structure(answer: Answer, language: str) -> str:
    """Return what an answer is, in words: "an array of shape (4, 3)"."""
    if isinstance(answer, tuple):
        items = ", ".join(str(a.shape) for a in answer)
        return phrases.SEQUENCE[language].format(items=f"{len(answer)}: {items}")
    if answer.ndim == 0:
        return phrases.NUMBER[language]
    return phrases.ARRAY[language].format(shape=answer.shape)


def as_arrays(answer: Any, is_sequence: bool) -> Answer:
    """Return an answer as an array, or as a tuple of them if it must be several."""
    if is_sequence and isinstance(answer, (list, tuple)):
        return tuple(np.asarray(item) for item in answer)
    return np.asarray(answer)


def _has_blank(returned: Any) -> bool:
    """Return whether a `...` of the skeleton is part of the answer."""
    if isinstance(returned, (list, tuple)):
        return any(map(_has_blank, returned))
    if isinstance(returned, np.ndarray) and returned.dtype == object:
        return any(item is ... for item in returned.flat)
    return returned is ...


def _arrays(exercise: Exercise, returned: Any, case: Case, language: str) -> Answer:
    is_sequence = isinstance(exercise.solve(*case.arguments), (list, tuple))
    try:
        answer = as_arrays(returned, is_sequence)
    except ValueError:  # lists of unequal lengths
        raise Unusable(_no_numbers(exercise, returned, language)) from None
    except (RuntimeError, TypeError) as error:  # a tensor that PyTorch does not hand over
        got = phrases.VALUE_OF_TYPE[language].format(type=type(returned).__name__)
        text = phrases.UNREADABLE[language].format(name=exercise.name, got=got, text=error)
        raise Unusable(text) from None
    for item in answer if isinstance(answer, tuple) else (answer,):
        if item.dtype.kind not in "iuf":
            raise Unusable(_no_numbers(exercise, returned, language))
    return answer


def _no_numbers(exercise: Exercise, returned: Any, language: str) -> str:
    dtype = getattr(returned, "dtype", None)
    got = (
        phrases.VALUE_OF_TYPE[language].format(type=type(returned).__name__)
        if dtype is None
        else phrases.AN_ARRAY_OF[language].format(dtype=dtype)
    )
    return phrases.NOT_NUMBERS[language].format(
        name=exercise.name, got=got, returns=exercise.returns[language]
    )


def _check_takes(
    exercise: Exercise, function: Callable[..., Any], given: tuple[Any, ...], language: str
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function of C has none
        return
    names = tuple(signature.parameters)
    exchanged = names != exercise.signature and sorted(names) == sorted(exercise.signature)
    try:
        signature.bind(*given)
    except TypeError:
        exchanged = True
    if exchanged:
        text = phrases.ARGUMENTS[language].format(count=len(given), call=exercise.call)
        raise Unusable(text)


def _raised(error: Exception, function: Callable[..., Any], case: Case, language: str) -> str:
    """Return an error as a sentence, with the last line of the student's that led to it."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    file = code.co_filename if code is not None else None
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    line = ""
    if file is not None and lines and lines[-1] is not None:
        source = linecache.getline(file, lines[-1]).strip()
        shown = f" ({source})" if source else ""
        line = phrases.LINE[language].format(number=lines[-1], code=shown)
    text = " ".join(str(error).split()) or "—"
    return phrases.RAISED[language].format(
        case=case, error=type(error).__name__, line=line, text=text
    )


def _equal(before: Any, after: Any) -> bool:
    """Return whether an argument is as it was before the call."""
    if isinstance(before, (list, tuple)):
        pairs = zip(before, after, strict=False)
        return len(before) == len(after) and all(_equal(b, a) for b, a in pairs)
    return np.shape(before) == np.shape(after) and bool(np.array_equal(before, after))
