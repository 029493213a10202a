"""Runs that end by a rule: the rule against a plain count, and what becomes of the run."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab.components import ConfigError
from gradlab.point import Point, run_point, run_points
from gradlab.records import load_metrics
from gradlab.tasks import Batch
from gradlab.training.batched import BatchedProgram
from gradlab.training.program import Program, hyperparameters_of
from gradlab.training.stopping import Seen, observe_batch, recent

RUN = (
    "model.hidden_size=8",
    "task=echo",
    "task.length=6",
    "task.delay=1",
    "task.test_size=20",
    "+train/stop=recent",
    "train.stop.last=40",
    "train.stop.most_wrong=4",
    "train.batch_size=8",
    "train.steps=200",
    "train.log_every=5",
    "optim.learning_rate=0.02",
    "probe.schedule=ends",
    "wandb=disabled",
)


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=3, max_size=24), st.integers(0, 2), st.data())
def test_the_rule_looks_back_on_the_most_recent_sequences(
    wrong: list[bool], most: int, data: st.DataObject
) -> None:
    errors = data.draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=24, max_size=24))
    rule = recent(last=6, most_wrong=most, mean_error=0.5)
    state, stops = rule.init(), []
    for i in range(0, len(wrong) - len(wrong) % 3, 3):
        seen = Seen(jnp.array(wrong[i : i + 3]), jnp.array(errors[i : i + 3]))
        state, stopped = rule.update(state, seen)
        stops.append(bool(stopped))
    for count, stopped in enumerate(stops, start=1):
        end = 3 * count
        last = slice(end - 6, end)
        expected = end >= 6 and sum(wrong[last]) <= most and np.mean(errors[last]) < 0.5
        assert stopped == expected


def test_sequences_are_judged_at_all_steps_or_at_the_last() -> None:
    targets = jnp.zeros((3, 4, 2))
    outputs = targets.at[0, 1, 0].set(0.5).at[1, 2, 1].set(0.5).at[2, 3].set(0.5)
    weights = jnp.ones((3, 4)).at[1, 3].set(0)  # the second sequence ends a step earlier
    batch = Batch(jnp.zeros((3, 4, 1)), targets, weights)
    every = observe_batch(outputs, batch, 0.4, "all")
    assert every.wrong.tolist() == [True, True, True]
    np.testing.assert_allclose(every.error, [0.25 / 4, 0.25 / 3, 0.5 / 4])
    last = observe_batch(outputs, batch, 0.4, "last")
    assert last.wrong.tolist() == [False, True, True]
    np.testing.assert_allclose(last.error, [0, 0.25, 0.5])


def test_a_run_ends_at_the_update_that_satisfies_its_rule(
    composed: Compose, tmp_path: Path
) -> None:
    config = composed(*RUN)
    status = run_point(Point(config, tmp_path / "sweep" / "0", "rule"))
    assert status["state"] == "done"
    rows = load_metrics(tmp_path / "sweep" / "0")
    last = rows.iloc[-1]
    updates = int(last["train/step"])
    assert 5 < updates < 200
    assert last["stop/sequences"] == 8 * updates == status["summary"]["stop/sequences"]
    assert last[["eval/error_rate", "jacobian/decay_rate"]].notna().all()
    # The same training, an update at a time and judged here, ends at the same one.
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, right = program.initialise(hyperparameters), []
    for update in range(1, updates + 1):
        batch = program.task.sample(jax.random.split(state.key)[1], 8)
        outputs = program.merge(state.parameters)(batch.inputs)
        is_right = (np.argmax(outputs, axis=-1) == batch.targets) | (batch.weights == 0)
        right.extend(np.all(is_right, axis=1))
        has_ended = len(right) >= 40 and sum(right[-40:]) >= 36
        assert has_ended == (update == updates)
        state, _ = program.advance(hyperparameters, state, 1)
    after, telemetry = program.advance(hyperparameters, state, 3)
    assert np.asarray(telemetry.update).tolist() == [0, 0, 0]
    assert all(
        map(np.array_equal, jax.tree.leaves(after.parameters), jax.tree.leaves(state.parameters))
    )


def test_a_rule_that_is_never_satisfied_is_said(composed: Compose, tmp_path: Path) -> None:
    config = composed(*RUN, "train.steps=3")
    status = run_point(Point(config, tmp_path / "sweep" / "0", "rule"))
    assert status["state"] == "done"
    assert np.isnan(status["summary"]["stop/sequences"])


def test_points_that_train_together_end_each_by_itself(composed: Compose, tmp_path: Path) -> None:
    configs = [composed(*RUN, f"seed={seed}") for seed in (0, 1, 2)]
    program = Program(configs[0])
    points = [Point(c, tmp_path / "sweep" / str(i), str(i)) for i, c in enumerate(configs)]
    run_points(program, points)
    together = [load_metrics(point.folder) for point in points]
    ends = [rows["train/step"].iloc[-1] for rows in together]
    assert len(set(ends)) > 1
    alone = BatchedProgram(program, [hyperparameters_of(configs[1])])
    state, telemetry = alone.advance(alone.initialise(), 200, 200)
    assert int(state.step) == ends[1]
    losses = telemetry.loss[telemetry.update > 0]
    expected = np.mean(losses[5 * ((len(losses) - 1) // 5) :])  # since the last logged row
    assert together[1]["train/loss"].iloc[-1] == pytest.approx(expected, rel=1e-4)


def test_half_the_summed_error_is_what_the_weights_descend(composed: Compose) -> None:
    changes = {}
    for loss in ("mean", "half_sum"):
        config = composed(
            "task=hs97_first_and_last",
            "task.length=6",
            "task.test_size=4",
            "model.hidden_size=3",
            "optim=sgd",
            "train.batch_size=2",
            f"train.objective={loss}",
        )
        program, hyperparameters = Program(config), hyperparameters_of(config)
        state = program.initialise(hyperparameters)
        after, telemetry = program.advance(hyperparameters, state, 1)
        changes[loss] = jax.tree.map(lambda a, b: a - b, after.parameters, state.parameters)
        changes[f"{loss} seen"] = telemetry.loss
    factor = 6 * 7 / 2  # steps · outputs / 2
    for a, b in zip(*(jax.tree.leaves(changes[x]) for x in ("half_sum", "mean")), strict=True):
        np.testing.assert_allclose(a, factor * b, rtol=1e-4, atol=1e-6)
    assert changes["half_sum seen"] == changes["mean seen"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("task=forecast", "+train/stop=recent"), "answers are right or wrong"),
        (("train.objective=half_sum",), "half_sum is a squared error and needs a task with values"),
        (
            ("+train.stop._target_=gradlab.optimisers.sgd", "+train.stop.learning_rate=1"),
            "StopRule",
        ),
        (
            ("task=forecast", "+train/stop=recent", "tbptt.window=5", "tbptt.update=segment"),
            "needs tbptt.update=sequence",
        ),
    ],
)
def test_what_a_rule_cannot_judge_is_refused(
    composed: Compose, words: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Program(composed(*words))
