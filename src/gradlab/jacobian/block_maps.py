"""Norms of all products of block-diagonal step Jacobians, in NumPy.

The norm of a product of numbers is a sum of logarithms, in which an exact zero stays −inf; products
of 2 × 2 matrices are formed lag by lag; a larger block is measured as a network of its own. All is
in float64 with scales as logarithms, so nothing over- or underflows.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from gradlab.jacobian.arrays import own_threads
from gradlab.jacobian.carry import Span
from gradlab.jacobian.pairs import Norm, log_norm_map
from gradlab.jacobian.products import Scaled

CACHE = 2**16  # numbers that are worked on at once, which a CPU's cache holds
LEAF = 16  # steps, between which the squares of all units are added pair by pair
PAIRS_TOGETHER = 2**22  # entries of the maps of large blocks that are measured in one call
SMALL = 1e-250  # sum of squares of which underflow may have taken a part
LOG_4 = 2 * np.log(2)

Group = Int[np.ndarray, "blocks size"]  # the components of blocks of one size, ascending in each
Blocks = Float[np.ndarray, "T blocks size size"]  # of one size
Pairs = Float[np.ndarray, "K K"]  # log of squared norms, [t − 1, k] in strides; −inf where k ≥ t


def block_map(
    blocks: list[Blocks],
    groups: list[Group],
    length: int,
    *,
    norm: Norm,
    of: Span,
    wrt: Span,
    stride: int,
) -> Float[np.ndarray, "K+1 K+1"]:
    """Return the log norms of all products of block-diagonal step Jacobians, in nats.

    A sum of T logarithms is off by no more than T·1e-16 of its terms' sizes.

    Args:
        blocks: of each size; [t − 1] is part of J⁽ᵗ⁾.
        groups: the components on which they act. Each block has some of `of` and some of `wrt`.
        length: T.
        norm: "spectral", "frobenius" or "rms".
        of, wrt: rows and columns of the products that are measured.
        stride: measure every stride-th t and k only.

    Returns:
        float32 (K + 1, K + 1), K = T // stride; [t, k] in strides, −inf where k > t or the product
        is exactly zero.
    """
    count = length // stride
    join = np.maximum if norm == "spectral" else np.logaddexp
    squares = np.full((count, count), -np.inf)
    with np.errstate(divide="ignore"):
        for steps, group in zip(blocks, groups, strict=True):
            size = group.shape[1]
            modulus = _moduli(steps, group, of, wrt)
            if modulus is not None:
                logs = np.log(modulus[: count * stride]).reshape(count, stride, -1).sum(axis=1)
                measured = _largest(2 * logs) if norm == "spectral" else _total(2 * logs)
            else:
                unit, exponent = _products(steps, count, stride)
                measured = (_of_pairs if size == 2 else _of_networks)(
                    unit, exponent, group, norm, of, wrt
                )
            join(squares, measured, out=squares)
    return _with_diagonal(squares, norm, of, wrt)


def _with_diagonal(squares: Pairs, norm: Norm, of: Span, wrt: Span) -> np.ndarray:
    """Return the map, with t = k, where the product is the identity."""
    count = len(squares)
    log_norms = np.full((count + 1, count + 1), -np.inf)
    log_norms[1:, :-1] = squares / 2
    ones = max(0, min(of[1], wrt[1]) - max(of[0], wrt[0]))
    if norm == "spectral":
        ones = min(ones, 1)
    np.fill_diagonal(log_norms, 0.5 * np.log(ones) if ones else -np.inf)
    if norm == "rms":
        log_norms -= 0.5 * np.log(wrt[1] - wrt[0])
    return log_norms.astype(np.float32)


def _moduli(
    blocks: Blocks, group: Group, of: Span, wrt: Span
) -> Float[np.ndarray, "T components"] | None:
    """Return the sizes of numbers that commute with each other; None where blocks are no numbers.

    A complex number a + ib in real form is the matrix [[a, −b], [b, a]], whose singular values are
    both its modulus; products of such are such.
    """
    if group.shape[1] == 1:
        return np.abs(blocks[:, :, 0, 0])
    if group.shape[1] != 2 or not (_inside(group, of) & _inside(group, wrt)).all():
        return None
    a, b = blocks[:, :, 0, 0], blocks[:, :, 1, 0]
    if not (np.array_equal(a, blocks[:, :, 1, 1]) and np.array_equal(-b, blocks[:, :, 0, 1])):
        return None
    return np.repeat(np.hypot(a, b), 2, axis=1)


def _inside(group: Group, span: Span) -> Bool[np.ndarray, "blocks size"]:
    return (group >= span[0]) & (group < span[1])


def _largest(logs: Float[np.ndarray, "K units"]) -> Pairs:
    """Return the largest of the units' sums of logs over the steps k < i ≤ t."""
    count, units = logs.shape
    largest = np.full((count, count), -np.inf)
    tile = max(1, CACHE // units)
    for first in range(0, count, tile):
        sums = np.zeros((min(tile, count - first), units))
        for t in range(first, count):
            begun = sums[: t - first + 1]
            begun += logs[t]
            begun.max(axis=1, out=largest[t, first : first + len(begun)])
    return largest


def _total(logs: Float[np.ndarray, "K units"]) -> Pairs:
    """Return log Σ_units exp(sum of logs over the steps k < i ≤ t), by halving the time axis.

    Across a midpoint m, the sum over units of exp(logs from m to t) · exp(logs from k to m) is one
    matrix product for all t and k.
    """
    count = len(logs)
    if count <= LEAF:
        total = np.full((count, count), -np.inf)
        sums = np.zeros_like(logs)
        for t in range(count):
            sums[: t + 1] += logs[t]
            total[t, : t + 1] = _log_sum(sums[: t + 1])
        return total
    middle = count // 2
    total = np.full((count, count), -np.inf)
    total[:middle, :middle] = _total(logs[:middle])
    total[middle:, middle:] = _total(logs[middle:])
    after = np.cumsum(logs[middle:], axis=0)
    before = np.cumsum(logs[:middle][::-1], axis=0)[::-1]
    total[middle:, :middle] = _across(after, before)
    return total


def _across(
    after: Float[np.ndarray, "t units"], before: Float[np.ndarray, "k units"]
) -> Float[np.ndarray, "t k"]:
    """Return log Σ_units exp(after + before)."""
    scales = [_finite(x.max(axis=1, keepdims=True)) for x in (after, before)]
    left, right = (np.exp(x - scale) for x, scale in zip((after, before), scales, strict=True))
    squares = left @ right.T
    logs = np.log(squares) + scales[0] + scales[1].T
    alive = left.any(axis=1)[:, None] & right.any(axis=1)
    t, k = np.nonzero((squares < SMALL) & alive)
    chunk = max(1, CACHE // after.shape[1])
    for begin in range(0, len(t), chunk):
        some = t[begin : begin + chunk], k[begin : begin + chunk]
        logs[some] = _log_sum(after[some[0]] + before[some[1]])
    return logs


def _log_sum(logs: Float[np.ndarray, "pairs units"]) -> Float[np.ndarray, "pairs"]:
    highest = _finite(logs.max(axis=1))
    return np.log(np.exp(logs - highest[:, None]).sum(axis=1)) + highest


def _finite(scale: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return scales of sums, 0 for that of zeros only."""
    return np.where(np.isneginf(scale), 0, scale)


def _products(
    blocks: Blocks, count: int, stride: int
) -> tuple[Float[np.ndarray, "K blocks size size"], Int[np.ndarray, "K blocks"]]:
    """Return the products of every `stride` steps as unit · 2**exponent."""
    grouped = blocks[: count * stride].reshape(count, stride, *blocks.shape[1:])
    unit, exponent = _rescaled(grouped[:, 0], 0, (2, 3))
    for step in range(1, stride):
        unit, exponent = _rescaled(grouped[:, step] @ unit, exponent, (2, 3))
    return unit, exponent


def _rescaled(
    matrices: Float[np.ndarray, "..."], exponent: np.ndarray | int, axes: tuple[int, int]
) -> tuple[Float[np.ndarray, "..."], Int[np.ndarray, "..."]]:
    """Return matrices with largest entries from ½ to 1, and the exponents of 2 of their scales."""
    power = np.frexp(np.abs(matrices).max(axis=axes, keepdims=True))[1]
    return np.ldexp(matrices, -power), exponent + power.squeeze(axes)


def _of_pairs(
    unit: Float[np.ndarray, "K blocks 2 2"],
    exponent: Int[np.ndarray, "K blocks"],
    group: Group,
    norm: Norm,
    of: Span,
    wrt: Span,
) -> Pairs:
    """Return the squares of products of 2 × 2 matrices, all those of one lag after the other."""
    count, _ = exponent.shape
    measured = _inside(group, of)[:, :, None] & _inside(group, wrt)[:, None, :]
    steps = np.ascontiguousarray(unit.transpose(2, 3, 0, 1))  # operations are on whole arrays
    mask = None if measured.all() else measured.transpose(1, 2, 0)[:, :, None, :]
    squares = np.full((count, count), -np.inf)
    product, power = steps, exponent
    for lag in range(count):
        if lag:
            product = steps[:, 0, None, lag:] * product[0, :, :-1] + (
                steps[:, 1, None, lag:] * product[1, :, :-1]
            )
            product, power = _rescaled(product, exponent[lag:] + power[:-1], (0, 1))
        chosen = product if mask is None else product * mask
        start = np.arange(count - lag)
        squares[start + lag, start] = _joined(_squares(chosen, norm), power, norm)
    return squares


def _squares(
    matrices: Float[np.ndarray, "2 2 pairs blocks"], norm: Norm
) -> Float[np.ndarray, "pairs blocks"]:
    """Return the square of each matrix's norm."""
    (a, b), (c, d) = matrices
    columns = a**2 + c**2, b**2 + d**2
    if norm != "spectral":
        return columns[0] + columns[1]
    # The larger eigenvalue of [[p, r], [r, q]], the products of the columns.
    root = np.sqrt(((columns[0] - columns[1]) / 2) ** 2 + (a * b + c * d) ** 2)
    return (columns[0] + columns[1]) / 2 + root


def _joined(
    squares: Float[np.ndarray, "pairs blocks"], power: Int[np.ndarray, "pairs blocks"], norm: Norm
) -> Float[np.ndarray, "pairs"]:
    """Return the log of the largest of squares · 4**power, or of their sum."""
    power = np.where(squares > 0, power, -(2**40))
    highest = power.max(axis=1, keepdims=True)
    shift = np.maximum(2 * (power - highest), -2200).astype(np.int32)
    join = np.max if norm == "spectral" else np.sum
    joined = join(np.ldexp(squares, shift), axis=1)
    logs = np.log(joined) + LOG_4 * highest[:, 0]
    small = np.flatnonzero((joined < SMALL) & (squares > 0).any(axis=1))
    parts = np.log(squares[small]) + LOG_4 * power[small]
    logs[small] = parts.max(axis=1) if norm == "spectral" else _log_sum(parts)
    return logs


def _of_networks(
    unit: Float[np.ndarray, "K blocks size size"],
    exponent: Int[np.ndarray, "K blocks"],
    group: Group,
    norm: Norm,
    of: Span,
    wrt: Span,
) -> Pairs:
    """Return the squares of products of large blocks, each of which is a network of its own."""
    kind: Norm = "spectral" if norm == "spectral" else "frobenius"
    join = np.maximum if norm == "spectral" else np.logaddexp
    size = np.linalg.norm(unit, axis=(2, 3))
    steps = Scaled(
        (unit / np.where(size > 0, size, 1)[:, :, None, None]).swapaxes(0, 1),
        (np.log(size) + exponent * np.log(2)).T,
    )
    squares = np.full((len(unit), len(unit)), -np.inf)
    together = max(1, PAIRS_TOGETHER // len(unit) ** 2)
    for some, rows, columns in _alike(group, of, wrt, together):
        networks = Scaled(steps.unit[some], steps.log_scale[some])
        with own_threads():
            maps = log_norm_map(networks, kind, rows, columns).value
        for log_norms in maps:
            join(squares, 2 * log_norms[1:, :-1].astype(np.float64), out=squares)
    return squares


def _alike(
    group: Group, of: Span, wrt: Span, together: int
) -> Iterator[tuple[Int[np.ndarray, "some"], Span, Span]]:
    """Yield blocks of which the same rows and columns are measured, and these."""
    ends = np.stack([(group < end).sum(axis=1) for end in (*of, *wrt)], axis=1)
    for which in np.unique(ends, axis=0):
        alike = np.flatnonzero((ends == which).all(axis=1))
        first, last, begin, end = which.tolist()
        for i in range(0, len(alike), together):
            yield alike[i : i + together], (first, last), (begin, end)
