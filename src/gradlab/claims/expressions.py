"""The language of claims: arithmetic on the columns of a table.

    max(abs(rate - theory)[noise == 0 and gain >= 1.5])
    fisher((eval.error < 0.01)[clip.threshold == 1], (eval.error < 0.01)[clip.threshold == inf])
    increasing(each(bias, slope(log_norm, lag)))

A name is a column (dots belong to it: init.gain) or a statistic computed before. x[condition]
computes x from the rows where the condition holds; each(column, x) computes x once for each value
of a column, in ascending order. The functions are those of `functions.FUNCTIONS`. The text is
parsed with Python's grammar and evaluated here; Python itself never executes any of it. Arithmetic
is that of numbers, powers are floats, and a text has at most LONGEST characters, so that no text
takes more memory than some columns.

An `Estimate` keeps its interval through +, −, × and / with a plain number and through log, log10,
exp and sqrt. A comparison with one is true if the whole interval passes, false if none of it does,
else None (undecided); `and`, `or`, `not`, chains and all(…) propagate that (Kleene's three-valued
logic). Whatever else is done to an estimate would drop its interval, and is refused.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradlab.claims.functions import COUNTED, ESTIMATING, FUNCTIONS, MONOTONE
from gradlab.claims.statistics import Estimate

CONSTANTS = {"inf": np.inf, "nan": np.nan, "pi": np.pi}
ARITHMETIC: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: lambda x, y: np.power(np.asarray(x, float), y)[()],
}
LONGEST = 2000
PLAIN = (int, float, np.number)
ADVICE = "; write low < x and x < high, or a function of two columns that has an interval"
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
    more: float


def evaluate(
    text: str, rows: pd.DataFrame, values: Mapping[str, Any] | None = None, more: float = 1.0
) -> Any:
    """Compute an expression: a number, an `Estimate`, an array over rows, or a truth value.

    Args:
        text: the expression.
        rows: the table that its names are columns of.
        values: statistics computed before, by name.
        more: compute estimates as if there were this many times as many draws like those at hand.

    Raises:
        ClaimError: the text is not of the language, or does not fit the table.
        NoRows: a condition selects no row.
    """
    tree = parse(text)
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return _value(tree, Scope(rows, values or {}, more))
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
            return _operate(ast.Mult, -1, _value(operand, scope))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _not(_value(operand, scope))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            return _operate(type(op), _value(left, scope), _value(right, scope))
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
            return _call(name, [_value(argument, scope) for argument in arguments], scope.more)
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
    chosen = _value(condition, scope)
    if chosen is None or isinstance(chosen, list):
        raise ClaimError(f"{ast.unparse(condition)!r} depends on an estimate; it selects no rows.")
    selected = np.broadcast_to(np.asarray(chosen, bool), len(scope.rows))
    if not selected.any():
        raise NoRows(ast.unparse(condition))
    return scope.rows[selected]


def _each(by: str, inner: ast.expr, scope: Scope) -> Any:
    values = np.unique(_named(by, scope))
    groups = (scope.rows[scope.rows[by] == value] for value in values)
    results = [_value(inner, scope._replace(rows=rows)) for rows in groups]
    return results if any(isinstance(x, Estimate) for x in results) else np.array(results)


def _call(name: str, arguments: list[Any], more: float) -> Any:
    if name == "all" and len(arguments) == 1 and isinstance(arguments[0], list):
        return _all(arguments[0])
    if name in MONOTONE and len(arguments) == 1 and _has_interval(arguments[0]):
        return _through(MONOTONE[name], arguments[0])
    if any(_has_interval(argument) for argument in arguments):
        raise ClaimError(f"{name}(…) of an estimate would drop its interval{ADVICE}.")
    if name in COUNTED:
        ours, printed, unknown = arguments[:2], arguments[2:5], arguments[5:]
        scaled, open_ones = ([round(x * more) for x in counts] for counts in (ours, unknown))
        return FUNCTIONS[name](*scaled, *printed, *open_ones)
    if name in ESTIMATING and any(pd.isna(x).any() for x in arguments if isinstance(x, np.ndarray)):
        raise ClaimError(f"{name}(…) is given rows whose number is missing (NaN): leave them out.")
    result = FUNCTIONS[name](*arguments)
    return result.with_more(more) if isinstance(result, Estimate) and more != 1 else result


def _operate(op: type, x: Any, y: Any) -> Any:
    """Compute x op y; an estimate, or one for each of some groups, goes with a plain number."""
    if not (_has_interval(x) or _has_interval(y)):
        return ARITHMETIC[op](_arithmetic(x), _arithmetic(y))
    estimate, number = (x, y) if _has_interval(x) else (y, x)
    if _has_interval(number) or not isinstance(number, PLAIN) or op is ast.Pow:
        raise ClaimError(f"arithmetic on an estimate is +, −, ×, / with a plain number{ADVICE}.")
    if op is ast.Div and estimate is y and any(e.low <= 0 <= e.high for e in _estimates(y)):
        raise ClaimError("a number is divided by an estimate whose interval reaches zero.")
    if estimate is x:
        return _through(lambda value: ARITHMETIC[op](value, number), x)
    return _through(lambda value: ARITHMETIC[op](number, value), y)


def _through(function: Callable[[Any], Any], x: Any) -> Any:
    if any(estimate.is_p for estimate in _estimates(x)):
        raise ClaimError("a p-value is compared with a number as it is.")
    through = [estimate.through(function) for estimate in _estimates(x)]
    return through if isinstance(x, list) else through[0]


def _has_interval(x: Any) -> bool:
    return isinstance(x, Estimate) or (
        isinstance(x, list) and bool(x) and all(isinstance(e, Estimate) for e in x)
    )


def _estimates(x: Any) -> list[Estimate]:
    return x if isinstance(x, list) else [x]


def _comparisons(
    left: ast.expr, ops: Sequence[ast.cmpop], others: Sequence[ast.expr], scope: Scope
) -> list[Any]:
    sides = [_value(side, scope) for side in (left, *others)]
    outcomes = []
    for op, x, y in zip(ops, sides, sides[1:], strict=False):
        if type(op) not in COMPARISONS:
            raise ClaimError(f"{type(op).__name__} is no comparison of the language of claims.")
        outcomes.append(_compare(type(op), x, y))
    return outcomes


def _compare(op: type, x: Any, y: Any) -> Any:
    if isinstance(x, list) and _has_interval(x):
        return [_compare(op, estimate, y) for estimate in x]
    if isinstance(y, list) and _has_interval(y):
        return [_compare(op, x, estimate) for estimate in y]
    if not (_has_interval(x) or _has_interval(y)):
        return COMPARISONS[op](x, y)
    if op is ast.NotEq:
        return _not(_compare(ast.Eq, x, y))
    ends = [_ends(side) for side in (x, y)]
    if op is ast.In or any(not isinstance(end, PLAIN) for pair in ends for end in pair):
        raise ClaimError(f"an estimate is compared with a plain number{ADVICE}.")
    if any(np.isnan(end) for pair in ends for end in pair):
        return None
    if op is ast.Eq:
        (low, high), (least, most) = ends
        is_one_number = low == high == least == most
        return True if is_one_number else None if low <= most and least <= high else False
    passes = [COMPARISONS[op](a, b) for a in ends[0] for b in ends[1]]
    return True if all(passes) else None if any(passes) else False


def _ends(x: Any) -> tuple[Any, Any]:
    return (x.low, x.high) if isinstance(x, Estimate) else (x, x)


def _arithmetic(number: Any) -> Any:
    """Return a value to compute with: a column or a number, not a text, which "3 * text" repeats.

    Raises:
        TypeError: it is none.
    """
    values = number.flat if isinstance(number, np.ndarray) and number.dtype == object else [number]
    if any(isinstance(value, str | list) for value in values):
        raise TypeError("text is no number")
    return number


def _all(parts: Sequence[Any]) -> Any:
    if groups := [part for part in parts if isinstance(part, list)]:
        broadcast = (part if isinstance(part, list) else [part] * len(groups[0]) for part in parts)
        return [_all(of_group) for of_group in zip(*broadcast, strict=True)]
    if any(isinstance(part, np.ndarray) for part in parts):
        if None in [part for part in parts if not isinstance(part, np.ndarray)]:
            raise ClaimError("rows are not selected by what an estimate may or may not be.")
        return reduce(np.logical_and, parts)
    if any(part is not None and not part for part in parts):
        return False
    return None if None in parts else True


def _any(parts: Sequence[Any]) -> Any:
    return _not(_all([_not(part) for part in parts]))


def _not(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return np.logical_not(part)
    if isinstance(part, list):
        return [_not(each) for each in part]
    return None if part is None else not part
