"""Held-out metrics at other lengths than the one that a network is trained on."""

from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import Compose

from gradlab.components import ConfigError
from gradlab.config import Sweep
from gradlab.identity import identity
from gradlab.point import Point, run_point
from gradlab.records import load_metrics
from gradlab.sweeps.objective import objective_of
from gradlab.training.program import Program, hyperparameters_of

SMALL = ("model.hidden_size=4", "task.test_size=20")


@pytest.mark.parametrize("task", ["adding", "temporal_order", "copying", "continual_reber"])
def test_metrics_at_a_length_are_those_of_a_task_of_this_length(
    composed: Compose, task: str
) -> None:
    config = composed(f"task={task}", *SMALL, "task.length=20", "task.test_lengths=[12,40]")
    program = Program(config)
    state = program.initialise(hyperparameters_of(config))
    row = program.evaluate(state)
    for length in (12, 40):
        other = Program(composed(f"task={task}", *SMALL, f"task.length={length}"))
        for name, value in other.evaluate(state).items():
            at_length = row[name.replace("eval/", f"eval/length_{length}/")]
            np.testing.assert_allclose(at_length, value, rtol=1e-5)
    assert len(row) == 3 * len(other.evaluate(state))


def test_the_range_of_lengths_that_is_trained_on_is_not_that_of_test_lengths(
    composed: Compose,
) -> None:
    words = ("task=temporal_order", *SMALL, "task.length=30", "task.min_length=20")
    program = Program(composed(*words, "task.test_lengths=[12,50]"))
    assert set(program.task.test.lengths) <= set(range(20, 31))
    assert {place: set(batch.lengths) for place, batch in program.held_out.items() if place} == {
        "length_12/": {12},
        "length_50/": {50},
    }


def test_held_out_sequences_are_no_part_of_the_compiled_program(composed: Compose) -> None:
    """As constants they'd be written into it, whose text has two characters a byte."""
    words = ("task=echo", "model.hidden_size=4", "task.length=15", "task.test_lengths=[30]")
    size = {}
    for count in (10, 1000):
        program = Program(composed(*words, f"task.test_size={count}"))
        state = jax.eval_shape(program.initialise, hyperparameters_of(program.config))
        lowered = Program.evaluate_on.lower(program, program.held_out, state)
        size[count] = len(lowered.as_text())
    assert size[1000] < 1.1 * size[10]


def test_a_run_records_them_from_its_first_row_to_its_last(
    composed: Compose, tmp_path: Path
) -> None:
    words = ("task=echo", *SMALL, "task.length=15", "task.test_lengths=[30]", "wandb=disabled")
    config = composed(*words, "train.steps=4", "train.log_every=2")
    status = run_point(Point(config, tmp_path / "sweep" / "0", "0"))
    metrics = load_metrics(tmp_path / "sweep" / "0")
    rows = metrics[metrics["eval/loss"].notna()]  # others are of probes alone
    assert list(rows.index) == [0, 2, 3]
    for name in ("loss", "accuracy", "error_rate", "baseline"):
        assert rows[f"eval/length_30/{name}"].notna().all()
        assert f"eval/length_30/{name}" in status["summary"]


def test_points_vmapped_have_them_too(composed: Compose) -> None:
    config = composed("task=echo", *SMALL, "task.length=15", "task.test_lengths=[30]")
    program = Program(config)
    seeds = [program.initialise(hyperparameters_of(config) | {"seed": s}) for s in (0, 1)]
    stacked = jax.tree.map(lambda *x: jax.numpy.stack(x), *seeds)
    together = jax.vmap(program.evaluate)(stacked)
    for index, state in enumerate(seeds):
        for name, value in program.evaluate(state).items():
            np.testing.assert_allclose(together[name][index], value, rtol=1e-5)


def test_without_them_a_point_is_the_one_that_it_always_was(composed: Compose) -> None:
    for words in (("task=adding",), ("task=adding", "task.test_lengths=null")):
        assert "test_lengths" not in composed(*words).task
    with_lengths = composed("task=adding", "task.test_lengths=[50]")
    assert identity(with_lengths) != identity(composed("task=adding"))


def test_accuracy_at_a_length_is_better_the_higher_it_is() -> None:
    settings = Sweep(objective="eval/length_100/accuracy")
    assert objective_of({}, settings).maximised
    assert not objective_of({}, Sweep(objective="eval/length_100/loss")).maximised


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("task=echo", "task.test_lengths=[5]"),
            "task.test_lengths has 5, and task.length must be above task.delay",
        ),
        (
            ("task=forecast", "task.test_lengths=[500]"),
            "task.test_lengths has 500, and task.length must be less than or equal to 128",
        ),
        (("task=echo", "task.test_lengths=[0]"), "task.test_lengths must be greater than or equal"),
        (("task=echo", "task.test_lengths=20"), "task.test_lengths must be a valid list; got 20"),
        (
            ("task=digits", "+task.test_lengths=[16]"),
            r"whose inputs and answers have one size .* \(8, 10\) as it is trained and \(4, 10\)",
        ),
    ],
)
def test_lengths_that_a_task_cannot_have_are_refused(
    composed: Compose, words: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Program(composed(*words))


def test_a_task_without_a_length_is_refused(composed: Compose, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", inputs=np.zeros((9, 4, 1)), targets=np.arange(9) % 2)
    words = ("task=arrays", f"task.path={tmp_path / 'data.npz'}", "+task.test_lengths=[8]")
    with pytest.raises(ConfigError, match=r"a length that can be chosen, by task.length; .*arrays"):
        Program(composed(*words))
