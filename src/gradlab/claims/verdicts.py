"""Judging a claim on a table of results."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from gradlab.claims.expressions import ClaimError, NoRows, evaluate
from gradlab.claims.statistics import Estimate
from gradlab.claims.study import Claim

Outcome = Literal["reproduced", "not reproduced", "inconclusive", "not run", "observed"]
MOST_MORE = 1000  # times as many networks that could be asked for


class Verdict(NamedTuple):
    """A claim, our statistics by name (numbers or `Estimate`s), and whether the two agree.

    `networks` is the number of networks that would decide an inconclusive claim if they were like
    those at hand; None if no number below MOST_MORE times as many would.
    """

    claim: Claim
    outcome: Outcome
    statistics: dict[str, Any]
    networks: int | None = None


def judge(claim: Claim, table: pd.DataFrame) -> Verdict:
    """Compute a claim's statistics and its test.

    The outcome is "observed" if the claim has no test, "inconclusive" if the test is undecided
    (part of an interval passes, part fails) or has fewer draws than the claim's budget asks for,
    and "not run" if the claim is about rows that the results do not have.

    Raises:
        ClaimError: an expression does not fit the results, or the test is not one truth value.
    """
    for name in set(claim.statistic) & set(table):
        raise ClaimError(
            f"claim {claim.id}: {name!r} is a column of the results; name it otherwise."
        )
    try:
        statistics, passes = _computed(claim, table)
        if claim.test is None:
            return Verdict(claim, "observed", statistics)
        draws = _draws(statistics)
        if draws and min(draws) < (claim.budget.seeds or 0):
            return Verdict(claim, "inconclusive", statistics, claim.budget.seeds)
        if passes is None:
            networks = _deciding(claim, table, max(draws)) if draws else None
            return Verdict(claim, "inconclusive", statistics, networks)
    except NoRows:
        return Verdict(claim, "not run", {})
    except ClaimError as error:
        raise ClaimError(f"claim {claim.id}: {error}") from error
    return Verdict(claim, "reproduced" if passes else "not reproduced", statistics)


def _computed(
    claim: Claim, table: pd.DataFrame, more: float = 1.0
) -> tuple[dict[str, Any], bool | None]:
    statistics: dict[str, Any] = {}
    for name, text in claim.statistic.items():
        statistics[name] = evaluate(text, table, statistics, more)
    passes = evaluate(claim.test, table, statistics, more) if claim.test else None
    if isinstance(passes, np.ndarray | list):
        raise ClaimError("the test must be one truth value: use all(…).")
    return statistics, None if passes is None else bool(passes)


def _draws(statistics: Mapping[str, Any]) -> list[int]:
    """Return the numbers of draws of the estimates among statistics, and among lists of them."""
    values = [
        x for value in statistics.values() for x in (value if type(value) is list else [value])
    ]
    return [x.n for x in values if isinstance(x, Estimate)]


def _deciding(claim: Claim, table: pd.DataFrame, n: int) -> int | None:
    """Return the least number of networks at which the claim would be decided, by bisection."""

    def is_decided(networks: int) -> bool:
        return _computed(claim, table, networks / n)[1] is not None

    few, many = n, 2 * n
    while not is_decided(many):
        few, many = many, 2 * many
        if many > MOST_MORE * n:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if is_decided(middle) else (middle, many)
    return many
