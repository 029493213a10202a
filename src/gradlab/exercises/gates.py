"""Exercises on gates: lstm, forget_bias."""

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np

from gradlab.exercises.exercise import Array, Case, Exercise, Mistake, Part, recurrent_weights

ORDER = "ifgo"  # of the joined gates


def logistic(a: Array) -> Array:
    """Return σ(a) = 1/(1 + e^(−a))."""
    return 1 / (1 + np.exp(-a))


def lstm(
    x: Array,
    h: Array,
    c: Array,
    W: Array,
    b: Array,
    *,
    order: str = ORDER,
    candidate: Callable[[Array], Array] = np.tanh,
    output: Callable[[Array], Array] = np.tanh,
    shown: Callable[[Array, Array], Array] = lambda old, new: new,
) -> tuple[Array, Array]:
    """Return (c⁽ᵗ⁾, h⁽ᵗ⁾) of one step.

    Args:
        x: x⁽ᵗ⁾, (m,).
        h: h⁽ᵗ⁻¹⁾, (n,).
        c: c⁽ᵗ⁻¹⁾, (n,).
        W: of the joined gates on [h; x], (4n, n + m).
        b: (4n,).
        order: in which the gates are read.
        candidate: activation of g.
        output: what o multiplies, of the cell state.
        shown: the cell state that the output gate shows, of the old and the new one.
    """
    gates = dict(zip(order, np.split(W @ np.concatenate([h, x]) + b, 4), strict=True))
    i, f, o = (logistic(gates[name]) for name in "ifo")
    new = f * c + i * candidate(gates["g"])
    return new, o * output(shown(c, new))


def forget_bias(tau: float) -> float:
    """Return b with σ(b)^τ = 1/e."""
    return float(-np.log(np.expm1(1 / tau)))


def _lstm_cases() -> list[Case]:
    draw = np.random.default_rng(9)
    cases = []
    for n, m in [(3, 2), (2, 2), (4, 1), (1, 3), (1, 1)]:
        states = draw.normal(size=m), draw.uniform(-0.9, 0.9, n), draw.normal(size=n)
        weights = [np.hstack([recurrent_weights(draw, n), draw.normal(size=(n, m))]) for _ in ORDER]
        arguments = (*states, np.vstack(weights), draw.normal(size=4 * n))
        cases.append(Case({"n": n, "m": m}, arguments))
    return cases


def _bias_cases() -> list[Case]:
    return [Case({"τ": tau}, (tau,)) for tau in (10.0, 2.5, 1.0, 40.0, 300.0)]


def _other_orders() -> Iterator[Mistake]:
    """Yield a mistake for each wrong order of the gates."""
    for order in permutations(ORDER):
        read = ", ".join(order)
        if "".join(order) != ORDER:
            yield Mistake(
                {
                    "en": f"the gates are read in the order {read}; it is i, f, g, o.",
                    "es": f"las compuertas se leen en el orden {read}; debe ser i, f, g, o.",
                },
                _in_order("".join(order)),
            )


def _in_order(order: str) -> Callable[..., Any]:
    return lambda *arguments: lstm(*arguments, order=order)


def _exchanged(x: Array, h: Array, c: Array, W: Array, b: Array) -> tuple[Array, Array]:
    """Return the step if W acts on [x; h]."""
    return lstm(x, h, c, np.hstack([W[:, len(x) :], W[:, : len(x)]]), b)


LSTM = Exercise(
    name="lstm",
    signature=("x", "h", "c", "W", "b"),
    idea={"en": "one step of an LSTM", "es": "un paso de una LSTM"},
    question={
        "en": "Compute one step: the four blocks of W [h⁽ᵗ⁻¹⁾; x⁽ᵗ⁾] + b belong to the input gate "
        "i, the forget gate f, the candidate g and the output gate o, in this order. "
        "i, f, o = σ(·), g = tanh(·), c⁽ᵗ⁾ = f ⊙ c⁽ᵗ⁻¹⁾ + i ⊙ g, h⁽ᵗ⁾ = o ⊙ tanh c⁽ᵗ⁾.",
        "es": "Se calcula un paso: los cuatro bloques de W [h⁽ᵗ⁻¹⁾; x⁽ᵗ⁾] + b son, en este "
        "orden, de la compuerta de entrada i, la de olvido f, el candidato g y la de salida o. "
        "i, f, o = σ(·), g = tanh(·), c⁽ᵗ⁾ = f ⊙ c⁽ᵗ⁻¹⁾ + i ⊙ g, h⁽ᵗ⁾ = o ⊙ tanh c⁽ᵗ⁾.",
    },
    takes={
        "en": "x (m,); h (n,), h⁽ᵗ⁻¹⁾; c (n,), c⁽ᵗ⁻¹⁾; W (4n, n + m); b (4n,).",
        "es": "x (m,); h (n,), h⁽ᵗ⁻¹⁾; c (n,), c⁽ᵗ⁻¹⁾; W (4n, n + m); b (4n,).",
    },
    returns={
        "en": "the pair (c, h) of c⁽ᵗ⁾ and h⁽ᵗ⁾, each (n,)",
        "es": "el par (c, h) de c⁽ᵗ⁾ y h⁽ᵗ⁾, cada uno (n,)",
    },
    cases=_lstm_cases,
    solve=lstm,
    parts=lambda answer: [Part(name, value) for name, value in zip("ch", answer, strict=True)],
    mistakes=(
        Mistake(
            {
                "en": "h⁽ᵗ⁾ comes first; the pair is (c, h).",
                "es": "h⁽ᵗ⁾ está en primer lugar; el par es (c, h).",
            },
            lambda *arguments: lstm(*arguments)[::-1],
        ),
        *_other_orders(),
        Mistake(
            {
                "en": "W acts on [x; h]; it must act on [h; x].",
                "es": "W actúa sobre [x; h]; debe actuar sobre [h; x].",
            },
            _exchanged,
        ),
        Mistake(
            {
                "en": "the candidate g goes through σ; it must go through tanh.",
                "es": "el candidato g pasa por σ; debe pasar por tanh.",
            },
            lambda *arguments: lstm(*arguments, candidate=logistic),
        ),
        Mistake(
            {
                "en": "tanh of the cell state is missing: h⁽ᵗ⁾ = o ⊙ tanh c⁽ᵗ⁾.",
                "es": "falta tanh del estado de celda: h⁽ᵗ⁾ = o ⊙ tanh c⁽ᵗ⁾.",
            },
            lambda *arguments: lstm(*arguments, output=lambda c: c),
        ),
        Mistake(
            {
                "en": "h⁽ᵗ⁾ shows the old cell state c⁽ᵗ⁻¹⁾; it must show c⁽ᵗ⁾.",
                "es": "h⁽ᵗ⁾ se calcula con el estado de celda anterior, c⁽ᵗ⁻¹⁾; debe usar c⁽ᵗ⁾.",
            },
            lambda *arguments: lstm(*arguments, shown=lambda old, new: old),
        ),
        Mistake(
            {"en": "the bias b is missing.", "es": "falta el sesgo b."},
            lambda x, h, c, W, b: lstm(x, h, c, W, 0 * b),
        ),
        Mistake(
            {
                "en": "the forget gate is missing: c⁽ᵗ⁾ = c⁽ᵗ⁻¹⁾ + i ⊙ g is the LSTM of 1997.",
                "es": "falta la compuerta de olvido: c⁽ᵗ⁾ = c⁽ᵗ⁻¹⁾ + i ⊙ g es la LSTM de 1997.",
            },
            lambda x, h, c, W, b: lstm(x, h, c, W, b + np.repeat([0.0, np.inf, 0.0, 0.0], len(h))),
        ),
    ),
)
FORGET_BIAS = Exercise(
    name="forget_bias",
    signature=("tau",),
    idea={
        "en": "the forget bias for a given reach",
        "es": "el sesgo de olvido para un alcance dado",
    },
    question={
        "en": "Along its own edge a cell passes on ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ = f⁽ᵗ⁾ ⋯ f⁽ᵏ⁺¹⁾. Let every "
        "forget gate be f = σ(b). Find the forget bias b at which the product is 1/e after "
        "t − k = τ steps.",
        "es": "Por la conexión consigo misma, una celda transmite ∂c⁽ᵗ⁾/∂c⁽ᵏ⁾ = f⁽ᵗ⁾ ⋯ f⁽ᵏ⁺¹⁾. Sea "
        "f = σ(b) en todas las compuertas de olvido. Se busca el sesgo de olvido b con el que el "
        "producto es 1/e después de t − k = τ pasos.",
    },
    takes={
        "en": "tau, τ > 0 as a float.",
        "es": "tau, τ > 0, de tipo float.",
    },
    returns={"en": "one number, b", "es": "un número, b"},
    cases=_bias_cases,
    solve=forget_bias,
    mistakes=(
        Mistake(
            {
                "en": "log τ sets f = 1 − 1/(τ + 1), which is near e^(−1/τ) for large τ only.",
                "es": "log τ fija f = 1 − 1/(τ + 1), que solo se acerca a e^(−1/τ) si τ es grande.",
            },
            np.log,
        ),
        Mistake(
            {
                "en": "log(τ − 1) sets f = 1 − 1/τ, which is near e^(−1/τ) for large τ only.",
                "es": "log(τ − 1) fija f = 1 − 1/τ, que solo se acerca a e^(−1/τ) si τ es grande.",
            },
            lambda tau: np.log(tau - 1),
        ),
        Mistake(
            {
                "en": "the sign is the opposite: σ(b) is 1 − e^(−1/τ).",
                "es": "el signo es el contrario: σ(b) es 1 − e^(−1/τ).",
            },
            lambda tau: -forget_bias(tau),
        ),
        Mistake(
            {
                "en": "this is the gate f = e^(−1/τ); its bias b, with σ(b) = f, is asked for.",
                "es": "esta es la compuerta f = e^(−1/τ); se pide su sesgo b, con σ(b) = f.",
            },
            lambda tau: np.exp(-1 / tau),
        ),
        Mistake(
            {
                "en": "this is log f = −1/τ; the gate is σ(b), not e^b.",
                "es": "esto es log f = −1/τ; la compuerta es σ(b), no e^b.",
            },
            lambda tau: -1 / tau,
        ),
        Mistake(
            {
                "en": "this keeps 1/2 after τ steps; 1/e is asked for.",
                "es": "con esto queda 1/2 después de τ pasos; se pide 1/e.",
            },
            lambda tau: forget_bias(tau / np.log(2)),
        ),
    ),
)
