"""Wrong answers as students write them: the message names the place and the mistake."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from student_answers import RIGHT, bptt, lstm, product, step_jacobian, truncated, unroll

import gradlab
from gradlab.exercises import EXERCISES

Array = np.ndarray
Wrong = tuple[str, Callable[..., Any], list[str]]  # the exercise, the answer, words of the message


def unroll_by_rows(x: Array, h0: Array, W_xh: Array, W_hh: Array, b: Array) -> Array:
    h, states = h0, []
    for x_t in x:
        h = np.tanh(W_xh @ x_t + h @ W_hh + b)
        states.append(h)
    return np.array(states)


def unroll_from_zero(x: Array, h0: Array, W_xh: Array, W_hh: Array, b: Array) -> Array:
    h, states = np.zeros(len(h0)), []
    for x_t in x:
        h = np.tanh(W_xh @ x_t + W_hh @ h + b)
        states.append(h)
    return np.array(states)


def unroll_late(x: Array, h0: Array, W_xh: Array, W_hh: Array, b: Array) -> Array:
    states = [h0]
    for x_t in x[:-1]:
        states.append(np.tanh(W_xh @ x_t + W_hh @ states[-1] + b))
    return np.array(states)


def unroll_without_memory_at_3(x: Array, h0: Array, W_xh: Array, W_hh: Array, b: Array) -> Array:
    states = unroll(x, h0, W_xh, W_hh, b)
    states[2:] = 0
    return states


def stack_of_late_layer(x: Array, layers: Any) -> Array:
    (h1, A1, B1, b1), (h2, A2, B2, b2) = layers
    first, second = [], []
    for x_t in x:
        h2 = np.tanh(A2 @ h1 + B2 @ h2 + b2)  # before h1 has moved on
        h1 = np.tanh(A1 @ x_t + B1 @ h1 + b1)
        first.append(h1)
        second.append(h2)
    return np.array([first, second])


def product_forward(h: Array, W_hh: Array, t: int, k: int) -> Array:
    made = np.eye(len(W_hh))
    for s in range(k + 1, t + 1):
        made = made @ step_jacobian(h[s], W_hh)
    return made


def product_shifted(h: Array, W_hh: Array, t: int, k: int) -> Array:
    made = np.eye(len(W_hh))
    for s in range(k, t):
        made = step_jacobian(h[s], W_hh) @ made
    return made


def product_too_long(h: Array, W_hh: Array, t: int, k: int) -> Array:
    made = np.eye(len(W_hh))
    for s in range(k, t + 1):
        made = step_jacobian(h[s], W_hh) @ made
    return made


def product_without_slope(h: Array, W_hh: Array, t: int, k: int) -> Array:
    return np.linalg.matrix_power(W_hh, t - k)


def backwards(
    *,
    transposed: bool = False,
    slope_step: int = 0,
    reads_step: int = -1,
    slope: bool = True,
    inputs: bool = True,
    immediate: bool = True,
) -> Callable[..., Array]:
    """A student's loop from k = T down, with a mistake."""

    def answer(h: Array, W_hh: Array, g: Array) -> Array:
        T, d = len(h) - 1, g.copy()
        terms = np.zeros((T, *W_hh.shape))
        for k in range(T, 0, -1):
            phi = 1 - h[k + slope_step] ** 2 if slope else 1.0
            read = h[k + reads_step] if inputs else np.ones(len(g))
            terms[k - 1] = np.outer(d * phi if immediate else d, read)
            d = (W_hh if transposed else W_hh.T) @ (d * phi)
        return terms

    return answer


def shifted_terms(h: Array, W_hh: Array, g: Array) -> Array:
    terms = np.array(bptt(h, W_hh, g))
    return np.concatenate([terms[1:], np.zeros_like(terms[:1])])


def wrong_at_two(h: Array, W_hh: Array, g: Array) -> Array:
    terms = np.array(bptt(h, W_hh, g))
    if len(terms) > 2:
        terms[1] = terms[1].T
    return terms


def clip_each_entry(gradients: list[Array], threshold: float) -> list[Array]:
    return [np.clip(g, -threshold, threshold) for g in gradients]


def clip_each_array(gradients: list[Array], threshold: float) -> list[Array]:
    return [g * min(1, threshold / (np.linalg.norm(g) or 1)) for g in gradients]


def clip_always(gradients: list[Array], threshold: float) -> list[Array]:
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g * threshold / norm for g in gradients]


def clip_squared(gradients: list[Array], threshold: float) -> list[Array]:
    norm = sum((g**2).sum() for g in gradients)
    return [g * min(1, threshold / (norm or 1)) for g in gradients]


def clip_of_zeros(gradients: list[Array], threshold: float) -> list[Array]:
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g / norm * min(norm, threshold) for g in gradients]


def lstm_of(order: str, squash: Callable[[Array], Array] = np.tanh) -> Callable[..., Any]:
    def answer(x: Array, h: Array, c: Array, W: Array, b: Array) -> Any:
        a = dict(zip(order, np.split(W @ np.concatenate([h, x]) + b, 4), strict=True))
        i, f, o = (1 / (1 + np.exp(-a[gate])) for gate in "ifo")
        c = f * c + i * squash(a["g"])
        return c, o * np.tanh(c)

    return answer


WRONG: list[Wrong] = [
    ("unroll", unroll_by_rows, ["all parts differ", "W_hhᵀ stands where W_hh should"]),
    ("unroll", unroll_from_zero, ["h⁽¹⁾", "h⁽⁰⁾ is taken as 0"]),
    ("unroll", unroll_late, ["shifted by one step", "at the place of h⁽²⁾ stands our h⁽¹⁾"]),
    ("unroll", unroll_without_memory_at_3, ["Right: h⁽¹⁾, h⁽²⁾. Different: h⁽³⁾, h⁽⁴⁾"]),
    ("unroll", lambda x, h0, *w: np.vstack([h0, unroll(x, h0, *w)]), ["(5, 3)", "h⁽⁰⁾ stands"]),
    ("joined", lambda W_xh, W_hh: np.hstack([W_xh, W_hh]), ["on [x; h]"]),
    ("joined", lambda W_xh, W_hh: np.vstack([W_hh.T, W_xh.T]), ["(5, 3)", "the transpose of W"]),
    ("joined", lambda W_xh, W_hh: np.hstack([W_hh.T, W_xh]), ["Right: [:, 3:]", "W_hhᵀ"]),
    ("joined", lambda W_xh, W_hh: (W_hh, W_xh), ["returned a value of type tuple"]),
    ("stack", stack_of_late_layer, ["Right: h₁⁽¹⁾", "Different: h₂⁽¹⁾", "h₁⁽ᵗ⁻¹⁾"]),
    ("stack", lambda x, layers: unroll(x, *layers[0]), ["(4, 3)", "(2, T, n)"]),
    ("stack", lambda x, layers: RIGHT["stack"](x, layers).swapaxes(0, 1), ["(T, 2, n)"]),
    ("step_jacobian", lambda h, W_hh: W_hh * (1 - h**2), ["wrong side"]),
    ("step_jacobian", lambda h, W_hh: W_hh.T @ np.diag(1 - h**2), ["up to a transpose"]),
    ("step_jacobian", lambda h, W_hh: W_hh, ["φ′ is missing"]),
    ("step_jacobian", lambda h, W_hh: np.diag(1 - np.tanh(h) ** 2) @ W_hh, ["once more"]),
    ("step_jacobian", lambda h, W_hh: -np.diag(1 - h**2) @ W_hh, ["sign"]),
    ("step_jacobian", lambda h, W_hh: 2 * np.diag(1 - h**2) @ W_hh, ["are 2 times ours"]),
    ("product", product_forward, ["reverse order"]),
    ("product", product_shifted, ["T = 4, n = 3, t = 4, k = 1", "shifted by one step"]),
    ("product", product_too_long, ["one factor too many"]),
    ("product", product_without_slope, ["φ′ is missing"]),
    ("product", lambda h, W_hh, t, k: product(h, W_hh, t, k).T, ["up to a transpose"]),
    ("product", lambda h, W_hh, t, k: product(h, W_hh, t, k + 1 if k < t else k), ["J⁽ᵏ⁺¹⁾"]),
    (
        "bptt",
        backwards(transposed=True),
        ["Right: k = 4. Different: k = 1, k = 2, k = 3", "W_hh stands where W_hhᵀ should"],
    ),
    ("bptt", lambda *a: [term.T for term in bptt(*a)], ["up to a transpose", "outer product"]),
    ("bptt", backwards(slope=False), ["k = 4 at", "φ′ = 1 − h² is missing"]),
    ("bptt", backwards(slope_step=-1), ["φ′ is taken at the wrong step"]),
    ("bptt", backwards(reads_step=0), ["reads h⁽ᵏ⁾"]),
    ("bptt", backwards(inputs=False), ["without its input"]),
    ("bptt", backwards(immediate=False), ["φ′ at step k is missing in the immediate derivative"]),
    ("bptt", lambda *a: bptt(*a)[::-1], ["order is reversed: k = 4 stands first"]),
    ("bptt", shifted_terms, ["at the place of k = 3 stands our k = 4"]),
    ("bptt", wrong_at_two, ["Right: k = 1, k = 3, k = 4. Different: k = 2", "transpose"]),
    ("bptt", lambda *a: sum(bptt(*a)), ["(3, 3)", "one n × n term for each k", "the sum"]),
    ("bptt", lambda *a: np.cumsum(bptt(*a)[::-1], axis=0)[::-1], ["added up from k = T"]),
    ("bptt", lambda *a: np.array(bptt(*a)) * np.nan, ["not finite (NaN or infinity) (k = 4)"]),
    ("truncated", lambda h, W, g, K: truncated(h, W, g, K + 1), ["one step too long"]),
    ("truncated", lambda h, W, g, K: truncated(h, W, g, K - 1), ["one step too short"]),
    ("truncated", lambda h, W, g, K: sum(bptt(h, W, g)[:K]), ["first K terms"]),
    ("truncated", lambda h, W, g, K: sum(bptt(h, W, g)), ["nothing is truncated"]),
    ("truncated", lambda h, W, g, K: truncated(h, W, g, K) / min(K, len(h) - 1), ["the mean"]),
    ("truncated", lambda *a: sum(backwards(transposed=True)(*a[:3])[-a[3] :]), ["W_hhᵀ should"]),
    ("truncated", lambda h, W, g, K: sum(bptt(h, W, g)[len(h) - 1 - K :]), ["K = 5", "K > T"]),
    ("clip", clip_each_entry, ["each entry is clipped"]),
    ("clip", clip_each_array, ["by its own norm"]),
    ("clip", lambda g, c: clip_always(g, c) if any(map(np.any, g)) else g, ["below the threshold"]),
    ("clip", clip_squared, ["root is missing"]),
    ("clip", clip_of_zeros, ["‖g‖ = 0", "not finite", "0/0"]),
    ("clip", lambda gradients, threshold: gradients[0], ["(3, 3)"]),
    ("lstm", lstm_of("ifog"), ["read in the order i, f, o, g; it is i, f, g, o"]),
    ("lstm", lstm_of("figo"), ["read in the order f, i, g, o"]),
    ("lstm", lambda *a: lstm(*a)[::-1], ["the pair is (c, h)"]),
    ("lstm", lstm_of("ifgo", lambda a: 1 / (1 + np.exp(-a))), ["candidate g goes through σ"]),
    ("lstm", lambda *a: lstm(*a)[1], ["(3,)", "the pair (c, h)"]),
    ("forget_bias", np.log, ["log τ sets f = 1 − 1/(τ + 1)"]),
    ("forget_bias", lambda tau: np.log(tau - 1), ["log(τ − 1)"]),
    ("forget_bias", lambda tau: np.exp(-1 / tau), ["this is the gate"]),
    ("forget_bias", lambda tau: -RIGHT["forget_bias"](tau), ["sign is the opposite"]),
    ("forget_bias", lambda tau: [RIGHT["forget_bias"](tau)], ["shape (1,)", "one number"]),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_a_wrong_answer_is_told_its_mistake(
    name: str, answer: Callable[..., Any], words: list[str]
) -> None:
    outcome = gradlab.check(name, answer)
    assert not outcome
    for word in words:
        assert word in outcome.message


def test_every_exercise_has_three_wrong_answers() -> None:
    for name in EXERCISES:
        assert sum(wrong == name for wrong, _, _ in WRONG) >= 3


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("name", EXERCISES)
def test_every_mistake_is_recognised_as_itself(name: str, language: str) -> None:
    for mistake in EXERCISES[name].mistakes:
        outcome = gradlab.check(name, mistake.answer, language=language)
        assert not outcome
        assert outcome.message.endswith(mistake.words[language])
