"""What a study came to, as text: the verdict table of its page, and one page for all studies."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from gradlab.claims.reproduce import Conclusion, command
from gradlab.claims.statistics import Estimate
from gradlab.claims.study import Study
from gradlab.claims.verdicts import Outcome

PAGE = "README.md"
OUTCOMES: dict[Outcome, str] = {
    "reproduced": "green",
    "not reproduced": "red",
    "inconclusive": "yellow",
    "not run": "white",
}
HEADINGS = ("claim", "source", "expected", "ours", "verdict")
SUMMARY = """\
# Studies

What the papers of the field claim, and what gradlab measures. Each study is one command; it ends in
a figure and in a verdict for each claim. This page is written by

```bash
python analysis/reproduce.py --all                  # compute everything again
python analysis/reproduce.py --all --figures-only   # redraw and judge the bundled results
```

Provenance of a claim: *exact* is a closed form, *paper-text* and *paper-figure* are what the source
prints, *pilot* is a threshold that trial runs of ours proposed, *memory* is what the field
tells without our having seen the page. A claim passes on its value, not on the whole of its
interval.
"""


def write_page(conclusion: Conclusion) -> Path:
    """Write the figure and the verdicts into the study's page, in place of those of this scale.

    The rest of the page is left as it is; where there is none, its head is written too.
    """
    study, scale = conclusion.study, conclusion.scale
    page = study.folder / PAGE
    text = page.read_text() if page.is_file() else _head(study)
    start, end = f"<!-- {scale}: written by reproduce.py -->", f"<!-- end of {scale} -->"
    block = f"{start}\n\n{_block(conclusion)}\n\n{end}"
    old = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    replaced, count = old.subn(lambda _: block, text)
    page.write_text(replaced if count else f"{text.rstrip()}\n\n{block}\n")
    return page


def write_summary(conclusions: Sequence[Conclusion], page: Path) -> Path:
    """Write one page with every study's figure and verdicts."""
    parts = [SUMMARY, tally(conclusions)]
    for conclusion in conclusions:
        study = conclusion.study
        figure = conclusion.figure.relative_to(page.parent)
        parts.append(
            f"## [{study.title}]({study.name}/{PAGE})\n\n{study.question}\n\n"
            f"![{study.title}]({figure})\n\n{verdict_table(conclusion)}"
        )
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n")
    return page


def tally(conclusions: Sequence[Conclusion]) -> str:
    """How many claims came to which verdict, in a sentence."""
    counts = Counter(verdict.outcome for each in conclusions for verdict in each.verdicts)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    return f"Of {sum(counts.values())} claims: {parts}."


def verdict_table(conclusion: Conclusion) -> str:
    """The verdicts as a table in Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *_rows(conclusion, bold="**")]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)


def terminal_table(conclusion: Conclusion) -> Table:
    """The verdicts as a table for a terminal."""
    drawn = Table(box=None, header_style="bold", pad_edge=False, title=conclusion.study.title)
    for heading in HEADINGS:
        drawn.add_column(heading)
    for *cells, outcome in _rows(conclusion):
        drawn.add_row(*cells, f"[{OUTCOMES[outcome]}]{outcome}[/]")  # type: ignore[index]
    return drawn


def value_text(name: str, value: Any) -> str:
    """A statistic with its interval and the number of draws; a p-value with the draws alone."""
    if isinstance(value, Estimate):
        interval = "" if value.is_p else f" [{value.low:.3g}, {value.high:.3g}]"
        return f"{name} {value.value:.3g}{interval} (n = {value.n})"
    if isinstance(value, np.ndarray):
        return f"{name} {', '.join(f'{x:.5g}' for x in value)}"
    return f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"


def _rows(conclusion: Conclusion, bold: str = "") -> list[tuple[str, ...]]:
    return [
        (
            f"{bold}{verdict.claim.id}{bold} {verdict.claim.claim}",
            f"{verdict.claim.source} ({verdict.claim.provenance})",
            verdict.claim.expected,
            "; ".join(value_text(*item) for item in verdict.found.items()) or "–",
            verdict.outcome,
        )
        for verdict in conclusion.verdicts
    ]


def _block(conclusion: Conclusion) -> str:
    facts = conclusion.manifest
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"![{conclusion.study.title}]({conclusion.figure.name})\n\n"
        f"{tally([conclusion])}\n\n{verdict_table(conclusion)}\n\n"
        f"Scale {conclusion.scale}: {facts['points']} point(s), {facts['seconds']} s on "
        f"{facts['device']}, {facts['finished'][:10]}; {versions}."
    )


def _head(study: Study) -> str:
    sources = "\n".join(f"- {source}" for source in study.sources)
    runs = "\n".join(f"python {' '.join(command(study, scale))}" for scale in study.scales())
    return (
        f"# {study.title}\n\n{study.question}\n\n{sources}\n\n```bash\n"
        f"python analysis/reproduce.py {study.name}   # run, draw, judge\n{runs}\n```"
    )
