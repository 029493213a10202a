"""Right answers as students write them, by other ways than ours."""

from typing import Any

import numpy as np

Array = np.ndarray


def unroll(x: Array, h0: Array, W_xh: Array, W_hh: Array, b: Array) -> Array:
    states = np.empty((len(x), len(h0)))
    for t in range(len(x)):
        before = h0 if t == 0 else states[t - 1]
        states[t] = np.tanh(x[t] @ W_xh.T + before @ W_hh.T + b)
    return states


def joined(W_xh: Array, W_hh: Array) -> Array:
    return np.concatenate((W_hh, W_xh), axis=1)


def stack(x: Array, layers: Any) -> Array:
    return np.stack([unroll(x, *layers[0]), unroll(unroll(x, *layers[0]), *layers[1])])


def step_jacobian(h: Array, W_hh: Array) -> Array:
    return np.diag(1 - h**2) @ W_hh


def product(h: Array, W_hh: Array, t: int, k: int) -> Array:
    if t == k:
        return np.eye(len(W_hh))
    return step_jacobian(h[t], W_hh) @ product(h, W_hh, t - 1, k)


def bptt(h: Array, W_hh: Array, g: Array) -> list[Array]:
    T = len(h) - 1
    return [
        np.outer((1 - h[k] ** 2) * (product(h, W_hh, T, k).T @ g), h[k - 1])
        for k in range(1, T + 1)
    ]


def truncated(h: Array, W_hh: Array, g: Array, K: int) -> Array:
    T = len(h) - 1
    return sum(bptt(h, W_hh, g)[max(T - K, 0) :], np.zeros_like(W_hh))


def clip(gradients: list[Array], threshold: float) -> tuple[Array, ...]:
    norm = np.linalg.norm(np.concatenate([g.ravel() for g in gradients]))
    return tuple(g * min(1.0, threshold / max(norm, 1e-300)) for g in gradients)


def lstm(x: Array, h: Array, c: Array, W: Array, b: Array) -> list[Array]:
    n = len(h)
    a = W[:, :n] @ h + W[:, n:] @ x + b
    gate = 1 / (1 + np.exp(-a))
    c = gate[n : 2 * n] * c + gate[:n] * np.tanh(a[2 * n : 3 * n])
    return [c, gate[3 * n :] * np.tanh(c)]


def forget_bias(tau: float) -> float:
    f = np.exp(-1 / tau)
    return np.log(f / (1 - f))


RIGHT = {
    function.__name__: function
    for function in (
        *(unroll, joined, stack, step_jacobian, product),
        *(bptt, truncated, clip, lstm, forget_bias),
    )
}
