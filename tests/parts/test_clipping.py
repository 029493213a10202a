"""Clipping rules against their definitions and PyTorch, and the telemetry of clipping."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import Compose
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab import clipping
from gradlab.config import Config
from gradlab.identity import program_key
from gradlab.training.gradients import Gradients, ObjectiveAux
from gradlab.training.program import Program, State, hyperparameters_of
from gradlab.training.telemetry import observe, training_row

SMALL = ("model.hidden_size=5", "task.length=4", "train.batch_size=6", "optim=sgd")
ADJOINT = (*SMALL, "clip=adjoint", "init.gain=2")
RNG = np.random.default_rng(0)
SHAPES = {"hh": (5, 5), "xh": (3, 5), "b": (5,)}
GRADIENT = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
WEIGHTS = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
WEIGHTS["b"][:] = 0
Tree = dict[str, np.ndarray]


def shortened(x: np.ndarray, limit: float, axis: int | None = None) -> np.ndarray:
    norm = np.linalg.norm(x, axis=axis, keepdims=True) if axis is not None else np.linalg.norm(x)
    return x * np.minimum(1, limit / norm)


def global_norm(x: Tree) -> float:
    return float(np.sqrt(sum((v**2).sum() for v in x.values())))


DEFINITIONS: dict[str, Any] = {
    "global_norm": lambda g, c: {k: v * min(1, c / global_norm(g)) for k, v in g.items()},
    "value": lambda g, c: {k: np.maximum(-c, np.minimum(c, v)) for k, v in g.items()},
    "per_matrix": lambda g, c: {k: shortened(v, c) for k, v in g.items()},
    "agc": lambda g, c: (
        {
            k: shortened(v, c * np.maximum(np.linalg.norm(WEIGHTS[k], axis=0), 1e-3), axis=0)
            for k, v in g.items()
            if k != "b"
        }
        | {"b": shortened(g["b"], c * 1e-3)}
    ),
}


@jax.jit
def every_rule(threshold: float) -> dict[str, Gradients]:
    gradient, weights = (
        jax.tree.map(lambda x: x.astype(np.float32), x) for x in (GRADIENT, WEIGHTS)
    )
    gradients = {}
    for name in DEFINITIONS:
        rule = getattr(clipping, name)(threshold)
        clipped, _ = rule.update(gradient, rule.init(weights), weights)
        gradients[name] = Gradients(gradient, clipped)
    return gradients


@given(threshold=st.floats(1e-3, 100) | st.just(np.inf))
@settings(max_examples=30)
def test_every_rule_is_its_definition(threshold: float) -> None:
    for name, gradients in every_rule(threshold).items():
        expected = DEFINITIONS[name](GRADIENT, threshold)
        for array in SHAPES:
            np.testing.assert_allclose(
                gradients.clipped[array], expected[array], rtol=1e-5, atol=1e-12
            )


def test_rules_that_pytorch_has_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")

    def by_torch(clip: Any) -> Tree:
        parameters = {k: torch.zeros(v.shape, requires_grad=True) for k, v in GRADIENT.items()}
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(GRADIENT[name], dtype=torch.float32)
        clip(list(parameters.values()))
        return {k: v.grad.numpy() for k, v in parameters.items()}

    norm, entry = torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_
    expected = {
        "global_norm": by_torch(lambda ps: norm(ps, 0.7)),
        "value": by_torch(lambda ps: entry(ps, 0.7)),
        "per_matrix": by_torch(lambda ps: [norm([p], 0.7) for p in ps]),
    }
    gradients = every_rule(0.7)
    for rule, arrays in expected.items():
        for name, array in arrays.items():
            np.testing.assert_allclose(gradients[rule].clipped[name], array, rtol=1e-5)


def start(config: Config) -> tuple[Program, Any, State]:
    program, hyperparameters = Program(config), hyperparameters_of(config)
    return program, hyperparameters, program.initialise(hyperparameters)


def test_adjoints_are_clipped_as_a_hook_on_every_state_does_in_pytorch(composed: Compose) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch, the peer, is not installed")
    threshold = 0.002
    config = composed(*ADJOINT, f"clip.threshold={threshold}")
    program, hyperparameters, state = start(config)
    new, telemetry = program.advance(hyperparameters, state, 1)

    batch = program.task.sample(jax.random.split(state.key)[1], 6)
    network = nnx.merge(program.definition, state.parameters, program.constants)
    cell, readout = network.cell, network.readout
    arrays = (cell.dense_h.kernel, cell.dense_i.kernel, cell.dense_i.bias)
    hh, xh, b, hy, by = (
        torch.tensor(np.asarray(x[...], np.float64), requires_grad=True)
        for x in (*arrays, readout.kernel, readout.bias)
    )
    norms = []
    for limit in (np.inf, threshold):
        h = torch.zeros(6, 5, dtype=torch.float64)
        for x in torch.tensor(np.asarray(batch.inputs, np.float64)).swapaxes(0, 1):
            if h.requires_grad:
                h.register_hook(lambda adjoint, limit=limit: adjoint.clamp(-limit, limit))
            h = torch.tanh(x @ xh + h @ hh + b)
        labels = torch.tensor(np.asarray(batch.targets[:, -1]), dtype=torch.long)
        loss = torch.nn.functional.cross_entropy(h @ hy + by, labels)
        gradient = torch.autograd.grad(loss, (hh, xh, b, hy, by))
        norms.append(float(torch.sqrt(sum((g**2).sum() for g in gradient))))
    trained = nnx.merge(program.definition, new.parameters, program.constants).cell.dense_h.kernel
    np.testing.assert_allclose(
        trained[...], (hh - 0.1 * gradient[0]).detach().numpy(), rtol=1e-5, atol=1e-7
    )
    assert telemetry.grad_norm[0] == pytest.approx(norms[0], rel=1e-5)
    assert telemetry.grad_norm_clipped[0] == pytest.approx(norms[1], rel=1e-5)
    assert norms[1] < 0.99 * norms[0]


def test_clipped_means_that_the_rule_changed_the_gradient(composed: Compose) -> None:
    program, hyperparameters, state = start(composed(*ADJOINT))

    def rows(threshold: float) -> dict[str, dict[str, float]]:
        limited = hyperparameters | {"clip.threshold": jnp.float32(threshold)}
        telemetry = {"adjoint": program.advance(limited, state, 1)[1]}
        for name, clipped in every_rule(threshold).items():
            update = observe(
                jnp.array(1), ObjectiveAux(jnp.array(0.0), None, None, None), clipped, WEIGHTS
            )
            telemetry[name] = jax.tree.map(lambda x: x[None], update)
        return {name: training_row(1, x) for name, x in telemetry.items()}

    for row in rows(np.inf).values():
        assert row["train/clip_fraction"] == 0
        assert row["train/grad_norm"] == row["train/grad_norm_clipped"] > 0
        assert row["train/clip_coefficient"] == 1
    for row in rows(1e-4).values():
        assert row["train/clip_fraction"] == 1
        assert row["train/grad_norm_clipped"] < row["train/grad_norm"]
        assert row["train/clip_coefficient"] < 1
        assert row["train/nonfinite"] == 0


def test_the_largest_clipped_norm_is_that_of_one_update(composed: Compose) -> None:
    program, hyperparameters, state = start(composed("clip=global_norm"))
    free = program.advance(hyperparameters | {"clip.threshold": jnp.float32(np.inf)}, state, 4)[1]
    row = training_row(4, free)
    assert row["train/grad_norm_clipped_max"] == max(np.asarray(free.grad_norm).tolist())
    assert row["train/grad_norm_clipped_max"] > row["train/grad_norm_clipped"]


@pytest.mark.parametrize(
    "layers", [1, 2]
)  # the affine form's loop, and a scan over a stack's steps
def test_points_side_by_side_have_their_own_thresholds(composed: Compose, layers: int) -> None:
    program, hyperparameters, state = start(composed(*ADJOINT, f"model.num_layers={layers}"))
    thresholds = (0.002, np.inf)
    points = [hyperparameters | {"clip.threshold": jnp.float32(c)} for c in thresholds]
    alone = [program.advance(point, state, 1)[1] for point in points]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *points)
    _, together = jax.vmap(lambda point: program.advance(point, state, 1))(stacked)
    for index, telemetry in enumerate(alone):
        for x, y in zip(telemetry, together, strict=True):
            assert x is None or np.asarray(y[index]) == pytest.approx(np.asarray(x), rel=1e-5)
    assert alone[0].grad_norm_clipped < alone[1].grad_norm_clipped


def test_no_clipping_is_a_threshold_not_another_program(composed: Compose) -> None:
    assert program_key(composed(*SMALL, "clip=none")) == program_key(
        composed(*SMALL, "clip=global_norm", "clip.threshold=3")
    )


@given(
    threshold=st.floats(1e-3, 1),
    rate=st.floats(1e-3, 10),
    gain=st.floats(0.5, 4),
    seed=st.integers(0, 9),
)
@settings(max_examples=8)
def test_no_step_of_sgd_is_longer_than_rate_times_threshold(
    threshold: float, rate: float, gain: float, seed: int
) -> None:
    (base,) = INVARIANT
    config = replace(
        base,
        seed=seed,
        clip=base.clip | {"threshold": threshold},
        optim=base.optim | {"learning_rate": rate},
        init=base.init | {"gain": gain},
    )
    program, hyperparameters, state = start(config)
    for _ in range(10):
        new, _ = program.advance(hyperparameters, state, 1)
        step = optax.tree.norm(optax.tree.sub(new.parameters, state.parameters))
        rounding = 1e-6 * optax.tree.norm(new.parameters)
        assert step <= rate * threshold * (1 + 1e-5) + rounding
        state = new


INVARIANT: list[Config] = []


@pytest.fixture(autouse=True)
def _invariant(composed: Compose) -> None:
    if not INVARIANT:
        INVARIANT.append(composed(*SMALL, "clip=global_norm"))
