"""JAX's operations that put the elements of their operands at other places, in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np


def _broadcast(parameters: dict[str, Any], x: np.ndarray, *sizes: np.ndarray) -> np.ndarray:
    shape, axes = parameters["shape"], parameters["broadcast_dimensions"]
    kept = [x.shape[axes.index(i)] if i in axes else 1 for i in range(len(shape))]
    return np.broadcast_to(x.reshape(kept), shape)


def _pad(parameters: dict[str, Any], x: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Return jax.lax.pad's result, which crops where a number is negative."""
    low, high, between = np.array(parameters["padding_config"]).reshape(-1, 3).T
    inner = np.maximum(np.array(x.shape) + (np.array(x.shape) - 1) * between, 0)
    padded = np.full(inner + np.maximum(low, 0) + np.maximum(high, 0), padding)
    begin = np.maximum(low, 0)
    places = zip(begin, begin + inner, between + 1, strict=True)
    padded[tuple(slice(*place) for place in places)] = x
    crop = zip(np.maximum(-low, 0), padded.shape - np.maximum(-high, 0), strict=True)
    return padded[tuple(slice(*place) for place in crop)]


def _slice(parameters: dict[str, Any], x: np.ndarray) -> np.ndarray:
    starts, limits = parameters["start_indices"], parameters["limit_indices"]
    strides = parameters["strides"] or [1] * x.ndim
    return x[tuple(map(slice, starts, limits, strides))]


MOVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda p, *x: np.concatenate(x, p["dimension"]),
    "pad": _pad,
    "reshape": lambda p, x: x.reshape(p["new_sizes"]),
    "rev": lambda p, x: np.flip(x, p["dimensions"]),
    "slice": _slice,
    "split": lambda p, x: np.split(x, np.cumsum(p["sizes"])[:-1], p["axis"]),
    "stack": lambda p, *x: np.stack(x, p["axis"]),
    "squeeze": lambda p, x: x.squeeze(tuple(p["dimensions"])),
    "tile": lambda p, x: np.tile(x, p["reps"]),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
    "unstack": lambda p, x: list(np.moveaxis(x, p["axis"], 0)),
}
