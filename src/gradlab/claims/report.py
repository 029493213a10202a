"""Verdicts as text: values with their intervals, outcomes, and tables of both."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
from rich.table import Table
from rich.text import Text

from gradlab.claims.reproduce import Conclusion
from gradlab.claims.statistics import Estimate
from gradlab.claims.study import Provenance
from gradlab.claims.verdicts import Outcome, Verdict

VERDICT_COLOURS: dict[Outcome, str] = {
    "reproduced": "green",
    "not reproduced": "red",
    "inconclusive": "yellow",
    "not run": "white",
    "observed": "cyan",
}
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)
TRUTHS = {True: "yes", False: "no", None: "undecided"}
HEADINGS = ("claim", "source", "expected", "ours", "verdict")
NARROW = ("claim", "expected", "ours", "verdict")  # in a terminal


def value_text(name: str, value: Any) -> str:
    """Return a statistic as text: with interval and number of draws, a p-value without interval."""
    if isinstance(value, Estimate):
        return f"{name} {_estimate_text(value)} (n = {value.n})"
    if isinstance(value, list):
        return f"{name} {', '.join(map(_estimate_text, value))} (n = {min(x.n for x in value)})"
    if isinstance(value, bool) or value is None:
        return f"{name} {TRUTHS[value]}"
    if isinstance(value, np.ndarray):
        return f"{name} {', '.join(f'{x:.5g}' for x in value)}"
    return f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"


def outcome_text(verdict: Verdict) -> str:
    """Return a verdict as text; an inconclusive one with the number of networks it needs."""
    if verdict.outcome != "inconclusive" or verdict.networks is None:
        return verdict.outcome
    return f"inconclusive; about {verdict.networks} networks would decide it"


def tally(verdicts: Sequence[Verdict]) -> str:
    """Return a sentence that counts claims by their outcome."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    parts = [f"{counts[outcome]} {outcome}" for outcome in VERDICT_COLOURS if counts[outcome]]
    return f"Of {len(verdicts)} claims: {', '.join(parts)}."


def published_sentence(verdicts: Sequence[Verdict]) -> str:
    """Return a sentence that says how many claims of published numbers hold."""
    outcomes = [x.outcome for x in verdicts if x.claim.provenance == "published-number"]
    not_run = outcomes.count("not run")
    if len(outcomes) == not_run:
        return f"No claim of a published number has been judged yet ({not_run} not run)."
    return (
        f"{outcomes.count('reproduced')} of {len(outcomes) - not_run} judged claims of a published "
        f"number hold ({not_run} more not run)."
    )


def provenance_table(verdicts: Sequence[Verdict]) -> str:
    """Return a table in Markdown that counts each provenance by itself."""
    counts = Counter((verdict.claim.provenance, verdict.outcome) for verdict in verdicts)
    lines = []
    for provenance in PROVENANCES:
        numbers = [counts[provenance, outcome] for outcome in VERDICT_COLOURS]
        lines.append([provenance, *(str(number or "–") for number in (sum(numbers), *numbers))])
    return markdown_table(["provenance", "claims", *VERDICT_COLOURS], lines)


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a table in Markdown."""
    lines = [
        (f"**{x.claim.id}** {x.claim.claim}", _source(x), x.claim.expected or "–", _ours(x))
        for x in verdicts
    ]
    rows = [(*line, outcome_text(x)) for line, x in zip(lines, verdicts, strict=True)]
    return markdown_table(HEADINGS, rows)


def markdown_table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |" for row in rows)


def terminal_table(conclusion: Conclusion) -> Table:
    """Return the verdicts as a table for a terminal of 100 columns or less."""
    title = Text(conclusion.study.title)  # a Text is shown as it is; rich reads markup in a string
    table = Table(box=None, header_style="bold", pad_edge=False, title=title, padding=(0, 1, 1, 0))
    for heading in NARROW:
        table.add_column(heading, overflow="fold")
    for verdict in conclusion.verdicts:
        claim = verdict.claim
        cells = (f"{claim.id} {claim.claim}", claim.expected or "–", _ours(verdict, "\n"))
        outcome = Text(outcome_text(verdict), style=VERDICT_COLOURS[verdict.outcome])
        table.add_row(*map(Text, cells), outcome.append(f"\n({claim.provenance})", style="dim"))
    return table


def _source(verdict: Verdict) -> str:
    return f"{verdict.claim.source} ({verdict.claim.provenance})"


def _ours(verdict: Verdict, between: str = "; ") -> str:
    return between.join(value_text(*item) for item in verdict.statistics.items()) or "–"


def _estimate_text(x: Estimate) -> str:
    return f"{x.value:.3g}" + ("" if x.is_p else f" [{x.low:.3g}, {x.high:.3g}]")
