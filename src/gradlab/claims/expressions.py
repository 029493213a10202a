"""The language of claims: arithmetic on the columns of a table.

    max(abs(rate - theory)[noise == 0 and gain >= 1.5])
    fisher((eval.error < 0.01)[clip.threshold == 1], (eval.error < 0.01)[clip.threshold == inf])
    increasing(each(bias, slope(log_norm, lag)))

A name is a column (dots belong to it: init.gain) or a statistic computed before. x[condition]
computes x from the rows where the condition holds; each(column, x) computes x once for each value
of a column, in ascending order. The functions are those of `statistics.FUNCTIONS`. The text is
parsed with Python's grammar and evaluated here; Python itself never executes any of it. Arithmetic
is that of numbers, powers are floats, and a text has at most LONGEST characters, so that no text
takes more memory than some columns.
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
    ast.Pow: lambda x, y: np.power(np.asarray(x, float), y)[()],
}
LONGEST = 2000
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
    """A claim cannot be read or evaluated; the message is a sentence for its author."""


class NoRows(Exception):
    """No row of the table satisfies a condition."""


class Scope(NamedTuple):
    """The values of names: columns of some rows, and statistics computed before."""

    rows: pd.DataFrame
    statistics: Mapping[str, Any]


def evaluate(text: str, rows: pd.DataFrame, values: Mapping[str, Any] | None = None) -> Any:
    """Compute an expression: a number, an `Estimate`, an array over rows, or a truth value.

    A comparison with an `Estimate` is None (undecided) if its value fails but another value of its
    interval would pass; `and`, `or` and `not` propagate that (Kleene's three-valued logic).

    Args:
        text: the expression.
        rows: the table that its names are columns of.
        values: statistics computed before, by name.

    Raises:
        ClaimError: the text is not of the language, or does not fit the table.
        NoRows: a condition selects no row.
    """
    tree = parse(text)
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return _value(tree, Scope(rows, values or {}))
    except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        if isinstance(error, ClaimError):
            raise
        raise ClaimError(f"{text!r} cannot be computed from these rows: {error}.") from error


def parse(text: str) -> ast.expr:
    """Parse an expression.

    Raises:
        ClaimError: the text is not an expression.
    """
    if len(text) > LONGEST:
        raise ClaimError(f"{text[:20]!r}… is longer than {LONGEST} characters.")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ClaimError(f"{text!r} is not an expression: {error.msg}.") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise ClaimError(f"{text!r} is not an expression: {type(error).__name__}.") from error


def _value(node: ast.expr, scope: Scope) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as constant):
            return constant
        case ast.Name() | ast.Attribute():
            return _named(ast.unparse(node), scope)
        case ast.List(elts=entries):
            return [_value(entry, scope) for entry in entries]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_arithmetic(_value(operand, scope))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _not(_value(operand, scope))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            sides = (_arithmetic(_value(side, scope)) for side in (left, right))
            return ARITHMETIC[type(op)](*sides)
        case ast.Compare(left=left, ops=ops, comparators=others):
            return _all([*_comparisons(left, ops, others, scope)])
        case ast.BoolOp(op=op, values=parts):
            combine = _all if isinstance(op, ast.And) else _any
            return combine([_value(part, scope) for part in parts])
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
    if name in scope.statistics:
        return scope.statistics[name]
    if name in scope.rows:
        return scope.rows[name].to_numpy()
    if name in CONSTANTS:
        return CONSTANTS[name]
    known = ", ".join(map(str, [*scope.statistics, *scope.rows]))
    raise ClaimError(f"{name!r} is no column of the results and no statistic; there are {known}.")


def _selected(condition: ast.expr, scope: Scope) -> pd.DataFrame:
    selected = np.broadcast_to(np.asarray(_value(condition, scope), bool), len(scope.rows))
    if not selected.any():
        raise NoRows(ast.unparse(condition))
    return scope.rows[selected]


def _each(by: str, inner: ast.expr, scope: Scope) -> np.ndarray:
    values = np.unique(_named(by, scope))
    groups = (scope.rows[scope.rows[by] == value] for value in values)
    return np.array([_number(_value(inner, scope._replace(rows=rows))) for rows in groups])


def _comparisons(
    left: ast.expr, ops: Sequence[ast.cmpop], others: Sequence[ast.expr], scope: Scope
) -> list[Any]:
    sides = [_value(side, scope) for side in (left, *others)]
    outcomes = []
    for op, x, y in zip(ops, sides, sides[1:], strict=False):
        if type(op) not in COMPARISONS:
            raise ClaimError(f"{type(op).__name__} is no comparison of the language of claims.")
        outcomes.append(_compare(COMPARISONS[type(op)], x, y))
    return outcomes


def _compare(holds: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
    passes = holds(_number(x), _number(y))
    if passes is True or not (isinstance(x, Estimate) or isinstance(y, Estimate)):
        return passes
    possible = any(holds(a, b) for a in _ends(x) for b in _ends(y))
    return True if passes else None if possible else False


def _ends(x: Any) -> tuple[Any, Any]:
    return (x.low, x.high) if isinstance(x, Estimate) else (x, x)


def _number(x: Any) -> Any:
    return x.value if isinstance(x, Estimate) else x


def _arithmetic(x: Any) -> Any:
    """Return a value to compute with: a column or a number, not a text, which "3 * text" repeats.

    Raises:
        TypeError: it is none.
    """
    number = _number(x)
    values = number.flat if isinstance(number, np.ndarray) and number.dtype == object else [number]
    if any(isinstance(value, str | list) for value in values):
        raise TypeError("text is no number")
    return number


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
