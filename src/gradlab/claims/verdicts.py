"""From a claim and a table of results to a verdict."""

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from gradlab.claims.expressions import ClaimError, NoRows, evaluate
from gradlab.claims.statistics import Estimate
from gradlab.claims.study import Claim

Outcome = Literal["reproduced", "not reproduced", "inconclusive", "not run"]


class Verdict(NamedTuple):
    """A claim, what we found by name (numbers or `Estimate`s), and whether the two agree."""

    claim: Claim
    outcome: Outcome
    found: dict[str, Any]


def judge(claim: Claim, table: pd.DataFrame) -> Verdict:
    """Compute a claim's statistics and put them to its test.

    "inconclusive" is a test that is undecided (its values fail, but values within their intervals
    would pass) or that rests on fewer draws than the claim's budget asks for; "not run" is a claim
    about rows that the results do not have.

    Raises:
        ClaimError: an expression does not fit the results, or the test is not one truth value.
    """
    found: dict[str, Any] = {}
    for name in set(claim.statistic) & set(table):
        raise ClaimError(
            f"claim {claim.id}: {name!r} is a column of the results; name it otherwise."
        )
    try:
        for name, text in claim.statistic.items():
            found[name] = evaluate(text, table, found)
        passes = evaluate(claim.test, table, found)
    except NoRows:
        return Verdict(claim, "not run", {})
    except ClaimError as error:
        raise ClaimError(f"claim {claim.id}: {error}") from error
    if isinstance(passes, np.ndarray):
        raise ClaimError(f"claim {claim.id}: the test must be one truth value: use all(…).")
    draws = [x.n for x in found.values() if isinstance(x, Estimate)]
    too_few = any(n < (claim.budget.seeds or 0) for n in draws)
    if passes is None or too_few:
        return Verdict(claim, "inconclusive", found)
    return Verdict(claim, "reproduced" if passes else "not reproduced", found)
