"""Judging a claim on a table of results."""

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from gradlab.claims.expressions import ClaimError, NoRows, evaluate
from gradlab.claims.statistics import Estimate
from gradlab.claims.study import Claim

Outcome = Literal["reproduced", "not reproduced", "inconclusive", "not run"]


class Verdict(NamedTuple):
    """A claim, our statistics by name (numbers or `Estimate`s), and whether the two agree."""

    claim: Claim
    outcome: Outcome
    statistics: dict[str, Any]


def judge(claim: Claim, table: pd.DataFrame) -> Verdict:
    """Compute a claim's statistics and its test.

    The outcome is "inconclusive" if the test is undecided (its values fail, but other values within
    their intervals would pass) or has fewer draws than the claim's budget asks for, and "not run"
    if the claim is about rows that the results do not have.

    Raises:
        ClaimError: an expression does not fit the results, or the test is not one truth value.
    """
    statistics: dict[str, Any] = {}
    for name in set(claim.statistic) & set(table):
        raise ClaimError(
            f"claim {claim.id}: {name!r} is a column of the results; name it otherwise."
        )
    try:
        for name, text in claim.statistic.items():
            statistics[name] = evaluate(text, table, statistics)
        passes = evaluate(claim.test, table, statistics)
    except NoRows:
        return Verdict(claim, "not run", {})
    except ClaimError as error:
        raise ClaimError(f"claim {claim.id}: {error}") from error
    if isinstance(passes, np.ndarray):
        raise ClaimError(f"claim {claim.id}: the test must be one truth value: use all(…).")
    draws = [x.n for x in statistics.values() if isinstance(x, Estimate)]
    too_few = any(n < (claim.budget.seeds or 0) for n in draws)
    if passes is None or too_few:
        return Verdict(claim, "inconclusive", statistics)
    return Verdict(claim, "reproduced" if passes else "not reproduced", statistics)
