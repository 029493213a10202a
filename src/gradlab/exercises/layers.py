"""The exercise on the states of two layers: stack."""

from collections.abc import Sequence

import numpy as np

from gradlab.exercises.exercise import Array, Case, Exercise, Mistake, Part, raised
from gradlab.exercises.forward import Layer, layer, unroll


def stack(x: Array, layers: Sequence[Layer]) -> Array:
    """Return the states of every layer, each of which reads the states of the one below."""
    states, below = [], x
    for weights in layers:
        below = unroll(below, *weights)
        states.append(below)
    return np.array(states)


def _stack_cases() -> list[Case]:
    draw = np.random.default_rng(3)
    return [
        Case(
            {"T": T, "n": n, "m": m},
            (draw.normal(size=(T, m)), [layer(draw, n, m), layer(draw, n, n)]),
        )
        for T, n, m in [(4, 3, 3), (3, 3, 2), (2, 2, 4), (1, 3, 2), (5, 1, 1), (1, 1, 1)]
    ]


def _states_of_layers(answer: Array) -> list[Part]:
    return [
        Part(f"h{number}{raised(t)}", h)
        for number, states in zip("₁₂", answer, strict=True)
        for t, h in enumerate(states, start=1)
    ]


def _second_reads(x: Array, layers: Sequence[Layer], late: bool) -> Array:
    """Return the states if layer 2 reads h₁⁽ᵗ⁻¹⁾ (late), or x where it is as wide."""
    first = unroll(x, *layers[0])
    below = np.vstack([layers[0][0], first[:-1]]) if late else x
    fits = below.shape == first.shape
    return np.array([first, unroll(below if fits else first, *layers[1])])


STACK = Exercise(
    name="stack",
    signature=("x", "layers"),
    idea={"en": "the states of a two-layer RNN", "es": "los estados de una RNN de dos capas"},
    question={
        "en": "Compute the states of two layers: the first reads x⁽ᵗ⁾, the second h₁⁽ᵗ⁾, the state "
        "of the first at the same step. Both are as in unroll.",
        "es": "Se calculan los estados de dos capas: la primera lee x⁽ᵗ⁾ y la segunda h₁⁽ᵗ⁾, el "
        "estado de la primera en el mismo paso. Ambas son como en unroll.",
    },
    takes={
        "en": "x (T, m); layers, a list of two tuples (h0, W_xh, W_hh, b), with n units each.",
        "es": "x (T, m); layers, una lista de dos tuplas (h0, W_xh, W_hh, b), con n unidades cada "
        "una.",
    },
    returns={
        "en": "(2, T, n): the states of the first layer, then those of the second",
        "es": "(2, T, n): los estados de la primera capa y, después, los de la segunda",
    },
    cases=_stack_cases,
    solve=stack,
    parts=_states_of_layers,
    mistakes=(
        Mistake(
            {
                "en": "layer 2 reads x⁽ᵗ⁾; it must read h₁⁽ᵗ⁾.",
                "es": "la capa 2 lee x⁽ᵗ⁾; debe leer h₁⁽ᵗ⁾.",
            },
            lambda x, layers: _second_reads(x, layers, late=False),
        ),
        Mistake(
            {
                "en": "layer 2 reads h₁⁽ᵗ⁻¹⁾; it must read h₁⁽ᵗ⁾, of the same step.",
                "es": "la capa 2 lee h₁⁽ᵗ⁻¹⁾; debe leer h₁⁽ᵗ⁾, del mismo paso.",
            },
            lambda x, layers: _second_reads(x, layers, late=True),
        ),
        Mistake(
            {
                "en": "layer 2 starts from layer 1's initial state; it has its own.",
                "es": "la capa 2 parte del estado inicial de la capa 1; tiene el suyo propio.",
            },
            lambda x, layers: stack(x, [layers[0], (layers[0][0], *layers[1][1:])]),
        ),
        Mistake(
            {
                "en": "layer 2 starts from layer 1's last state; it has its own h0.",
                "es": "la capa 2 parte del último estado de la capa 1; tiene su propio h0.",
            },
            lambda x, layers: stack(x, [layers[0], (unroll(x, *layers[0])[-1], *layers[1][1:])]),
        ),
        Mistake(
            {
                "en": "layer 2 uses layer 1's W_hh; it has its own.",
                "es": "la capa 2 usa la W_hh de la capa 1; tiene la suya propia.",
            },
            lambda x, layers: stack(x, [layers[0], (*layers[1][:2], layers[0][2], layers[1][3])]),
        ),
        Mistake(
            {
                "en": "the axes stand as (T, 2, n); they must be (2, T, n).",
                "es": "los ejes están en el orden (T, 2, n); debe ser (2, T, n).",
            },
            lambda x, layers: stack(x, layers).swapaxes(0, 1),
        ),
        Mistake(
            {
                "en": "only the second layer's states are returned.",
                "es": "solo se devuelven los estados de la segunda capa.",
            },
            lambda x, layers: stack(x, layers)[1],
        ),
    ),
)
