"""Tasks of somebody's whose sequences cannot be trained on are refused before anything runs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from test_tasks import NAMES

from gradlab.components import ConfigError
from gradlab.tasks import Batch, Task
from gradlab.tasks.checks import check_batch
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
}


def somebodys(test: str = "fine", train: str = "fine") -> Task:
    def sample(key: Any, batch_size: int) -> Batch:
        return jax.tree.map(lambda x: x[jnp.arange(batch_size) % 4], batch(train))

    return Task(features=2, outputs=3, sample=sample, test=batch(test), baseline=1.0)


@pytest.mark.parametrize("part", ["test", "train"])
@pytest.mark.parametrize("kind", WRONG)
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
