"""Probes that a config switches on agree with measurements of the same network by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import Compose
from flax import nnx

from gradlab import load_gradients, lyapunov_exponents, parallel_evaluation, theory
from gradlab.cells import gates
from gradlab.point import Point, run_point
from gradlab.probes import Measurement, run_probes
from gradlab.training.program import Program, hyperparameters_of

SMALL = ("model.hidden_size=5", "task.length=8", "probe.samples=3", "wandb=disabled")
ALL = "[spectral,typical,lyapunov,singular_values,adjoint,contribution,statistics,theory,parallel]"


def measure(composed: Compose, *overrides: str) -> tuple[Any, Any, Measurement]:
    config = composed(*SMALL, *overrides)
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state = program.initialise(hyperparameters)
    network = nnx.merge(program.definition, state.parameters, program.constants)
    return network, program.task.test, program.measure(hyperparameters, state)


@pytest.mark.parametrize("model", ["rnn", "lstm"])
def test_every_probe_of_a_run_is_recorded(composed: Compose, tmp_path: Path, model: str) -> None:
    config = composed(*SMALL, f"model={model}", f"probe={ALL}", "train.steps=2", "probe.stride=2")
    status = run_point(Point(config, tmp_path / "sweep" / "0", "all"))
    assert status["state"] == "done", status
    summary, gradients = status["summary"], load_gradients(tmp_path / "sweep" / "0")
    for name in (
        "jacobian/decay_rate",
        "jacobian_rms/decay_rate",
        "lyapunov/max",
        "adjoint/first",
        "parallel/steps",
    ):
        assert np.isfinite(summary[name])
    assert 1 <= summary["parallel/steps"] <= 8
    assert gradients["jacobian_log_norm"].dims == ("step", "sample", "t", "k")
    assert gradients["adjoint_log_norm"].dims == ("step", "sample", "k")
    assert gradients["contribution_log_norm"].dims == ("step", "sample", "weight", "t", "k")
    assert gradients["singular_values_log"].sizes["chosen_lag"] == 2  # lags 16, 64 are too long
    np.testing.assert_array_equal(gradients["t"], [0, 2, 4, 6, 8])
    assert all("units" in gradients[name].attrs for name in gradients.data_vars)
    np.testing.assert_allclose(gradients["contribution_share"].sum("lag"), 1, rtol=1e-4)
    gated = {"statistics_forget_gate_mean", "statistics_c_norm"} <= set(gradients.data_vars)
    assert gated == (model == "lstm")


def test_probes_differentiate_the_loss_that_the_run_minimises(composed: Compose) -> None:
    network, test, measurement = measure(
        composed, "probe=[adjoint,contribution]", "clip=global_norm"
    )
    x, labels = test.inputs[:3], test.targets[:3, -1]

    def loss(network: Any, start: jax.Array) -> jax.Array:
        h = start
        for step in range(8):
            h = network.cell(h, x[:, step])[0]
        logits = network.readout(h)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    adjoints = jax.grad(lambda h: loss(network, h))(jnp.zeros((3, 5)))
    first = np.log(np.linalg.norm(adjoints, axis=1))
    np.testing.assert_allclose(measurement.arrays["adjoint_log_norm"][:, 0], first, atol=1e-4)

    gradient = nnx.grad(lambda network: loss(network, jnp.zeros((3, 5))))(network)
    norm = float(optax.tree.norm(gradient))
    cell = float(optax.tree.norm(gradient["cell"]))
    cut = max(0, 1 - 1 / norm) * cell**2 / norm  # threshold 1
    assert float(measurement.arrays["contribution_cut"].sum()) == pytest.approx(
        cut, rel=1e-3, abs=1e-6
    )


def test_statistics_and_theoretical_rates_agree_with_the_cell(composed: Compose) -> None:
    network, test, measurement = measure(
        composed, "model=lstm", "probe=[statistics,theory,lyapunov]"
    )
    carry = network.cell.initialize_carry((3, test.inputs.shape[2]), nnx.Rngs(0))
    forget = []
    for step in range(8):
        forget.append(np.asarray(gates(network.cell, carry, test.inputs[:3, step])["forget"]))
        carry, _ = network.cell(carry, test.inputs[:3, step])
    assert measurement.metrics["statistics/forget_gate/mean"] == pytest.approx(
        np.mean(forget), rel=1e-5
    )
    assert measurement.metrics["theory/mean_log_forget"] == pytest.approx(
        np.mean(np.log(forget)), rel=1e-5
    )
    last = measurement.arrays["statistics_c_norm"].isel(t=-1)
    np.testing.assert_allclose(last, np.linalg.norm(carry[0], axis=-1), rtol=1e-5)
    exponents = lyapunov_exponents(network.cell, test.inputs[:3])
    np.testing.assert_allclose(measurement.arrays["lyapunov_exponent"], exponents, atol=1e-5)

    network, _, measurement = measure(composed, "probe=theory", "+model.cell.activation=sigmoid")
    w_hh = np.asarray(network.cell.dense_h.kernel[...]).T
    assert measurement.metrics["theory/bound"] == pytest.approx(
        theory.jacobian_bound(w_hh, "sigmoid")
    )
    assert "theory/mean_field" not in measurement.metrics


def test_parallel_evaluation_is_counted_beside_the_exponent(composed: Compose) -> None:
    network, test, measurement = measure(
        composed, "probe=[parallel,lyapunov]", "probe.lyapunov.count=1"
    )
    metrics, arrays = measurement.metrics, measurement.arrays
    found = parallel_evaluation(network.cell, test.inputs[:3])
    np.testing.assert_array_equal(arrays["parallel_steps"], found.steps)
    assert arrays["parallel_converged"].values.all()
    assert arrays["parallel_residual"].dims == ("sample", "newton_step")
    assert 1 < metrics["parallel/steps"] == float(np.mean(found.steps)) <= 8
    assert metrics["parallel/share"] == pytest.approx(metrics["parallel/steps"] / 8)
    assert metrics["parallel/converged"] == 1
    assert metrics["parallel/exponent"] == pytest.approx(metrics["lyapunov/max"], abs=1e-5)
    _, _, measurement = measure(composed, "probe=parallel", "probe.parallel.most=1")
    assert measurement.metrics["parallel/converged"] == 0
    assert measurement.metrics["parallel/share"] == 1 / 8


def test_certificates_are_recorded_with_the_map(composed: Compose) -> None:
    _, _, measurement = measure(composed, "probe.jacobian.certify=true", "init.gain=60")
    assert measurement.arrays["jacobian_unresolved"].dtype == np.int8
    assert measurement.metrics["jacobian/certified_error"] < 1e-2
    assert measurement.metrics["jacobian/unresolved"] == pytest.approx(
        float(measurement.arrays["jacobian_unresolved"].mean())
    )
    errors = measurement.arrays["jacobian_precision_error"]
    inside = np.isfinite(measurement.arrays["jacobian_log_norm"])
    assert errors.dims == inside.dims
    assert 0 < float(errors.where(inside).median()) < 0.1  # of a saturated network in float32


def test_a_probe_that_is_off_measures_nothing(composed: Compose, tmp_path: Path) -> None:
    config = composed(*SMALL, "probe.jacobian=null", "train.steps=1")
    status = run_point(Point(config, tmp_path / "sweep" / "0", "none"))
    assert (status["state"], status["summary"]["verdict"]) == ("done", "unmeasured")


@pytest.mark.parametrize(
    ("taken", "owner"),
    [("jacobian/decay_rate", "the probe jacobian"), ("eval/loss", "training itself")],
)
def test_a_probe_replaces_nobody_elses_result(
    monkeypatch: pytest.MonkeyPatch, taken: str, owner: str
) -> None:
    probes = {name: {"_target_": f"gradlab.theory.{name}"} for name in ("jacobian", "mine")}
    results = {"jacobian": {"jacobian/decay_rate": -1.0}, "mine": {taken: 99.0}}
    monkeypatch.setattr(
        "gradlab.probes.build", lambda component, probed, *, name: Measurement(results[name], {})
    )
    with pytest.raises(ValueError, match=f"the probe mine returns '{taken}'.* of {owner}: "):
        run_probes(probes, None)  # type: ignore[arg-type]


def test_a_second_measurement_compiles_nothing(
    composed: Compose,
) -> None:
    """A compilation at every measurement would cost time, and memory that is never freed."""
    config = composed(*SMALL, "model=lstm", f"probe={ALL}")
    program = Program(config)
    compiled = []
    for seed in (0, 1):
        hyperparameters = hyperparameters_of(replace(config, seed=seed))
        state = program.initialise(hyperparameters)
        events: list[str] = []
        listener = lambda event, seconds, events=events, **_: events.append(event)  # noqa: E731
        jax.monitoring.register_event_duration_secs_listener(listener)
        program.measure(hyperparameters, state)
        jax.monitoring.unregister_event_duration_listener(listener)
        compiled.append(events.count("/jax/core/compile/backend_compile_duration"))
    assert compiled[0] > 0
    assert compiled[1] == 0
