"""Adjoints and the terms of backpropagation through time agree with automatic differentiation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradlab import (
    adjoint_log_norms,
    backpropagate,
    contribution_log_norms,
    credit,
    long_range_share,
    truncation,
)
from gradlab.jacobian.flat_cell import split_weights
from gradlab.models import Stack

FEATURES, HIDDEN, LENGTH = 3, 16, 20
CELLS = {
    "rnn": lambda: nnx.SimpleCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0)),
    "lstm": lambda: nnx.OptimizedLSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0)),
    "gru": lambda: nnx.GRUCell(FEATURES, HIDDEN, rngs=nnx.Rngs(0)),
    "stack": lambda: Stack([CELLS["rnn"](), nnx.GRUCell(HIDDEN, HIDDEN, rngs=nnx.Rngs(1))]),
}
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(2, LENGTH, FEATURES)).astype(np.float32)
TARGETS = RNG.normal(size=(2, LENGTH, HIDDEN)).astype(np.float32)


def loss(carry: Any, target: jax.Array) -> jax.Array:
    return jnp.sum((jax.tree.leaves(carry)[-1] - target) ** 2)


def losses(cell: Any, inputs: Any, targets: Any, nudges: Any = None) -> jax.Array:
    """Return L⁽ᵗ⁾ of one sample, with nudges added to the states s⁽⁰⁾..s⁽ᵀ⁻¹⁾."""
    carry = cell.initialize_carry((FEATURES,), nnx.Rngs(0))
    nudges = (
        jax.tree.map(lambda x: jnp.zeros((LENGTH, *x.shape), x.dtype), carry)
        if nudges is None
        else nudges
    )

    def advance(carry: Any, step: Any) -> Any:
        x, target, nudge = step
        carry = cell(jax.tree.map(jnp.add, carry, nudge), x)[0]
        return carry, loss(carry, target)

    return jax.lax.scan(advance, carry, (inputs, targets, nudges))[1]


@pytest.mark.parametrize("kind", CELLS)
def test_terms_of_bptt_add_up_to_the_gradient(kind: str) -> None:
    cell = CELLS[kind]()
    terms = backpropagate(cell, INPUTS, loss, TARGETS)

    def total(cell: Any) -> jax.Array:
        return sum(losses(cell, *sample).sum() for sample in zip(INPUTS, TARGETS, strict=True))

    expected, _ = split_weights(nnx.grad(total)(cell))
    assert expected.keys() == terms.by_lag.keys()
    for name, gradient in expected.items():
        summed = terms.by_lag[name].sum(axis=0) * np.exp(terms.log_scale)
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(summed, gradient, atol=1e-5 * scale)


def test_terms_in_float64_add_up_to_twelve_digits() -> None:
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        weights = {"hh": rng.normal(size=(HIDDEN, HIDDEN)) / 4, "xh": rng.normal(size=(HIDDEN, 3))}

        def step(weights: Any, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = jnp.tanh(weights["hh"] @ h + weights["xh"] @ x)
            return h, h

        def total(weights: Any) -> jax.Array:
            def advance(h: jax.Array, at: Any) -> Any:
                h = step(weights, h, at[0])[0]
                return h, loss(h, at[1])

            return jax.lax.scan(advance, jnp.zeros(HIDDEN), (inputs, targets))[1].sum()

        inputs, targets = INPUTS[0].astype(float), TARGETS[0].astype(float)
        weights = jax.tree.map(jnp.asarray, weights)
        terms = backpropagate(
            step, inputs, loss, targets, initial_carry=jnp.zeros(HIDDEN), parameters=weights
        )
        for name, gradient in jax.grad(total)(weights).items():
            summed = terms.by_lag[name].sum(axis=0) * jnp.exp(terms.log_scale)
            np.testing.assert_allclose(summed, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_a_term_is_the_gradient_of_one_loss_through_one_use_of_the_weight(kind: str) -> None:
    """Each step has its own copy of the weights; the term is the gradient for the k-th copy."""
    cell = CELLS[kind]()
    definition, parameters = nnx.split(cell)
    copies = jax.tree.map(lambda w: jnp.broadcast_to(w, (LENGTH, *w.shape)), parameters)

    def last_losses(copies: Any) -> jax.Array:
        def advance(carry: Any, step: Any) -> Any:
            weights, x, target = step
            carry = nnx.merge(definition, weights)(carry, x)[0]
            return carry, loss(carry, target)

        start = cell.initialize_carry((FEATURES,), nnx.Rngs(0))
        return jax.lax.scan(advance, start, (copies, INPUTS[0], TARGETS[0]))[1]

    log_norms = contribution_log_norms(cell, INPUTS[0], loss, TARGETS[0])
    for t in (1, 12, 20):
        terms, _ = split_weights(jax.grad(lambda copies, t=t: last_losses(copies)[t - 1])(copies))
        for name, term in terms.items():
            norms = np.linalg.norm(np.asarray(term, np.float64).reshape(LENGTH, -1), axis=1)
            np.testing.assert_allclose(np.exp(log_norms[name][t, 1:]), norms, rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize(
    ("kind", "part", "leaf"), [("rnn", "h", 0), ("lstm", "h", 1), ("lstm", "c", 0)]
)
def test_adjoints_are_gradients_with_respect_to_a_nudge_of_the_state(
    kind: str, part: str, leaf: int
) -> None:
    cell = CELLS[kind]()
    carry = cell.initialize_carry((FEATURES,), nnx.Rngs(0))
    zeros = jax.tree.map(lambda x: jnp.zeros((LENGTH, *x.shape)), carry)
    jacobian = jax.jacrev(lambda nudges: losses(cell, INPUTS[0], TARGETS[0], nudges))(zeros)
    expected = np.linalg.norm(np.asarray(jax.tree.leaves(jacobian)[leaf], np.float64), axis=-1)
    norms = np.exp(adjoint_log_norms(cell, INPUTS[0], loss, TARGETS[0], wrt=part, each=True))
    np.testing.assert_allclose(
        norms[1:, :LENGTH] * (np.arange(LENGTH) < np.arange(1, LENGTH + 1)[:, None]),
        expected,
        rtol=1e-4,
    )

    summed = jax.grad(lambda nudges: losses(cell, INPUTS[0], TARGETS[0], nudges).sum())(zeros)
    # L⁽ᵏ⁾ is computed before s⁽ᵏ⁾ is nudged, so the two agree only at k = 0, which has no loss.
    later = np.linalg.norm(np.asarray(jax.tree.leaves(summed)[leaf], np.float64), axis=-1)
    norms = np.exp(adjoint_log_norms(cell, INPUTS[0], loss, TARGETS[0], wrt=part))
    assert norms[0] == pytest.approx(later[0], rel=1e-4)


def test_a_loss_at_the_last_step_only_gives_the_adjoints_of_that_step() -> None:
    cell = CELLS["rnn"]()

    def at_the_end(carry: Any, target: Any) -> jax.Array:
        return target[1] * loss(carry, target[0])

    targets = (TARGETS, np.zeros((2, LENGTH), np.float32))
    targets[1][:, -1] = 1
    summed = adjoint_log_norms(cell, INPUTS, at_the_end, targets)
    each = adjoint_log_norms(cell, INPUTS, at_the_end, targets, each=True)
    np.testing.assert_allclose(summed, each[:, -1], atol=1e-5)
    assert np.isneginf(each[:, :-1]).all()


def test_adjoints_of_thousands_of_steps_stay_finite() -> None:
    def double(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.sin(4 * h) + x, h  # slope ±4 where h is a multiple of π: here always 0

    inputs = np.zeros((2000, 2), np.float32)
    log_norms = adjoint_log_norms(
        double, inputs, lambda h, _: h.sum(), inputs, initial_carry=jnp.zeros(2)
    )
    expected = 0.5 * np.log(2) + np.log(4) * np.arange(2000, 0, -1) - np.log(0.75)
    np.testing.assert_allclose(log_norms[:1900], expected[:1900], rtol=1e-6)
    assert log_norms[0] > 2700


def test_terms_of_a_long_decay_keep_their_digits() -> None:
    """h⁽ᵏ⁾ = w h⁽ᵏ⁻¹⁾ + 1, and the loss is 1e-36 h⁽ᵀ⁾: the term (T, k) is 1e-36 w^(T−k) h⁽ᵏ⁻¹⁾."""
    length, w = 70, 1e-6

    def step(weights: Any, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return weights["w"] * h + x, h

    def scaled(h: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.sum(target * h)

    targets = np.where(np.arange(length) == length - 1, 1e-36, 0).astype(np.float32)
    inputs, parameters = np.ones((length, 1), np.float32), {"w": jnp.array([w]), "n": jnp.array(3)}
    options: dict[str, Any] = {"initial_carry": jnp.ones(1), "parameters": parameters}
    terms = backpropagate(step, inputs, scaled, targets, **options)
    lags = np.arange(length)
    expected = np.log(1e-36) + lags * np.log(w)  # h⁽ᵏ⁾ is 1, to six digits
    assert terms.log_norms.keys() == terms.by_lag.keys() == {"w"}
    np.testing.assert_allclose(terms.log_norms["w"][length, 1:][::-1], expected, atol=1e-3)
    assert np.isneginf(terms.log_norms["w"][:length]).all()
    by_lag = np.asarray(terms.by_lag["w"])
    assert by_lag.dtype == np.float32
    assert by_lag.shape == (length, 1)
    logs = np.log(by_lag[:5, 0]) + terms.log_scale
    np.testing.assert_allclose(logs, expected[:5], atol=1e-3)


def test_adjoints_have_the_range_of_float64() -> None:
    """h⁽ᵏ⁾ = 1e-60 h⁽ᵏ⁻¹⁾, and only the first step has a loss, 1e-90 h⁽¹⁾."""
    with jax.enable_x64(True):
        inputs, targets = np.zeros((4, 1)), np.array([1e-90, 0, 0, 0])
        options: dict[str, Any] = {"initial_carry": jnp.ones(1)}
        step = lambda h, x: (1e-60 * h, h)  # noqa: E731
        early = lambda h, target: jnp.sum(target * h)  # noqa: E731
        summed = adjoint_log_norms(step, inputs, early, targets, **options)
        each = adjoint_log_norms(step, inputs, early, targets, each=True, **options)
    expected = np.array([-150, -90, -np.inf, -np.inf, -np.inf]) * np.log(10)
    np.testing.assert_allclose(summed, expected, rtol=1e-6)
    np.testing.assert_allclose(each[1], expected, rtol=1e-6)
    assert np.isneginf(np.delete(each, 1, axis=0)).all()
    with pytest.raises(ValueError, match="wrt must be None"):
        adjoint_log_norms(step, inputs, early, targets, wrt="c", initial_carry=jnp.ones(1))


def test_truncation_error_is_that_of_a_gradient_stopped_at_the_window() -> None:
    cell = CELLS["gru"]()
    terms = backpropagate(cell, INPUTS[0], loss, TARGETS[0])
    whole, cut = (windowed_gradient(cell, window) for window in (LENGTH, 4))
    truncated = truncation(terms.by_lag)
    assert truncated.relative_error[3] == pytest.approx(
        np.linalg.norm(cut - whole) / np.linalg.norm(whole), rel=1e-4
    )
    cosine = cut @ whole / np.linalg.norm(cut) / np.linalg.norm(whole)
    assert truncated.cosine[3] == pytest.approx(cosine, rel=1e-5)
    assert truncated.relative_error[-1] == 0
    assert truncated.cosine[-1] == pytest.approx(1)


def windowed_gradient(cell: Any, window: int) -> np.ndarray:
    """Return ∂/∂W of Σ_t L⁽ᵗ⁾, each L⁽ᵗ⁾ `window` steps after a state that is held constant."""
    states = [cell.initialize_carry((FEATURES,), nnx.Rngs(0))]
    for x in INPUTS[0]:
        states.append(cell(states[-1], x)[0])

    end = np.arange(1, LENGTH + 1)
    begin = np.maximum(0, end - window)

    def one_loss(cell: Any, start: Any, begin: jax.Array, end: jax.Array) -> jax.Array:
        def advance(carry: Any, step: jax.Array) -> Any:
            new = cell(carry, jnp.asarray(INPUTS[0])[step])[0]
            return jnp.where(step < end, new, carry), None

        carry = jax.lax.scan(advance, start, begin + jnp.arange(window))[0]
        return loss(carry, jnp.asarray(TARGETS[0])[end - 1])

    def total(cell: Any) -> jax.Array:
        starts = jnp.stack(states)[begin]
        return jax.vmap(one_loss, (None, 0, 0, 0))(cell, starts, begin, end).sum()

    weights, _ = split_weights(nnx.grad(total)(cell))
    return np.concatenate([np.asarray(w, np.float64).ravel() for w in weights.values()])


def test_credit_adds_up_to_the_gradient_and_to_the_norm_removed_by_clipping() -> None:
    terms = backpropagate(CELLS["lstm"](), INPUTS, loss, TARGETS)
    by_lag = jax.tree.map(lambda x: x * np.exp(terms.log_scale), terms.by_lag)
    norm = np.sqrt(sum(float((x.sum(axis=0) ** 2).sum()) for x in by_lag.values()))
    credits = credit(by_lag, threshold=norm / 4)
    assert credits.share.sum() == pytest.approx(1)
    assert credits.cut.sum() == pytest.approx(0.75 * norm, rel=1e-5)
    assert not credit(by_lag, threshold=2 * norm).cut.any()
    with_readout = credit(by_lag, threshold=2 * norm, other_norm=np.sqrt(15) * norm)
    assert with_readout.cut.sum() == pytest.approx((4 - 2) * norm / 16, rel=1e-5)


def test_a_gradient_of_zero_and_one_of_cancelling_terms() -> None:
    truncated = truncation(np.zeros((3, 2)))
    assert np.isnan([truncated.relative_error, truncated.cosine]).all()
    credits = credit(np.zeros((3, 2)), threshold=1.0)
    assert not np.any([credits.share, credits.cut])
    terms = np.array([[1e8], [1], [-1e8]], np.float32)  # in float32 their sum is 0
    np.testing.assert_allclose(credit(terms).share, [1e8, 1, -1e8])
    np.testing.assert_allclose(truncation(terms).relative_error, [1e8 - 1, 1e8, 0])


def test_long_range_share_of_powers_matches_their_sums() -> None:
    lag = np.subtract.outer(np.arange(31), np.arange(31))
    logs = np.where((lag >= 0) & (np.arange(31) > 0), lag * np.log(0.5), -np.inf)
    norms = np.where(np.isfinite(logs), 0.5 ** np.maximum(lag, 0), 0)
    assert float(long_range_share(jnp.asarray(logs), 5)) == pytest.approx(
        norms[lag > 5].sum() / norms.sum(), rel=1e-5
    )


def test_terms_of_one_array_from_a_state_of_each_sample() -> None:
    """With h⁽ᵗ⁾ = w h⁽ᵗ⁻¹⁾ and L⁽ᵗ⁾ = y⁽ᵗ⁾ h⁽ᵗ⁾ they are y⁽ᵗ⁾ wᵗ⁻¹ h⁽⁰⁾, whatever k is."""
    starts, weights = np.array([3.0, 5.0]), np.array([1.0, 1, 1, 0])  # the last loss is none
    terms = backpropagate(
        lambda w, h, x: (w @ h, h),
        np.zeros((2, 4, 1), np.float32),
        lambda h, y: y * h.sum(),
        np.tile(weights, (2, 1)),
        initial_carry=jnp.asarray(starts, jnp.float32)[:, None],
        parameters=jnp.array([[0.5]]),
    )
    t, k = np.indices((5, 5))
    for start, log_norms in zip(starts, terms.log_norms["weights"], strict=True):
        expected = np.log(start) + (t - 1) * np.log(0.5)
        expected = np.where((k >= 1) & (t >= k) & (t < 4), expected, -np.inf)
        np.testing.assert_allclose(log_norms, expected, rtol=1e-6)
    by_lag = terms.by_lag["weights"] * np.exp(terms.log_scale)
    expected = [8 * (1 + 0.5 + 0.25), 8 * (0.5 + 0.25), 8 * 0.25, 0]
    np.testing.assert_allclose(by_lag.ravel(), expected, rtol=1e-6)
