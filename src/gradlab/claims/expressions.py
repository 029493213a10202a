"""The language that claims are written in: arithmetic on the columns of a table, and no more.

    max(abs(rate - theory)[noise == 0 and gain >= 1.5])
    fisher((eval.error < 0.01)[clip.threshold == 1], (eval.error < 0.01)[clip.threshold == inf])
    increasing(each(bias, slope(log_norm, lag)))

A name is a column (dots belong to it: init.gain) or a statistic computed before. x[condition]
computes x from the rows where the condition holds, each(column, x) once for every value of a
column in its order. The functions are those of `statistics.FUNCTIONS`. The text is read as Python's
grammar and walked here; nothing of it is ever handed to Python itself.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradlab.claims.statistics import FUNCTIONS, Estimate

CONSTANTS = {"inf": np.inf, "nan": np.nan, "pi": np.pi}
ARITHMETIC: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
COMPARISONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda x, allowed: np.isin(x, allowed),
}


class ClaimError(ValueError):
    """A claim that cannot be read or evaluated: one sentence for the person who wrote it."""


class NoRows(Exception):
    """No row of the table satisfies a condition."""


class Scope(NamedTuple):
    """What names mean: columns of some rows, and statistics computed before."""

    rows: pd.DataFrame
    found: Mapping[str, Any]


def evaluate(text: str, rows: pd.DataFrame, values: Mapping[str, Any] | None = None) -> Any:
    """The value of an expression: a number, an `Estimate`, an array over rows, or a truth value.

    A comparison with an `Estimate` is None (undecided) where its value fails but a value of its
    interval would pass; `and`, `or` and `not` carry that on (Kleene's three values).

    Raises:
        ClaimError: the text is not of the language, or does not fit the table.
        NoRows: a condition selects no row.
    """
    tree = parse(text)
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return _value(tree, Scope(rows, values or {}))
    except (TypeError, ValueError, IndexError) as error:
        if isinstance(error, ClaimError):
            raise
        raise ClaimError(f"{text!r} cannot be computed from these rows: {error}.") from error


def parse(text: str) -> ast.expr:
    """Read an expression.

    Raises:
        ClaimError: it is not one.
    """
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ClaimError(f"{text!r} is not an expression: {error.msg}.") from error


def _value(node: ast.expr, scope: Scope) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as constant):
            return constant
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node), scope)
        case ast.List(elts=entries):
            return [_value(entry, scope) for entry in entries]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(_value(operand, scope))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _not(_value(operand, scope))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            sides = (_number(_value(side, scope)) for side in (left, right))
            return ARITHMETIC[type(op)](*sides)
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _all([*_comparisons(left, ops, others, scope)])
        case ast.BoolOp(op=op, values=parts):
            together = _all if isinstance(op, ast.And) else _any
            return together([_value(part, scope) for part in parts])
        case ast.Subscript(value=inner, slice=condition):
            return _value(inner, scope._replace(rows=_selected(condition, scope)))
        case ast.Call(func=ast.Name(id="each"), args=[ast.Name() | ast.Attribute() as by, inner]):
            return _each(ast.unparse(by), inner, scope)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*(_number(_value(argument, scope)) for argument in arguments))
        case ast.Call(func=function):
            known = ", ".join(["each", *FUNCTIONS])
            raise ClaimError(f"{ast.unparse(function)!r} is no function; there are {known}.")
    raise ClaimError(f"{ast.unparse(node)!r} is not of the language of claims.")


def _named(name: str, scope: Scope) -> Any:
    if name in scope.found:
        return scope.found[name]
    if name in scope.rows:
        return scope.rows[name].to_numpy()
    if name in CONSTANTS:
        return CONSTANTS[name]
    known = ", ".join(map(str, [*scope.found, *scope.rows]))
    raise ClaimError(f"{name!r} is no column of the results and no statistic; there are {known}.")


def _selected(condition: ast.expr, scope: Scope) -> pd.DataFrame:
    chosen = np.broadcast_to(np.asarray(_value(condition, scope), bool), len(scope.rows))
    if not chosen.any():
        raise NoRows(ast.unparse(condition))
    return scope.rows[chosen]


def _each(by: str, inner: ast.expr, scope: Scope) -> np.ndarray:
    values = np.unique(_named(by, scope))
    kept = (scope.rows[scope.rows[by] == value] for value in values)
    return np.array([_number(_value(inner, scope._replace(rows=rows))) for rows in kept])


def _comparisons(
    left: ast.expr, ops: Sequence[ast.cmpop], others: Sequence[ast.expr], scope: Scope
) -> list[Any]:
    sides = [_value(side, scope) for side in (left, *others)]
    found = []
    for op, one, other in zip(ops, sides, sides[1:], strict=False):
        if type(op) not in COMPARISONS:
            raise ClaimError(f"{type(op).__name__} is no comparison of the language of claims.")
        found.append(_compare(COMPARISONS[type(op)], one, other))
    return found


def _compare(holds: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    passes = holds(_number(one), _number(other))
    if passes is True or not (isinstance(one, Estimate) or isinstance(other, Estimate)):
        return passes
    ends = [(x.low, x.high) if isinstance(x, Estimate) else (x, x) for x in (one, other)]
    possible = any(holds(a, b) for a in ends[0] for b in ends[1])
    return True if passes else None if possible else False


def _number(x: Any) -> Any:
    return x.value if isinstance(x, Estimate) else x


def _all(parts: Sequence[Any]) -> Any:
    if any(isinstance(part, np.ndarray) for part in parts):
        return reduce(np.logical_and, parts)
    if any(part is not None and not part for part in parts):
        return False
    return None if None in parts else True


def _any(parts: Sequence[Any]) -> Any:
    return _not(_all([_not(part) for part in parts]))


def _not(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return np.logical_not(part)
    return None if part is None else not part
