"""Find how a function depends on arguments: complex-linearly, real-linearly or otherwise.

The function is traced and its operations are followed, so the answer holds for all values of the
arguments, and is known where these are not.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import PyTree

from gradlab.jacobian.closure import called


class Dependence(IntEnum):
    """A result's dependence on arguments; that of several results is the greatest of theirs."""

    NONE = 0
    COMPLEX_LINEAR = 1  # f(a u + b v) = a f(u) + b f(v) for complex a and b
    REAL_LINEAR = 2  # for real ones only: f takes a conjugate, a real or an imaginary part
    UNKNOWN = 3  # through an operation that is in none of the lists below
    NONLINEAR = 4


NONE, COMPLEX_LINEAR, REAL_LINEAR, UNKNOWN, NONLINEAR = Dependence


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Primitives of JAX.
LINEAR_OPERATIONS = _names(
    "add add_any sub neg reduce_sum cumsum fft reshape broadcast_in_dim squeeze transpose rev "
    "slice dynamic_slice dynamic_update_slice gather scatter scatter-add concatenate pad split "
    "select_n copy copy_p optimization_barrier reduce_precision stop_gradient"
)
PRODUCTS = _names("mul dot_general conv_general_dilated")  # linear in each factor
CONJUGATIONS = _names("conj real imag complex")
NONLINEAR_OPERATIONS = _names(
    "abs sign max min clamp round floor ceil rem exp exp2 expm1 log log1p logistic sin cos tan "
    "asin acos atan atan2 sinh cosh tanh asinh acosh atanh sqrt rsqrt cbrt square pow integer_pow "
    "erf erfc erf_inv gt ge lt le reduce_max reduce_min reduce_prod cummax cummin cumprod sort "
    "mul div dot_general conv_general_dilated"
)


def dependence(function: Callable[..., Any], chosen: PyTree, *others: PyTree) -> Dependence:
    """Return how function(chosen, *others) depends on the arrays of its first argument.

    Args:
        function: any traceable function of pytrees of arrays.
        chosen, others: examples: arrays, or jax.ShapeDtypeStruct.
    """
    jaxpr = jax.make_jaxpr(function)(chosen, *others).jaxpr
    count = len(jax.tree.leaves(chosen))
    fixed = [NONE] * (len(jaxpr.invars) - count)
    return max(_results(jaxpr, [COMPLEX_LINEAR] * count + fixed), default=NONE)


def _results(jaxpr: Any, arguments: Sequence[Dependence]) -> list[Dependence]:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # a closed one's constants depend on nothing
    known = dict(zip(jaxpr.invars, arguments, strict=True))

    def found(atom: Any) -> Dependence:
        return NONE if isinstance(atom, jex.Literal) else known.get(atom, NONE)

    for equation in jaxpr.eqns:
        results = _of_equation(equation, [found(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [found(atom) for atom in jaxpr.outvars]


def _of_equation(equation: jex.JaxprEqn, operands: list[Dependence]) -> list[Dependence]:
    name, parameters = equation.primitive.name, equation.params
    if max(operands, default=NONE) == NONE:
        return [NONE] * len(equation.outvars)
    if name == "scan":
        return _of_scan(parameters, operands)
    if name == "cond":
        taken = [_results(branch, operands[1:]) for branch in parameters["branches"]]
        return [max(operands[0], *results) for results in zip(*taken, strict=True)]
    if (inner := called(equation)) is not None:
        return _results(inner, operands)
    highest = max(*operands, _of_operation(name, operands))
    avals: list[Any] = [variable.aval for variable in equation.outvars]
    return [max(highest, _least(aval.dtype)) for aval in avals]


def _of_scan(parameters: Mapping[str, Any], operands: list[Dependence]) -> list[Dependence]:
    if "num_consts" in parameters:
        first, carried = parameters["num_consts"], parameters["num_carry"]
    else:  # JAX 0.12 keeps the structure of constants, carry and inputs
        first, carried, _ = map(len, parameters["ft_in"].unpack())
    last = first + carried
    while True:  # until the carry, which can only rise, stays
        results = _results(parameters["jaxpr"], operands)
        carry = list(map(max, operands[first:last], results))
        if carry == operands[first:last]:
            return [*carry, *results[last - first :]]
        operands = [*operands[:first], *carry, *operands[last:]]


def _of_operation(name: str, operands: list[Dependence]) -> Dependence:
    """Return what an operation makes of operands that are not all constant, at the least."""
    if name in LINEAR_OPERATIONS or name == "convert_element_type":
        return NONE
    if name in CONJUGATIONS:
        return REAL_LINEAR
    if name in PRODUCTS and operands.count(NONE) == len(operands) - 1:
        return NONE
    if (name, NONE) in (("div", operands[-1]), ("triangular_solve", operands[0])):
        return NONE
    is_known = name in NONLINEAR_OPERATIONS and UNKNOWN not in operands
    return NONLINEAR if is_known else UNKNOWN


def _least(dtype: Any) -> Dependence:
    """Return the least that a result of a type can be: only complex ones are complex-linear."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return NONE
    return REAL_LINEAR if jnp.issubdtype(dtype, jnp.floating) else UNKNOWN
