"""Functions as arguments of compiled functions: everything that they read is an array among these.

`jax.jit` compiles a function that it is handed once, and afterwards knows it by its identity: the
arrays that the function reads from its surroundings (a global, a bound method's object, a module's
weights) stay as they were. `closure_convert` traces the function at every call instead. The arrays
that it reads become leaves of a pytree, and its operations a `Program` that equals every other
with the same operations, so that nothing stale is used and nothing is compiled twice.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np
from jaxtyping import PyTree

from gradlab.jacobian.carry import is_inexact

CUSTOM_CALLS = {"custom_jvp_call", "custom_vjp_call"}
# Primitives that call one function on their operands.
CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", *CUSTOM_CALLS}


@dataclass(frozen=True)
class Program:
    """The operations of a traced function.

    Attributes:
        key: describes the operations; programs are equal if their keys are.
        output: structure of the result.
        jaxpr: the operations; its first arguments are the constants.
    """

    key: Hashable
    output: jax.tree_util.PyTreeDef
    jaxpr: jex.Jaxpr = field(compare=False, repr=False)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Closure:
    """A function of arrays, called as the function that `closure_convert` was given."""

    program: Program = field(metadata={"static": True})
    constants: list[Any]

    def __call__(self, *arguments: PyTree) -> Any:
        """Return the function's result; the arguments have the shapes of the examples."""
        function = jex.jaxpr_as_fun(jex.ClosedJaxpr(self.program.jaxpr, self.constants))
        return jax.tree.unflatten(self.program.output, function(*jax.tree.leaves(arguments)))


def closure_convert(function: Callable[..., Any], *examples: PyTree) -> Closure:
    """Return a function as a pytree whose leaves are the arrays that it reads.

    Its matrix products are of full precision, unless it asks for another itself.

    Args:
        function: any traceable function of pytrees of arrays.
        examples: arguments for which it is traced: arrays, or jax.ShapeDtypeStruct.
    """
    # By default a GPU multiplies float32 matrices in TF32, of three digits, and a TPU in bfloat16.
    with jax.default_matmul_precision("highest"):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*examples)
    key = _key(closed.jaxpr), _rules(closed.jaxpr)
    return Closure(Program(key, jax.tree.structure(shape), closed.jaxpr), closed.consts)


def equal_results(function: Callable[..., Any], *examples: PyTree) -> list[int]:
    """Return a number for each array of a function's result; equal numbers mean equal arrays.

    Arrays are found equal if the same operations make them of the same arguments; constants never.
    """
    known: dict[Hashable, Hashable] = {}

    def results(jaxpr: jex.Jaxpr, arguments: Sequence[Hashable]) -> list[Hashable]:
        values: dict[Any, Hashable] = dict(zip(jaxpr.invars, arguments, strict=True))
        values.update((constant, object()) for constant in jaxpr.constvars)

        def value(atom: Any) -> Hashable:
            is_literal = isinstance(atom, jex.Literal)
            return _value(np.asarray(atom.val)) if is_literal else values[atom]

        for equation in jaxpr.eqns:
            operands = tuple(map(value, equation.invars))
            if (inner := called(equation)) is not None:
                made = results(inner, operands)
            else:
                operation = _operation(equation), operands
                made = [
                    known.setdefault((operation, index), object())
                    for index in range(len(equation.outvars))
                ]
            values.update(zip(equation.outvars, made, strict=True))
        return [object() if isinstance(x, jex.Literal) else values[x] for x in jaxpr.outvars]

    jaxpr = jax.make_jaxpr(function)(*examples).jaxpr
    numbers: dict[Hashable, int] = {}
    found = results(jaxpr, [object() for _ in jaxpr.invars])
    return [numbers.setdefault(value, len(numbers)) for value in found]


def is_read(function: Callable[..., Any], *examples: PyTree) -> list[bool]:
    """Return, for each array of the arguments, whether the function's result depends on it."""
    jaxpr = jax.make_jaxpr(function)(*examples).jaxpr
    needed = {atom for atom in jaxpr.outvars if not isinstance(atom, jex.Literal)}
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(a for a in equation.invars if not isinstance(a, jex.Literal))
    return [variable in needed for variable in jaxpr.invars]


def passed_on(function: Callable[..., Any], *examples: PyTree) -> list[int | None]:
    """Return, for each array of a function's result, which array of the arguments it is, if any."""
    jaxpr = jax.make_jaxpr(function)(*examples).jaxpr
    return _origins(jaxpr, range(len(jaxpr.invars)))


def _origins(jaxpr: jex.Jaxpr, arguments: Sequence[int | None]) -> list[int | None]:
    known = dict(zip(jaxpr.invars, arguments, strict=True))

    def origin(atom: Any) -> int | None:
        return None if isinstance(atom, jex.Literal) else known.get(atom)

    for equation in jaxpr.eqns:
        if (inner := called(equation)) is not None:
            results = _origins(inner, [origin(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
    return [origin(atom) for atom in jaxpr.outvars]


def called(equation: jex.JaxprEqn) -> jex.Jaxpr | None:
    """Return the function that an operation calls once on its operands; None if it is no call."""
    if equation.primitive.name not in CALLS:
        return None
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return getattr(inner, "jaxpr", inner)  # a closed one's


@dataclass(frozen=True)
class _Identity:
    """A value that equals itself only; it is kept alive, so that its id is not used again."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _key(jaxpr: jex.Jaxpr) -> Hashable:
    """Return a value that two jaxprs share only if they do the same.

    Variables are numbered in the order in which they are defined. A parameter that cannot be
    compared by value equals itself only, which costs another compilation at worst.
    """
    numbers: dict[Any, int] = {}

    def defined(variable: Any) -> Hashable:
        numbers[variable] = len(numbers)
        return variable.aval

    def used(atom: Any) -> Hashable:
        is_literal = isinstance(atom, jex.Literal)
        return (atom.aval, _value(np.asarray(atom.val))) if is_literal else numbers[atom]

    arguments = tuple(map(defined, [*jaxpr.constvars, *jaxpr.invars]))
    equations = []
    for equation in jaxpr.eqns:
        inputs = tuple(map(used, equation.invars))
        outputs = tuple(map(defined, equation.outvars))
        equations.append((_operation(equation), inputs, outputs))
    return arguments, tuple(equations), tuple(map(used, jaxpr.outvars))


def _operation(equation: jex.JaxprEqn) -> Hashable:
    parameters = tuple(
        (name, _value(value))
        for name, value in sorted(equation.params.items())
        if not _is_derivative_rule(equation.primitive, name)
    )
    return equation.primitive, parameters


def _is_derivative_rule(primitive: jex.Primitive, parameter: str) -> bool:
    """Return whether a parameter is a custom derivative, a new object in every trace."""
    rules = ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "out_trees")
    return primitive.name.startswith("custom_") and parameter in rules


def _rules(jaxpr: jex.Jaxpr) -> tuple[Hashable, ...]:
    """Return what the custom derivatives among some operations do.

    The engine has applied those of the state. A jax.grad around a measurement takes the others, of
    weights that a step quantises, say.
    """
    found: list[Hashable] = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in CUSTOM_CALLS:
            found.append(_rule(jaxpr, equation))
        else:
            found += [rule for part in inner_jaxprs(equation) for rule in _rules(part)]
    return tuple(found)


def _rule(jaxpr: jex.Jaxpr, equation: jex.JaxprEqn) -> Hashable:
    """Return the operations of the derivative of one of a jaxpr's equations, a custom one."""
    is_reverse = equation.primitive.name == "custom_vjp_call"
    variables = [x for x in equation.invars if not isinstance(x, jex.Literal)]
    arguments = list(dict.fromkeys(variables))
    results = [x for x in equation.outvars if type(x) is jex.Var]  # some are dropped
    # What the function closes over comes first, and has no derivative.
    fixed = [id(x) for x in equation.invars[: equation.params["num_consts"]]]
    is_chosen = [_is_inexact(x) and id(x) not in fixed for x in arguments]
    alone = jaxpr.replace(
        constvars=[],
        invars=arguments,
        outvars=results,
        eqns=[equation],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )

    def derivative(values: list[Any], directions: list[Any]) -> Any:
        def function(chosen: list[Any]) -> list[Any]:
            numbers = iter(chosen)
            every = [next(numbers) if new else x for x, new in zip(values, is_chosen, strict=True)]
            made = jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, ()))(*every)
            return list(filter(is_inexact, made))

        chosen = list(compress(values, is_chosen))
        if is_reverse:
            return jax.vjp(function, chosen)[1](directions)
        return jax.jvp(function, (chosen,), (directions,))[1]

    values = list(map(_example, arguments))
    ends = filter(_is_inexact, results) if is_reverse else compress(arguments, is_chosen)
    try:
        closed = jax.make_jaxpr(derivative)(values, list(map(_example, ends)))
    except Exception:  # of a rule that cannot be traced alone: it equals itself only
        return _Identity(equation)
    constants = [_value(x) if isinstance(x, np.ndarray) else _Identity(x) for x in closed.consts]
    return _key(closed.jaxpr), tuple(constants)


def _example(variable: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)


def _is_inexact(variable: Any) -> bool:
    return is_inexact(variable.aval)


def inner_jaxprs(equation: jex.JaxprEqn) -> list[jex.Jaxpr]:
    """Return the jaxprs among an operation's parameters."""
    leaves = jax.tree.leaves(list(equation.params.values()))
    jaxprs = [getattr(leaf, "jaxpr", leaf) for leaf in leaves]
    return [jaxpr for jaxpr in jaxprs if isinstance(jaxpr, jex.Jaxpr)]


def _value(value: Any) -> Hashable:
    if isinstance(value, jex.ClosedJaxpr):
        return _key(value.jaxpr), tuple(map(_Identity, value.consts))
    if isinstance(value, jex.Jaxpr):
        return _key(value)
    if isinstance(value, tuple | list):
        return tuple(map(_value, value))
    if isinstance(value, np.ndarray | np.generic | float):  # by its bits: nan equals nan, −0 not 0
        return str(np.asarray(value).dtype), np.shape(value), np.asarray(value).tobytes()
    try:
        hash(value)
    except TypeError:
        return _Identity(value)
    return value
