"""Exercises on ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾: step_jacobian, product."""

from functools import reduce

import numpy as np

from gradlab.exercises.exercise import Array, Case, Exercise, Mistake, Words, recurrent_weights

TRANSPOSED_WEIGHTS: Words = {
    "en": "W_hhᵀ stands where W_hh should.",
    "es": "aparece W_hhᵀ en lugar de W_hh.",
}
TANH_TWICE: Words = {
    "en": "tanh is applied once more: h is already tanh(…), so that φ′ = 1 − h².",
    "es": "se aplica tanh una vez más: h ya es tanh(…), de modo que φ′ = 1 − h².",
}


def step_jacobian(h: Array, W_hh: Array) -> Array:
    """Return ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ of a step that has led to h⁽ᵗ⁾, (n, n)."""
    return (1 - h**2)[:, None] * W_hh


def product(h: Array, W_hh: Array, t: int, k: int) -> Array:
    """Return ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ = J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾, the identity if t = k."""
    return _chain([step_jacobian(h[s], W_hh) for s in range(t, k, -1)], len(W_hh))


def trajectory(draw: np.random.Generator, T: int, n: int) -> tuple[Array, Array]:
    """Draw W_hh, and run h⁽⁰⁾ … h⁽ᵀ⁾ of a network that has it, (T + 1, n)."""
    W_hh, states = recurrent_weights(draw, n), [draw.uniform(-0.9, 0.9, n)]
    for _ in range(T):
        states.append(np.tanh(W_hh @ states[-1] + draw.normal(size=n)))
    return np.array(states), W_hh


def _chain(factors: list[Array], n: int) -> Array:
    return reduce(np.matmul, factors, np.eye(n))


def _step_cases() -> list[Case]:
    draw = np.random.default_rng(4)
    cases = []
    for n in (3, 2, 5, 1):
        h, W_hh = trajectory(draw, 1, n)
        cases.append(Case({"n": n}, (h[1], W_hh)))
    return cases


def _product_cases() -> list[Case]:
    draw = np.random.default_rng(5)
    cases = []
    for T, n, t, k in [
        (4, 3, 4, 1),
        (4, 3, 2, 1),
        (4, 3, 3, 3),
        (5, 2, 4, 0),
        (3, 4, 3, 0),
        (1, 3, 1, 0),
        (4, 1, 4, 1),
        (1, 1, 0, 0),
    ]:
        h, W_hh = trajectory(draw, T, n)
        cases.append(Case({"T": T, "n": n, "t": t, "k": k}, (h, W_hh, t, k)))
    return cases


STEP_JACOBIAN = Exercise(
    name="step_jacobian",
    signature=("h", "W_hh"),
    idea={"en": "the Jacobian of one step", "es": "la jacobiana de un paso"},
    question={
        "en": "Compute ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ of h⁽ᵗ⁾ = tanh(W_xh x⁽ᵗ⁾ + W_hh h⁽ᵗ⁻¹⁾ + b), given h = h⁽ᵗ⁾. "
        "Row i has the derivatives of unit i.",
        "es": "Se calcula ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾ de h⁽ᵗ⁾ = tanh(W_xh x⁽ᵗ⁾ + W_hh h⁽ᵗ⁻¹⁾ + b), dado h = "
        "h⁽ᵗ⁾. La fila i contiene las derivadas de la unidad i.",
    },
    takes={
        "en": "h (n,), the state after the step; W_hh (n, n).",
        "es": "h (n,), el estado después del paso; W_hh (n, n).",
    },
    returns={"en": "(n, n): ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾", "es": "(n, n): ∂h⁽ᵗ⁾/∂h⁽ᵗ⁻¹⁾"},
    cases=_step_cases,
    solve=step_jacobian,
    mistakes=(
        Mistake(
            {
                "en": "φ′ is on the wrong side: it scales the columns of W_hh and must scale the "
                "rows, diag(φ′) W_hh.",
                "es": "φ′ está en el lado equivocado: escala las columnas de W_hh y debe escalar "
                "las filas, diag(φ′) W_hh.",
            },
            lambda h, W_hh: W_hh * (1 - h**2),
        ),
        Mistake(
            {
                "en": "right up to a transpose: this is the matrix by which backpropagation "
                "multiplies, W_hhᵀ diag(φ′).",
                "es": "correcto salvo una transposición: esta es la matriz por la que multiplica "
                "la retropropagación, W_hhᵀ diag(φ′).",
            },
            lambda h, W_hh: step_jacobian(h, W_hh).T,
        ),
        Mistake(
            TRANSPOSED_WEIGHTS,
            lambda h, W_hh: step_jacobian(h, W_hh.T),
        ),
        Mistake(
            {
                "en": "φ′ is missing: this is W_hh alone.",
                "es": "falta φ′: esto es solo W_hh.",
            },
            lambda h, W_hh: W_hh,
        ),
        Mistake(
            TANH_TWICE,
            lambda h, W_hh: (1 - np.tanh(h) ** 2)[:, None] * W_hh,
        ),
        Mistake(
            {
                "en": "h (1 − h) is the derivative of the logistic function; tanh has 1 − h².",
                "es": "h (1 − h) es la derivada de la función logística; la de tanh es 1 − h².",
            },
            lambda h, W_hh: (h * (1 - h))[:, None] * W_hh,
        ),
        Mistake(
            {
                "en": "the square is missing: φ′ = 1 − h².",
                "es": "falta el cuadrado: φ′ = 1 − h².",
            },
            lambda h, W_hh: (1 - h)[:, None] * W_hh,
        ),
        Mistake(
            {
                "en": "the product of the two is a vector; diag(φ′) W_hh is a matrix.",
                "es": "el producto de los factores es un vector; diag(φ′) W_hh es una matriz.",
            },
            lambda h, W_hh: (1 - h**2) @ W_hh,
        ),
    ),
)
PRODUCT = Exercise(
    name="product",
    signature=("h", "W_hh", "t", "k"),
    idea={
        "en": "∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ as a product of step Jacobians",
        "es": "∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ como producto de jacobianas de un paso",
    },
    question={
        "en": "Compute ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ = J⁽ᵗ⁾ J⁽ᵗ⁻¹⁾ ⋯ J⁽ᵏ⁺¹⁾, with J⁽ˢ⁾ = ∂h⁽ˢ⁾/∂h⁽ˢ⁻¹⁾ as in "
        "step_jacobian. If t = k it is the identity.",
        "es": "Se calcula ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ = J⁽ᵗ⁾ J⁽ᵗ⁻¹⁾ ⋯ J⁽ᵏ⁺¹⁾, con J⁽ˢ⁾ = ∂h⁽ˢ⁾/∂h⁽ˢ⁻¹⁾ como en "
        "step_jacobian. Si t = k es la identidad.",
    },
    takes={
        "en": "h (T + 1, n), h[t] is h⁽ᵗ⁾; W_hh (n, n); t and k, 0 ≤ k ≤ t ≤ T.",
        "es": "h (T + 1, n), h[t] es h⁽ᵗ⁾; W_hh (n, n); t y k, 0 ≤ k ≤ t ≤ T.",
    },
    returns={"en": "(n, n): ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾", "es": "(n, n): ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾"},
    cases=_product_cases,
    solve=product,
    mistakes=(
        Mistake(
            {
                "en": "the factors stand in the reverse order: the latest, J⁽ᵗ⁾, must be leftmost.",
                "es": "los factores están en el orden inverso: J⁽ᵗ⁾, el del último paso, debe "
                "estar a la izquierda.",
            },
            lambda h, W_hh, t, k: _chain(
                [step_jacobian(h[s], W_hh) for s in range(k + 1, t + 1)], len(W_hh)
            ),
        ),
        Mistake(
            {
                "en": "right up to a transpose: this is (∂h⁽ᵗ⁾/∂h⁽ᵏ⁾)ᵀ.",
                "es": "correcto salvo una transposición: esto es (∂h⁽ᵗ⁾/∂h⁽ᵏ⁾)ᵀ.",
            },
            lambda h, W_hh, t, k: product(h, W_hh, t, k).T,
        ),
        Mistake(
            TRANSPOSED_WEIGHTS,
            lambda h, W_hh, t, k: product(h, W_hh.T, t, k),
        ),
        Mistake(
            {
                "en": "the factors are shifted by one step: J⁽ᵗ⁻¹⁾ ⋯ J⁽ᵏ⁾ stands where "
                "J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾ should.",
                "es": "los factores están desplazados un paso: aparece J⁽ᵗ⁻¹⁾ ⋯ J⁽ᵏ⁾ en lugar "
                "de J⁽ᵗ⁾ ⋯ J⁽ᵏ⁺¹⁾.",
            },
            lambda h, W_hh, t, k: product(np.roll(h, 1, axis=0), W_hh, t, k),
        ),
        Mistake(
            {
                "en": "one factor too many: J⁽ᵏ⁾ is part of it, and the last must be J⁽ᵏ⁺¹⁾.",
                "es": "sobra un factor: está incluido J⁽ᵏ⁾, y el último debe ser J⁽ᵏ⁺¹⁾.",
            },
            lambda h, W_hh, t, k: product(h, W_hh, t, k) @ step_jacobian(h[k], W_hh),
        ),
        Mistake(
            {
                "en": "one factor is missing: J⁽ᵗ⁾.",
                "es": "falta un factor: J⁽ᵗ⁾.",
            },
            lambda h, W_hh, t, k: product(h, W_hh, max(t - 1, k), k),
        ),
        Mistake(
            {
                "en": "one factor is missing: J⁽ᵏ⁺¹⁾.",
                "es": "falta un factor: J⁽ᵏ⁺¹⁾.",
            },
            lambda h, W_hh, t, k: product(h, W_hh, t, min(k + 1, t)),
        ),
        Mistake(
            {
                "en": "φ′ is missing: this is W_hh to the power t − k.",
                "es": "falta φ′: esto es W_hh elevada a t − k.",
            },
            lambda h, W_hh, t, k: np.linalg.matrix_power(W_hh, t - k),
        ),
        Mistake(
            {
                "en": "the factors are multiplied entry by entry (*); a product of matrices is @.",
                "es": "los factores se multiplican elemento a elemento (*); el producto de "
                "matrices es @.",
            },
            lambda h, W_hh, t, k: reduce(
                np.multiply,
                [step_jacobian(h[s], W_hh) for s in range(t, k, -1)],
                np.ones_like(W_hh),
            ),
        ),
        Mistake(
            {
                "en": "φ′ is on the wrong side: each factor must be diag(φ′) W_hh.",
                "es": "φ′ está en el lado equivocado: cada factor debe ser diag(φ′) W_hh.",
            },
            lambda h, W_hh, t, k: _chain(
                [W_hh * (1 - h[s] ** 2) for s in range(t, k, -1)], len(W_hh)
            ),
        ),
    ),
)
