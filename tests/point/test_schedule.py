"""The training steps at which probes measure, and the cost of measuring."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from hypothesis import given
from hypothesis import strategies as st

from gradlab import load_gradients, load_runs
from gradlab.components import ConfigError
from gradlab.figures import overview_figure
from gradlab.point import Point, run_point
from gradlab.point.stopwatch import Stopwatch, timing
from gradlab.records import load_metrics
from gradlab.schedule import next_probed, probed_steps
from gradlab.training.batched import _advance

SMALL = (
    "model.hidden_size=5",
    "task.length=4",
    "train.batch_size=6",
    "train.steps=7",
    "train.log_every=4",
    "optim=sgd",
    "wandb=disabled",
)


@given(st.integers(0, 5000), st.one_of(st.sampled_from(["log", "ends"]), st.integers(1, 5000)))
def test_the_first_and_last_steps_are_always_measured(steps: int, schedule: str | int) -> None:
    found = sorted(probed_steps(steps, schedule))
    assert found[0] == 0
    assert found[-1] == steps
    inner = [step for step in found if 0 < step < steps]
    if schedule == "ends":
        assert not inner
    elif schedule == "log":
        assert inner == [4**n for n in range(7) if 4**n < steps]
    else:
        assert set(np.diff([0, *inner])) <= {schedule}


@given(
    st.integers(1, 300),
    st.one_of(
        st.sampled_from(["log", "ends"]),
        st.integers(1, 300),
        st.lists(st.integers(0, 300), min_size=1),
    ),
)
def test_a_run_of_unknown_length_is_measured_at_the_same_steps(steps: int, schedule: Any) -> None:
    due, found = 0.0, []
    while due < steps:
        found.append(due)
        due = next_probed(int(due), schedule)
    assert found == sorted(probed_steps(steps, schedule) - {steps})


def test_steps_of_a_list_beyond_the_last_are_left_out() -> None:
    assert probed_steps(10, [3, 10, 11]) == {0, 3, 10}


@pytest.mark.parametrize("wrong", ["often", "0", "-3", "2.5", "true", "[1,x]", "[-1]"])
def test_a_wrong_schedule_is_refused(wrong: str, composed: Compose) -> None:
    with pytest.raises(ConfigError, match=r"probe\.schedule must be log, ends, a whole number"):
        composed(f"probe.schedule={wrong}")


def test_probes_change_no_number_of_training_and_compile_nothing_anew(
    composed: Compose, tmp_path: Path
) -> None:
    found = {}
    compiled = []
    for number, schedule in enumerate(["ends", "1", "[2,5]"]):
        folder = tmp_path / "sweep" / str(number)
        config = composed(*SMALL, f"probe.schedule={schedule}")
        status = run_point(Point(config, folder, schedule))
        assert status["state"] == "done"
        assert status["summary"]["time/probe_seconds"] > 0
        found[schedule] = load_metrics(folder)
        compiled.append(_advance._cache_size())  # type: ignore[attr-defined]
    assert list(found["1"]["train/step"]) == list(range(8))
    assert list(found["[2,5]"]["train/step"]) == [0, 2, 4, 5, 7]
    assert np.diff(compiled).max() == 1  # a program of another config, whatever it is cut into
    for metrics in found.values():
        logged = metrics[metrics["train/step"].isin([0, 4, 7])].reset_index(drop=True)
        assert logged["train/loss"].equals(found["ends"]["train/loss"])
        assert logged["eval/loss"].equals(found["ends"]["eval/loss"])
    maps = load_gradients(folder)["jacobian_log_norm"]
    assert list(maps["step"]) == [0, 2, 5, 7]
    rate = found["[2,5]"].set_index("train/step")["jacobian/decay_rate"]
    assert rate.loc[2] == found["1"].set_index("train/step")["jacobian/decay_rate"].loc[2]
    assert rate.isna().loc[4]
    runs = load_runs(tmp_path)
    assert overview_figure(runs)


def test_seconds_of_compiling_are_told_apart() -> None:
    timers: list[Stopwatch] = [{}, {}]

    @jax.jit
    def inner(x: jax.Array) -> jax.Array:
        return jnp.sin(x) * 3

    begin = time.perf_counter()
    with timing("train", timers):
        jax.jit(lambda x: inner(x) + inner(2 * x))(jnp.ones(3)).block_until_ready()
        time.sleep(0.2)
    seconds = time.perf_counter() - begin
    assert timers[0] == timers[1]
    assert 2 * sum(timers[0].values()) == pytest.approx(seconds, abs=0.02)
    assert timers[0]["compile"] > 0
    assert 2 * timers[0]["train"] > 0.19
