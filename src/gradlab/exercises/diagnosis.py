"""Find where an answer differs from ours, and the mistake that explains it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gradlab.exercises import phrases
from gradlab.exercises.answers import Answer, Unusable, answer_of, as_arrays, structure
from gradlab.exercises.exercise import Array, Case, Exercise, Mistake, Part

DOUBLE, SINGLE = 1e-6, 1e-4  # of the largest entry of a part, by the precision of the answer
ZERO = 1e-12  # of a part that is exactly zero


def solution(exercise: Exercise, case: Case) -> Answer:
    """Return the right answer on a case, as an array or a tuple of arrays."""
    return _answered(exercise.solve, case)


def same_structure(answer: Answer, other: Answer) -> bool:
    """Return whether two answers have as many arrays, of the same shapes."""
    if isinstance(answer, tuple) != isinstance(other, tuple):
        return False
    return [a.shape for a in _items(answer)] == [b.shape for b in _items(other)]


def wrong_parts(exercise: Exercise, answer: Answer, ours: Answer) -> list[int]:
    """Return the places of the parts at which an answer differs from another of its structure."""
    pairs = zip(exercise.parts(answer), exercise.parts(ours), strict=True)
    return [i for i, (yours, part) in enumerate(pairs) if not _close(yours.values, part.values)]


def message(
    exercise: Exercise, function: Callable[..., Any], answer: Answer, case: Case, language: str
) -> str:
    """Return what is wrong with an answer that differs from ours: where, and probably why.

    Args:
        exercise: that the answer is to.
        function: the student's, called on other cases where two mistakes look alike on this one.
        answer: of the function on the case.
        case: the case.
        language: of the message.
    """
    ours = solution(exercise, case)
    if same_structure(answer, ours):
        lines = _difference(exercise, answer, ours, case, language)
    else:
        lines = [
            phrases.SHAPE[language].format(
                case=case,
                name=exercise.name,
                got=structure(answer, language),
                returns=exercise.returns[language],
                wanted=structure(ours, language),
            )
        ]
    mistake = _known_mistake(exercise, function, answer, case, language)
    if mistake is None and same_structure(answer, ours):
        mistake = _general_mistake(exercise, answer, ours, language)
    if mistake is not None:
        lines.append(phrases.PROBABLY[language].format(mistake=mistake))
    return "\n".join(lines)


def _difference(
    exercise: Exercise, answer: Answer, ours: Answer, case: Case, language: str
) -> list[str]:
    """Return two lines: which parts differ, and the numbers where the shown part does most."""
    yours, right = exercise.parts(answer), exercise.parts(ours)
    wrong = wrong_parts(exercise, answer, ours)
    shown = wrong[-1] if exercise.last_first else wrong[0]
    labels = [part.label for part in right]
    rest = ", ".join(label for i, label in enumerate(labels) if i not in wrong)
    sentence = phrases.SOME_DIFFER if rest else phrases.ALL_DIFFER
    if not any(labels):
        sentence = phrases.DIFFERS
    first = sentence[language].format(
        case=case, right=rest, wrong=", ".join(labels[i] for i in wrong)
    )
    mine, part = np.asarray(yours[shown].values, float), right[shown].values
    if not np.isfinite(mine).all():
        where = f" ({labels[shown]})" if labels[shown] else ""
        return [phrases.NOT_FINITE[language].format(case=case, where=where)]
    entry = np.unravel_index(int(np.argmax(np.abs(mine - part))), part.shape)
    where = labels[shown] or phrases.VALUE[language]
    if entry:
        where += phrases.AT[language].format(entry=", ".join(map(str, entry)))
    numbers = _apart(float(mine[entry]), float(part[entry]))
    return [first, phrases.VALUES[language].format(where=where, yours=numbers[0], ours=numbers[1])]


def _known_mistake(
    exercise: Exercise, function: Callable[..., Any], answer: Answer, case: Case, language: str
) -> str | None:
    """Return the mistake of the exercise's that explains the answer, here and on other cases."""
    found = [m for m in exercise.mistakes if _explains(exercise, m, answer, case)]
    for other in exercise.cases() if len(found) > 1 else ():
        try:
            again = answer_of(exercise, function, other, language)
        except Unusable:
            continue
        found = [m for m in found if _same(again, _answered(m.answer, other))] or found
    return found[0].words[language] if found else None


def _explains(exercise: Exercise, mistake: Mistake, answer: Answer, case: Case) -> bool:
    """Return whether the parts that are not ours are those that the mistake makes."""
    ours, mistaken = solution(exercise, case), _answered(mistake.answer, case)
    if not same_structure(answer, mistaken):
        return False
    if not same_structure(answer, ours):
        return _same(answer, mistaken)
    wrong = wrong_parts(exercise, answer, ours)
    return not set(wrong) & set(wrong_parts(exercise, answer, mistaken))


def _same(answer: Answer, other: Answer) -> bool:
    return same_structure(answer, other) and all(map(_close, _items(answer), _items(other)))


def _general_mistake(exercise: Exercise, answer: Answer, ours: Answer, language: str) -> str | None:
    """Return a mistake that any exercise may have, if it explains all parts that differ."""
    yours, right = exercise.parts(answer), exercise.parts(ours)
    wrong = wrong_parts(exercise, answer, ours)
    pairs = [(np.asarray(yours[i].values, float), right[i].values) for i in wrong]
    if not all(np.isfinite(y).all() for y, _ in pairs):
        return None
    if all(y.ndim == 2 and y.shape == y.T.shape and _close(y, o.T) for y, o in pairs):
        return phrases.TRANSPOSED[language]
    moved = _order(yours, right, language)
    if moved is not None:
        return moved
    factor = _common_factor(pairs)
    if factor is None:
        return None
    if abs(factor + 1) < DOUBLE:
        return phrases.SIGN[language]
    return phrases.FACTOR[language].format(factor=f"{factor:.4g}")


def _order(yours: Sequence[Part], right: Sequence[Part], language: str) -> str | None:
    """Return whether all parts are ours at other places: reversed, or one step away."""
    if len(right) < 3 or len({part.values.shape for part in right}) > 1:
        return None
    count = len(right)
    if all(_close(y.values, o.values) for y, o in zip(yours, right[::-1], strict=True)):
        return phrases.REVERSED[language].format(last=right[-1].label)
    for step in (1, -1):
        places = range(max(0, -step), min(count, count - step))
        if all(_close(yours[i].values, right[i + step].values) for i in places):
            place = places[-1] if step == 1 else places[0]
            return phrases.SHIFTED[language].format(
                place=right[place].label, other=right[place + step].label
            )
    return None


def _common_factor(pairs: Sequence[tuple[Array, Array]]) -> float | None:
    """Return c if all of the first are c times the second of their pair, from two numbers on."""
    yours = np.concatenate([y.ravel() for y, _ in pairs])
    right = np.concatenate([o.ravel() for _, o in pairs])
    size = float(right @ right)
    if yours.size < 2 or size == 0:
        return None
    factor = float(yours @ right) / size
    return factor if abs(factor) > DOUBLE and _close(yours, factor * right) else None


def _answered(function: Callable[..., Any], case: Case) -> Answer:
    """Return what a function of ours answers on a case, without warnings of NumPy."""
    with np.errstate(all="ignore"):
        made = function(*case.arguments)
    return as_arrays(made, isinstance(made, (list, tuple)))


def _items(answer: Answer) -> Iterator[Array]:
    yield from answer if isinstance(answer, tuple) else (answer,)


def _close(yours: Array, ours: Array) -> bool:
    """Return whether two arrays of one shape are equal up to rounding, in their precision."""
    tolerance = DOUBLE if np.asarray(yours).dtype.itemsize >= 8 else SINGLE
    yours, ours = np.asarray(yours, float), np.asarray(ours, float)
    if not np.isfinite(ours).all() or yours.size == 0:
        return np.array_equal(yours, ours, equal_nan=True)
    gap, largest = np.abs(yours - ours).max(), np.abs(ours).max()
    return bool(gap <= (tolerance * largest or ZERO))


def _apart(yours: float, ours: float) -> tuple[str, str]:
    """Return two numbers with as many digits as tell them apart, at least four."""
    for digits in range(4, 17):
        texts = f"{yours:.{digits}g}", f"{ours:.{digits}g}"
        if texts[0] != texts[1]:
            return texts
    return repr(yours), repr(ours)
