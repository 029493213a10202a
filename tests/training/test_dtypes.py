"""Training in other types than float32, and loss scaling: rule, skipped updates, resuming."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Compose
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab.components import ConfigError
from gradlab.identity import identity, without_bookkeeping
from gradlab.point import Point, checkpoints, run_point
from gradlab.records import load_metrics
from gradlab.training.loss_scaling import LARGEST, dynamic, static
from gradlab.training.precision import types_of
from gradlab.training.program import Program, hyperparameters_of

SMALL = (
    "model.hidden_size=4",
    "task=echo",
    "task.length=6",
    "task.delay=1",
    "task.test_size=4",
    "train.batch_size=4",
    "train.steps=6",
    "train.log_every=3",
    "probe.schedule=ends",
    "wandb=disabled",
)
OVERFLOWS = (*SMALL, "model.dtype=float16", "+train/loss_scale=dynamic")
DTYPES = ("bfloat16", "float16", "float32", "float64")
ROUNDOFF = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}


def trained(composed: Compose, *overrides: str, steps: int = 3) -> tuple[Any, Any, Any]:
    """The program of a run, its first state, and what `advance` returns of it."""
    made = composed(*SMALL, *overrides)
    program, hyperparameters = Program(made), hyperparameters_of(made)
    with types_of(made.model.dtype):
        start = program.initialise(hyperparameters)
        return program, start, program.advance(hyperparameters, start, steps)


def numbers(tree: Any) -> list[Any]:
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]


def test_all_types_start_alike_and_train_alike_to_rounding(composed: Compose) -> None:
    runs = {dtype: trained(composed, f"model.dtype={dtype}") for dtype in DTYPES}
    _, exact_start, (_, exact) = runs["float64"]
    weights = numbers(exact_start.parameters)
    assert {x.dtype for x in jax.tree.leaves(exact_start.parameters)} == {jnp.dtype("float64")}
    for dtype, u in ROUNDOFF.items():
        _, start, (end, telemetry) = runs[dtype]
        for ours, theirs in zip(numbers(start.parameters), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert {x.dtype for x in jax.tree.leaves(end.parameters)} == {jnp.dtype("float32")}
        for name in ("loss", "grad_norm"):
            ours, true = (np.asarray(getattr(x, name), np.float64) for x in (telemetry, exact))
            error = np.abs(ours / true - 1)
            assert (error < 64 * u).all()
            assert (error > 0).all() or dtype == "float32"
    assert exact.loss.dtype == jnp.float64


def test_a_default_says_nothing_of_types_in_identity_or_digest(composed: Compose) -> None:
    plain = composed(*SMALL)
    record = without_bookkeeping(asdict(plain))
    assert "dtype" not in record["model"]
    assert "loss_scale" not in record["train"]
    program, start, _ = trained(composed, steps=1)
    assert start.loss_scale is None
    assert type(program.merge(start.parameters).cell).__name__ == "Elman"
    identities = {identity(composed(*SMALL, f"model.dtype={dtype}")) for dtype in DTYPES}
    assert len(identities) == len(DTYPES)


@pytest.mark.parametrize("clip", ["none", "adjoint"])
def test_a_power_of_two_as_scale_changes_no_bit_of_float32(composed: Compose, clip: str) -> None:
    clipping = [f"clip={clip}", *(["clip.threshold=1e-4"] if clip == "adjoint" else [])]
    _, _, (plain, _) = trained(composed, *clipping)
    _, _, (scaled, _) = trained(composed, *clipping, "+train/loss_scale=static")
    for ours, theirs in zip(numbers(plain.parameters), numbers(scaled.parameters), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=40)
@given(st.lists(st.booleans(), max_size=40), st.integers(1, 4), st.integers(0, 24))
def test_the_dynamic_rule_is_that_of_a_plain_count(
    overflows: list[bool], interval: int, exponent: int
) -> None:
    rule = dynamic(2.0**exponent, interval)
    state, scale, good = rule.init(), 2.0**exponent, 0
    for overflow in overflows:
        gradient = jnp.array([1.0, jnp.inf if overflow else 0.0])
        skips = rule.skips(state, jnp.float32(1.0), gradient)
        assert bool(skips) == (overflow and scale > 1)
        state = rule.update(state, skips)
        if skips:
            scale, good = scale / 2, 0
        elif good + 1 == interval:
            scale, good = min(2 * scale, LARGEST), 0
        else:
            good += 1
        assert (float(state.scale), int(state.good)) == (scale, good)


def test_what_is_no_overflow_of_scaling_is_not_skipped() -> None:
    infinite = jnp.array([jnp.inf])
    rule = dynamic(4.0)
    assert not rule.skips(rule.init(), jnp.float32(jnp.nan), infinite)  # the network's own loss
    assert not static(4.0).skips(static(4.0).init(), jnp.float32(1.0), infinite)


def test_updates_that_overflow_change_nothing_but_the_scale(composed: Compose) -> None:
    made = composed(*OVERFLOWS, "train.loss_scale.initial=16777216.0", "optim=adam")
    program, hyperparameters = Program(made), hyperparameters_of(made)
    before = program.initialise(hyperparameters)
    skipped = []
    for _ in range(14):
        after, telemetry = program.advance(hyperparameters, before, 1)
        is_skipped = bool(telemetry.skipped[0])
        skipped.append(is_skipped)
        kept = [
            np.array_equal(x, y)
            for x, y in zip(
                numbers((before.parameters, before.optimiser)),
                numbers((after.parameters, after.optimiser)),
                strict=True,
            )
        ]
        assert all(kept) == is_skipped
        factor = 0.5 if is_skipped else 1.0
        assert float(after.loss_scale.scale) == factor * float(before.loss_scale.scale)
        assert int(after.step) == int(before.step) + 1
        assert not after.diverged
        before = after
    assert skipped[0]
    assert not skipped[-1]


def test_a_scale_keeps_gradients_that_float16_loses(composed: Compose) -> None:
    made = [composed(*SMALL, f"model.dtype={dtype}") for dtype in ("float16", "float64")]
    program, double = map(Program, made)
    start = program.initialise(hyperparameters_of(made[0]))

    def gradient(program: Program, parameters: Any, scale: float) -> Any:
        def tiny(parameters: Any) -> Any:
            return scale * 1e-8 * program.loss(parameters, program.probed)

        return jax.tree.map(lambda g: g / scale, jax.grad(tiny)(parameters))

    recurrent = "cell"
    lost = gradient(program, start.parameters, 1.0)[recurrent]
    kept = gradient(program, start.parameters, 2.0**15)[recurrent]
    with types_of("float64"):
        wide = double.initialise(hyperparameters_of(made[1])).parameters
        exact = gradient(double, wide, 1.0)[recurrent]
    assert all((x == 0).all() for x in numbers(lost))
    for ours, true in zip(numbers(kept), numbers(exact), strict=True):
        assert np.linalg.norm(ours - true) < 64 * 2.0**-11 * np.linalg.norm(true)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.dtype=float16", "+train/loss_scale=dynamic", "train.loss_scale.interval=2"),
        ("model.dtype=bfloat16", "tbptt.window=2", "tbptt.update=segment"),
        ("model.dtype=float64", "model=lstm"),
    ],
)
def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(
    composed: Compose, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    made = composed(*SMALL, *overrides)
    program, hyperparameters = Program(made), hyperparameters_of(made)
    with types_of(made.model.dtype):
        half, _ = program.advance(hyperparameters, program.initialise(hyperparameters), 3)
        checkpoints.save(tmp_path, made, half)
        read = checkpoints.load(tmp_path, made, program.abstract_state)
        assert read is not None
        ends = [program.advance(hyperparameters, state, 3)[0] for state in (half, read)]
    for ours, theirs in zip(*map(jax.tree.leaves, ends), strict=True):
        assert ours.dtype == theirs.dtype
        if not jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_a_point_records_the_scale_and_what_its_precision_makes_of_its_map(
    composed: Compose, tmp_path: Path
) -> None:
    probes = ("probe=[spectral,statistics,theory]", "probe.jacobian.certify=true")
    made = composed(*OVERFLOWS, *probes)
    assert run_point(Point(made, tmp_path / "0", "half"))["state"] == "done"
    last = load_metrics(tmp_path / "0").iloc[-1]
    assert last["train/loss_scale"] == 2.0**15
    assert last["train/skipped"] == 0
    assert 0 < last["jacobian/precision_error/median"] < 64 * 2.0**-11
    assert last["jacobian/precision_error/median"] <= last["jacobian/precision_error/largest"]
    assert "jacobian/unresolved" not in last
    assert np.isfinite(last["theory/bound"])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize(
    "overrides",
    [
        ("model=lstm", "model.decoder=true", "task=reversal"),
        ("model=lru", "model.num_layers=2", "tbptt.window=2", "clip=zclip"),
        ("model=exprnn", "clip=adjoint", "clip.threshold=1.0"),
    ],
)
def test_stacks_decoders_windows_and_rules_take_each_type(
    composed: Compose, overrides: tuple[str, ...], dtype: str
) -> None:
    small = [word for word in SMALL if "task" not in word or "task=reversal" not in overrides]
    made = composed(*small, *overrides, f"model.dtype={dtype}", "+train/loss_scale=dynamic")
    program, hyperparameters = Program(made), hyperparameters_of(made)
    state = program.abstract_state()
    with types_of(dtype):  # traced, not compiled: the state keeps its types
        after, _ = jax.eval_shape(lambda h, s: program.advance(h, s, 2), hyperparameters, state)
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("model.dtype=float8",), "model.dtype must be one of bfloat16, float16, float32, float64"),
        (("+train.loss_scale=1024",), "train.loss_scale must name what it calls"),
        (("+train/loss_scale=static", "train.loss_scale.scale=0.5"), "train.loss_scale.scale"),
        (("+train.loss_scale._target_=gradlab.training.stopping.recent",), "a StopRule"),
        (("model.dtype=bfloat16", "regulariser=omega"), "omega needs model.dtype=float32"),
    ],
)
def test_wrong_types_and_scales_are_refused(
    composed: Compose, overrides: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Program(composed(*SMALL, *overrides))


def test_a_readout_and_its_outputs_stay_in_float32(composed: Compose) -> None:
    program, start, _ = trained(composed, "model.dtype=bfloat16", "model=gru", steps=1)
    network = program.merge(start.parameters)
    assert network(program.probed.inputs).dtype == jnp.float32
    assert isinstance(network.readout, nnx.Linear)
