"""Tasks of somebody's whose sequences cannot be trained on are refused before anything runs."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from test_tasks import NAMES

from gradlab.components import ConfigError
from gradlab.tasks import Batch, Task
from gradlab.tasks.checks import check_batch, check_task
from gradlab.training.losses import metrics
from gradlab.training.program import Program

SIZES = (4, 5)  # sequences, steps


def batch(kind: str) -> Batch:
    classes = jnp.arange(20).reshape(SIZES) % 3
    inputs, weights = jnp.ones((*SIZES, 2)), jnp.ones(SIZES)
    fine = Batch(inputs, classes, weights)
    values = fine._replace(targets=jnp.zeros((*SIZES, 3)))
    return {
        "fine": fine,
        "values": values,
        "some without weights": fine._replace(weights=weights.at[1:].set(0)),
        "no weights": fine._replace(weights=0 * weights),
        "a negative weight": fine._replace(weights=weights.at[0, 0].set(-1)),
        "NaN": fine._replace(inputs=inputs.at[0, 0, 0].set(jnp.nan)),
        "inf": values._replace(targets=values.targets.at[1].set(jnp.inf)),
        "class 3": fine._replace(targets=classes + 1),
        "class -1": fine._replace(
            targets=classes.at[0, 0].set(-1), weights=weights.at[0, 0].set(0)
        ),
        "values without their axis": fine._replace(targets=classes.astype(jnp.float32)),
        "one value": values._replace(targets=values.targets[..., :1]),
        "weights of a sequence": fine._replace(weights=weights[:, :1]),
        "one feature": fine._replace(inputs=inputs[..., :1]),
        "no features": fine._replace(inputs=inputs[..., 0]),
        "words": fine._replace(targets=np.full(SIZES, "B")),
        "integers": fine._replace(inputs=inputs.astype(int)),
        "complex weights": fine._replace(weights=weights + 1j),
        "a list": fine._replace(weights=[[1.0] * 5] * 4),
        "three arrays": (inputs, classes, weights),
    }[kind]


WRONG = {
    "no weights": "weights must be above 0 at some step, where an answer is due",
    "a negative weight": "weights must be at least 0",
    "NaN": "inputs must be finite",
    "inf": "targets must be finite",
    "class 3": r"classes must be from 0 to 2, .*have 3\.",
    "class -1": r"classes must be from 0 to 2, .*have -1\.",
    "values without their axis": r"targets must have shape \(COUNT, 5, 3\)",
    "one value": r"targets must have shape \(COUNT, 5, 3\)",
    "weights of a sequence": r"weights must have shape \(COUNT, 5\)",
    "one feature": r"inputs must have shape \(COUNT, 5, 2\)",
    "no features": r"inputs must have shape \(batch, time, features\)",
    "words": r"targets must be an array of real numbers \(values\) or integers \(classes\)",
    "integers": "inputs must be an array of real numbers; .*have int",
    "complex weights": "weights must be an array of real numbers; .*have complex64",
    "a list": "weights must be an array of real numbers; .*have list",
    "three arrays": r"must be a gradlab.tasks.Batch of inputs, targets and weights; got a tuple",
}


def somebodys(test: str = "fine", train: str = "fine") -> Task:
    def sample(key: Any, batch_size: int) -> Batch:
        return jax.tree.map(lambda x: x[jnp.arange(batch_size) % 4], batch(train))

    return Task(features=2, outputs=3, sample=sample, test=batch(test), baseline=1.0)


WRONG_ENTRIES = {
    "features": (1.5, "features of x.y must be a whole number from 1; got 1.5"),
    "outputs": (0, "outputs of x.y must be a whole number from 1; got 0"),
    "sample": (None, "sample of x.y must be a function of"),
    "baseline": (math.nan, "baseline of x.y must be a number"),
    "tolerance": (-1.0, "tolerance of x.y must be None or a number of at least 0"),
}


@pytest.mark.parametrize("entry", WRONG_ENTRIES)
def test_entries_of_a_task(entry: str) -> None:
    value, sentence = WRONG_ENTRIES[entry]
    with pytest.raises(ConfigError, match=sentence):
        check_task(somebodys()._replace(**{entry: value}), "x.y", 6)


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        (lambda key: None, "must be a function of .key, batch size. that JAX can trace; got Type"),
        (lambda key, count: batch("fine"), r"sample\(key, 6\) must draw 6 sequences; .* are 4"),
        (somebodys(train="values").sample, "classes .integers. or values .real numbers. through"),
    ],
)
def test_training_sequences_unlike_what_was_asked_for(sample: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_task(somebodys()._replace(sample=sample), "x.y", 6)


def test_an_error_in_a_sample_is_its_own() -> None:
    with pytest.raises(TypeError, match="has no len"):
        check_task(somebodys()._replace(sample=lambda key, count: len(count)), "x.y", 6)


def test_what_is_no_task() -> None:
    with pytest.raises(ConfigError, match=r"x.y must return a gradlab.tasks.Task.*returned a dict"):
        check_task({}, "x.y", 6)


def test_only_sequences_with_an_answer_due_are_judged() -> None:
    task = somebodys(test="some without weights")
    right = jax.nn.one_hot(task.test.targets, 3)
    wrong = jnp.roll(right, 1, axis=-1)
    assert metrics(right, task)["eval/error_rate"] == 0
    assert metrics(wrong, task)["eval/error_rate"] == 1
    for value in metrics(right, somebodys(test="no weights")).values():
        assert np.isnan(value) or value == task.baseline


@pytest.mark.parametrize(
    ("part", "kind"),
    [("test", kind) for kind in WRONG]
    + [("train", kind) for kind in WRONG if kind not in ("words", "a list")],  # no arrays of JAX's
)
def test_a_task_that_cannot_be_trained_on(composed: Compose, kind: str, part: str) -> None:
    task = ("task._target_=test_task_checks.somebodys", f"+task.{part}='{kind}'", "~task.length")
    where, count = ("held-out", "4") if part == "test" else ("training", "6")
    with pytest.raises(ConfigError, match=WRONG[kind].replace("COUNT", count)) as error:
        Program(composed(*task, "~task.permuted", "train.batch_size=6", "model.hidden_size=3"))
    assert f"the {where} sequences of test_task_checks.somebodys" in str(error.value)


@pytest.mark.parametrize("kind", ["fine", "values", "some without weights"])
def test_other_tasks_are_let_through(kind: str) -> None:
    check_batch(batch(kind), somebodys(), "they")


@pytest.mark.parametrize("name", NAMES)
def test_training_sequences_of_gradlabs_tasks_pass(composed: Compose, name: str) -> None:
    program = Program(composed(f"task={name}", "model.hidden_size=3"))
    drawn = jax.jit(program.task.sample, static_argnums=1)(jax.random.key(1), 200)
    check_batch(drawn, program.task, name)
    assert np.asarray(drawn.weights).any(axis=1).all()  # every sequence wants an answer
