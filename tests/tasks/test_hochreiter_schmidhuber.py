"""The tasks of Hochreiter & Schmidhuber 1997: each sequence is read back and answered by hand."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from gradlab.tasks import Batch, Task
from gradlab.tasks.hochreiter_schmidhuber import (
    adding,
    distractors,
    first_and_last,
    multiplication,
    temporal_order,
    two_sequences,
)

COUNT = 400


def sequences(batch: Batch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each sequence's inputs up to its end, and its target at the last of them."""
    for inputs, targets, weights in zip(*(np.asarray(x) for x in batch), strict=True):
        (due,) = np.nonzero(weights)
        assert not inputs[due[-1] + 1 :].any()
        yield inputs[: due[-1] + 1], targets[due[-1]]


def drawn(task: Task) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(sequences(task.sample(jax.random.key(1), COUNT)))


@pytest.mark.parametrize(
    ("make", "answer", "at_start", "least"),
    [
        (adding, lambda a, b: 0.5 + (a + b) / 4, 0.0, -1.0),
        (multiplication, lambda a, b: a * b, 1.0, 0.0),
    ],
)
def test_marked_pairs(
    make: Callable[..., Task], answer: Callable[..., float], at_start: float, least: float
) -> None:
    read, second = drawn(make(length=50, test_size=2)), []
    assert {len(inputs) for inputs, _ in read} == set(range(50, 56))
    for inputs, target in read:
        values, marks = inputs.T
        assert marks[0] == marks[-1] == -1
        (places,) = np.nonzero(marks == 1)
        # If the first pair is marked, its mark is −1 as always, and its value is set.
        shown = [values[p] for p in places] + [at_start] * (2 - len(places))
        if len(places) == 1:
            assert values[0] == at_start
        assert target[0] == pytest.approx(answer(*shown), abs=1e-6)
        assert min(places) < 10 or len(places) == 1
        second.append(max(places))
    assert max(second) < 25
    assert min(inputs[:, 0].min() for inputs, _ in read) == pytest.approx(least, abs=0.01)


@pytest.mark.parametrize(
    ("symbols", "windows"),
    [(2, [(10, 20), (50, 60)]), (3, [(10, 20), (33, 43), (66, 76)])],
)
def test_temporal_order(symbols: int, windows: list[tuple[int, int]]) -> None:
    read = drawn(temporal_order(symbols=symbols, test_size=2))
    assert {len(inputs) for inputs, _ in read} == set(range(100, 111))
    places, classes = [], set()
    for inputs, target in read:
        codes = inputs.argmax(1)
        assert (inputs.sum(1) == 1).all()
        assert (codes[0], codes[-1]) == (0, 1)
        (at,) = np.nonzero((codes == 2) | (codes == 3))
        places.append(at)
        digits = codes[at] - 2  # X, Y as digits of the class, the first the highest
        assert target.argmax() == int("".join(map(str, digits)), 2)
        assert target.sum() == 1
        classes.add(int(target.argmax()))
    found = [(column.min(), column.max()) for column in np.array(places).T]
    assert found == windows
    assert classes == set(range(2**symbols))


@pytest.mark.parametrize("between", ["fixed", "random"])
def test_the_first_symbol_comes_again(between: str) -> None:
    task = first_and_last(length=12, between=between, test_size=50)  # type: ignore[arg-type]
    batch = jax.tree.map(np.asarray, task.sample(jax.random.key(1), COUNT))
    shown, wanted = batch.inputs.argmax(-1), batch.targets.argmax(-1)
    assert shown.shape == (COUNT, 12)
    assert task.features == task.outputs == 13
    assert (shown[:, 1:] == wanted[:, :-1]).all()
    assert (shown[:, 0] == wanted[:, -1]).all()
    assert set(shown[:, 0]) == {11, 12}
    middle = {tuple(row) for row in shown[:, 1:]}
    assert (middle == {tuple(range(11))}) == (between == "fixed")
    assert shown[:, 1:].max() == 10
    judged = np.asarray(task.test.weights).sum(1)
    assert (judged == (12 if between == "fixed" else 1)).all()
    # The baseline answers what follows from the symbols between, and ½ for x and y at the end.
    guess = np.asarray(task.test.targets).copy()
    guess[:, -1, 11:] = 0.5
    errors = np.mean((guess - np.asarray(task.test.targets)) ** 2, axis=-1)
    weights = np.asarray(task.test.weights)
    assert np.average(errors, weights=weights) == pytest.approx(task.baseline)


def test_distractors() -> None:
    read = drawn(distractors(length=20, symbols=6, test_size=2))
    suffix = [len(inputs) - 23 for inputs, _ in read]
    assert np.mean(suffix) == pytest.approx(9, abs=1.5)  # Σ k (9/10)ᵏ/10
    for inputs, target in read:
        codes = inputs.argmax(1)
        assert codes[0] == 7
        assert codes[-1] == 6
        assert codes[1] - 8 == target.argmax()
        assert set(codes[2:-1]) <= set(range(6))


@pytest.mark.parametrize("noise", ["none", "inputs", "targets"])
def test_two_sequences(noise: str) -> None:
    task = two_sequences(length=40, informative=3, noise=noise, test_size=COUNT)  # type: ignore[arg-type]
    read, held_out = drawn(task), list(sequences(task.test))
    told = np.array([inputs[:3, 0] for inputs, _ in read])
    later = np.concatenate([inputs[3:, 0] for inputs, _ in read])
    assert np.var(later) == pytest.approx(0.2, rel=0.05)
    signs = np.sign(told.mean(1))
    if noise == "inputs":
        assert np.var(told - signs[:, None]) == pytest.approx(0.2, rel=0.2)
    else:
        assert (told == signs[:, None]).all()
    of_first, of_second = (0.2, 0.8) if noise == "targets" else (1.0, 0.0)
    for inputs, target in held_out:
        expected = of_first if inputs[:3, 0].mean() > 0 else of_second
        assert target[0] == pytest.approx(expected)
    targets = np.array([target[0] for _, target in read])
    rest = targets - np.where(signs > 0, of_first, of_second)
    assert np.var(rest) == pytest.approx(0.1 if noise == "targets" else 0, rel=0.2, abs=1e-6)
