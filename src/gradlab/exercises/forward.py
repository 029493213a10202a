"""Exercises on the states of a network: unroll, joined."""

from collections.abc import Callable

import numpy as np

from gradlab.exercises.exercise import (
    Array,
    Case,
    Exercise,
    Mistake,
    Part,
    raised,
    recurrent_weights,
)

Layer = tuple[Array, Array, Array, Array]  # h⁽⁰⁾, W_xh, W_hh, b


def unroll(
    x: Array,
    h0: Array,
    W_xh: Array,
    W_hh: Array,
    b: Array,
    *,
    activation: Callable[[Array], Array] = np.tanh,
) -> Array:
    """Return h⁽¹⁾ … h⁽ᵀ⁾, (T, n)."""
    states, h = [], h0
    for x_t in x:
        h = activation(W_xh @ x_t + W_hh @ h + b)
        states.append(h)
    return np.array(states)


def joined(W_xh: Array, W_hh: Array) -> Array:
    """Return the one matrix that acts on [h; x], (n, n + m)."""
    return np.hstack([W_hh, W_xh])


def layer(draw: np.random.Generator, n: int, m: int) -> Layer:
    """Draw h⁽⁰⁾, W_xh, W_hh and b of n units that read m features."""
    h0, b = draw.uniform(-0.9, 0.9, n), draw.normal(size=n) / 2
    return h0, draw.normal(size=(n, m)) / np.sqrt(m), recurrent_weights(draw, n), b


def _unroll_cases() -> list[Case]:
    draw = np.random.default_rng(1)
    sizes = [(4, 3, 2), (5, 2, 2), (3, 4, 5), (1, 3, 2), (4, 1, 1), (1, 1, 1)]
    return [
        Case({"T": T, "n": n, "m": m}, (draw.normal(size=(T, m)), *layer(draw, n, m)))
        for T, n, m in sizes
    ]


def _joined_cases() -> list[Case]:
    draw = np.random.default_rng(2)
    return [
        Case({"n": n, "m": m}, (draw.normal(size=(n, m)), draw.normal(size=(n, n))))
        for n, m in [(3, 2), (3, 3), (2, 4), (1, 3), (1, 1)]
    ]


def _states(answer: Array) -> list[Part]:
    return [Part(f"h{raised(t)}", h) for t, h in enumerate(answer, start=1)]


def _blocks(answer: Array) -> list[Part]:
    n = len(answer)
    return [Part(f"[:, :{n}]", answer[:, :n]), Part(f"[:, {n}:]", answer[:, n:])]


def _each_from_h0(x: Array, h0: Array, W_xh: Array, W_hh: Array, b: Array) -> Array:
    return np.array([np.tanh(W_xh @ x_t + W_hh @ h0 + b) for x_t in x])


def _late_input(x: Array, h0: Array, W_xh: Array, W_hh: Array, b: Array) -> Array:
    return unroll(np.vstack([np.zeros_like(x[:1]), x[:-1]]), h0, W_xh, W_hh, b)


UNROLL = Exercise(
    name="unroll",
    signature=("x", "h0", "W_xh", "W_hh", "b"),
    idea={"en": "all states of an RNN", "es": "todos los estados de una RNN"},
    question={
        "en": "Compute h⁽ᵗ⁾ = tanh(W_xh x⁽ᵗ⁾ + W_hh h⁽ᵗ⁻¹⁾ + b) for t = 1…T, from h⁽⁰⁾ on.",
        "es": "Se calcula h⁽ᵗ⁾ = tanh(W_xh x⁽ᵗ⁾ + W_hh h⁽ᵗ⁻¹⁾ + b) para t = 1…T, a partir de h⁽⁰⁾.",
    },
    takes={
        "en": "x (T, m), x[0] is x⁽¹⁾; h0 (n,); W_xh (n, m); W_hh (n, n); b (n,).",
        "es": "x (T, m), x[0] es x⁽¹⁾; h0 (n,); W_xh (n, m); W_hh (n, n); b (n,).",
    },
    returns={
        "en": "(T, n): the states h⁽¹⁾ … h⁽ᵀ⁾, one a row",
        "es": "(T, n): los estados h⁽¹⁾ … h⁽ᵀ⁾, uno por fila",
    },
    cases=_unroll_cases,
    solve=unroll,
    parts=_states,
    mistakes=(
        Mistake(
            {
                "en": "W_hhᵀ stands where W_hh should (h @ W_hh is W_hhᵀ h).",
                "es": "aparece W_hhᵀ en lugar de W_hh (h @ W_hh es W_hhᵀ h).",
            },
            lambda x, h0, W_xh, W_hh, b: unroll(x, h0, W_xh, W_hh.T, b),
        ),
        Mistake(
            {
                "en": "W_xhᵀ stands where W_xh should (x @ W_xh is W_xhᵀ x).",
                "es": "aparece W_xhᵀ en lugar de W_xh (x @ W_xh es W_xhᵀ x).",
            },
            lambda x, h0, W_xh, W_hh, b: unroll(
                x, h0, W_xh.T if W_xh.shape == W_hh.shape else W_xh, W_hh, b
            ),
        ),
        Mistake(
            {
                "en": "h⁽⁰⁾ is taken as 0; it is the argument h0.",
                "es": "se toma h⁽⁰⁾ = 0; el estado inicial es el argumento h0.",
            },
            lambda x, h0, W_xh, W_hh, b: unroll(x, np.zeros_like(h0), W_xh, W_hh, b),
        ),
        Mistake(
            {
                "en": "h⁽⁰⁾ stands first; the result begins with h⁽¹⁾.",
                "es": "h⁽⁰⁾ está en primer lugar; el resultado empieza con h⁽¹⁾.",
            },
            lambda x, h0, *weights: np.vstack([h0, unroll(x, h0, *weights)]),
        ),
        Mistake(
            {
                "en": "each step starts from h⁽⁰⁾; it must start from the step before.",
                "es": "cada paso parte de h⁽⁰⁾; debe partir del estado del paso anterior.",
            },
            _each_from_h0,
        ),
        Mistake(
            {"en": "the bias b is missing.", "es": "falta el sesgo b."},
            lambda x, h0, W_xh, W_hh, b: unroll(x, h0, W_xh, W_hh, 0 * b),
        ),
        Mistake(
            {"en": "tanh is missing.", "es": "falta tanh."},
            lambda *arguments: unroll(*arguments, activation=lambda a: a),
        ),
        Mistake(
            {
                "en": "φ is the logistic function; it must be tanh.",
                "es": "φ es la función logística; debe ser tanh.",
            },
            lambda *arguments: unroll(*arguments, activation=lambda a: 1 / (1 + np.exp(-a))),
        ),
        Mistake(
            {
                "en": "step t reads x⁽ᵗ⁻¹⁾; it must read x⁽ᵗ⁾.",
                "es": "el paso t lee x⁽ᵗ⁻¹⁾; debe leer x⁽ᵗ⁾.",
            },
            _late_input,
        ),
        Mistake(
            {
                "en": "only the last state is returned.",
                "es": "solo se devuelve el último estado.",
            },
            lambda *arguments: unroll(*arguments)[-1],
        ),
        Mistake(
            {
                "en": "the states stand in columns; each must be a row.",
                "es": "los estados están en columnas; cada uno debe ser una fila.",
            },
            lambda *arguments: unroll(*arguments).T,
        ),
    ),
)
JOINED = Exercise(
    name="joined",
    signature=("W_xh", "W_hh"),
    idea={
        "en": "both weight matrices as one, on [h; x]",
        "es": "las dos matrices de pesos como una sola, sobre [h; x]",
    },
    question={
        "en": "Return the matrix W with W [h; x] = W_xh x + W_hh h; [h; x] is h with x below.",
        "es": "Se busca la matriz W tal que W [h; x] = W_xh x + W_hh h, donde [h; x] es h con x "
        "debajo.",
    },
    takes={"en": "W_xh (n, m); W_hh (n, n).", "es": "W_xh (n, m); W_hh (n, n)."},
    returns={
        "en": "(n, n + m): the columns that act on h, then those that act on x",
        "es": "(n, n + m): las columnas que actúan sobre h y, después, las que actúan sobre x",
    },
    cases=_joined_cases,
    solve=joined,
    parts=_blocks,
    mistakes=(
        Mistake(
            {
                "en": "this is the matrix on [x; h]: W_hh must come first.",
                "es": "esta es la matriz sobre [x; h]: W_hh debe ir primero.",
            },
            lambda W_xh, W_hh: np.hstack([W_xh, W_hh]),
        ),
        Mistake(
            {
                "en": "this is the transpose of W; W must have n rows.",
                "es": "esta es la transpuesta de W; W debe tener n filas.",
            },
            lambda W_xh, W_hh: joined(W_xh, W_hh).T,
        ),
        Mistake(
            {
                "en": "W_hhᵀ stands where W_hh should.",
                "es": "aparece W_hhᵀ en lugar de W_hh.",
            },
            lambda W_xh, W_hh: joined(W_xh, W_hh.T),
        ),
        Mistake(
            {
                "en": "the matrices are stacked one below the other; they must stand side by side.",
                "es": "las matrices están una debajo de la otra; deben estar una al lado de la "
                "otra.",
            },
            lambda W_xh, W_hh: (
                np.vstack([W_hh, W_xh]) if W_xh.shape == W_hh.shape else joined(W_xh, W_hh)
            ),
        ),
    ),
)
