"""Verdicts as text: in the terminal, on each study's page, and on one page for all studies."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from gradlab.claims.reproduce import Conclusion, command
from gradlab.claims.statistics import Estimate
from gradlab.claims.study import CLAIMS, Scale, Study
from gradlab.claims.verdicts import Outcome, Verdict
from gradlab.figures.places import MARK
from gradlab.records.files import write_whole

PAGE = "README.md"
VERDICT_COLOURS: dict[Outcome, str] = {
    "reproduced": "green",
    "not reproduced": "red",
    "inconclusive": "yellow",
    "not run": "white",
    "observed": "cyan",
}
TRUTHS = {True: "yes", False: "no", None: "undecided"}
HEADINGS = ("claim", "source", "expected", "ours", "verdict")
SUMMARY = f"""\
<!-- {MARK} -->
# Studies

What the papers of the field claim, and what gradlab measures. Each study is one command; it ends in
a figure and in a verdict for each claim. To see it for yourself, below `runs/`:

```bash
python analysis/reproduce.py --all                  # compute everything again
python analysis/reproduce.py --all --figures-only   # redraw and judge the bundled results
```

(With `--bundle` the same writes this page, and the results, figures and pages beside it.)

Provenance of a claim: *published-number* and *published-order* are what the source prints, at its
settings; *exact* is a closed form or an identity; *second-hand* is what others say the source
found; *own* is what we saw, an observation without a verdict. A claim is reproduced if the whole
95 % interval lies within what is expected, not reproduced if it lies outside, else inconclusive.
"""


def write_page(conclusion: Conclusion) -> Path:
    """Write the figure and the verdicts of one scale into the page beside it, and return its path.

    They replace those of the same scale; the rest of the page stays. A new page gets a heading.
    """
    study, scale = conclusion.study, conclusion.scale
    page = conclusion.figure.parent / PAGE
    text = page.read_text(encoding="utf-8") if page.is_file() else _head(study)
    start, end = f"<!-- {scale}: written by reproduce.py -->", f"<!-- end of {scale} -->"
    block = f"{start}\n\n{_block(conclusion)}\n\n{end}"
    old = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    replaced, count = old.subn(lambda _: block, text)
    return _write(page, replaced if count else f"{text.rstrip()}\n\n{block}\n")


def write_summary(conclusions: Sequence[Conclusion], page: Path) -> Path:
    """Write one page with every study's figure and verdicts, and return its path."""
    parts = [SUMMARY, tally(conclusions)]
    for conclusion in conclusions:
        study = conclusion.study
        figure = conclusion.figure.relative_to(page.parent)
        parts.append(
            f"## [{study.title}]({study.name}/{PAGE})\n\n{study.question}\n\n"
            f"![{study.title}]({figure})\n\n{verdict_table(conclusion)}"
        )
    return _write(page, "\n\n".join(part.strip() for part in parts) + "\n")


def _write(page: Path, text: str) -> Path:
    write_whole(page, lambda file: file.write_text(text, encoding="utf-8"))
    return page


def tally(conclusions: Sequence[Conclusion]) -> str:
    """Return a sentence that counts the claims by verdict."""
    verdicts = [verdict for conclusion in conclusions for verdict in conclusion.verdicts]
    counts = Counter(verdict.outcome for verdict in verdicts)
    parts = ", ".join(
        f"{counts[outcome]} {outcome}" for outcome in VERDICT_COLOURS if counts[outcome]
    )
    return f"Of {sum(counts.values())} claims: {parts}."


def verdict_table(conclusion: Conclusion) -> str:
    """Return the verdicts as a table in Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *_rows(conclusion, bold="**")]
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)


def terminal_table(conclusion: Conclusion) -> Table:
    """Return the verdicts as a table for a terminal."""
    title = Text(conclusion.study.title)  # a Text is shown as it is; rich reads markup in a string
    table = Table(box=None, header_style="bold", pad_edge=False, title=title)
    for heading in HEADINGS:
        table.add_column(heading)
    for verdict, (*cells, shown) in zip(conclusion.verdicts, _rows(conclusion), strict=True):
        table.add_row(*map(Text, cells), Text(shown, style=VERDICT_COLOURS[verdict.outcome]))
    return table


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
    return f"inconclusive; {verdict.networks} networks would decide it"


def _estimate_text(x: Estimate) -> str:
    return f"{x.value:.3g}" + ("" if x.is_p else f" [{x.low:.3g}, {x.high:.3g}]")


def _rows(conclusion: Conclusion, bold: str = "") -> list[tuple[str, ...]]:
    return [
        (
            f"{bold}{verdict.claim.id}{bold} {verdict.claim.claim}",
            f"{verdict.claim.source} ({verdict.claim.provenance})",
            verdict.claim.expected or "–",
            "; ".join(value_text(*item) for item in verdict.statistics.items()) or "–",
            outcome_text(verdict),
        )
        for verdict in conclusion.verdicts
    ]


def _block(conclusion: Conclusion) -> str:
    facts, scale = conclusion.manifest, conclusion.scale
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"![{conclusion.study.title}]({conclusion.figure.name})\n\n"
        f"{tally([conclusion])}\n\n{verdict_table(conclusion)}\n\n"
        f"Scale {scale}: {facts['points']} point(s), {facts['seconds']} s on "
        f"{facts['device']}, {facts['finished'][:10]}; {versions}.\n\n"
        f"{_links(conclusion.study, scale)}"
    )


def _links(study: Study, scale: Scale) -> str:
    """Return a line of links to the files that the page's study consists of."""
    module = study.figure["_target_"].rpartition(".")[0]
    code = study.root / "src" / module.replace(".", "/")
    files = [study.experiment(scale), code.with_suffix(".py"), study.folder / CLAIMS]
    paths = [path.relative_to(study.root) for path in files if path.is_file()]
    return f"Settings, code, claims: {', '.join(f'[{path}](../../{path})' for path in paths)}."


def _head(study: Study) -> str:
    sources = "\n".join(f"- {source}" for source in study.sources)
    runs = "\n".join(shlex.join(["python", *command(study, scale)]) for scale in study.scales())
    return (
        f"# {study.title}\n\n{study.question}\n\n{sources}\n\n```bash\n"
        f"python analysis/reproduce.py {shlex.quote(study.name)}   # run, draw, judge\n{runs}\n```"
    )
