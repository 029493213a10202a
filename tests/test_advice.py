"""Advice against brute-force gradients, products and quantiles."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import advise, backpropagate, lyapunov_spectrum, truncation
from gradlab.advice import Advice
from gradlab.advice.reach import tried
from gradlab.advice.recommendation import as_typed
from gradlab.advice.starts import chrono_biases, forget_biases
from gradlab.advice.thresholds import clipping_threshold
from gradlab.cells import LSTM, MinLSTM, set_gate_biases
from gradlab.initialisers import uniform_gate
from gradlab.models import Stack

TIME, BATCH, FEATURES, HIDDEN = 16, 3, 2, 6
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
TARGETS = RNG.normal(size=(BATCH, TIME, HIDDEN)).astype(np.float32)


def loss(carry: Any, target: Any) -> jax.Array:
    return jnp.sum((jax.tree.leaves(carry)[-1] - target) ** 2)


def elman(gain: float) -> nnx.SimpleCell:
    cell = nnx.SimpleCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    cell.dense_h.kernel[...] *= gain
    return cell


def advised(cell: Any, **options: Any) -> Advice:
    return advise(cell, INPUTS, loss, TARGETS, **options)


def truncated_gradients(cell: nnx.SimpleCell) -> list[Mapping[str, np.ndarray]]:
    """The gradient whose every loss is differentiated through K steps, for K = 1..T."""
    weights = {
        "dense_h.kernel": cell.dense_h.kernel[...],
        "dense_i.kernel": cell.dense_i.kernel[...],
        "dense_i.bias": cell.dense_i.bias[...],
    }

    def step(w: Mapping[str, jax.Array], h: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ w["dense_i.kernel"] + h @ w["dense_h.kernel"] + w["dense_i.bias"])

    inputs, targets = jnp.asarray(INPUTS.swapaxes(0, 1)), jnp.asarray(TARGETS.swapaxes(0, 1))
    zeros = jnp.zeros((BATCH, HIDDEN))
    states = jax.lax.scan(lambda h, x: (step(weights, h, x), h), zeros, inputs)[1]

    def total(w: Mapping[str, jax.Array], window: jax.Array) -> jax.Array:
        def loss_at(t: jax.Array) -> jax.Array:
            def advance(h: jax.Array, k: jax.Array) -> tuple[jax.Array, None]:
                h = jnp.where(k == jnp.maximum(t - window, 0), states[k], h)  # a constant
                return jnp.where(k < t, step(w, h, inputs[k]), h), None

            h, _ = jax.lax.scan(advance, zeros, jnp.arange(TIME))
            return jnp.sum((h - targets[t - 1]) ** 2)

        return jnp.sum(jax.vmap(loss_at)(jnp.arange(1, TIME + 1)))

    gradient = jax.jit(jax.grad(total))
    return [jax.tree.map(np.asarray, gradient(weights, k)) for k in range(1, TIME + 1)]


def error_of(truncated: Mapping[str, np.ndarray], full: Mapping[str, np.ndarray]) -> float:
    difference = np.concatenate([(truncated[w] - full[w]).ravel() for w in full])
    return float(np.linalg.norm(difference) / np.linalg.norm(np.concatenate([*_flat(full)])))


def _flat(gradient: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [gradient[w].ravel() for w in gradient]


def test_the_window_is_the_shortest_whose_brute_force_gradient_is_within_five_percent() -> None:
    cell = elman(0.8)
    advice = advised(cell, window=2)["truncation"]
    gradients = truncated_gradients(cell)
    errors = np.array([error_of(gradient, gradients[-1]) for gradient in gradients])
    window = int(np.flatnonzero(errors > 0.05).max()) + 2
    assert 2 < window < TIME
    assert advice.settings == {"tbptt.window": window, "tbptt.stride": 1}
    assert advice.measured["relative_error"] == pytest.approx(errors[window - 1], rel=1e-3)
    cosine = np.dot(*(np.concatenate(_flat(gradients[k])) for k in (window - 1, -1))) / np.prod(
        [np.linalg.norm(np.concatenate(_flat(gradients[k]))) for k in (window - 1, -1)]
    )
    assert advice.measured["cosine"] == pytest.approx(cosine, abs=1e-5)
    lost = {w: error_of({w: gradients[1][w]}, {w: gradients[-1][w]}) for w in gradients[-1]}
    lost["all"] = errors[1]
    assert advice.measured["lost"] == pytest.approx(lost, rel=1e-3)


def test_a_window_covers_the_lag_and_is_not_advised_where_the_present_one_is_enough() -> None:
    assert advised(elman(0.2), lag=9, window=2)["truncation"].value == 10
    assert advised(elman(0.2), lag=9, window=12)["truncation"].settings == {}
    assert advised(elman(0.2), lag=TIME - 1, window=2)["truncation"].settings == {
        "tbptt.window": None
    }
    assert "pass lag=" in advised(elman(0.2))["truncation"].reason


def test_without_a_lag_no_window_is_shortened_where_gradients_vanish() -> None:
    vanishing = elman(0.8)
    alone = advised(vanishing)["truncation"]
    assert alone.settings == {}
    assert "gradients vanish here" in alone.reason
    assert advised(vanishing, window=TIME - 1)["truncation"].settings == {}
    shortest = alone.measured["window"]
    assert advised(vanishing, window=shortest - 1)["truncation"].value == shortest


def test_no_window_is_lengthened_for_an_explosion_beyond_the_lag() -> None:
    """A linear network of gain 2 gives nearly all of its last loss's gradient to the last lags."""
    cell = nnx.SimpleCell(FEATURES, HIDDEN, activation_fn=lambda x: x, rngs=nnx.Rngs(0))
    cell.dense_h.kernel[...] = 2 * jnp.eye(HIDDEN)

    def advice(**options: Any) -> Any:
        targets = (np.arange(TIME) == TIME - 1, TARGETS[0])
        return advise(cell, INPUTS[0], lambda h, y: y[0] * loss(h, y[1]), targets, **options)

    of_eight = advice(window=8)["truncation"]
    assert of_eight.measured["lost"]["all"] > 0.05
    assert of_eight.settings == {}
    assert "gradients explode here" in of_eight.reason
    assert advice(window=8, lag=5)["truncation"].settings == {}
    assert advice(lag=5)["truncation"].settings == {}
    assert advice(window=8, lag=9)["truncation"].value == 10
    assert advice(lag=5)["reach"].reason.endswith("it reaches, and grows on the way.")


def test_sequences_keep_their_own_lengths_and_first_states() -> None:
    cell, lengths = elman(0.8), np.array([16, 9, 12])
    first = RNG.normal(size=(BATCH, HIDDEN)).astype(np.float32)
    options: Any = {"initial_carry": jnp.asarray(first), "lengths": jnp.asarray(lengths)}
    terms = backpropagate(cell, INPUTS, loss, TARGETS, **options)
    lost = advised(cell, window=3, **options)["truncation"].measured["lost"]
    assert lost["all"] == pytest.approx(float(truncation(terms.by_lag).relative_error[2]), rel=1e-4)


def test_a_threshold_is_half_the_average_without_the_largest_percent() -> None:
    norms = np.concatenate([np.linspace(1, 3, 990), np.geomspace(100, 1e8, 9), [np.inf]])
    advice = advised(elman(0.5), grad_norms=norms)["clipping"]
    kept = np.sort(norms)[:989]  # of the 999 that are finite
    assert advice.settings["clip"] == "global_norm"
    assert advice.settings["clip.threshold"] == pytest.approx(kept.mean() / 2, rel=2e-3)
    threshold = advice.settings["clip.threshold"]
    assert advice.measured["quantile"] == pytest.approx(np.mean(norms <= threshold))
    finite = norms[np.isfinite(norms)]
    assert advice.measured["coefficient"] == pytest.approx(np.minimum(1, threshold / finite).mean())
    used = advised(elman(0.5), grad_norms=norms, threshold=2.0)["clipping"]
    assert used.measured["clipped"] == pytest.approx(np.mean(norms > 2))


def test_the_lags_that_own_a_cut_add_up_to_it() -> None:
    by_lag = {"w": np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])}
    norms = np.array([1.0] * 99 + [100.0])
    advice = clipping_threshold(norms, by_lag)
    np.testing.assert_allclose(advice.measured["cut"], 4.5 * np.array([9, 16, 0]) / 25)


def test_the_lags_own_what_the_threshold_in_use_cuts() -> None:
    norms = np.array([1.0] * 99 + [100.0])
    cell = elman(0.8)
    advice = advised(cell, grad_norms=norms, threshold=0.9)["clipping"]
    assert advice.settings == {}
    assert "it is low enough for the largest" in advice.reason
    full = np.linalg.norm(np.concatenate(_flat(truncated_gradients(cell)[-1])))
    assert advice.measured["cut"].sum() == pytest.approx(full - 0.9, rel=1e-4)


def test_no_threshold_without_an_explosion_or_without_norms() -> None:
    assert advised(elman(0.5), grad_norms=np.linspace(1, 9, 50))["clipping"].settings == {}
    alone = advised(elman(0.5))["clipping"]
    assert alone.settings == {}
    assert "pass grad_norms=" in alone.reason
    terms = backpropagate(elman(0.5), INPUTS[1], loss, TARGETS[1])
    parts = [x.sum(axis=0) * np.exp(terms.log_scale) for x in terms.by_lag.values()]
    norm = np.sqrt(sum(float(np.sum(np.square(x))) for x in parts))
    assert alone.measured["norms"][1] == pytest.approx(norm, rel=1e-5)


def worst_profile(cell: nnx.RNNCellBase) -> np.ndarray:
    """Mean log σ_max of ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ by lag, from products of jax.jacfwd's step Jacobians."""
    flat, rebuild = jax.flatten_util.ravel_pytree(cell.initialize_carry((FEATURES,), nnx.Rngs(0)))

    def step(state: jax.Array, x: jax.Array) -> jax.Array:
        return jax.flatten_util.ravel_pytree(cell(rebuild(state), x)[0])[0]

    logs: list[list[float]] = [[] for _ in range(TIME + 1)]
    for inputs in INPUTS:
        state, products = flat, [np.eye(flat.size)]
        logs[0].append(0.0)
        for x in inputs:
            jacobian = np.asarray(jax.jacfwd(step)(state, jnp.asarray(x)), float)
            state = step(state, jnp.asarray(x))
            products = [jacobian @ p for p in products] + [np.eye(flat.size)]
            for lag, product in enumerate(reversed(products)):
                logs[lag].append(float(np.log(np.linalg.norm(product, 2))))
    return np.array([np.mean(values) for values in logs])


def horizon_of(profile: np.ndarray) -> float:
    """The lag at which a profile crosses −1."""
    below = np.flatnonzero(profile <= -1)
    if not below.size:
        return np.inf
    high = int(below[0])
    return float(np.interp(1, [-profile[high - 1], -profile[high]], [high - 1, high]))


CELLS: dict[str, Any] = {
    "elman": lambda: elman(0.3),
    "lstm": lambda: nnx.OptimizedLSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0)),
}


@pytest.mark.parametrize("name", CELLS)
def test_the_horizon_after_a_change_is_that_of_the_changed_cell(name: str) -> None:
    cell, lag = CELLS[name](), 12
    before = jax.tree.map(np.asarray, nnx.state(cell))
    advice = advised(cell, lag=lag)["reach"]
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(cell))
    assert advice.measured["horizon"] == pytest.approx(horizon_of(worst_profile(cell)), rel=1e-3)
    assert advice.measured["horizon"] < lag <= advice.measured["horizon_after"]
    best = advice.trials[0]
    assert best.settings == advice.settings
    for trial in advice.trials:
        profile = worst_profile(trial.cell)
        assert trial.horizon == pytest.approx(horizon_of(profile), rel=1e-3)
        assert trial.worst == pytest.approx(profile[lag], abs=1e-3)
    reaching = [trial for trial in advice.trials if trial.horizon >= lag]
    assert abs(best.typical) == min(abs(trial.typical) for trial in reaching)


def test_a_changed_cell_is_what_its_settings_draw() -> None:
    for trial in advised(elman(0.3), lag=12)["reach"].trials:
        cell: Any = trial.cell
        kernel = np.asarray(cell.dense_h.kernel[...])
        gram = trial.settings["init.gain"] ** 2 * np.eye(HIDDEN)
        if trial.settings.get("init") == "orthogonal":
            np.testing.assert_allclose(kernel.T @ kernel, gram, atol=1e-5)
        else:
            assert np.sum(kernel**2) == pytest.approx(np.trace(gram), rel=1e-4)
        if "model.other_std" in trial.settings:
            std = np.sqrt(np.mean(np.square(cell.dense_i.kernel[...])))
            assert std == pytest.approx(trial.settings["model.other_std"], rel=1e-4)
    for trial in advised(CELLS["lstm"](), lag=12)["reach"].trials:
        lstm: Any = trial.cell
        i, f, g, o = np.split(np.asarray(lstm.dense_h.bias[...]), 4)
        np.testing.assert_array_equal([g, o], 0)
        if trial.settings["bias"] == "forget":
            np.testing.assert_allclose(f, trial.settings["bias.value"], rtol=1e-6)
        else:
            np.testing.assert_allclose(i, -f, rtol=1e-6)
            assert (f > 0).all()
            assert (f < np.log(trial.settings["bias.longest"] - 1)).all()


def test_a_copy_with_other_gate_biases_keeps_none_of_the_present_rule() -> None:
    cell = LSTM(FEATURES, HIDDEN, refine_gate=True, rngs=nnx.Rngs(0))
    set_gate_biases(cell, uniform_gate(jax.random.key(0), HIDDEN))
    for start in (*forget_biases(cell, 12), *chrono_biases(cell, 12)):
        copy: Any = start.cell
        blocks = np.split(np.asarray(copy.dense_h.bias[...]), len(copy.learned))
        bias = dict(zip(copy.learned, blocks, strict=True))
        np.testing.assert_array_equal(bias["refine"], 0)
        if start.settings["bias"] == "forget":
            np.testing.assert_allclose(bias["forget"], start.settings["bias.value"], rtol=1e-6)
            np.testing.assert_array_equal(bias["input"], 0)
        else:
            np.testing.assert_allclose(bias["input"], -bias["forget"], rtol=1e-6)


def test_no_start_is_advised_where_the_demand_or_the_weights_are_not_known() -> None:
    unknown = advised(elman(0.3))["reach"]
    assert (unknown.settings, unknown.trials) == ({}, ())
    assert "pass lag=" in unknown.reason
    assert advised(elman(1.0), lag=1)["reach"].reason.endswith("it reaches.")
    cell = elman(0.3)
    definition, weights = nnx.split(cell)

    def step(weights: nnx.State, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return nnx.merge(definition, weights)(h, x)

    bare = advised(step, parameters=weights, initial_carry=jnp.zeros(HIDDEN), lag=12)
    assert (bare["reach"].settings, bare["reach"].trials) == ({}, ())
    assert "does not know" in bare["reach"].reason
    flax = advised(cell, lag=12)
    for topic, key in (("truncation", "relative_error"), ("growth", "lyapunov_max")):
        assert bare[topic].measured[key] == pytest.approx(flax[topic].measured[key], rel=1e-4)


def test_layers_of_known_weights_are_tried_and_no_others() -> None:
    class Halved(nnx.SimpleCell):
        def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
            h, _ = super().__call__(carry / 2, inputs)
            return h, h

    def profile(cell: nnx.RNNCellBase, *, norm: str) -> np.ndarray:
        return -np.arange(TIME + 1.0)

    unknown = LSTM(FEATURES, HIDDEN, use_bias=False, rngs=nnx.Rngs(0))
    assert tried(unknown, 12, profile) == ()
    assert tried(MinLSTM(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), 12, profile) == ()
    assert tried(Halved(FEATURES, HIDDEN, rngs=nnx.Rngs(0)), 12, profile) == ()
    assert len(tried(elman(1.0), 12, profile)) == 3
    stack = Stack([elman(0.3), nnx.SimpleCell(HIDDEN, HIDDEN, rngs=nnx.Rngs(1))])
    (orthogonal,) = (x for x in tried(stack, 12, profile) if x.name == "an orthogonal start")
    changed: Any = orthogonal.cell
    first, second = (np.asarray(layer.dense_h.kernel[...]) for layer in changed.layers)
    for kernel in (first, second):
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(HIDDEN), atol=1e-5)
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize(("weight", "parallel"), [(0.9, True), (1.0, None), (1.1, False)])
def test_growth_of_a_linear_network(weight: float, parallel: bool | None) -> None:
    advice = advise(
        lambda w, h, x: (w * h + x, h),
        jnp.zeros((10, 1)),
        lambda h, y: jnp.sum((h - y) ** 2),
        jnp.ones((10, 1)),
        parameters=jnp.array(weight),
        initial_carry=jnp.zeros(1),
    )["growth"]
    for name in ("lyapunov_max", "decay_rate/spectral", "decay_rate/rms"):
        assert advice.measured[name] == pytest.approx(np.log(np.float32(weight)), abs=1e-6)
    assert advice.measured["parallelisable"] is parallel


def test_growth_leaves_out_sequences_of_one_step() -> None:
    with_one = advised(elman(0.8), lengths=jnp.array([16, 1, 9]))["growth"].measured
    first, _, third = INPUTS
    spectra = [lyapunov_spectrum(elman(0.8), x, count=1) for x in (first, third[:9])]
    exponents, errors = (np.array([float(x[i][0]) for x in spectra]) for i in (0, 1))
    assert with_one["lyapunov_max"] == pytest.approx(exponents.mean(), rel=1e-5)
    within, between = np.hypot(*errors) / 2, abs(np.diff(exponents)[0]) / 2
    assert with_one["standard_error"] == pytest.approx(max(within, between), rel=1e-4)
    single = advise(elman(0.8), INPUTS[:, :1], loss, TARGETS[:, :1])["growth"]
    assert "shows no error" in single.reason
    assert single.measured["parallelisable"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lag": TIME}, "lag must be a whole number from 1"),
        ({"window": 0}, "window must be"),
        ({"threshold": -1}, "threshold must be"),
        ({"grad_norms": "many"}, "grad_norms must be"),
        ({"grad_norms": [0.5, -1.2]}, "none of them negative; got -1.2 among them"),
        ({"grad_norms": []}, "none of them negative; got none"),
    ],
)
def test_wrong_arguments_are_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advised(elman(0.5), **options)


def test_no_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs must hold a sequence or more; got shape \(0, 16"):
        advise(elman(0.5), INPUTS[:0], loss, TARGETS[:0])


def test_advice_prints_settings_as_they_are_typed() -> None:
    advice = advised(elman(0.2), lag=9, window=2)
    assert advice.settings["tbptt.window"] == 10
    assert "truncation window: tbptt.window=10, tbptt.stride=1\n  because" in str(advice)
    assert [as_typed(x) for x in (None, 0.12345, 3)] == ["null", "0.123", "3"]
