"""The exercises' own answers, against finite differences, autodiff and other people's cells."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gradlab.exercises import EXERCISES
from gradlab.exercises.exercise import Case

STEP = 1e-6  # of central differences: an error of about 1e-10


def cases(name: str) -> list[tuple[Case, np.ndarray]]:
    exercise = EXERCISES[name]
    return [(case, exercise.solve(*case.arguments)) for case in exercise.cases()]


def test_unroll_is_flax_simple_cell() -> None:
    for case, states in cases("unroll"):
        x, h, W_xh, W_hh, b = case.arguments
        cell = nnx.SimpleCell(x.shape[1], len(h), rngs=nnx.Rngs(0))
        cell.dense_i.kernel, cell.dense_i.bias = nnx.Param(jnp.array(W_xh.T)), nnx.Param(b)
        cell.dense_h.kernel = nnx.Param(jnp.array(W_hh.T))
        carry = jnp.array(h)
        for x_t, h_t in zip(x, states, strict=True):
            carry, _ = cell(carry, jnp.array(x_t))
            np.testing.assert_allclose(carry, h_t, atol=2e-5)


def test_joined_acts_as_both_matrices() -> None:
    draw = np.random.default_rng(0)
    for case, W in cases("joined"):
        W_xh, W_hh = case.arguments
        n, m = W_xh.shape
        h, x = draw.normal(size=n), draw.normal(size=m)
        np.testing.assert_allclose(W @ np.concatenate([h, x]), W_xh @ x + W_hh @ h, atol=1e-13)


def test_stack_is_written_out() -> None:
    for case, states in cases("stack"):
        x, ((h1, A1, B1, b1), (h2, A2, B2, b2)) = case.arguments
        for t, x_t in enumerate(x):
            h1 = np.tanh(A1 @ x_t + B1 @ h1 + b1)
            h2 = np.tanh(A2 @ h1 + B2 @ h2 + b2)
            np.testing.assert_allclose(states[:, t], [h1, h2], atol=1e-13)


def drives(h: np.ndarray, W_hh: np.ndarray) -> np.ndarray:
    """W_xh x⁽ᵗ⁾ + b at each step of a trajectory: what is left of the net input."""
    return np.arctanh(h[1:]) - h[:-1] @ W_hh.T


def final(h_k: np.ndarray, W: np.ndarray, drive: np.ndarray) -> np.ndarray:
    """h at the end of the drive, from h⁽ᵏ⁾ on, with a matrix for each step."""
    for W_t, d in zip(W, drive, strict=True):
        h_k = np.tanh(W_t @ h_k + d)
    return h_k


def test_step_jacobian_against_differences() -> None:
    for case, jacobian in cases("step_jacobian"):
        h, W_hh = case.arguments
        before = np.random.default_rng(0).normal(size=len(h))
        drive = np.arctanh(h) - W_hh @ before
        for j, e in enumerate(STEP * np.eye(len(h))):
            up, down = (np.tanh(W_hh @ (before + s * e) + drive) for s in (1, -1))
            np.testing.assert_allclose(jacobian[:, j], (up - down) / (2 * STEP), atol=1e-8)


def test_product_against_differences() -> None:
    for case, jacobian in cases("product"):
        h, W_hh, t, k = case.arguments
        drive, W = drives(h, W_hh)[k:t], np.array([W_hh] * (t - k))
        for j, e in enumerate(STEP * np.eye(len(W_hh))):
            up, down = (final(h[k] + s * e, W, drive) for s in (1, -1))
            np.testing.assert_allclose(jacobian[:, j], (up - down) / (2 * STEP), atol=1e-7)


@pytest.mark.parametrize("name", ["bptt", "truncated"])
def test_terms_against_differences_of_a_matrix_for_each_step(name: str) -> None:
    for case, answer in cases(name):
        h, W_hh, g, *K = case.arguments
        T, n = len(h) - 1, len(W_hh)
        drive, terms = drives(h, W_hh), np.zeros((T, n, n))
        for k, i, j in np.ndindex(T, n, n):
            losses = []
            for sign in (1, -1):
                W = np.array([W_hh] * T)
                W[k, i, j] += sign * STEP
                losses.append(g @ final(h[0], W, drive))
            terms[k, i, j] = (losses[0] - losses[1]) / (2 * STEP)
        wanted = terms[max(T - K[0], 0) :].sum(axis=0) if K else terms
        np.testing.assert_allclose(answer, wanted, atol=1e-7)


def test_all_terms_are_the_gradient_of_autodiff() -> None:
    for case, terms in cases("bptt"):
        h, W_hh, g = case.arguments
        drive = drives(h, W_hh)

        def loss(W: jax.Array, h=h, g=g, drive=drive) -> jax.Array:
            state = jnp.array(h[0])
            for d in drive:
                state = jnp.tanh(W @ state + d)
            return g @ state

        with jax.enable_x64(True):
            gradient = jax.grad(loss)(jnp.array(W_hh))
        np.testing.assert_allclose(terms.sum(axis=0), gradient, atol=1e-12)


def test_clip_is_optax_clip_by_global_norm() -> None:
    for case, clipped in cases("clip"):
        gradients, threshold = case.arguments
        rule = optax.clip_by_global_norm(threshold)
        wanted, _ = rule.update([jnp.array(g) for g in gradients], rule.init(gradients))
        for ours, theirs in zip(clipped, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-6)


def test_lstm_is_flax_optimized_cell() -> None:
    for case, (c, h) in cases("lstm"):
        x, h_before, c_before, W, b = case.arguments
        n = len(h_before)
        cell = nnx.OptimizedLSTMCell(len(x), n, rngs=nnx.Rngs(0))  # its gates: i, f, g, o
        cell.dense_h.kernel, cell.dense_h.bias = nnx.Param(W[:, :n].T), nnx.Param(b)
        cell.dense_i.kernel = nnx.Param(jnp.array(W[:, n:].T))
        (c_flax, h_flax), _ = cell((jnp.array(c_before), jnp.array(h_before)), jnp.array(x))
        np.testing.assert_allclose(c, c_flax, atol=2e-6)
        np.testing.assert_allclose(h, h_flax, atol=2e-6)


def test_forget_bias_keeps_one_eth() -> None:
    for case, b in cases("forget_bias"):
        (tau,) = case.arguments
        assert (1 / (1 + np.exp(-b))) ** tau == pytest.approx(np.exp(-1), rel=1e-12)
