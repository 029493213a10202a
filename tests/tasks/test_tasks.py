"""Tasks: their inputs, targets, weights and baselines."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from hand_built import draw_batch, elman, with_readout
from matplotlib.cbook import get_sample_data
from sklearn.datasets import load_digits

from gradlab.__main__ import CONF
from gradlab.components import ConfigError
from gradlab.tasks import Batch, Task
from gradlab.tasks.adding import RULES, Variant, adding
from gradlab.tasks.copying import copying
from gradlab.tasks.cue import cue
from gradlab.tasks.digits import LENGTHS, digits
from gradlab.tasks.echo import echo
from gradlab.tasks.forecast import forecast
from gradlab.tasks.memory_capacity import memory_capacity
from gradlab.tasks.reversal import reversal
from gradlab.tasks.temporal_order import STARTS, temporal_order
from gradlab.tasks.xor import xor
from gradlab.training.losses import losses, metrics, weighted_mean
from gradlab.training.program import Program, hyperparameters_of
from gradlab.training.success import success

OF_A_FILE = {"arrays", "mnist"}
NAMES = sorted({path.stem for path in (CONF / "task").glob("*.yaml")} - OF_A_FILE)
MANY = 4_000


@pytest.mark.parametrize("name", NAMES)
def test_every_task_is_configured_and_fits_every_part_of_a_run(
    composed: Compose, name: str
) -> None:
    config = composed(f"task={name}", "model.hidden_size=4")
    program, hyperparameters = Program(config), hyperparameters_of(config)
    task, length = program.task, program.task.test.inputs.shape[1]
    assert task.test.inputs.shape[2] == task.features
    state = jax.eval_shape(program.initialise, hyperparameters)
    trained, _ = jax.eval_shape(lambda n, s: program.advance(n, s, 2), hyperparameters, state)
    assert jax.tree.structure(trained) == jax.tree.structure(state)
    measured = jax.eval_shape(program.evaluate, trained)
    assert {"eval/loss", "eval/baseline"} <= set(measured)
    sample = jax.jit(task.sample, static_argnums=1)
    batch, again, other = (sample(jax.random.key(seed), 3) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, batch, again))
    assert not np.array_equal(batch.inputs, other.inputs) or name == "cue"  # three of four cues
    assert batch.inputs.shape == (3, length, task.features)
    assert jax.tree.map(jnp.shape, batch) == jax.tree.map(lambda x: (3, *x.shape[1:]), task.test)


def test_held_out_sequences_are_no_seeds_training_sequences() -> None:
    task = adding(24, test_size=50)
    again = adding(24, test_size=50)
    np.testing.assert_array_equal(task.test.inputs, again.test.inputs)
    held_out = {sequence.tobytes() for sequence in np.asarray(task.test.inputs)}
    shown = draw_batch(task, MANY).inputs
    assert not held_out & {sequence.tobytes() for sequence in np.asarray(shown)}


# Baselines, against the targets of many drawn sequences.

CLASSES: dict[str, Task] = {
    "echo": echo(12, 3, test_size=1),
    "xor": xor(12, 3, test_size=1),
    "copying": copying(6, test_size=1),
    "reversal": reversal(5, 2, test_size=1),
}


@pytest.mark.parametrize("name", CLASSES)
def test_baseline_of_classes_is_their_entropy_at_each_step(name: str) -> None:
    check_entropy(CLASSES[name], draw_batch(CLASSES[name], MANY))


def check_entropy(task: Task, batch: Batch) -> None:
    """Check the baseline against the entropy of the targets at each step, averaged over steps."""
    one_hot = np.eye(task.outputs)[np.asarray(batch.targets)]
    counts = np.asarray(batch.weights)
    shares = np.einsum("bto,bt->to", one_hot, counts) / np.maximum(counts.sum(axis=0), 1)[:, None]
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)
    assert np.average(entropy, weights=counts.sum(axis=0)) == pytest.approx(task.baseline, rel=3e-3)


def test_baseline_of_copying_is_that_of_the_literature() -> None:
    """Arjovsky et al. 2016: 10 ln 8 / (T + 20)."""
    assert copying(100, test_size=1).baseline == pytest.approx(0.17329, abs=5e-6)
    assert copying(1000, test_size=1).baseline == pytest.approx(0.02039, abs=5e-6)


@cache
def adding_sample(variant: Variant) -> tuple[Task, Batch]:
    """Return an adding problem of at most 44 steps, and sequences of it."""
    task = adding(44, variant=variant, test_size=1)
    return task, draw_batch(task, MANY)


def check_variance(task: Task, batch: Batch) -> None:
    """Check the baseline against the variance of the targets."""
    targets = np.asarray(batch.targets, np.float64)[np.asarray(batch.weights) > 0]
    squares = (targets - targets.mean()) ** 2
    assert squares.mean() == pytest.approx(task.baseline, abs=4 * squares.std() / np.sqrt(MANY))


@pytest.mark.parametrize("variant", RULES)
def test_four_adding_problems_have_their_own_baselines(variant: Variant) -> None:
    """The variance of the target, which the value set to 0 lowers in Hochreiter & Schmidhuber's."""
    task, batch = adding_sample(variant)
    check_variance(task, batch)
    literature = 1 / 6 if variant == "arjovsky" else 1 / 24
    if variant == "hochreiter":
        assert 0.92 * literature < task.baseline < literature
    else:
        assert task.baseline == pytest.approx(literature, rel=1e-12)


def test_baselines_of_waves_and_of_white_input_are_their_variance() -> None:
    for task in (memory_capacity(12, 5, test_size=1), cue(), cue(37, (0.03, 0.21))):
        check_variance(task, draw_batch(task, MANY))


def test_pascanus_criterion_is_met_by_a_constant_on_most_sequences() -> None:
    task = adding(30, variant="pascanu", test_size=MANY)
    half = jnp.full((MANY, 30, 1), 0.5)
    assert float(metrics(half, task)["eval/error_rate"]) == pytest.approx(0.36, abs=0.025)
    absolute = task._replace(tolerance=0.04)
    assert float(metrics(half, absolute)["eval/error_rate"]) > 0.8


def test_baseline_of_a_cue_is_a_half_and_the_mean_wave_is_better() -> None:
    task = cue()
    waves = np.asarray(task.test.targets, np.float64)[..., 0]
    assert task.baseline == pytest.approx(0.5, abs=1e-9)
    assert np.mean((waves - waves.mean(axis=0)) ** 2) == pytest.approx(0.5 * (1 - 1 / 4), abs=1e-6)


def test_baseline_of_the_forecast_is_the_naive_one() -> None:
    task = forecast(32)
    eeg = np.fromfile(get_sample_data("eeg.dat", asfileobj=False)).reshape(800, 4)
    rest = (eeg[640:] - eeg[:640].mean(axis=0)) / eeg[:640].std(axis=0)
    changes = [np.diff(rest[start : start + 33], axis=0) ** 2 for start in range(160 - 32)]
    assert task.baseline == pytest.approx(np.mean(changes), rel=1e-5)
    np.testing.assert_allclose(task.test.inputs[-1, -1], rest[-2], rtol=1e-5)
    np.testing.assert_allclose(task.test.targets[-1, -1], rest[-1], rtol=1e-5)
    shown = draw_batch(task, MANY)
    assert float(jnp.max(shown.targets)) <= ((eeg - eeg.mean(axis=0)) / eeg.std(axis=0)).max() * 1.1


# Positions of symbols and marks.


@pytest.mark.parametrize("symbols", [2, 3])
def test_symbols_are_where_pascanus_code_puts_them(symbols: int) -> None:
    """Positions int(.1 L), … + less than int(.1 L), of each sequence's own length L."""
    task = temporal_order(64, 10, symbols, test_size=1)
    batch = draw_batch(task, MANY)
    answers = jnp.sum(batch.targets * batch.weights, axis=1, keepdims=True).astype(int)
    check_entropy(task, Batch(batch.inputs, answers, jnp.ones(answers.shape)))
    shown, ends = np.asarray(batch.inputs), np.asarray(batch.weights).argmax(axis=1) + 1
    assert set(ends) == set(range(10, 65))
    np.testing.assert_array_equal(shown.sum(axis=(1, 2)), ends)
    relevant = [np.flatnonzero(sequence[:, :2].any(axis=1)) for sequence in shown]
    for i, tenths in enumerate(STARTS[symbols]):
        offsets = [p[i] - int(end * (tenths / 10)) for p, end in zip(relevant, ends, strict=True)]
        room = [int(end * 0.1) for end in ends]
        assert min(offsets) == 0
        assert all(offset < most for offset, most in zip(offsets, room, strict=True))
        assert max(offsets) == 5
    is_b = shown[np.arange(MANY)[:, None], np.stack(relevant), 1].astype(int)
    classes = np.asarray(batch.targets)[np.arange(MANY), ends - 1]
    np.testing.assert_array_equal(classes, is_b @ 2 ** np.arange(symbols))


@pytest.mark.parametrize("variant", RULES)
def test_marks_are_where_each_adding_problem_puts_them(variant: Variant) -> None:
    batch = adding_sample(variant)[1]
    values, marks = np.moveaxis(np.asarray(batch.inputs), 2, 0)
    ends = np.asarray(batch.weights).argmax(axis=1) + 1
    least = 40 if variant in ("hochreiter", "pascanu") else 44
    assert set(ends) == set(range(least, 45))
    assert values.min() == pytest.approx(-1 if variant == "hochreiter" else 0, abs=1e-3)
    answers = np.asarray(batch.targets)[:, -1, 0]
    if variant == "hochreiter":
        assert (marks[:, 0] == -1).all()
        assert (marks[np.arange(MANY), ends - 1] == -1).all()
        marks = np.where(marks == 1, 1, 0)
        counts = marks.sum(axis=1)
        assert set(counts) == {1, 2}  # 1 where the other mark fell on the first step
        assert (values[counts == 1, 0] == 0).all()
        positions = {int(p) for row in marks[counts == 2] for p in np.flatnonzero(row)}
        assert positions == set(range(1, 40 // 2 - 1))
        assert (marks[:, :10].sum(axis=1) >= counts - 1).all()
    else:
        first, second = np.stack([np.flatnonzero(row) for row in marks]).T
        if variant == "pascanu":
            low, high = ends // 10, ends // 10 + (0.4 * ends).astype(int)
        else:
            low, high = ends // 2, ends
        assert (first < low).all()
        assert ((low <= second) & (second < high)).all()
        assert first.min() == 0
        assert second.max() == (high.max() - 1)
    total = (values * marks).sum(axis=1)
    expected = {"hochreiter": 0.5 + total / 4, "arjovsky": total}.get(variant, total / 2)
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_copying_and_reversal_by_example() -> None:
    task = copying(3, items=2, symbols=4, test_size=5)
    shown = np.asarray(task.test.inputs).argmax(axis=2)
    np.testing.assert_array_equal(shown[:, 2:], [[0, 0, 5, 0, 0]] * 5)
    np.testing.assert_array_equal(task.test.targets[:, :5], 0)
    np.testing.assert_array_equal(task.test.targets[:, 5:], shown[:, :2])
    assert shown[:, :2].min() >= 1
    task = reversal(4, 2, symbols=3, test_size=50)
    for inputs, targets, weights in zip(*map(np.asarray, task.test), strict=True):
        word = inputs[inputs[:, :3].any(axis=1), :3].argmax(axis=1)
        n = len(word)
        np.testing.assert_array_equal(inputs[:, 3], [0] * n + [1] * n + [0] * (8 - 2 * n))
        np.testing.assert_array_equal(weights, inputs[:, 3])
        np.testing.assert_array_equal(targets[n : 2 * n], word[::-1])


# Weights.


@pytest.mark.parametrize(
    "task",
    [
        adding(30, 24, "hochreiter", test_size=40),
        temporal_order(30, 10, test_size=40),
        reversal(15, 3, test_size=40),
    ],
)
def test_padding_changes_neither_loss_nor_gradient_nor_metrics(task: Task) -> None:
    """The padding's inputs and the targets of weight 0 are replaced by others."""
    rng = np.random.default_rng(0)
    batch = task.test
    steps = np.arange(batch.inputs.shape[1])
    ends = np.where(np.asarray(batch.weights) > 0, steps, 0).max(axis=1)
    after = steps > ends[:, None]
    assert after.any()
    np.testing.assert_array_equal(np.asarray(batch.inputs)[after], 0)
    unweighted = np.asarray(batch.weights) == 0
    noise = rng.normal(size=batch.inputs.shape).astype(np.float32)
    other = Batch(
        jnp.where(after[..., None], noise, batch.inputs),
        jnp.where(
            unweighted if batch.targets.ndim == 2 else unweighted[..., None], 1, batch.targets
        ),
        batch.weights,
    )
    sizes = [(task.features, 5), (5, 5), (5, task.outputs)]
    w_xh, w_hh, w_hy = (rng.normal(size=size) / 2 for size in sizes)
    network = with_readout(elman(w_xh, w_hh, np.zeros(5), "tanh"), w_hy, np.zeros(task.outputs))
    definition, weights = nnx.split(network)

    def loss(weights: nnx.State, batch: Batch) -> jax.Array:
        outputs = nnx.merge(definition, weights)(batch.inputs)
        return weighted_mean(losses(outputs, batch.targets), batch)

    original, changed = (jax.jit(jax.value_and_grad(loss))(weights, x) for x in (batch, other))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), original, changed
    )
    rows = [metrics(network(x.inputs), task._replace(test=x)) for x in (batch, other)]
    assert rows[0] == rows[1]


def test_a_sequence_is_wrong_if_any_step_that_counts_is() -> None:
    targets = jnp.array([[0, 1, 1], [0, 1, 1], [0, 1, 1]])
    weights = jnp.array([[0.0, 1, 1]] * 3)
    answers = jnp.array([[1, 1, 1], [0, 1, 0], [0, 0, 0]])
    task = echo(3, 1, 1)._replace(test=Batch(targets[..., None] * 1.0, targets, weights))
    row = metrics(jax.nn.one_hot(answers, 2), task)
    assert float(row["eval/error_rate"]) == pytest.approx(2 / 3)
    assert float(row["eval/accuracy"]) == pytest.approx(3 / 6)


def test_values_are_judged_where_the_task_has_a_tolerance() -> None:
    task = adding(24, test_size=1)
    targets = jnp.zeros((3, 24, 1))
    test = task.test._replace(targets=targets, weights=jnp.ones((3, 24)))
    outputs = targets.at[0, 3].set(0.079).at[1, 3].set(-0.081).at[2, 3].set(jnp.nan)
    row = metrics(outputs, task._replace(test=test))
    assert float(row["eval/error_rate"]) == pytest.approx(2 / 3)
    assert "eval/accuracy" not in row
    assert "eval/error_rate" not in metrics(jnp.zeros((4, 50, 1)), cue())


def test_a_single_low_error_rate_is_a_first_hit_and_no_solution() -> None:
    rates = [0.75, 0.02, 0.0, 0.009, 0.0, 0.03]
    rows = [{"train/step": 10.0 * i, "eval/error_rate": rate} for i, rate in enumerate(rates)]
    assert success(rows) == {"success/solved": 0, "success/first_hit": 20}
    assert success(rows[:4]) == {"success/solved": 1, "success/first_hit": 20}
    assert success(rows[:2]) == {"success/solved": 0}
    diverged = {"train/step": 30.0, "train/loss": float("inf")}
    assert success([*rows[:3], diverged])["success/solved"] == 0
    assert success([diverged]) == {}


# Errors.


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task=adding", "task.min_length=101"), "from 2 to task.length, which is 100; got 101"),
        (("task=adding", "task.variant=hochreiter", "task.length=20"), "at least 24; got 20"),
        (("task=adding", "task.variant=le"), "task.variant must be 'hochreiter', 'pascanu',"),
        (("task=temporal_order", "task.length=9"), "task.length must be at least 10; got 9"),
        (("task=temporal_order", "task.symbols=4"), "task.symbols must be 2 or 3; got 4"),
        (("task=xor", "task.delay=25"), "above twice task.delay, which is 50 steps; got 50"),
        (("task=cue", "task.frequencies=[0.7]"), "must be less than 0.5"),
        (("task=forecast", "task.length=200"), "must be less than or equal to 128"),
        (("model.decoder=true",), "such as task=reversal; got gradlab.tasks.digits.digits"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(
    composed: Compose, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Program(composed(*overrides))


# Digits.


@pytest.mark.parametrize("length", LENGTHS)
def test_digits_are_the_images_in_reading_order(length: int) -> None:
    task = digits(length)
    images, labels = load_digits(return_X_y=True)
    assert task.test.inputs.shape[1:] == (length, task.features)
    np.testing.assert_allclose(task.test.inputs[1].reshape(-1), images[5] / 16)
    np.testing.assert_array_equal(task.test.targets[:, -1], labels[::5])


def test_permuted_digits_are_the_same_pixels_in_one_other_order() -> None:
    plain, permuted = (np.asarray(digits(64, p).test.inputs)[..., 0] for p in (False, True))
    assert not np.array_equal(plain, permuted)
    np.testing.assert_array_equal(np.sort(plain), np.sort(permuted))
    columns = {column.tobytes() for column in plain.T}
    assert {column.tobytes() for column in permuted.T} == columns


def test_only_the_last_step_counts() -> None:
    weights = np.asarray(digits(8).test.weights)
    assert (weights[:, -1] == 1).all()
    assert (weights[:, :-1] == 0).all()


def test_held_out_images_are_never_trained_on() -> None:
    task = digits(1)
    held_out = {image.tobytes() for image in np.asarray(task.test.inputs)}
    shown = {image.tobytes() for image in np.asarray(draw_batch(task, 20_000).inputs)}
    assert len(shown) > 1400
    assert not shown & held_out
