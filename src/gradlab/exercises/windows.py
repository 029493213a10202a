"""The exercise on backpropagation truncated to a window: truncated."""

import numpy as np

from gradlab.exercises.backward import WRONG_TERMS, bptt
from gradlab.exercises.exercise import Array, Case, Exercise, Mistake
from gradlab.exercises.jacobians import trajectory


def truncated(h: Array, W_hh: Array, g: Array, K: int) -> Array:
    """Return the sum of the last K terms k = T − K + 1 … T, (n, n)."""
    return bptt(h, W_hh, g)[-K:].sum(axis=0)


def _truncated_cases() -> list[Case]:
    draw = np.random.default_rng(7)
    cases = []
    for T, n, K in [
        (5, 3, 2),
        (6, 2, 4),
        (4, 3, 1),
        (4, 3, 4),
        (3, 3, 5),
        (1, 2, 1),
        (4, 1, 2),
        (1, 1, 3),
    ]:
        arguments = (*trajectory(draw, T, n), draw.normal(size=n), K)
        cases.append(Case({"T": T, "n": n, "K": K}, arguments))
    return cases


def _window(mistake: Mistake) -> Mistake:
    """Return a mistake within terms as it shows in their sum over a window."""
    return Mistake(mistake.words, lambda h, W_hh, g, K: mistake.answer(h, W_hh, g)[-K:].sum(axis=0))


TRUNCATED = Exercise(
    name="truncated",
    signature=("h", "W_hh", "g", "K"),
    idea={
        "en": "backpropagation truncated to a window",
        "es": "la retropropagación truncada a una ventana",
    },
    question={
        "en": "Compute ∂L⁽ᵀ⁾/∂W_hh by backpropagation truncated to a window of K steps: the sum of "
        "the terms k > T − K of bptt, which are all terms if K ≥ T.",
        "es": "Se calcula ∂L⁽ᵀ⁾/∂W_hh por retropropagación truncada a una ventana de K pasos: la "
        "suma de los términos k > T − K de bptt, que son todos si K ≥ T.",
    },
    takes={
        "en": "h (T + 1, n), h[t] is h⁽ᵗ⁾; W_hh (n, n); g (n,), the gradient ∂L⁽ᵀ⁾/∂h⁽ᵀ⁾; K ≥ 1.",
        "es": "h (T + 1, n), h[t] es h⁽ᵗ⁾; W_hh (n, n); g (n,), el gradiente ∂L⁽ᵀ⁾/∂h⁽ᵀ⁾; K ≥ 1.",
    },
    returns={
        "en": "(n, n): the sum of the terms in the window",
        "es": "(n, n): la suma de los términos de la ventana",
    },
    cases=_truncated_cases,
    solve=truncated,
    mistakes=(
        Mistake(
            {
                "en": "the window is one step too long: k = T − K is in it, and it must begin "
                "at k = T − K + 1.",
                "es": "a la ventana le sobra un paso: incluye k = T − K, y debe empezar en "
                "k = T − K + 1.",
            },
            lambda h, W_hh, g, K: truncated(h, W_hh, g, K + 1),
        ),
        Mistake(
            {
                "en": "the window is one step too short: k = T − K + 1 is missing.",
                "es": "a la ventana le falta un paso: k = T − K + 1.",
            },
            lambda h, W_hh, g, K: bptt(h, W_hh, g)[max(len(h) - K, 0) :].sum(axis=0),
        ),
        Mistake(
            {
                "en": "the window ends one step too early: k = T is missing.",
                "es": "la ventana termina un paso antes de lo debido: falta k = T.",
            },
            lambda h, W_hh, g, K: bptt(h, W_hh, g)[-K:-1].sum(axis=0),
        ),
        Mistake(
            {
                "en": "these are the first K terms; the window has the last K.",
                "es": "estos son los primeros K términos; la ventana tiene los últimos K.",
            },
            lambda h, W_hh, g, K: bptt(h, W_hh, g)[:K].sum(axis=0),
        ),
        Mistake(
            {
                "en": "nothing is truncated: this is the sum of all T terms.",
                "es": "no se trunca nada: esta es la suma de los T términos.",
            },
            lambda h, W_hh, g, K: bptt(h, W_hh, g).sum(axis=0),
        ),
        Mistake(
            {
                "en": "this is the mean of the terms in the window; their sum is asked for.",
                "es": "esta es la media de los términos de la ventana; se pide su suma.",
            },
            lambda h, W_hh, g, K: bptt(h, W_hh, g)[-K:].mean(axis=0),
        ),
        Mistake(
            {
                "en": "K > T is left out: then nothing is truncated and all T terms count.",
                "es": "no se contempla K > T: entonces no se trunca nada y cuentan los T términos.",
            },
            lambda h, W_hh, g, K: truncated(h, W_hh, g, K) * (len(h) > K),
        ),
        Mistake(
            {
                "en": "K > T is left out: T − K is negative, and as an index counts from the end.",
                "es": "no se contempla K > T: T − K es negativo y, como índice, cuenta desde el "
                "final.",
            },
            lambda h, W_hh, g, K: bptt(h, W_hh, g)[len(h) - 1 - K :].sum(axis=0),
        ),
        Mistake(
            {
                "en": "only the term k = T − K + 1 is returned; the window's are to be added.",
                "es": "solo se devuelve el término k = T − K + 1; hay que sumar los de la ventana.",
            },
            lambda h, W_hh, g, K: bptt(h, W_hh, g)[-K:][0],
        ),
        *map(_window, WRONG_TERMS),
        Mistake(
            {
                "en": "the terms themselves are returned; their sum is asked for.",
                "es": "se devuelven los términos; se pide su suma.",
            },
            lambda h, W_hh, g, K: bptt(h, W_hh, g)[-K:],
        ),
    ),
)
