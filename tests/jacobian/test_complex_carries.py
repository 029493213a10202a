"""Carries of complex numbers, alone and among real ones, against closed forms and NumPy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from complex_steps import (
    LAMBDA,
    LRU,
    MIXED,
    RADII,
    T,
    X,
    diagonal,
    drawn,
    mixed,
    mixed_products,
    real_map,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import Array

import gradlab
from gradlab.jacobian import step_jacobians
from gradlab.jacobian.carry import CarryForm, is_complex, is_inexact
from gradlab.jacobian.complex_norms import _join
from gradlab.jacobian.flat_cell import flatten_cell
from gradlab.jacobian.products import ResolvedLogNorms

LAGS = np.subtract.outer(np.arange(T + 1), np.arange(T + 1))
NORMS: dict[Any, Callable[[np.ndarray], float]] = {
    "spectral": np.max,
    "frobenius": np.linalg.norm,
    "rms": lambda gains: np.sqrt(np.mean(gains**2)),
}


@pytest.mark.parametrize("norm", list(NORMS))
def test_a_diagonal_recurrence_has_the_powers_of_its_eigenvalues(norm: Any) -> None:
    gains = RADII ** np.maximum(LAGS, 0)[..., None]
    with np.errstate(divide="ignore"):
        expected = np.log(np.apply_along_axis(NORMS[norm], -1, gains) * (LAGS >= 0))
    carry = jnp.zeros(3, jnp.complex64)
    measured = gradlab.jacobian_log_norms(diagonal, X, initial_carry=carry, norm=norm)
    np.testing.assert_allclose(measured, expected, atol=2e-6)
    if norm == "rms":
        measured, certificate = gradlab.jacobian_log_norms(LRU(), X, norm=norm, certify=True)
        np.testing.assert_allclose(measured, expected, atol=2e-6)
        assert certificate.largest_error < 1e-6
        assert certificate.difference_error < 1e-6
        assert not certificate.unresolved.any()


@pytest.mark.parametrize(
    ("of", "wrt", "norm"),
    [
        *((None, None, norm) for norm in NORMS),
        *(("z", wrt, "rms") for wrt in (None, "h", "z")),
        *(("h", wrt, "frobenius") for wrt in (None, "h", "z")),
        ("h", "z", "spectral"),
    ],
)
def test_blocks_of_real_and_complex_numbers(of: Any, wrt: Any, norm: Any) -> None:
    entries = {"hh": "S", "hz": "U", "zh": "R", "zz": "PQ"}
    chosen = "".join(
        names for b, names in entries.items() if of in (None, b[0]) and wrt in (None, b[1])
    )
    # Over 17 steps some pairs lie on two sides of a midpoint.
    inputs = jnp.resize(X, (2 if of else 17 if norm == "rms" else T, 2))
    measured = gradlab.jacobian_log_norms(
        mixed, inputs, initial_carry=MIXED, norm=norm, of=of, wrt=wrt
    )
    for t, product in enumerate(mixed_products(len(inputs))):
        expected = np.sqrt(sum(np.linalg.norm(product[name]) ** 2 for name in chosen))
        if norm == "rms":
            expected /= np.sqrt({None: 5, "h": 2, "z": 3}[wrt])
        elif norm == "spectral":
            expected = np.linalg.norm(real_map(product, of, wrt), 2)
        with np.errstate(divide="ignore"):  # the map is linear: only the lag counts
            np.testing.assert_allclose(np.diagonal(measured, -t), np.log(expected), atol=5e-6)


def test_blocks_are_certified_by_their_own_norms() -> None:
    _, certificate = gradlab.jacobian_log_norms(
        mixed, X[:2], initial_carry=MIXED, norm="rms", of="z", certify=True
    )
    assert certificate.largest_error < 2e-6
    assert not certificate.unresolved.any()


def test_a_part_that_rounding_took_counts_only_where_it_is_large() -> None:
    """Of norms 1 and e⁻⁵ the second may be lost, of norms 1 and e⁻³ not: its square is 2e-3."""
    with jax.enable_x64(True):
        found = _join(
            ResolvedLogNorms(jnp.zeros(5), jnp.array([True, True, False, True, True])),
            ResolvedLogNorms(
                jnp.array([0.0, -5, -5, -3, -jnp.inf]), jnp.array([True, False, True, False, True])
            ),
        )
    np.testing.assert_array_equal(found.resolved, [True, True, False, False, True])
    expected = 0.5 * np.log(1 + np.exp(2 * np.array([0, -5, -5, -3, -np.inf])))
    np.testing.assert_allclose(found.value, expected, rtol=1e-6)


KINDS = [
    ("float32", (2,)),
    ("float32", ()),
    ("bfloat16", (1,)),
    ("complex64", (2,)),
    ("complex64", ()),
    ("int32", ()),
    ("bool", (2,)),
    ("key", ()),
    ("none", ()),
]
nodes = st.recursive(
    st.sampled_from(KINDS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("zhca"), inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)


def made(kind: str, shape: tuple[int, ...]) -> Any:
    if kind == "none":
        return None
    if kind == "key":
        return jax.random.key(0)
    return jnp.ones(shape, kind)


def advanced(leaf: Array) -> Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(leaf)[0]
    return ~leaf if leaf.dtype == bool else leaf + 1


@settings(max_examples=4, derandomize=True)
@given(description=nodes, seed=st.integers(0, 99))
@example({"a": ("complex64", (2,)), "c": (("int32", ()), ("float32", (2,)))}, 1)
@example(({"z": ("complex64", ()), "h": ("bfloat16", (1,))}, ("none", ()), ("key", ())), 2)
def test_any_mixed_carry_agrees_with_forward_mode_in_float64(description: Any, seed: int) -> None:
    """s ← tanh(M s) + s / 2 of the real and imaginary parts of all numbers, in order."""
    is_kind = lambda node: isinstance(node, tuple) and node in KINDS  # noqa: E731
    carry = jax.tree.map(lambda kind: made(*kind), description, is_leaf=is_kind)
    leaves, structure = jax.tree.flatten(carry)
    numbers = [i for i, leaf in enumerate(leaves) if is_inexact(leaf)]
    if not numbers:
        return
    sizes = [leaves[i].size * (1 + is_complex(leaves[i])) for i in numbers]
    n = sum(sizes)
    matrix = np.random.default_rng(seed).normal(size=(n, n)).astype(np.float32) / np.sqrt(n)
    is_rounded = any(leaf.dtype == jnp.bfloat16 for leaf in leaves)

    def advance(vector: Array) -> Array:
        return jnp.tanh(matrix @ vector) + vector / 2

    def parts(leaf: Array) -> Array:
        return jnp.concatenate(
            [f(leaf).ravel() for f in (jnp.real, jnp.imag)][: 1 + is_complex(leaf)]
        )

    def step(carry: Any, x: Array) -> tuple[Any, Array]:
        now = jax.tree.leaves(carry)
        assert [leaf.dtype for leaf in now] == [leaf.dtype for leaf in leaves]
        vector = jnp.concatenate([parts(now[i]).astype(jnp.float32) for i in numbers])
        pieces = iter(jnp.split(advance(vector), np.cumsum(sizes)[:-1]))
        after = [None if is_inexact(leaf) else advanced(leaf) for leaf in now]
        for i in numbers:
            piece = next(pieces)
            if is_complex(now[i]):
                piece = jax.lax.complex(*jnp.split(piece, 2))
            after[i] = piece.reshape(now[i].shape).astype(now[i].dtype)
        return jax.tree.unflatten(structure, after), x

    start = jnp.concatenate([parts(leaves[i]).astype(jnp.float32) for i in numbers])
    with jax.enable_x64(True):
        matrix64, s, product = matrix.astype(float), np.asarray(start, float), np.eye(n)
        for _ in range(3):
            jacobian = jax.jacfwd(lambda v: jnp.tanh(matrix64 @ v) + v / 2)(jnp.asarray(s))
            product, s = np.asarray(jacobian) @ product, np.tanh(matrix64 @ s) + s / 2
    spans = dict(CarryForm.of(carry, ("0", "1")).spans)
    of, rows = [(None, (0, n)), *spans.items()][seed % (1 + len(spans))]
    kind = np.concatenate(
        [np.repeat(is_complex(leaves[i]), size) for i, size in zip(numbers, sizes, strict=True)]
    )
    weights = np.where(np.outer(kind, kind), 0.5, 1)
    measured = gradlab.jacobian_log_norms(step, X[:3], initial_carry=carry, of=of, norm="frobenius")
    expected = 0.5 * np.log(np.sum((weights * product**2)[slice(*rows)]))
    np.testing.assert_allclose(measured[3, 0], expected, atol=0.1 if is_rounded else 1e-5)
    jacobian = step_jacobians(step, X[:1], initial_carry=carry)[0]
    ones = jnp.asarray(np.asarray(start, float))
    slope = 1 - np.tanh(matrix.astype(float) @ ones) ** 2
    np.testing.assert_allclose(
        jacobian, slope[:, None] * matrix + np.eye(n) / 2, atol=0.02 if is_rounded else 1e-6
    )


def loss(carry: Any, target: Array) -> Array:
    return jnp.abs(jnp.sum(carry["z"] * (1 + 2j)) - target[0]) ** 2 + jnp.sum(carry["h"] ** 2)


TARGETS = X


def losses(nudges: Any) -> Array:
    """Return L⁽ᵗ⁾ with nudges added to the states s⁽⁰⁾..s⁽ᵀ⁻¹⁾."""

    def advance(carry: Any, step: Any) -> Any:
        x, target, nudge = step
        carry = mixed(carry | {k: carry[k] + nudge[k] for k in nudge}, x)[0]
        return carry, loss(carry, target)

    return jax.lax.scan(advance, MIXED, (X, TARGETS, nudges))[1]


@pytest.mark.parametrize("wrt", [None, "z", "h"])
def test_adjoints_are_the_gradients_of_jax(wrt: Any) -> None:
    nudges = {k: jnp.zeros((T, *MIXED[k].shape), MIXED[k].dtype) for k in ("h", "z")}
    chosen = [wrt] if wrt else ["h", "z"]

    def norms(gradient: Any) -> np.ndarray:
        return np.sqrt(sum(np.sum(np.abs(np.asarray(gradient[k])) ** 2, axis=1) for k in chosen))

    options: dict[str, Any] = {"wrt": wrt, "initial_carry": MIXED}
    each = gradlab.adjoint_log_norms(mixed, X, loss, TARGETS, each=True, **options)
    for t in (2, T):
        gradient = jax.grad(lambda nudges, t=t: losses(nudges)[t - 1])(nudges)
        np.testing.assert_allclose(np.exp(each[t, :t]), norms(gradient)[:t], rtol=2e-5)
    summed = gradlab.adjoint_log_norms(mixed, X, loss, TARGETS, **options)
    gradient = jax.grad(lambda nudges: losses(nudges).sum())(nudges)
    np.testing.assert_allclose(np.exp(summed[0]), norms(gradient)[0], rtol=2e-5)


def weighted(weights: Any, z: Array, x: Array) -> tuple[Array, Array]:
    """Return the step of an LRU with a gain, real numbers among complex ones."""
    z = weights["gain"] * (weights["lambda"] * z + weights["b"] @ x)
    return z, z


WEIGHTS = {
    "b": jnp.asarray(drawn(3, 2)),
    "gain": jnp.array([0.9, 1.1, 1.0]),
    "lambda": jnp.asarray(LAMBDA, jnp.complex64),
}


def distance(z: Array, target: Array) -> Array:
    return jnp.sum(jnp.abs(z - (1 - 2j)) ** 2) * target[0]


def last_losses(copies: Any) -> Array:
    """Return L⁽ᵗ⁾ of weights that every step has its own copy of."""

    def advance(z: Array, step: Any) -> tuple[Array, Array]:
        weights, x, target = step
        z = weighted(weights, z, x)[0]
        return z, distance(z, target)

    return jax.lax.scan(advance, jnp.ones(3, jnp.complex64), (copies, X, TARGETS))[1]


def test_terms_of_complex_weights_are_those_of_jax() -> None:
    terms = gradlab.backpropagate(
        weighted,
        X,
        distance,
        TARGETS,
        initial_carry=jnp.ones(3, jnp.complex64),
        parameters=WEIGHTS,
    )
    copies = jax.tree.map(lambda w: jnp.broadcast_to(w, (T, *w.shape)), WEIGHTS)
    total = jax.grad(lambda copies: last_losses(copies).sum())(copies)
    for name, by_lag in terms.by_lag.items():
        assert by_lag.dtype == WEIGHTS[name].dtype
        expected = total[name].sum(axis=0)  # its conjugate would be another array
        summed = by_lag.sum(axis=0) * np.exp(terms.log_scale)
        np.testing.assert_allclose(summed, expected, rtol=1e-5, atol=1e-5)
    for t in (2, T):
        gradient = jax.grad(lambda copies, t=t: last_losses(copies)[t - 1])(copies)
        for name, term in gradient.items():
            norms = np.linalg.norm(np.asarray(term).reshape(T, -1), axis=1)
            measured = np.exp(terms.log_norms[name][t, 1:])
            np.testing.assert_allclose(measured, norms, rtol=2e-5, atol=1e-7)
    assert terms.log_scale.dtype == jnp.float32


def test_credit_of_complex_weights_is_that_of_their_real_and_imaginary_parts() -> None:
    by_lag = drawn(5, 3)
    parts = np.concatenate([by_lag.real, by_lag.imag], axis=1)
    for function in (gradlab.credit, gradlab.truncation):
        np.testing.assert_allclose(function(by_lag), function(parts), rtol=1e-6)


def test_initial_states_of_one_sample_or_of_each() -> None:
    """z ← z² / 2 has the derivative z, which tells the initial states apart."""
    square = lambda z, x: (jnp.eye(2) @ z**2 / 2, x)  # noqa: E731
    batch = jnp.stack([X, X, X])
    starts = jnp.asarray(drawn(3, 2, seed=7))
    measured = gradlab.jacobian_log_norms(square, batch, initial_carry=starts, of="h")
    np.testing.assert_allclose(measured[:, 1, 0], np.log(np.abs(starts).max(axis=1)), atol=1e-6)
    alone = gradlab.jacobian_log_norms(square, batch, initial_carry=starts[0])
    np.testing.assert_allclose(alone[2], measured[0], atol=1e-6)
    alone = lambda z, x: (z**2 / 2, x)  # noqa: E731
    for use_64_bits in (False, True):
        with jax.enable_x64(use_64_bits):
            (jacobian,) = step_jacobians(alone, X[:1], initial_carry=0.3 + 0.4j)
            rtol = 1e-15 if use_64_bits else 1e-6
            np.testing.assert_allclose(jacobian, [[0.3, -0.4], [0.4, 0.3]], rtol=rtol)
    with pytest.raises(ValueError, match=r"takes float32\[\] and returns complex64\[\]"):
        gradlab.jacobian_log_norms(lambda z, x: (1j * z, x), X, initial_carry=0.0)


def test_a_cell_of_complex_numbers_takes_a_real_initial_carry() -> None:
    given = step_jacobians(LRU(), X, initial_carry=jnp.zeros(3))
    np.testing.assert_array_equal(given, step_jacobians(LRU(), X))
    flat = flatten_cell(LRU(), X[None], jnp.zeros((1, 3)))
    assert flat.initial.vector.shape == (1, 6)


def test_complex_inputs_are_held_like_real_ones() -> None:
    """z ← x z² / 2: the derivative is x z."""
    inputs = jnp.asarray(drawn(T, 1, seed=8))
    step = lambda z, x: (x[0] * z**2 / 2, x)  # noqa: E731
    measured, certificate = gradlab.jacobian_log_norms(step, inputs, initial_carry=1j, certify=True)
    z, expected = 1j, [0.0]
    for (x,) in np.asarray(inputs):
        expected.append(expected[-1] + np.log(np.abs(x * z)))
        z = x * z**2 / 2
    np.testing.assert_allclose(measured[:, 0], expected, atol=1e-5)
    assert certificate.largest_error < 1e-5


def test_derivatives_through_a_measurement_of_complex_numbers() -> None:
    """Of log ‖diag(λ)⁵‖: with respect to λ as jax.grad has it, 5 |λ|¹⁰ / (λ Σ|λ|¹⁰)."""

    def reach(eigenvalues: Array) -> Array:
        step = lambda z, x: (eigenvalues * z, x)  # noqa: E731
        carry = jnp.zeros(3, jnp.complex64)
        return gradlab.jacobian_log_norms(step, X, initial_carry=carry, norm="frobenius")[5, 0]

    eigenvalues = jnp.asarray(LAMBDA, jnp.complex64)
    expected = 5 * RADII**10 / (LAMBDA * np.sum(RADII**10))
    np.testing.assert_allclose(jax.grad(reach)(eigenvalues), expected, rtol=1e-5, atol=1e-8)

    def of_mixed(gain: Array) -> Array:
        step = lambda s, x: ({"h": gain * s["h"], "z": gain * s["z"]}, x)  # noqa: E731
        carry = {"h": jnp.zeros(2), "z": jnp.zeros(1, jnp.complex64)}
        norms = gradlab.jacobian_log_norms(step, X[:2], initial_carry=carry, norm="rms")
        return jnp.where(jnp.isfinite(norms), norms, 0).sum()

    assert jax.grad(of_mixed)(jnp.array(2.0)) == pytest.approx((1 + 1 + 2) / 2)
