"""The exercise on a gradient's size: clip."""

from collections.abc import Callable, Sequence

import numpy as np

from gradlab.exercises.exercise import Array, Case, Exercise, Mistake, Part

Norm = Callable[[Sequence[Array]], float]


def global_norm(gradients: Sequence[Array]) -> float:
    """Return the norm of all arrays together, as if they were one vector."""
    return float(np.sqrt(sum(np.sum(g**2) for g in gradients)))


def clip(
    gradients: Sequence[Array],
    threshold: float,
    norm: Norm = global_norm,
) -> list[Array]:
    """Return the gradients, scaled to the threshold if their norm is larger."""
    size = norm(gradients)
    return [g * threshold / size if size > threshold else g for g in gradients]


def _cases() -> list[Case]:
    draw = np.random.default_rng(8)
    shapes: list[list[tuple[int, ...]]] = [[(3, 3), (3, 2), (3,)], [(2, 4), (2,)], [(4,)], [(1,)]]
    cases = []
    for share in (0.4, 2.5, 0.9):  # of the norm: the threshold
        for sizes in shapes:
            gradients = [draw.normal(size=size) for size in sizes]
            cases.append(_case(gradients, share * global_norm(gradients)))
    cases.append(_case([np.zeros((2, 2)), np.zeros(2)], 1.0))
    return cases


def _case(gradients: list[Array], threshold: float) -> Case:
    about = {"len(gradients)": len(gradients), "‖g‖": global_norm(gradients)}
    return Case(about | {"threshold": threshold}, (gradients, threshold))


def _each(gradients: Sequence[Array], threshold: float) -> list[Array]:
    return [clip([g], threshold)[0] for g in gradients]


CLIP = Exercise(
    name="clip",
    signature=("gradients", "threshold"),
    idea={
        "en": "a gradient clipped by its global norm",
        "es": "el recorte por umbral de la norma global",
    },
    question={
        "en": "Clip a gradient: if ‖g‖, the norm of all its arrays together, exceeds the "
        "threshold, multiply every array by threshold/‖g‖; if not, leave them as they are.",
        "es": "Se recorta un gradiente: si ‖g‖, la norma de todos sus arreglos juntos, supera el "
        "umbral, cada arreglo se multiplica por umbral/‖g‖; si no, quedan como están.",
    },
    takes={
        "en": "gradients, a list of arrays of any shapes; threshold > 0.",
        "es": "gradients, una lista de arreglos de cualquier forma; threshold > 0, el umbral.",
    },
    returns={
        "en": "a list of as many arrays, of the same shapes",
        "es": "una lista de otros tantos arreglos, de las mismas formas",
    },
    cases=_cases,
    solve=clip,
    parts=lambda answer: [Part(f"gradients[{i}]", np.asarray(g)) for i, g in enumerate(answer)],
    mistakes=(
        Mistake(
            {
                "en": "each entry is clipped by itself, which changes the gradient's direction; "
                "the norm is to be bounded.",
                "es": "se recorta cada elemento por separado, lo que cambia la dirección del "
                "gradiente; lo que se limita es la norma.",
            },
            lambda gradients, threshold: [np.clip(g, -threshold, threshold) for g in gradients],
        ),
        Mistake(
            {
                "en": "each array is clipped by its own norm; one norm of all arrays is asked for.",
                "es": "cada arreglo se recorta por su propia norma; se pide una sola norma de "
                "todos los arreglos.",
            },
            _each,
        ),
        Mistake(
            {
                "en": "a gradient below the threshold is scaled too; it must stay as it is.",
                "es": "también se escala un gradiente que está por debajo del umbral; debe quedar "
                "como está.",
            },
            lambda gradients, threshold: [
                g * threshold / (global_norm(gradients) or 1.0) for g in gradients
            ],
        ),
        Mistake(
            {
                "en": "the root is missing: the squared norm stands where the norm should.",
                "es": "falta la raíz: aparece el cuadrado de la norma en lugar de la norma.",
            },
            lambda gradients, threshold: clip(
                gradients, threshold, lambda arrays: global_norm(arrays) ** 2
            ),
        ),
        Mistake(
            {
                "en": "the norms of the arrays are added; their squares are to be added.",
                "es": "se suman las normas de los arreglos; hay que sumar sus cuadrados.",
            },
            lambda gradients, threshold: clip(
                gradients, threshold, lambda arrays: sum(global_norm([g]) for g in arrays)
            ),
        ),
        Mistake(
            {
                "en": "the largest of the arrays' norms is used; their squares are to be added.",
                "es": "se usa la mayor de las normas de los arreglos; hay que sumar sus cuadrados.",
            },
            lambda gradients, threshold: clip(
                gradients, threshold, lambda arrays: max(global_norm([g]) for g in arrays)
            ),
        ),
        Mistake(
            {
                "en": "the largest entry is used as the norm; it is √(sum of squares).",
                "es": "se usa el mayor elemento como norma; la norma es √(suma de cuadrados).",
            },
            lambda gradients, threshold: clip(
                gradients, threshold, lambda arrays: max(float(np.abs(g).max()) for g in arrays)
            ),
        ),
        Mistake(
            {
                "en": "the gradient is divided by its norm, to 1; it is to be scaled to the "
                "threshold.",
                "es": "el gradiente se divide por su norma, es decir, se lleva a 1; hay que "
                "escalarlo al umbral.",
            },
            lambda gradients, threshold: [
                g / global_norm(gradients) if global_norm(gradients) > threshold else g
                for g in gradients
            ],
        ),
        Mistake(
            {
                "en": "the comparison is the wrong way round: what exceeds the threshold stays, "
                "and what does not is scaled.",
                "es": "la comparación está al revés: lo que supera el umbral queda como está, y lo "
                "que no lo supera se escala.",
            },
            lambda gradients, threshold: [
                g * threshold / global_norm(gradients)
                if 0 < global_norm(gradients) <= threshold
                else g
                for g in gradients
            ],
        ),
        Mistake(
            {
                "en": "nothing is clipped.",
                "es": "no se recorta nada.",
            },
            lambda gradients, threshold: list(gradients),
        ),
        Mistake(
            {
                "en": "0/0: a gradient of zeros has norm 0, and is to stay as it is.",
                "es": "0/0: un gradiente de ceros tiene norma 0 y debe quedar como está.",
            },
            lambda gradients, threshold: [
                g / np.float64(global_norm(gradients)) * min(global_norm(gradients), threshold)
                for g in gradients
            ],
        ),
    ),
)
