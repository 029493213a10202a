"""The exercise on backpropagation through time: bptt."""

from collections.abc import Callable

import numpy as np

from gradlab.exercises.exercise import Array, Case, Exercise, Mistake, Part
from gradlab.exercises.jacobians import TANH_TWICE, trajectory


def bptt(
    h: Array,
    W_hh: Array,
    g: Array,
    *,
    back: Array | None = None,
    slope: Callable[[int], Array] | None = None,
    slope_back: Callable[[int], Array] | None = None,
    reads: Callable[[int], Array] | None = None,
) -> Array:
    """Return the terms k = 1…T of ∂L⁽ᵀ⁾/∂W_hh, (T, n, n).

    Args:
        h: h⁽⁰⁾ … h⁽ᵀ⁾, (T + 1, n).
        W_hh: (n, n).
        g: ∂L⁽ᵀ⁾/∂h⁽ᵀ⁾, (n,).
        back: what takes the gradient to the step before; W_hhᵀ.
        slope: φ′ at a step, of the term; 1 − h².
        slope_back: φ′ at a step, on the way back; that of the term.
        reads: what W_hh multiplies at a step; h⁽ᵏ⁻¹⁾.
    """
    back = W_hh.T if back is None else back
    slope = slope or (lambda k: 1 - h[k] ** 2)
    slope_back = slope_back or slope
    reads = reads or (lambda k: h[k - 1])
    terms, gradient = [], g  # the gradient with respect to h⁽ᵏ⁾, from k = T down
    for k in range(len(h) - 1, 0, -1):
        terms.append(np.outer(gradient * slope(k), reads(k)))
        gradient = back @ (gradient * slope_back(k))
    return np.array(terms[::-1])


def _reversed_products(h: Array, W_hh: Array, g: Array) -> Array:
    """Return the terms if the step Jacobians are multiplied in the reverse order."""
    terms, product = [], np.eye(len(g))
    for k in range(len(h) - 1, 0, -1):
        slope = 1 - h[k] ** 2
        terms.append(np.outer(slope * (product.T @ g), h[k - 1]))
        product = (slope[:, None] * W_hh) @ product
    return np.array(terms[::-1])


def _without_start(h: Array, W_hh: Array, g: Array) -> Array:
    return np.concatenate([np.zeros((1, *W_hh.shape)), bptt(h, W_hh, g)[1:]])


def _bptt_cases() -> list[Case]:
    draw = np.random.default_rng(6)
    cases = []
    for T, n in [(4, 3), (3, 2), (6, 4), (2, 3), (1, 3), (4, 1), (1, 1)]:
        cases.append(Case({"T": T, "n": n}, (*trajectory(draw, T, n), draw.normal(size=n))))
    return cases


# Mistakes within terms, which a sum of terms shows too.
WRONG_TERMS = (
    Mistake(
        {
            "en": "W_hh stands where W_hhᵀ should: a gradient goes back by the transpose, "
            "∂L/∂h⁽ᵏ⁻¹⁾ = W_hhᵀ (φ′ ⊙ ∂L/∂h⁽ᵏ⁾).",
            "es": "aparece W_hh en lugar de W_hhᵀ: un gradiente retrocede por la transpuesta, "
            "∂L/∂h⁽ᵏ⁻¹⁾ = W_hhᵀ (φ′ ⊙ ∂L/∂h⁽ᵏ⁾).",
        },
        lambda h, W_hh, g: bptt(h, W_hh, g, back=W_hh),
    ),
    Mistake(
        {
            "en": "right up to a transpose: the outer product is turned round. Rows belong to "
            "the units that W_hh drives, columns to h⁽ᵏ⁻¹⁾, which it reads.",
            "es": "correcto salvo una transposición: el producto exterior está al revés. Las "
            "filas corresponden a las unidades a las que llega W_hh; las columnas, a h⁽ᵏ⁻¹⁾, que "
            "W_hh lee.",
        },
        lambda h, W_hh, g: bptt(h, W_hh, g).swapaxes(1, 2),
    ),
    Mistake(
        {"en": "φ′ = 1 − h² is missing.", "es": "falta φ′ = 1 − h²."},
        lambda h, W_hh, g: bptt(h, W_hh, g, slope=lambda k: np.ones_like(g)),
    ),
    Mistake(
        {
            "en": "φ′ at step k is missing in the immediate derivative: the term needs "
            "1 − (h⁽ᵏ⁾)² too.",
            "es": "falta φ′ del paso k en la derivada inmediata: el término también necesita "
            "1 − (h⁽ᵏ⁾)².",
        },
        lambda h, W_hh, g: bptt(
            h, W_hh, g, slope=lambda k: np.ones_like(g), slope_back=lambda k: 1 - h[k] ** 2
        ),
    ),
    Mistake(
        {
            "en": "φ′ is missing on the way back: each step Jacobian is diag(φ′) W_hh.",
            "es": "falta φ′ en el camino de vuelta: cada jacobiana de un paso es diag(φ′) W_hh.",
        },
        lambda h, W_hh, g: bptt(h, W_hh, g, slope_back=lambda k: np.ones_like(g)),
    ),
    Mistake(
        {
            "en": "φ′ is taken at the wrong step: at step k it is 1 − (h⁽ᵏ⁾)², and "
            "1 − (h⁽ᵏ⁻¹⁾)² stands there.",
            "es": "φ′ se toma en el paso equivocado: en el paso k es 1 − (h⁽ᵏ⁾)², y aparece "
            "1 − (h⁽ᵏ⁻¹⁾)².",
        },
        lambda h, W_hh, g: bptt(h, W_hh, g, slope=lambda k: 1 - h[k - 1] ** 2),
    ),
    Mistake(
        {
            "en": "φ′ is taken at the wrong step on the way back: from h⁽ᵏ⁾ to h⁽ᵏ⁻¹⁾ it is "
            "1 − (h⁽ᵏ⁾)², and 1 − (h⁽ᵏ⁻¹⁾)² stands there.",
            "es": "φ′ se toma en el paso equivocado en el camino de vuelta: de h⁽ᵏ⁾ a h⁽ᵏ⁻¹⁾ es "
            "1 − (h⁽ᵏ⁾)², y aparece 1 − (h⁽ᵏ⁻¹⁾)².",
        },
        lambda h, W_hh, g: bptt(h, W_hh, g, slope_back=lambda k: 1 - h[k - 1] ** 2),
    ),
    Mistake(
        TANH_TWICE,
        lambda h, W_hh, g: bptt(h, W_hh, g, slope=lambda k: 1 - np.tanh(h[k]) ** 2),
    ),
    Mistake(
        {
            "en": "the immediate derivative reads h⁽ᵏ⁾; at step k, W_hh multiplies h⁽ᵏ⁻¹⁾.",
            "es": "la derivada inmediata lee h⁽ᵏ⁾; en el paso k, W_hh multiplica a h⁽ᵏ⁻¹⁾.",
        },
        lambda h, W_hh, g: bptt(h, W_hh, g, reads=lambda k: h[k]),
    ),
    Mistake(
        {
            "en": "the immediate derivative is without its input: the term is an outer product "
            "with h⁽ᵏ⁻¹⁾.",
            "es": "a la derivada inmediata le falta h⁽ᵏ⁻¹⁾: el término es un producto exterior "
            "con h⁽ᵏ⁻¹⁾.",
        },
        lambda h, W_hh, g: bptt(h, W_hh, g, reads=lambda k: np.ones_like(g)),
    ),
    Mistake(
        {
            "en": "the step Jacobians are multiplied in the reverse order; it must be "
            "J⁽ᵀ⁾ ⋯ J⁽ᵏ⁺¹⁾, the latest leftmost.",
            "es": "las jacobianas de los pasos se multiplican en el orden inverso; debe ser "
            "J⁽ᵀ⁾ ⋯ J⁽ᵏ⁺¹⁾, con la del último paso a la izquierda.",
        },
        _reversed_products,
    ),
    Mistake(
        {
            "en": "h⁽⁰⁾ is taken as 0 in the term k = 1; it is h[0].",
            "es": "se toma h⁽⁰⁾ = 0 en el término k = 1; h⁽⁰⁾ es h[0].",
        },
        _without_start,
    ),
)

BPTT = Exercise(
    name="bptt",
    signature=("h", "W_hh", "g"),
    idea={
        "en": "the terms of backpropagation through time",
        "es": "los términos de la retropropagación a través del tiempo",
    },
    question={
        "en": "For h⁽ᵗ⁾ = tanh(W_xh x⁽ᵗ⁾ + W_hh h⁽ᵗ⁻¹⁾ + b) and a loss L⁽ᵀ⁾ of h⁽ᵀ⁾ alone, "
        "compute the terms k = 1…T of ∂L⁽ᵀ⁾/∂W_hh: term k is what the use of W_hh at step k "
        "contributes, with h⁽ᵏ⁻¹⁾ held fixed.",
        "es": "Para h⁽ᵗ⁾ = tanh(W_xh x⁽ᵗ⁾ + W_hh h⁽ᵗ⁻¹⁾ + b) y una pérdida L⁽ᵀ⁾ que depende solo "
        "de h⁽ᵀ⁾, se calculan los términos k = 1…T de ∂L⁽ᵀ⁾/∂W_hh: el término k es lo que aporta "
        "el uso de W_hh en el paso k, con h⁽ᵏ⁻¹⁾ fijo.",
    },
    takes={
        "en": "h (T + 1, n), h[t] is h⁽ᵗ⁾; W_hh (n, n); g (n,), the gradient ∂L⁽ᵀ⁾/∂h⁽ᵀ⁾.",
        "es": "h (T + 1, n), h[t] es h⁽ᵗ⁾; W_hh (n, n); g (n,), el gradiente ∂L⁽ᵀ⁾/∂h⁽ᵀ⁾.",
    },
    returns={
        "en": "(T, n, n): one n × n term for each k = 1…T",
        "es": "(T, n, n): un término n × n para cada k = 1…T",
    },
    cases=_bptt_cases,
    solve=bptt,
    parts=lambda answer: [Part(f"k = {k}", term) for k, term in enumerate(answer, start=1)],
    last_first=True,
    mistakes=(
        *WRONG_TERMS,
        Mistake(
            {
                "en": "the sum of the terms is returned; each is asked for by itself.",
                "es": "se devuelve la suma de los términos; se pide cada uno por separado.",
            },
            lambda h, W_hh, g: bptt(h, W_hh, g).sum(axis=0),
        ),
        Mistake(
            {
                "en": "the terms are added up from k = T down; each is asked for by itself.",
                "es": "los términos se acumulan desde k = T hacia atrás; se pide cada uno por "
                "separado.",
            },
            lambda h, W_hh, g: bptt(h, W_hh, g)[::-1].cumsum(axis=0)[::-1],
        ),
        Mistake(
            {
                "en": "the terms are added up from k = 1 on; each is asked for by itself.",
                "es": "los términos se acumulan desde k = 1; se pide cada uno por separado.",
            },
            lambda h, W_hh, g: bptt(h, W_hh, g).cumsum(axis=0),
        ),
        Mistake(
            {
                "en": "the terms begin at k = 0; they must begin at k = 1: h⁽⁰⁾ does not depend on "
                "W_hh.",
                "es": "los términos empiezan en k = 0; deben empezar en k = 1: h⁽⁰⁾ no depende de "
                "W_hh.",
            },
            lambda h, W_hh, g: np.concatenate([np.zeros((1, *W_hh.shape)), bptt(h, W_hh, g)]),
        ),
    ),
)
