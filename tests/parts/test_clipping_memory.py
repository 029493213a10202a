"""Clipping rules with a memory: against their papers' algorithms, resumed, and side by side."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab import clipping
from gradlab.config import Config
from gradlab.identity import program_key
from gradlab.point import checkpoints
from gradlab.training.program import Program, State, hyperparameters_of
from gradlab.training.telemetry import training_row

Tree = dict[str, np.ndarray]
SHAPES = {"b": (3,), "hh": (3, 3)}
UPDATES = 40
SMALL = (
    "model.hidden_size=5",
    "task.length=4",
    "train.batch_size=6",
    "train.steps=12",
    "optim=sgd",
)
RULES = ("zclip", "adagc", "autoclip")
EAGER = {  # settings at which each rule clips within a dozen updates
    "zclip": ("clip.warmup=3", "clip.threshold=0.01"),
    "adagc": ("clip.warmup=3", "clip.threshold=0.9"),
    "autoclip": ("clip.percentile=30.0",),
}


def gradients(seed: int) -> list[Tree]:
    """Random gradients, some a hundred times as large as the rest."""
    rng = np.random.default_rng(seed)
    sizes = np.where(rng.random(UPDATES) < 0.2, 100.0, 1.0) * np.exp(rng.normal(size=UPDATES))
    return [{k: x * rng.normal(size=shape) for k, shape in SHAPES.items()} for x in sizes]


def norm_of(gradient: Tree) -> float:
    return float(np.sqrt(sum(np.sum(x**2) for x in gradient.values())))


def zclip_of_the_paper(
    gradients: list[Tree], threshold: float, warmup: int, max_norm: float
) -> Iterator[Tree]:
    seen: list[float] = []
    for gradient in gradients:
        norm = kept = norm_of(gradient)
        if len(seen) < warmup:
            seen.append(norm)
            mean, variance = np.mean(seen), np.var(seen)
        else:
            z = (norm - mean) / np.sqrt(variance)
            if z > threshold:
                kept = mean + threshold**2 / z * np.sqrt(variance)
            mean = 0.97 * mean + 0.03 * kept
            variance = 0.97 * variance + 0.03 * (kept - mean) ** 2
        yield {k: x * min(kept, max_norm) / norm for k, x in gradient.items()}


def adagc_of_the_paper(gradients: list[Tree], threshold: float, warmup: int) -> Iterator[Tree]:
    usual = dict.fromkeys(SHAPES, np.inf)
    for t, gradient in enumerate(gradients):
        clipped = {}
        for k, x in gradient.items():
            if t < warmup:
                clipped[k] = x * min(1, 1 / norm_of(gradient))
                usual[k] = min(usual[k], np.linalg.norm(clipped[k]))
            else:
                clipped[k] = x * min(1, threshold * usual[k] / np.linalg.norm(x))
                usual[k] = 0.99 * usual[k] + 0.01 * np.linalg.norm(clipped[k])
        yield clipped


def autoclip_of_the_paper(gradients: list[Tree], percentile: float, history: int) -> Iterator[Tree]:
    norms: list[float] = []
    for gradient in gradients:
        norms.append(norm_of(gradient))
        bound = np.percentile(norms[-history:], percentile)
        yield {k: x * min(1, bound / norms[-1]) for k, x in gradient.items()}


def of_rule(rule: Any, gradients: list[Tree]) -> list[Tree]:
    """What a rule makes of gradients, update after update."""
    memory = rule.init(gradients[0])
    step = jax.jit(rule.update)
    clipped = []
    for gradient in gradients:
        small = jax.tree.map(lambda x: x.astype(np.float32), gradient)
        new, memory = step(small, memory, None)
        clipped.append(jax.tree.map(np.asarray, new))
    return clipped


def assert_equal(ours: list[Tree], theirs: Iterator[Tree]) -> None:
    for new, expected in zip(ours, theirs, strict=True):
        for k in SHAPES:
            np.testing.assert_allclose(new[k], expected[k], rtol=1e-3, atol=1e-5)


@given(seed=st.integers(0, 99), threshold=st.floats(0.5, 4), warmup=st.integers(2, 30))
@settings(max_examples=10)
def test_zclip_is_the_algorithm_of_its_paper(seed: int, threshold: float, warmup: int) -> None:
    raw = gradients(seed)
    for max_norm in (np.inf, 3.0):
        ours = of_rule(clipping.zclip(threshold, warmup=warmup, max_norm=max_norm), raw)
        assert_equal(ours, zclip_of_the_paper(raw, threshold, warmup, max_norm))


@given(seed=st.integers(0, 99), threshold=st.floats(0.5, 4), warmup=st.integers(1, 30))
@settings(max_examples=10)
def test_adagc_is_the_algorithm_of_its_paper(seed: int, threshold: float, warmup: int) -> None:
    raw = gradients(seed)
    ours = of_rule(clipping.adagc(threshold, warmup=warmup), raw)
    assert_equal(ours, adagc_of_the_paper(raw, threshold, warmup))


def test_adagc_counts_no_gradient_of_zero() -> None:
    rule = clipping.adagc(warmup=2)
    one, zero = {"a": jnp.ones(4)}, {"a": jnp.zeros(4)}
    memory = rule.init(one)
    for gradient in (one, one, *[zero] * 400):
        _, memory = rule.update(gradient, memory, None)
    clipped, _ = rule.update(one, memory, None)
    np.testing.assert_allclose(clipped["a"], 0.5 * 1.04, rtol=1e-5)  # of warmup_norm 1


def test_zclip_stays_finite_at_any_threshold() -> None:
    rule = clipping.zclip(1e30, warmup=2)
    memory = rule.init({"a": jnp.ones(4)})
    for size in (1.0, 1.0, 1.0, 5.0):
        _, memory = rule.update({"a": size * jnp.ones(4)}, memory, None)
    assert np.isfinite([memory.mean, memory.variance]).all()


@given(seed=st.integers(0, 99), percentile=st.floats(0, 100), history=st.integers(1, 50))
@settings(max_examples=10)
def test_autoclip_is_numpys_percentile(seed: int, percentile: float, history: int) -> None:
    raw = gradients(seed)
    ours = of_rule(clipping.autoclip(percentile, history), raw)
    assert_equal(ours, autoclip_of_the_paper(raw, percentile, history))


@pytest.mark.parametrize(
    "rule",
    [
        clipping.zclip(np.inf),
        clipping.adagc(np.inf, warmup_norm=np.inf),
        clipping.adagc(np.inf, warmup=0),
        clipping.autoclip(100.0),
    ],
)
def test_a_rule_at_its_loosest_changes_no_bit(rule: Any) -> None:
    raw = gradients(0)
    for new, gradient in zip(of_rule(rule, raw), raw, strict=True):
        for k in SHAPES:
            np.testing.assert_array_equal(new[k], gradient[k].astype(np.float32))


def test_norms_that_never_vary_are_clipped_to_their_mean() -> None:
    same = [{"b": np.full(3, 2.0), "hh": np.zeros((3, 3))}] * 5
    spike = [{"b": np.full(3, 200.0), "hh": np.zeros((3, 3))}]
    clipped = of_rule(clipping.zclip(warmup=5), same + spike)
    np.testing.assert_allclose(clipped[-1]["b"], 2.0, rtol=1e-6)


def test_an_array_whose_gradient_begins_at_zero_learns_all_the_same() -> None:
    rng = np.random.default_rng(0)
    raw = [{"b": rng.normal(size=3), "hh": np.zeros((3, 3))} for _ in range(4)]
    raw += [{"b": rng.normal(size=3), "hh": np.full((3, 3), 2.0)} for _ in range(4)]
    clipped = of_rule(clipping.adagc(warmup=2), raw)
    assert not clipped[3]["hh"].any()
    np.testing.assert_array_equal(clipped[4]["hh"], raw[4]["hh"])  # its first: nothing is usual
    assert clipped[7]["hh"].all()


def start(config: Config) -> tuple[Program, Any, State]:
    program, hyperparameters = Program(config), hyperparameters_of(config)
    return program, hyperparameters, program.initialise(hyperparameters)


@pytest.fixture
def config_of(composed: Compose) -> Callable[..., Config]:
    def make(rule: str, *overrides: str) -> Config:
        return composed(*SMALL, f"clip={rule}", *EAGER[rule], *overrides)

    return make


@pytest.mark.parametrize("rule", RULES)
def test_training_that_goes_on_from_a_checkpoint_remembers(
    rule: str, config_of: Callable[..., Config], tmp_path: Path
) -> None:
    config = config_of(rule)
    program, hyperparameters, state = start(config)
    row = training_row(12, program.advance(hyperparameters, state, 12)[1])
    assert 0 < row["train/clip_fraction"] <= 1
    assert row["train/clip_coefficient"] < 1

    half, _ = program.advance(hyperparameters, state, 6)
    checkpoints.save(tmp_path, config, half)
    read = checkpoints.load(tmp_path, config, program.abstract_state)
    assert read is not None
    resumed, whole = (program.advance(hyperparameters, x, 6)[0] for x in (read, half))
    for ours, theirs in zip(
        *(jax.tree.leaves(x._replace(key=0)) for x in (resumed, whole)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("rule", RULES)
def test_points_side_by_side_remember_their_own_norms(
    rule: str, config_of: Callable[..., Config]
) -> None:
    configs = [config_of(rule, f"init.gain={gain}") for gain in (0.5, 2.0)]
    starts = [start(config) for config in configs]
    assert program_key(configs[0]) == program_key(configs[1])
    program = starts[0][0]
    alone = [program.advance(hyperparameters, state, 8) for _, hyperparameters, state in starts]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *((h, s) for _, h, s in starts))
    together, _ = jax.vmap(lambda point: program.advance(*point, 8))(stacked)
    for index, (state, _) in enumerate(alone):
        ours, theirs = jax.tree.leaves(together.clip), jax.tree.leaves(state.clip)
        assert ours
        for x, y in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(x[index], y, rtol=1e-4)
    assert not np.allclose(*(jax.tree.leaves(state.clip)[1] for state, _ in alone))


def test_an_update_that_diverges_is_not_remembered(composed: Compose) -> None:
    linear = ("+model.cell.activation=identity", "optim.learning_rate=30")
    config = composed(*SMALL, *linear, "clip=zclip", "clip.threshold=inf")
    program, hyperparameters, state = start(config)
    state, _ = program.advance(hyperparameters, state, 60)
    assert state.diverged
    assert int(state.clip.updates) == int(state.step)
    assert np.isfinite(state.clip.mean)


def test_all_norms_of_a_run_are_its_history(composed: Compose) -> None:
    assert composed("clip=autoclip", "train.steps=77").clip["history"] == 77
    assert composed("clip=autoclip", "train.steps=0").clip["history"] == 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("clip=zclip", "clip.warmup=1"), "clip.warmup must be greater than or equal to 2; got 1"),
        (("clip=zclip", "clip.decay=1"), "clip.decay must be less than 1; got 1"),
        (("clip=adagc", "clip.threshold=0"), "clip.threshold must be greater than 0; got 0"),
        (
            ("clip=autoclip", "clip.percentile=101"),
            "clip.percentile must be less than or equal to 100; got 101",
        ),
        (
            ("clip=autoclip", "clip.history=-1"),
            "clip.history must be greater than or equal to 0; got -1",
        ),
    ],
)
def test_a_wrong_setting_is_refused(
    composed: Compose, overrides: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        composed(*overrides)
