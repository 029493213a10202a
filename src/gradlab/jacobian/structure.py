"""On which components of a vector the results of a function depend, read off its operations.

Every array that the function computes is followed with the set of components that can move each of
its elements, and with the elements that are zero whatever comes in (those of a masked or
block-diagonal weight matrix). An operation without a rule of its own is taken to mix all that goes
into it. So what is found to be independent is so at every state and input: nothing is sampled, and
nothing is compiled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PyTree, UInt8

from gradlab.jacobian.closure import CALLS, Closure
from gradlab.jacobian.moves import MOVES

Sets = UInt8[np.ndarray, "*shape bytes"]  # of components, a bit for each
Support = Bool[np.ndarray, "*shape"]
GATHERED = 2**24  # bytes of sets that a contraction has in memory at once
FULL = 0.9  # share of a matrix's row that can be other than zero, from which all of it counts

REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod"}
CUMULATIONS = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"}
SUMS = {"add", "sub", "add_any", "select_n"}
PRODUCTS = {"mul", "div"}
OF_ZERO_IS_ZERO = {"neg", "abs", "sign", "sqrt", "cbrt", "square", "sin", "tan", "tanh", "sinh"}
OF_ZERO_IS_ZERO |= {"asin", "atan", "asinh", "atanh", "expm1", "log1p", "erf", "floor", "ceil"}
OF_ZERO_IS_ZERO |= {"round", "real", "imag", "conj", "convert_element_type", "copy", "copy_p"}
ELEMENTWISE = {"max", "min", "pow", "integer_pow", "rem", "atan2", "exp", "exp2", "log", "rsqrt"}
ELEMENTWISE |= {"logistic", "cos", "cosh", "acos", "acosh", "erfc", "erf_inv", "lgamma", "digamma"}
ELEMENTWISE |= {"nextafter", "complex", "clamp", "reduce_precision", "is_finite", "eq", "ne", "lt"}
ELEMENTWISE |= {"le", "gt", "ge", "and", "or", "xor", "not", *OF_ZERO_IS_ZERO, *SUMS, *PRODUCTS}


class Traced(NamedTuple):
    """Facts about an array that hold at every state and input.

    Attributes:
        shape: of the array.
        sets: the components that can move each element; None where none moves any.
        support: the elements that can be other than zero; None where all can.
    """

    shape: tuple[int, ...]
    sets: Sets | None = None
    support: Support | None = None


@dataclass(frozen=True)
class Moving:
    """The argument, a vector of `size` components, whose way through a function is followed."""

    size: int


def dependence(function: Closure, *arguments: PyTree) -> Bool[np.ndarray, "m n"]:
    """Return on which of a vector's components each element of a function's first result depends.

    Args:
        function: its first result is a vector of m numbers.
        arguments: those of the function: one `Moving` in the place of the vector, arrays whose
            values are known, and jax.ShapeDtypeStruct for all others.

    Returns:
        (m, n); [i, j] is False where the derivative of element i with respect to component j is
        zero, whatever the unknown arguments and the vector are.
    """
    leaves = jax.tree.leaves(arguments)
    (n,) = (leaf.size for leaf in leaves if isinstance(leaf, Moving))
    traced = [*map(_constant, function.constants), *map(_argument, leaves)]
    result, *_ = _follow(function.program.jaxpr, traced)
    if result.sets is None:
        return np.zeros((*result.shape, n), bool)
    return np.unpackbits(result.sets, axis=1, count=n).view(bool)


def _argument(value: Any) -> Traced:
    if isinstance(value, Moving):
        return Traced((value.size,), np.packbits(np.eye(value.size, dtype=bool), axis=1))
    return Traced(value.shape) if isinstance(value, jax.ShapeDtypeStruct) else _constant(value)


def _follow(jaxpr: jex.Jaxpr, arguments: Sequence[Traced]) -> list[Traced]:
    """Return what is known of a program's results."""
    variables = [*jaxpr.constvars, *jaxpr.invars]
    known: dict[Any, Traced] = dict(zip(variables, arguments, strict=True))

    def read(atom: Any) -> Traced:
        return _constant(np.asarray(atom.val)) if isinstance(atom, jex.Literal) else known[atom]

    for equation in jaxpr.eqns:
        results = _apply(equation, list(map(read, equation.invars)))
        for variable, result in zip(equation.outvars, results, strict=True):
            # No derivative passes a boolean, an integer or a random key.
            kind: Any = variable.aval
            passes = jnp.issubdtype(kind.dtype, jnp.inexact)
            known[variable] = result if passes else result._replace(sets=None)
    return list(map(read, jaxpr.outvars))


def _apply(equation: jex.JaxprEqn, operands: list[Traced]) -> list[Traced]:
    """Return what is known of an operation's results."""
    name, parameters = equation.primitive.name, equation.params
    results: list[Any] = [variable.aval for variable in equation.outvars]
    shapes = [result.shape for result in results]
    if name in CALLS and (function := _called(parameters, len(operands))) is not None:
        return _follow(function.jaxpr, [*map(_constant, function.consts), *operands])
    if name == "cond":
        branches = [
            _follow(branch.jaxpr, [*map(_constant, branch.consts), *operands[1:]])
            for branch in parameters["branches"]
        ]
        return [_either(results) for results in zip(*branches, strict=True)]
    if all(operand.sets is None and operand.support is None for operand in operands):
        return [Traced(shape) for shape in shapes]
    if name in MOVES:
        return _moved(MOVES[name], operands, parameters)
    if name in ELEMENTWISE and all(_stretches(x.shape, shapes[0]) for x in operands):
        return [_elementwise(name, [_filled(operand, shapes[0]) for operand in operands])]
    moving = [operand for operand in operands if operand.sets is not None]
    if not moving or name == "stop_gradient":
        return [Traced(shape) for shape in shapes]
    if name == "dot_general":
        left, right = operands
        return [Traced(shapes[0], _contraction(left, right, parameters["dimension_numbers"]))]
    if name in REDUCTIONS:
        return [Traced(shapes[0], _joined(moving[0], parameters["axes"]))]
    if name in CUMULATIONS:
        axis = parameters["axis"]
        along = np.expand_dims(_joined(moving[0], (axis,)), axis)
        return [Traced(shapes[0], _spread(along, shapes[0]))]
    mixed = _union([_joined(x, range(len(x.shape))) for x in moving])
    return [Traced(shape, None if mixed is None else _spread(mixed, shape)) for shape in shapes]


def _constant(value: Any) -> Traced:
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):  # random keys
        return Traced(value.shape)
    nonzero = np.asarray(value) != 0
    return Traced(value.shape, None, None if nonzero.all() else nonzero)


def _called(parameters: dict[str, Any], count: int) -> jex.ClosedJaxpr | None:
    """Return the operations of a function that is called on all the operands as they are."""
    for value in parameters.values():
        if isinstance(value, jex.ClosedJaxpr) and len(value.jaxpr.invars) == count:
            return value
        if isinstance(value, jex.Jaxpr) and len(value.invars) == count and not value.constvars:
            return jex.ClosedJaxpr(value, [])
    return None


def _either(results: Sequence[Traced]) -> Traced:
    """Return what is known of a sum of arrays of one shape, or of any one of them."""
    supports = [x.support for x in results if x.support is not None]
    support = np.any(supports, axis=0) if len(supports) == len(results) else None
    return Traced(results[0].shape, _union([x.sets for x in results]), support)


def _elementwise(name: str, operands: list[Traced]) -> Traced:
    first, *others = operands
    if name in SUMS:
        return _either(others if name == "select_n" else operands)
    if name in PRODUCTS:
        # d(ab) = a db + b da and d(a/b) = (da − a db / b) / b: a zero a keeps b's components out.
        second = others[0]
        of_first = _where(second.support, first.sets) if name == "mul" else first.sets
        supports = [x.support for x in ((first, second) if name == "mul" else (first,))]
        known = [support for support in supports if support is not None]
        support = np.all(known, axis=0) if known else None
        return Traced(first.shape, _union([of_first, _where(first.support, second.sets)]), support)
    support = first.support if name in OF_ZERO_IS_ZERO else None
    return Traced(first.shape, _union([x.sets for x in operands]), support)


def _stretches(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Return whether an array is a scalar, or of the shape `to` but for axes of size 1."""
    ranks_fit = len(shape) in (0, len(to))
    return ranks_fit and all(size in (1, whole) for size, whole in zip(shape, to, strict=False))


def _filled(operand: Traced, shape: tuple[int, ...]) -> Traced:
    """Return an array of a shape as it is, or a scalar or axes of size 1 in all of it."""
    if operand.shape == shape:
        return operand
    sets = None if operand.sets is None else _spread(operand.sets, shape)
    support = None if operand.support is None else np.broadcast_to(operand.support, shape)
    return Traced(shape, sets, support)


def _spread(sets: Sets, shape: tuple[int, ...]) -> Sets:
    return np.broadcast_to(sets, (*shape, sets.shape[-1]))


def _where(support: Support | None, sets: Sets | None) -> Sets | None:
    if support is None or sets is None:
        return sets
    return np.where(support[..., None], sets, np.uint8(0))


def _union(sets: Sequence[Sets | None]) -> Sets | None:
    known = [x for x in sets if x is not None]
    if not known:
        return None
    union = known[0]
    for other in known[1:]:
        union = union | other
    return union


def _joined(operand: Traced, axes: Sequence[int]) -> Sets:
    """Return the unions of the sets along axes, which drop out."""
    assert operand.sets is not None
    sets = operand.sets
    for axis in sorted(axes, reverse=True):
        sets = np.bitwise_or.reduce(sets, axis=axis)
    return sets


def _moved(
    move: Callable[..., Any], operands: list[Traced], parameters: dict[str, Any]
) -> list[Traced]:
    """Return what is known of arrays whose elements are those of the operands at other places."""
    numbers, count = [], 0
    for operand in operands:
        numbers.append(np.arange(count, count + prod(operand.shape)).reshape(operand.shape))
        count += numbers[-1].size
    moved = move(parameters, *numbers)
    origins: list[np.ndarray] = moved if isinstance(moved, list) else [moved]
    sets, support = None, None
    if any(operand.sets is not None for operand in operands):
        width = max(x.sets.shape[-1] for x in operands if x.sets is not None)
        empty = np.zeros(width, np.uint8)
        rows = [_spread(empty, x.shape) if x.sets is None else x.sets for x in operands]
        sets = np.concatenate([x.reshape(-1, width) for x in rows])
    if any(operand.support is not None for operand in operands):
        flags = [np.ones(x.shape, bool) if x.support is None else x.support for x in operands]
        support = np.concatenate([x.reshape(-1) for x in flags])
    return [
        Traced(
            origin.shape,
            None if sets is None else sets[origin],
            None if support is None else support[origin],
        )
        for origin in origins
    ]


def _contraction(left: Traced, right: Traced, dimensions: Any) -> Sets | None:
    """Return the sets of jax.lax.dot_general's result, whose axes are batch, left and right."""
    (left_axes, right_axes), (left_batch, right_batch) = dimensions
    shape = [left.shape[i] for i in left_batch]
    for operand, used in ((left, (*left_axes, *left_batch)), (right, (*right_axes, *right_batch))):
        shape += [size for i, size in enumerate(operand.shape) if i not in used]
    left = _as_batch_of_matrices(left, left_batch, left_axes)
    right = _as_batch_of_matrices(right, right_batch, right_axes)
    of_right = _through_matrix(right, left)
    union = _union(
        [_through_matrix(left, right), None if of_right is None else of_right.swapaxes(1, 2)]
    )
    return None if union is None else union.reshape(*shape, union.shape[-1])


def _as_batch_of_matrices(
    operand: Traced, batch: Sequence[int], contracted: Sequence[int]
) -> Traced:
    """Return an operand of a contraction with axes (batch, free, contracted)."""
    free = [i for i in range(len(operand.shape)) if i not in (*batch, *contracted)]
    shape = tuple(prod(operand.shape[i] for i in axes) for axes in (batch, free, contracted))
    order = [*batch, *free, *contracted]
    sets, support = operand.sets, operand.support
    if sets is not None:
        sets = sets.transpose(*order, sets.ndim - 1).reshape(*shape, sets.shape[-1])
    if support is not None:
        support = support.transpose(order).reshape(shape)
    return Traced(shape, sets, support)


def _through_matrix(moving: Traced, matrix: Traced) -> Sets | None:
    """Return, for the sum Σ_c moving[b, f, c] · matrix[b, g, c], the sets [b, f, g] of `moving`."""
    if moving.sets is None:
        return None
    batch, free, _ = moving.shape
    rows, width = matrix.shape[1], moving.sets.shape[-1]
    whole = np.broadcast_to(_joined(moving, (2,))[:, :, None], (batch, free, rows, width))
    if matrix.support is None:
        return whole
    share = matrix.support.mean(axis=2)
    result = np.where(share[:, None, :, None] > FULL, whole, np.uint8(0))
    for b, (sets, support) in enumerate(zip(moving.sets, matrix.support, strict=True)):
        filled = np.flatnonzero((share[b] > 0) & (share[b] <= FULL))
        step = max(1, GATHERED // max(1, free * support.shape[1] * width))
        for begin in range(0, len(filled), step):
            some = filled[begin : begin + step]
            row, column = np.nonzero(support[some])
            starts = np.flatnonzero(np.diff(row, prepend=-1))
            result[b][:, some] = np.bitwise_or.reduceat(sets[:, column], starts, axis=1)
    return result
