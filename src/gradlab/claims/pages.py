"""Pages of verdicts in Markdown: one for each study, and one for all of them.

What is written here stands between marks, and replaces what stood there; the rest of a page is its
author's.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradlab.claims.report import (
    markdown_table,
    provenance_table,
    published_sentence,
    tally,
    verdict_table,
)
from gradlab.claims.reproduce import Conclusion, command
from gradlab.claims.study import CLAIMS, Change, Scale, Study
from gradlab.claims.verdicts import Verdict
from gradlab.figures.places import MARK
from gradlab.records.files import write_whole

PAGE = "README.md"
DIFFERS, CHANGED = "What differs from the source", "Changed after a result was seen"
SUMMARY = f"""\
<!-- {MARK} -->
# Studies

What the papers of the field claim, and what gradlab measures. Each study is one command; it ends in
a figure and in a verdict for each claim.
"""
HOW_JUDGED = """\
*published-number* and *published-order* are what a source prints, at its settings; *exact* is a
closed form or an identity; *second-hand* is what others say that a source found; *own* is what we
saw, an observation without a verdict. A claim is reproduced if the whole 95 % interval lies within
what is expected, not reproduced if it lies outside, else inconclusive."""
HOW = """\
```bash
python analysis/reproduce.py --all                  # compute everything again, below runs/
python analysis/reproduce.py --all --figures-only   # redraw and judge the bundled results
```

(With `--bundle` the same writes this page, and the results, figures and pages beside it.)
"""


def write_page(conclusion: Conclusion) -> Path:
    """Write the verdicts of one scale and the study's lists into its page, and return its path.

    They replace those written before; the rest of the page stays. A new page gets a heading.
    """
    study, scale = conclusion.study, conclusion.scale
    page = conclusion.figure.parent / PAGE
    text = page.read_text(encoding="utf-8") if page.is_file() else _head(study)
    text = _replaced(text, "lists", _lists(study))
    return _write(page, _replaced(text, scale, _block(conclusion)))


def write_summary(conclusions: Sequence[Conclusion], page: Path) -> Path:
    """Write one page for all studies, and return its path.

    It counts each provenance by itself, shows each study's figure and verdicts, and lists what was
    changed after a result was seen.
    """
    verdicts = [verdict for conclusion in conclusions for verdict in conclusion.verdicts]
    studies = [conclusion.study for conclusion in conclusions]
    counted = f"{published_sentence(verdicts)} {tally(verdicts)}"
    parts = [SUMMARY, provenance_table(verdicts), counted, HOW_JUDGED, HOW]
    for conclusion in conclusions:
        study = conclusion.study
        figure = conclusion.figure.relative_to(page.parent)
        parts.append(
            f"## [{study.title}]({study.name}/{PAGE})\n\n{study.question}\n\n"
            f"![{study.title}]({figure})\n\n{verdict_table(conclusion.verdicts)}"
        )
    parts.append(_all_changes(studies))
    return _write(page, "\n\n".join(part.strip() for part in parts if part) + "\n")


def study_text(
    study: Study, scale: Scale, verdicts: Sequence[Verdict], facts: Mapping[str, Any]
) -> str:
    """Return a study in Markdown, for a page elsewhere: question, sources, verdicts, lists.

    Args:
        study: the study.
        scale: the scale of the results.
        verdicts: on its claims.
        facts: the manifest of the results.
    """
    sources = "\n".join(f"- {source}" for source in study.sources)
    parts = (study.question, sources, _judged(scale, verdicts, facts), HOW_JUDGED, _lists(study))
    return "\n\n".join(part for part in parts if part)


def _write(page: Path, text: str) -> Path:
    write_whole(page, lambda file: file.write_text(text, encoding="utf-8"))
    return page


def _replaced(text: str, name: str, block: str) -> str:
    """Return a page with what stands between the marks of a name replaced, or added to its end."""
    start, end = f"<!-- {name}: written by reproduce.py -->", f"<!-- end of {name} -->"
    old = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    whole = f"{start}\n\n{block}\n\n{end}" if block else f"{start}\n{end}"
    replaced, count = old.subn(lambda _: whole, text)
    return replaced if count else f"{text.rstrip()}\n\n{whole}\n"


def _changes(study: Study) -> list[tuple[str, Change]]:
    """Return what was changed of a study after a result was seen: (claim or "", change)."""
    of_claims = [(claim.id, change) for claim in study.claims for change in claim.changed]
    return [("", change) for change in study.changed] + of_claims


def _lists(study: Study) -> str:
    differs = "\n".join(f"- {sentence}" for sentence in study.differs)
    changed = "\n".join(
        f"- {f'**{claim}** ' * bool(claim)}{x.what}. Before: {x.before}."
        for claim, x in _changes(study)
    )
    named = {DIFFERS: differs, CHANGED: changed}
    return "\n\n".join(f"## {heading}\n\n{lines}" for heading, lines in named.items() if lines)


def _all_changes(studies: Sequence[Study]) -> str:
    lines = [
        (f"[{study.name}]({study.name}/{PAGE})", claim or "–", change.what, change.before)
        for study in studies
        for claim, change in _changes(study)
    ]
    if not lines:
        return ""
    table = markdown_table(("study", "claim", "what was changed", "the result before"), lines)
    return f"## {CHANGED}\n\n{table}"


def _block(conclusion: Conclusion) -> str:
    study, scale, verdicts, figure, facts = conclusion
    judged = _judged(scale, verdicts, facts)
    return f"![{study.title}]({figure.name})\n\n{judged}\n\n{_links(study, scale)}"


def _judged(scale: Scale, verdicts: Sequence[Verdict], facts: Mapping[str, Any]) -> str:
    """Return the verdicts of a scale, and the run that they are of."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"{tally(verdicts)}\n\n{verdict_table(verdicts)}\n\n"
        f"Scale {scale}: {facts['points']} point(s), {facts['seconds']} s on "
        f"{facts['device']}, {facts['finished'][:10]}; {versions}."
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
